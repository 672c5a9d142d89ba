"""Outputs of a job: the memory that the device writes chunk by chunk, and what is then done with it."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.device.control import Aborted, JobControl
from apyfal.device.regions import BufferRegion, BufferRing, Chunk
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import ParameterError
from apyfal.memory import charge, current_meter, empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallOutput
    from apyfal.pipeline.reports.report import Report
    from apyfal.storage.endpoints.factory import Sink

__all__ = [
    "ArrayOutput",
    "CopiedOutput",
    "FixedOutput",
    "GrowingOutput",
    "Output",
    "PartsOutput",
    "SinkOutput",
    "WatchedArray",
    "current_watch",
    "watched",
]


class WatchedArray(NamedTuple):
    """An array that jobs write, and what is called after each of its parts, with the bytes that are final from its
    beginning on.
    """

    array: NDArray[Any]
    produced: Callable[[int], None]

    def is_memory_of(self, array: NDArray[Any] | None) -> bool:
        """Return whether `array` has the same bytes in the same order."""
        return (
            array is not None
            and array.flags.c_contiguous
            and array.nbytes == self.array.nbytes
            and array.ctypes.data == self.array.ctypes.data
        )


_thread = threading.local()


def current_watch() -> WatchedArray | None:
    """Return the array that the calling thread's jobs are watched for."""
    watch: WatchedArray | None = getattr(_thread, "watch", None)
    return watch


@contextlib.contextmanager
def watched(array: NDArray[Any], produced: Callable[[int], None]) -> Iterator[None]:
    """Learn, while a job of the calling thread runs in the ``with`` block, how much of its destination is final.

    Parameters
    ----------
    array
        The job's destination, C-contiguous.
    produced
        Called in the calling thread, in order, with the number of bytes from the beginning of `array` that the job does
        not change any more. Not every job calls it: not one whose output is complete only at the end. What it raises
        fails the job.
    """
    before = current_watch()
    _thread.watch = WatchedArray(array, produced)
    try:
        yield
    finally:
        _thread.watch = before


class Output(ABC):
    """One output of a job. One thread asks for regions, another stores them, both in the order of the chunks.

    Attributes
    ----------
    final
        Bytes from the beginning of the caller's array that are not changed any more; 0: not known.
    """

    final = 0

    @abstractmethod
    def region_for(self, chunk: Chunk) -> BufferRegion:
        """Return the memory that the run over `chunk` writes."""

    def nbytes_to_read(self, chunk: Chunk, produced: int) -> int:
        """Return how many of the `produced` bytes of a run are to be copied from the device."""
        return produced

    @abstractmethod
    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Take the output of chunk number `index`: the first `nbytes` bytes of the host side of `region`."""

    @abstractmethod
    def result(self) -> NDArray[np.uint8] | None:
        """Return all bytes if they are in an array; ``None``: they were stored elsewhere. Called once, at the end."""


class ArrayOutput(Output):
    """An array that the device writes in place, each chunk at its own position."""

    def __init__(self, region: BufferRegion, port: CallOutput) -> None:
        self._region = region
        self._port = port

    def region_for(self, chunk: Chunk) -> BufferRegion:
        """Return the part of the array that belongs to the chunk."""
        start = self._port.nbytes(chunk.offset) or 0
        return self._region.part(start, self._port.nbytes(chunk.nbytes) or 0)

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Count the bytes, which are where they belong."""
        if region.offset - self._region.offset == self.final:
            self.final += nbytes

    def result(self) -> NDArray[np.uint8] | None:
        """Return the array's bytes; none if they are on the device."""
        return None if self._region.resident else self._region.bytes


class FixedOutput(Output):
    """Output of a fixed size, which the kernel writes in the run of the last chunk."""

    def __init__(self, region: BufferRegion, nbytes: int) -> None:
        self._region = region
        self._nbytes = nbytes

    def region_for(self, chunk: Chunk) -> BufferRegion:
        """Return the same memory for every run."""
        return self._region

    def nbytes_to_read(self, chunk: Chunk, produced: int) -> int:
        """Return all bytes after the last chunk, and none before."""
        return produced if chunk.last else 0

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Do nothing: the bytes are where they belong."""

    def result(self) -> NDArray[np.uint8] | None:
        """Return the output; none if it is on the device."""
        return None if self._region.resident else self._region.bytes[: self._nbytes]


class _RingOutput(Output):
    """Chunks in a ring of pinned buffers."""

    def __init__(self, ring: BufferRing) -> None:
        self._ring = ring

    def region_for(self, chunk: Chunk) -> BufferRegion:
        """Return a free buffer; wait for one if all are in use."""
        return self._ring.acquire()

    def result(self) -> NDArray[np.uint8] | None:
        """Return none: the bytes were stored elsewhere."""
        return None


class SinkOutput(_RingOutput):
    """A sink that is written in order, from the ring."""

    def __init__(self, sink: Sink, ring: BufferRing, report: Report) -> None:
        super().__init__(ring)
        self._sink = sink
        self._report = report

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Write the chunk to the sink."""
        if nbytes:
            with self._report.span("store", index):
                self._sink.write(region.bytes[:nbytes].data)
        self._ring.release(region)


class PartsOutput(_RingOutput):
    """A sink that is sent several parts at once, each from the buffer that the device wrote.

    A buffer holds a whole part. If chunks are smaller, the device writes several of them, one after the other, into it.

    Parameters
    ----------
    total
        Bytes of the whole output.
    """

    def __init__(
        self, sink: Sink, ring: BufferRing, port: CallOutput, total: int, report: Report, control: JobControl
    ) -> None:
        super().__init__(ring)
        self._sink = sink
        self._port = port
        self._total = total
        self._report = report
        self._control = control
        self._part: BufferRegion | None = None  # the part that the device writes now
        self._stored = 0

    def region_for(self, chunk: Chunk) -> BufferRegion:
        """Return the chunk's position in its part."""
        start = (self._port.nbytes(chunk.offset) or 0) % self._ring.nbytes
        if self._part is None or not start:
            self._part = self._ring.acquire()
        return self._part.part(start, self._port.nbytes(chunk.nbytes) or 0)

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Send the part if this chunk was its end."""
        self._stored += nbytes
        part = region.parent or region
        end = region.offset - part.offset + nbytes
        if end == self._ring.nbytes or self._stored == self._total:
            start = self._report.now()
            self._sink.submit(part.bytes[:end].data).add_done_callback(
                lambda sent: self._sent(sent, index, start, part)
            )

    def _sent(self, sent: Future[None], index: int, start: float, part: BufferRegion) -> None:
        self._report.add("store", index, start)
        error = sent.exception()
        if error is not None:
            self._control.fail(error)
            return
        with contextlib.suppress(Aborted):
            self._ring.release(part)


class CopiedOutput(_RingOutput):
    """An array of the caller's that the device cannot write in place: copied, chunk by chunk."""

    def __init__(self, name: str, array: NDArray[Any], ring: BufferRing, report: Report, reason: str) -> None:
        super().__init__(ring)
        self._name = name
        self._array = array
        # Chunks are bytes, which an array that is not contiguous cannot take: they are joined first, and then copied.
        self._bytes = flat_bytes(array if array.flags.c_contiguous else np.empty(array.shape, array.dtype))
        self._report = report
        self._reason = reason
        self._done = 0

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Copy the chunk behind the one before it."""
        end = self._done + nbytes
        if end > len(self._bytes):
            raise ParameterError(f"{self._name}: it has {len(self._bytes)} bytes, and the output has more")
        with self._report.span("store", index):
            self._bytes[self._done : end] = region.bytes[:nbytes]
        self._done = end
        if self._array.flags.c_contiguous:
            self.final = end
        self._report.copied(nbytes, self._reason)
        self._ring.release(region)

    def result(self) -> NDArray[np.uint8]:
        """Return the bytes that were written."""
        if not self._array.flags.c_contiguous:
            elements = self._bytes.view(self._array.dtype)
            if self._done == len(self._bytes):
                self._array[...] = elements.reshape(self._array.shape)
            else:  # less than fits was written, as the kernel alone has known
                count = self._done // self._array.itemsize
                self._array.flat[:count] = elements[:count]
            self._report.copied(self._done, self._reason)  # the second copy of these bytes
        return self._bytes[: self._done]


class GrowingOutput(_RingOutput):
    """A new array whose size only the kernel knows. The output of a single run is returned without a copy."""

    def __init__(self, ring: BufferRing, report: Report, reason: str) -> None:
        super().__init__(ring)
        self._report = report
        self._reason = reason
        self._first: NDArray[np.uint8] | None = None
        self._all: NDArray[np.uint8] | None = None
        self._done = 0

    def store(self, index: int, region: BufferRegion, nbytes: int) -> None:
        """Keep the buffer of the first chunk; copy the output of later ones behind it."""
        if self._first is None:
            self._first = region.bytes
            self._done = nbytes
            return
        if nbytes:
            with self._report.span("store", index):
                self._append(region.bytes[:nbytes])
        self._ring.release(region)

    def _append(self, data: NDArray[np.uint8]) -> None:
        end = self._done + len(data)
        if self._all is None or end > len(self._all):
            meter = current_meter()
            charge(max(2 * end, 1 << 20))
            grown = empty(max(2 * end, 1 << 20), np.uint8)
            old = self._first if self._all is None else self._all
            if old is not None:
                grown[: self._done] = old[: self._done]
                self._report.copied(self._done, self._reason)
            if self._all is not None and meter is not None:
                meter.release(self._all.nbytes)
            self._all = grown
        self._all[self._done : end] = data
        self._report.copied(len(data), self._reason)
        self._done = end

    def result(self) -> NDArray[np.uint8]:
        """Return a view of what was produced."""
        data = self._first if self._all is None else self._all
        return empty(0, np.uint8) if data is None else data[: self._done]
