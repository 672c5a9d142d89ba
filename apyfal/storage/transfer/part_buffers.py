"""The buffers in which a writer collects the parts of an upload."""

from __future__ import annotations

import threading
from collections.abc import Callable

from apyfal.storage.flow.retry import Memory

__all__ = ["PartBuffers"]


class PartBuffers:
    """Buffers that are used again, and no more of them than may be held.

    Parameters
    ----------
    memory
        The mount's.
    limit
        Bytes that may be held here; two buffers in any case, one to fill and one to send.
    """

    def __init__(self, memory: Memory, limit: int) -> None:
        self._memory = memory
        self._limit = limit
        self._changed = threading.Condition()
        self._free: list[memoryview] = []
        self._held = 0

    def take(self, size: int, check: Callable[[], None]) -> memoryview:
        """Return a buffer of `size` bytes, waiting for one to come back where no more may be held.

        Parameters
        ----------
        size
            Bytes.
        check
            Called while waiting; raises when there is nothing more to wait for.
        """
        while True:
            with self._changed:
                while self._free:
                    buffer = self._free.pop()
                    if len(buffer) == size:
                        return buffer
                    self._held -= len(buffer)
                    self._memory.release(len(buffer))
                if self._held == 0:
                    self._memory.hold(size)
                    self._held = size
                    break
                if self._held + size <= max(self._limit, 2 * size) and self._memory.try_acquire(size):
                    self._held += size
                    break
                self._changed.wait(0.1)
            check()
        return memoryview(bytearray(size))

    def give_back(self, buffer: memoryview) -> None:
        """Let `buffer` be used again."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def close(self) -> None:
        """Hold nothing any more. Nothing may be under way."""
        with self._changed:
            self._memory.release(self._held)
            self._held = 0
            self._free.clear()
