"""The back of a pipeline: where a device writes a job's output, and what becomes of it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.device.control import Aborted, JobControl
from apyfal.device.regions import BufferRegion, BufferRing
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import ParameterError
from apyfal.memory import charge, current_meter, empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import CallOutput
    from apyfal.pipeline.inputs import Piece
    from apyfal.pipeline.report import Report
    from apyfal.storage.endpoints.factory import Sink

__all__ = [
    "ArrayOutput",
    "CopiedOutput",
    "FixedOutput",
    "GrowingOutput",
    "Output",
    "PartsOutput",
    "SinkOutput",
]


class Output(ABC):
    """A job's output. One thread takes slots, another stores them, both in the order of the chunks."""

    @abstractmethod
    def slot(self, piece: Piece) -> BufferRegion:
        """Return the memory that the run of `piece` writes."""

    def wanted(self, piece: Piece, nbytes: int) -> int:
        """Return how many of the `nbytes` bytes that a run produced are to come back."""
        return nbytes

    @abstractmethod
    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Take the first `nbytes` bytes of a chunk's slot, which are on its host side."""

    @abstractmethod
    def result(self) -> NDArray[np.uint8] | None:
        """Return all bytes where they are an array of ours; called once, at the end."""


class ArrayOutput(Output):
    """An array in place, each chunk at its own position in it."""

    def __init__(self, slot: BufferRegion, port: CallOutput) -> None:
        self._slot = slot
        self._port = port

    def slot(self, piece: Piece) -> BufferRegion:
        """Return the part that belongs to the piece."""
        start = self._port.nbytes(piece.offset) or 0
        return self._slot.part(start, self._port.nbytes(piece.nbytes) or 0)

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Leave the bytes where they are."""

    def result(self) -> NDArray[np.uint8]:
        """Return the whole."""
        return self._slot.bytes


class FixedOutput(Output):
    """Bytes that the kernel writes in the run of its last chunk."""

    def __init__(self, slot: BufferRegion, nbytes: int) -> None:
        self._slot = slot
        self._nbytes = nbytes

    def slot(self, piece: Piece) -> BufferRegion:
        """Return the same memory for every run."""
        return self._slot

    def wanted(self, piece: Piece, nbytes: int) -> int:
        """Return everything after the last chunk, nothing before."""
        return nbytes if piece.last else 0

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Leave the bytes where they are."""

    def result(self) -> NDArray[np.uint8]:
        """Return the whole."""
        return self._slot.bytes[: self._nbytes]


class _RingOutput(Output):
    """Chunks in a ring of pinned buffers."""

    def __init__(self, ring: BufferRing) -> None:
        self._ring = ring

    def slot(self, piece: Piece) -> BufferRegion:
        """Return a free slot, when there is one."""
        return self._ring.take()

    def result(self) -> NDArray[np.uint8] | None:
        """Return none: it is elsewhere."""
        return None


class SinkOutput(_RingOutput):
    """A sink, written from the ring, one chunk after the other."""

    def __init__(self, sink: Sink, ring: BufferRing, report: Report) -> None:
        super().__init__(ring)
        self._sink = sink
        self._report = report

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Write."""
        if nbytes:
            with self._report.span("store", chunk):
                self._sink.write(slot.bytes[:nbytes].data)
        self._ring.give(slot)


class PartsOutput(_RingOutput):
    """A sink that takes several parts at once, each sent from the slot that the device wrote.

    A slot has room for a whole part; what the device writes for smaller chunks lies in it one behind the other.
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
        self._part: BufferRegion | None = None  # that is being written by the device
        self._stored = 0

    def slot(self, piece: Piece) -> BufferRegion:
        """Return the piece's own place in the part that it belongs to."""
        at = (self._port.nbytes(piece.offset) or 0) % self._ring.nbytes
        if self._part is None or not at:
            self._part = self._ring.take()
        return self._part.part(at, self._port.nbytes(piece.nbytes) or 0)

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Send the part, when this was its end."""
        self._stored += nbytes
        part = slot.whole or slot
        end = slot.offset - part.offset + nbytes
        if end == self._ring.nbytes or self._stored == self._total:
            start = self._report.now()
            self._sink.submit(part.bytes[:end].data).add_done_callback(
                lambda sent: self._sent(sent, chunk, start, part)
            )

    def _sent(self, sent: Future[None], chunk: int, start: float, part: BufferRegion) -> None:
        self._report.add("store", chunk, start)
        error = sent.exception()
        if error is not None:
            self._control.fail(error)
            return
        with contextlib.suppress(Aborted):
            self._ring.give(part)


class CopiedOutput(_RingOutput):
    """An array of the caller's that the device cannot write in place: copied, chunk by chunk."""

    def __init__(self, name: str, array: NDArray[Any], ring: BufferRing, report: Report, reason: str) -> None:
        super().__init__(ring)
        self._name = name
        self._array = array
        # What is not contiguous is put together first, and goes to its place as a whole.
        self._bytes = flat_bytes(array if array.flags.c_contiguous else np.empty(array.shape, array.dtype))
        self._report = report
        self._reason = reason
        self._done = 0

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Copy to the next position."""
        end = self._done + nbytes
        if end > len(self._bytes):
            raise ParameterError(f"{self._name}: it has {len(self._bytes)} bytes, and the output has more")
        with self._report.span("store", chunk):
            self._bytes[self._done : end] = slot.bytes[:nbytes]
        self._done = end
        self._report.copied(nbytes, self._reason)
        self._ring.give(slot)

    def result(self) -> NDArray[np.uint8]:
        """Return the bytes that were written."""
        if not self._array.flags.c_contiguous:
            self._array[...] = self._bytes.view(self._array.dtype).reshape(self._array.shape)
            self._report.copied(self._done, self._reason)  # the second copy of these bytes
        return self._bytes[: self._done]


class GrowingOutput(_RingOutput):
    """A new array whose size only the kernel knows. What fits one run is used where the device wrote it."""

    def __init__(self, ring: BufferRing, report: Report, reason: str) -> None:
        super().__init__(ring)
        self._report = report
        self._reason = reason
        self._first: NDArray[np.uint8] | None = None
        self._all: NDArray[np.uint8] | None = None
        self._done = 0

    def store(self, chunk: int, slot: BufferRegion, nbytes: int) -> None:
        """Keep the first slot; copy what follows behind it."""
        if self._first is None:
            self._first = slot.bytes
            self._done = nbytes
            return
        if nbytes:
            with self._report.span("store", chunk):
                self._append(slot.bytes[:nbytes])
        self._ring.give(slot)

    def _append(self, data: NDArray[np.uint8]) -> None:
        end = self._done + len(data)
        if self._all is None or end > len(self._all):
            meter = current_meter()
            charge(max(2 * end, 1 << 20))
            grown = empty(max(2 * end, 1 << 20), np.uint8)
            have = self._first if self._all is None else self._all
            if have is not None:
                grown[: self._done] = have[: self._done]
                self._report.copied(self._done, self._reason)
            if self._all is not None and meter is not None:
                meter.give(self._all.nbytes)
            self._all = grown
        self._all[self._done : end] = data
        self._report.copied(len(data), self._reason)
        self._done = end

    def result(self) -> NDArray[np.uint8]:
        """Return a view of what was produced."""
        have = self._first if self._all is None else self._all
        return empty(0, np.uint8) if have is None else have[: self._done]
