"""Host memory that a device uses: parts of arrays in place, and rings of pinned buffers that go round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.device.control import Channel, JobControl
from apyfal.device.zero_copy import flat_bytes
from apyfal.memory import empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal._core.device import BufferObject, Device

__all__ = ["BufferRegion", "BufferRing"]


class BufferRegion:
    """Contiguous host bytes and the buffer object that they belong to.

    Attributes
    ----------
    bytes
        The host side, ``uint8``, one-dimensional.
    bo, offset
        The device's side: these bytes begin `offset` bytes into `bo`.
    """

    __slots__ = ("bo", "bytes", "offset", "whole")

    def __init__(
        self, memory: NDArray[np.uint8], bo: BufferObject, offset: int, whole: BufferRegion | None = None
    ) -> None:
        self.bytes = memory
        self.bo = bo
        self.offset = offset
        self.whole = whole  # what this is a part of

    @classmethod
    def over(cls, array: NDArray[Any], device: Device, bank: int, *, written: bool) -> BufferRegion:
        """Return all of a contiguous array, imported."""
        memory = flat_bytes(array)
        bo, offset = device.import_memory(memory, writable=written, bank=bank)
        return cls(memory, bo, offset)

    @classmethod
    def new(cls, nbytes: int, device: Device, bank: int) -> BufferRegion:
        """Return fresh pinned memory."""
        return cls.over(empty(max(nbytes, 1), np.uint8), device, bank, written=True)

    def part(self, start: int, nbytes: int) -> BufferRegion:
        """Return `nbytes` bytes of this one from `start` on."""
        return BufferRegion(self.bytes[start : start + nbytes], self.bo, self.offset + start, self.whole or self)

    def sync(self, direction: int, nbytes: int) -> None:
        """Move the first `nbytes` bytes between the two sides."""
        if nbytes:
            self.bo.sync(direction, self.offset, nbytes)


class BufferRing(Channel[BufferRegion]):
    """Pinned buffers of one size, taken and given back; made as they are first needed.

    Parameters
    ----------
    depth
        How many there are at most.
    nbytes
        The size of each.
    """

    def __init__(self, control: JobControl, device: Device, bank: int, nbytes: int, depth: int) -> None:
        super().__init__(control, depth)
        self._device = device
        self._bank = bank
        self._unmade = depth
        self.nbytes = nbytes

    def take(self) -> BufferRegion:
        """Return a free slot, when there is one."""
        with self._control.changed:
            fresh = not self._items and self._unmade > 0
            if fresh:
                self._unmade -= 1
        return BufferRegion.new(self.nbytes, self._device, self._bank) if fresh else self.get()

    def give(self, slot: BufferRegion) -> None:
        """Let a slot, or the slot that this is a part of, be taken again."""
        self.put(slot.whole or slot)
