"""Host memory that a device uses: parts of arrays in place, chunks of a job's input, rings of pinned buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal._core.device import TO_DEVICE
from apyfal.device.control import JobControl, StageQueue
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import UnsupportedByDriver
from apyfal.memory import empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal._core.device import BufferObject, Device
    from apyfal.device.sharing.device_array import DeviceArray

__all__ = ["BufferRegion", "BufferRing", "Chunk"]

#: Bytes of zeros that are transferred at a time to a device that cannot fill memory itself.
_ZEROS = 1 << 20


class BufferRegion:
    """Contiguous bytes of the host and the device's buffer object that they belong to.

    It keeps both alive; the memory itself belongs to the array or to the pool that it was taken from.

    Attributes
    ----------
    bo, offset
        The device side: these bytes begin `offset` bytes into the buffer object `bo`.
    nbytes
        Size.
    parent
        The region that this is a part of; ``None``: it is not a part.
    resident
        The data stays on the device: `sync` moves nothing.
    """

    __slots__ = ("_array", "_memory", "bo", "nbytes", "offset", "parent", "resident")

    def __init__(
        self,
        memory: NDArray[np.uint8] | None,
        bo: BufferObject,
        offset: int,
        parent: BufferRegion | None = None,
        *,
        nbytes: int | None = None,
        resident: bool = False,
        array: DeviceArray | None = None,
    ) -> None:
        self._memory = memory
        self._array = array
        self.bo = bo
        self.offset = offset
        self.parent = parent
        self.nbytes = len(memory) if nbytes is None and memory is not None else nbytes or 0
        self.resident = resident

    @classmethod
    def over(cls, array: NDArray[Any], device: Device, bank: int, *, written: bool) -> BufferRegion:
        """Import the memory of a contiguous array into a memory bank of the device, and return it as a region.

        Parameters
        ----------
        array
            Contiguous, of any dtype. The region keeps it alive.
        device, bank
            Where it is imported.
        written
            Whether the device writes there.
        """
        memory = flat_bytes(array)
        bo, offset = device.import_memory(memory, writable=written, bank=bank)
        return cls(memory, bo, offset)

    @classmethod
    def new(cls, nbytes: int, device: Device, bank: int) -> BufferRegion:
        """Return `nbytes` bytes of new pinned memory (one byte at least), with undefined contents."""
        return cls.over(empty(max(nbytes, 1), np.uint8), device, bank, written=True)

    @classmethod
    def of(cls, array: DeviceArray) -> BufferRegion:
        """Return the memory of a device array; `ClosedError` if it was closed."""
        bo, memory = array.buffer()
        return cls(memory, bo, 0, nbytes=array.nbytes, resident=True, array=array)

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The host side: one-dimensional, ``uint8``."""
        if self._memory is None:
            raise RuntimeError("device memory has no host side")
        return self._memory

    def part(self, start: int, nbytes: int) -> BufferRegion:
        """Return the `nbytes` bytes of this region that begin at byte `start`."""
        memory = None if self._memory is None else self._memory[start : start + nbytes]
        size = min(nbytes, self.nbytes - start)
        return BufferRegion(
            memory,
            self.bo,
            self.offset + start,
            self.parent or self,
            nbytes=size,
            resident=self.resident,
            array=self._array,
        )

    def sync(self, direction: int, nbytes: int) -> int:
        """Copy the first `nbytes` bytes to the other side: `direction` is ``TO_DEVICE`` or ``FROM_DEVICE``.

        Returns
        -------
        int
            Bytes that were moved.
        """
        if not nbytes or self.resident:
            return 0
        self.bo.sync(direction, self.offset, nbytes)
        return nbytes

    def write(self, data: NDArray[np.uint8] | None) -> int:
        """Fill a resident region with bytes of the host, or with zeros (``None``); return the bytes transferred.

        If the device can fill memory with zeros, nothing is transferred.
        """
        if self._array is not None:
            self._array.wait_unused()
        if self._memory is not None:
            self._memory[...] = 0 if data is None else data
            if self.nbytes:
                self.bo.sync(TO_DEVICE, self.offset, self.nbytes)
            return self.nbytes
        if data is not None:
            self.bo.transfer(TO_DEVICE, data, self.offset)
            return self.nbytes
        try:
            self.bo.transfer(TO_DEVICE, None, self.offset, self.nbytes)
        except UnsupportedByDriver:
            zeros = np.zeros(min(self.nbytes, _ZEROS), np.uint8)
            for start in range(0, self.nbytes, _ZEROS):
                self.bo.transfer(TO_DEVICE, zeros[: self.nbytes - start], self.offset + start)
            return self.nbytes
        return 0

    def shares(self, other: BufferRegion) -> bool:
        """Return whether the two regions may overlap in memory."""
        if self.resident or other.resident:
            return self.bo is other.bo
        return np.may_share_memory(self.bytes, other.bytes)


class Chunk(NamedTuple):
    """The part of a job's input that one run reads.

    Attributes
    ----------
    number
        Index of the chunk in the job, from 0 on.
    region
        Memory whose first `nbytes` bytes are the data; ``None`` if the kernel takes no input.
    nbytes
        Bytes of data.
    offset
        Bytes of the job's input that come before this chunk.
    last
        Whether no chunk follows.
    companions
        Chunks of the job's other inputs, for the same run.
    """

    number: int
    region: BufferRegion | None
    nbytes: int
    offset: int
    last: bool
    companions: tuple[Chunk, ...] = ()


class BufferRing(StageQueue[BufferRegion]):
    """Pinned buffers of one size that the stages of a job use in turn. Each is allocated when it is first needed.

    Parameters
    ----------
    control
        Ends the waiting for a free buffer if the job fails.
    device, bank
        Where the buffers are imported.
    nbytes
        Size of each buffer.
    depth
        The largest number of buffers.
    """

    def __init__(self, control: JobControl, device: Device, bank: int, nbytes: int, depth: int) -> None:
        super().__init__(control, depth)
        self._device = device
        self._bank = bank
        self._unallocated = depth
        self.nbytes = nbytes

    def acquire(self) -> BufferRegion:
        """Return a free buffer; wait for one if all are in use."""
        with self._control.changed:
            is_new = not self._items and self._unallocated > 0
            if is_new:
                self._unallocated -= 1
        return BufferRegion.new(self.nbytes, self._device, self._bank) if is_new else self.get()

    def release(self, region: BufferRegion) -> None:
        """Make a buffer free again, given itself or any part of it."""
        self.put(region.parent or region)
