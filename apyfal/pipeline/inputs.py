"""Inputs of a job: arrays, sources and rings that yield the data chunk by chunk, in memory that the device can use."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from apyfal.device.control import Aborted, JobControl
from apyfal.device.regions import BufferRegion, BufferRing, Chunk
from apyfal.device.waiting import GRACE_SECONDS
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import ParameterError
from apyfal.pipeline.reports.report import Report
from apyfal.threads import start_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallInput
    from apyfal.storage.endpoints.factory import Source

__all__ = [
    "ArrayInput",
    "Chunks",
    "CopiedInput",
    "Input",
    "NoInput",
    "ParallelRangeInput",
    "StreamInput",
    "ZippedInput",
]

#: A generator, not just an iterator: it is closed if the remaining chunks are not needed.
Chunks = Generator[Chunk, None, None]


class Input(ABC):
    """One input of a job."""

    @abstractmethod
    def chunks(self) -> Chunks:
        """Yield the chunks in order, at least one. Called once, by the stage that fetches."""

    def release(self, chunk: Chunk) -> None:
        """Take back the memory of a chunk that the device has read; memory of the caller's stays as it is."""
        del chunk


class NoInput(Input):
    """For kernels without input."""

    def chunks(self) -> Chunks:
        """Yield one empty chunk, for one run."""
        yield Chunk(0, None, 0, 0, last=True)


class ArrayInput(Input):
    """An array used in place, in parts of `chunk_nbytes` bytes."""

    def __init__(self, region: BufferRegion, chunk_nbytes: int) -> None:
        self._region = region
        self._chunk_nbytes = chunk_nbytes

    def chunks(self) -> Chunks:
        """Yield parts of the array."""
        total = self._region.nbytes
        for index, start in enumerate(range(0, max(total, 1), max(self._chunk_nbytes, 1))):
            nbytes = min(self._chunk_nbytes, total - start)
            yield Chunk(index, self._region.part(start, nbytes), nbytes, start, last=start + nbytes >= total)


class _RingInput(Input):
    """Chunks in a ring of pinned buffers."""

    def __init__(self, ring: BufferRing, chunk_nbytes: int, report: Report) -> None:
        self._ring = ring
        self._chunk_nbytes = chunk_nbytes
        self._report = report

    @abstractmethod
    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Write the bytes from `offset` on into `memory`, and return how many; fewer than fit only at the end."""

    def chunks(self) -> Chunks:
        """Fill buffers until the input ends. One chunk is held back until it is known whether it is the last."""
        held: Chunk | None = None
        offset = index = 0
        ended = False
        while not ended:
            region = self._ring.acquire()
            with self._report.span("fetch", index):
                nbytes = self.fill(region.bytes[: self._chunk_nbytes], offset)
            ended = nbytes < self._chunk_nbytes or self.is_complete(offset + nbytes)
            if nbytes == 0 and held is not None:
                self._ring.release(region)
                break
            if held is not None:
                yield held
            held = Chunk(index, region, nbytes, offset, last=False)
            offset += nbytes
            index += 1
        if held is not None:
            yield held._replace(last=True)

    def is_complete(self, nbytes: int) -> bool:
        """Return whether the first `nbytes` bytes are known to be the whole input."""
        return False

    def release(self, chunk: Chunk) -> None:
        """Let the buffer be filled again."""
        if chunk.region is not None:
            self._ring.release(chunk.region)


class CopiedInput(_RingInput):
    """A contiguous array that cannot be used in place: copied, chunk by chunk."""

    def __init__(self, array: NDArray[Any], ring: BufferRing, chunk_nbytes: int, report: Report, reason: str) -> None:
        super().__init__(ring, chunk_nbytes, report)
        self._bytes = flat_bytes(array)
        self._reason = reason

    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Copy the part of the array from byte `offset` on."""
        part = self._bytes[offset : offset + len(memory)]
        memory[: len(part)] = part
        self._report.copied(len(part), self._reason)
        return len(part)

    def is_complete(self, nbytes: int) -> bool:
        """Return whether the whole array was copied."""
        return nbytes >= len(self._bytes)


class StreamInput(_RingInput):
    """A source that is read in order, straight into the ring."""

    def __init__(
        self, source: Source, ring: BufferRing, chunk_nbytes: int, report: Report, control: JobControl
    ) -> None:
        super().__init__(ring, chunk_nbytes, report)
        self._source = source
        self._control = control

    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Read until `memory` is full or the source has ended."""
        view = memory.data
        done = 0
        while done < len(view):
            if self._control.failed:
                raise Aborted
            self._control.seconds_left()
            count = self._source.readinto(view[done:])
            if not count:
                break
            done += count
            if self.is_complete(offset + done):
                break
        return done

    def is_complete(self, nbytes: int) -> bool:
        """Return whether the source has stated its size, and `nbytes` bytes are all of it."""
        return self._source.size is not None and nbytes >= self._source.size


class ParallelRangeInput(Input):
    """A remote object of which several chunks are received at once, each straight into its buffer of the ring.

    Parameters
    ----------
    source
        An object of known size.
    ring
        Buffers of at least the largest chunk's size.
    cuts
        Offset and size in bytes of each chunk.
    """

    def __init__(
        self, source: Source, ring: BufferRing, cuts: list[tuple[int, int]], report: Report, control: JobControl
    ) -> None:
        self._source = source
        self._ring = ring
        self._report = report
        self._control = control
        self._total = source.size or 0
        self._cuts = cuts
        # Buffers are acquired in the order of the chunks: later chunks with all of the buffers would block the first.
        self._order = threading.Lock()
        self._next = 0
        self._arrived: dict[int, Chunk] = {}

    def chunks(self) -> Chunks:
        """Yield the chunks in order, whatever order they arrive in."""
        if len(self._cuts) == 1:
            yield self._only_chunk()
            return
        threads: list[threading.Thread] = []
        try:
            start_threads("range", min(self._source.connections, len(self._cuts)), self._work, threads)
            for index in range(len(self._cuts)):
                yield self._await(index)
            self._source.verify()
        finally:
            if self._control.failed:
                self._source.interrupt()
            for thread in threads:
                thread.join(GRACE_SECONDS)  # one that is still there keeps what it uses alive

    def _only_chunk(self) -> Chunk:
        region = self._ring.acquire()
        with self._report.span("fetch", 0):
            done = 0
            while done < self._total:
                done += self._source.pread(region.bytes[done : self._total].data, done)
        return Chunk(0, region, done, 0, last=True)

    def _await(self, index: int) -> Chunk:
        changed = self._control.changed
        with changed:
            while index not in self._arrived and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
            return self._arrived.pop(index)

    def _work(self) -> None:
        try:
            while not self._control.failed:
                with self._order:
                    if self._next >= len(self._cuts):
                        return
                    index = self._next
                    region = self._ring.acquire()
                    self._next += 1
                self._fetch(index, region)
        except Aborted:
            pass
        except BaseException as error:
            self._control.fail(error)

    def _fetch(self, index: int, region: BufferRegion) -> None:
        offset, nbytes = self._cuts[index]
        with self._report.span("fetch", index):
            if nbytes:
                self._source.receive(region.bytes[:nbytes].data, offset)
        with self._control.changed:
            self._arrived[index] = Chunk(index, region, nbytes, offset, last=index == len(self._cuts) - 1)
            self._control.changed.notify_all()

    def release(self, chunk: Chunk) -> None:
        """Let the buffer be filled again."""
        if chunk.region is not None:
            self._ring.release(chunk.region)


class ZippedInput(Input):
    """Several inputs, cut at the same elements: each chunk of the first has those of the others as companions.

    Parameters
    ----------
    ports, inputs
        The inputs of the call, and where their data is.
    uncut
        Each input is one chunk, and they may differ in size.
    """

    def __init__(
        self, ports: Sequence[CallInput], inputs: Sequence[Input], control: JobControl, *, uncut: bool
    ) -> None:
        self._ports = ports
        self._inputs = inputs
        self._control = control
        self._uncut = uncut

    def chunks(self) -> Chunks:
        """Yield the chunks of each run, and compare sizes that were not known before."""
        each = [source.chunks() for source in self._inputs]
        try:
            for first, *others in zip_longest(*each):
                self._check(first, others)
                yield first._replace(companions=tuple(others))
        except BaseException as error:
            self._control.fail(error)  # before closing, which would wait for what is still being received
            raise
        finally:
            for chunks in each:
                chunks.close()

    def _check(self, first: Chunk | None, others: Sequence[Chunk | None]) -> None:
        for port, chunk in zip(self._ports[1:], others, strict=True):
            if self._uncut and first is not None and chunk is not None:
                continue
            found = 0 if chunk is None else chunk.nbytes
            expected = 0 if first is None else port.companion_nbytes(first.nbytes)
            if found != expected or first is None or chunk is None:
                more = "more" if found > expected else "fewer"
                raise ParameterError(
                    f"{port.name}: it has {more} elements than {self._ports[0].name}; expected as many"
                )

    def release(self, chunk: Chunk) -> None:
        """Let the memory of all inputs be filled again."""
        for source, one in zip(self._inputs, (chunk, *chunk.companions), strict=True):
            source.release(one)
