"""The front of a pipeline: where a job's input is, chunk by chunk, in memory that the device can use."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from apyfal.device.control import Aborted, JobControl
from apyfal.device.regions import BufferRegion, BufferRing
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import ParameterError
from apyfal.pipeline.report import Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallInput
    from apyfal.storage.endpoints.factory import Source

__all__ = ["ArrayInput", "CopiedInput", "Input", "NoInput", "ParallelRangeInput", "Piece", "StreamInput", "ZippedInput"]

#: Closed where nobody wants the rest.
Pieces = Generator["Piece", None, None]

#: Seconds that threads get to leave when the job has failed; they hold what they still need themselves.
_LEAVE = 1.0


class Piece(NamedTuple):
    """One chunk of input: `nbytes` bytes at the front of `slot`, `offset` bytes into the job's input.

    `beside` are the pieces of the job's other inputs for the same run.
    """

    chunk: int
    slot: BufferRegion | None
    nbytes: int
    offset: int
    last: bool
    beside: tuple[Piece, ...] = ()


class Input(ABC):
    """A job's input. `pieces` is called once, by the stage that fetches."""

    @abstractmethod
    def pieces(self) -> Pieces:
        """Yield the chunks in order, at least one."""

    def release(self, piece: Piece) -> None:
        """Take a piece's memory back; the device has read it."""
        del piece  # memory in place is the caller's


class NoInput(Input):
    """For kernels that take none."""

    def pieces(self) -> Pieces:
        """Yield the one run."""
        yield Piece(0, None, 0, 0, last=True)


class ArrayInput(Input):
    """An array in place, in parts of `chunk` bytes."""

    def __init__(self, slot: BufferRegion, chunk: int) -> None:
        self._slot = slot
        self._chunk = chunk

    def pieces(self) -> Pieces:
        """Yield parts of the array."""
        total = len(self._slot.bytes)
        for index, start in enumerate(range(0, max(total, 1), max(self._chunk, 1))):
            nbytes = min(self._chunk, total - start)
            yield Piece(index, self._slot.part(start, nbytes), nbytes, start, last=start + nbytes >= total)


class _RingInput(Input):
    """Chunks in a ring of pinned buffers."""

    def __init__(self, ring: BufferRing, chunk: int, report: Report) -> None:
        self._ring = ring
        self._chunk = chunk
        self._report = report

    @abstractmethod
    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Put the next bytes into `memory`; fewer than it holds only at the end."""

    def pieces(self) -> Pieces:
        """Fill slots until the input ends; one is held back until it is known whether it is the last."""
        held: Piece | None = None
        offset = index = 0
        ended = False
        while not ended:
            slot = self._ring.take()
            with self._report.span("fetch", index):
                nbytes = self.fill(slot.bytes[: self._chunk], offset)
            ended = nbytes < self._chunk or self.finished(offset + nbytes)
            if nbytes == 0 and held is not None:
                self._ring.give(slot)
                break
            if held is not None:
                yield held
            held = Piece(index, slot, nbytes, offset, last=False)
            offset += nbytes
            index += 1
        if held is not None:
            yield held._replace(last=True)

    def finished(self, done: int) -> bool:
        """Whether `done` bytes are known to be all."""
        return False

    def release(self, piece: Piece) -> None:
        """Let the slot be filled again."""
        if piece.slot is not None:
            self._ring.give(piece.slot)


class CopiedInput(_RingInput):
    """A contiguous array that cannot be used in place: copied, chunk by chunk."""

    def __init__(self, array: NDArray[Any], ring: BufferRing, chunk: int, report: Report, reason: str) -> None:
        super().__init__(ring, chunk, report)
        self._bytes = flat_bytes(array)
        self._reason = reason

    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Copy the next part."""
        part = self._bytes[offset : offset + len(memory)]
        memory[: len(part)] = part
        self._report.copied(len(part), self._reason)
        return len(part)

    def finished(self, done: int) -> bool:
        """Whether the whole array was copied."""
        return done >= len(self._bytes)


class ParallelRangeInput(Input):
    """A remote object, several of its chunks received at once, each straight into its slot of the ring."""

    def __init__(
        self, source: Source, ring: BufferRing, cuts: list[tuple[int, int]], report: Report, control: JobControl
    ) -> None:
        self._source = source
        self._ring = ring
        self._report = report
        self._control = control
        self._total = source.size or 0
        self._cuts = cuts
        self._turn = threading.Lock()  # slots are taken in the order of the chunks, or the first would wait for ever
        self._next = 0
        self._arrived: dict[int, Piece] = {}

    def pieces(self) -> Pieces:
        """Yield the chunks in order, whatever order they arrive in."""
        if len(self._cuts) == 1:
            yield self._whole()
            return
        threads = [
            threading.Thread(target=self._work, name=f"apyfal-range-{number}", daemon=True)
            for number in range(min(self._source.connections, len(self._cuts)))
        ]
        for thread in threads:
            thread.start()
        try:
            for index in range(len(self._cuts)):
                yield self._await(index)
            self._source.verify()
        finally:
            if self._control.failed:
                self._source.interrupt()
            for thread in threads:
                thread.join(_LEAVE)

    def _whole(self) -> Piece:
        slot = self._ring.take()
        with self._report.span("fetch", 0):
            done = 0
            while done < self._total:
                done += self._source.pread(slot.bytes[done : self._total].data, done)
        return Piece(0, slot, done, 0, last=True)

    def _await(self, index: int) -> Piece:
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
                with self._turn:
                    if self._next >= len(self._cuts):
                        return
                    index = self._next
                    slot = self._ring.take()
                    self._next += 1
                self._fetch(index, slot)
        except Aborted:
            pass
        except BaseException as error:
            self._control.fail(error)

    def _fetch(self, index: int, slot: BufferRegion) -> None:
        offset, nbytes = self._cuts[index]
        with self._report.span("fetch", index):
            if nbytes:
                self._source.receive(slot.bytes[:nbytes].data, offset)
        with self._control.changed:
            self._arrived[index] = Piece(index, slot, nbytes, offset, last=index == len(self._cuts) - 1)
            self._control.changed.notify_all()

    def release(self, piece: Piece) -> None:
        """Let the slot be filled again."""
        if piece.slot is not None:
            self._ring.give(piece.slot)


class StreamInput(_RingInput):
    """A source, received straight into the ring."""

    def __init__(self, source: Source, ring: BufferRing, chunk: int, report: Report, control: JobControl) -> None:
        super().__init__(ring, chunk, report)
        self._source = source
        self._control = control

    def fill(self, memory: NDArray[np.uint8], offset: int) -> int:
        """Receive until `memory` is full or the source has ended."""
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
            if self._source.size is not None and offset + done >= self._source.size:
                break
        return done

    def finished(self, done: int) -> bool:
        """Whether the source said that it has no more."""
        return self._source.size is not None and done >= self._source.size


class ZippedInput(Input):
    """Several inputs, cut at the same elements: each piece of the first, with those of the others beside it.

    Parameters
    ----------
    ports, inputs
        What they are called and where they are.
    whole
        They are not cut, and may differ in size.
    """

    def __init__(
        self, ports: Sequence[CallInput], inputs: Sequence[Input], control: JobControl, *, whole: bool
    ) -> None:
        self._ports = ports
        self._inputs = inputs
        self._control = control
        self._whole = whole

    def pieces(self) -> Pieces:
        """Yield the pieces of each run; sizes that were not known before are compared here."""
        each = [source.pieces() for source in self._inputs]
        try:
            for first, *others in zip_longest(*each):
                self._check(first, others)
                yield first._replace(beside=tuple(others))
        except BaseException as error:
            self._control.fail(error)  # before what still arrives is waited for
            raise
        finally:
            for pieces in each:
                pieces.close()

    def _check(self, first: Piece | None, others: Sequence[Piece | None]) -> None:
        for port, piece in zip(self._ports[1:], others, strict=True):
            if self._whole and first is not None and piece is not None:
                continue
            have = 0 if piece is None else piece.nbytes
            expected = 0 if first is None else port.beside(first.nbytes)
            if have != expected or first is None or piece is None:
                more = "more" if have > expected else "fewer"
                raise ParameterError(
                    f"{port.name}: it has {more} elements than {self._ports[0].name}; expected as many"
                )

    def release(self, piece: Piece) -> None:
        """Let all be filled again."""
        for source, one in zip(self._inputs, (piece, *piece.beside), strict=True):
            source.release(one)
