"""The parts that an object is written in, and the buffers in which they are collected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import Bandwidth, Memory
from apyfal.storage.handler import Limits

__all__ = ["PART", "Part", "PartBuffers", "next_part_size"]

#: Large enough to cost next to nothing, small enough to learn from (16 MiB at the rate of a slow connection: 0.2 s).
PART = 16 << 20


def next_part_size(
    limits: Limits,
    options: TransferOptions,
    size: int | None,
    parts: int,
    bandwidth: Bandwidth | None,
    wish: int,
) -> int:
    """Return the bytes of the next part.

    Parameters
    ----------
    limits, options, bandwidth
        What the store allows, what the caller wants, and what the mount may use.
    size
        Of the whole object, if known.
    parts
        How many there are already.
    wish
        What would be best, where `size` is known and nothing else says otherwise.
    """
    if options.part_size is not None:
        best = options.part_size
    elif size is not None:
        best = wish
    else:
        best = min(PART // 2, max(1, options.memory // 2))
    if size is not None:
        best = max(best, -(-size // limits.max_parts))
    else:
        # Doubled after every tenth of the parts there may be: 8 MiB parts at first still end at terabytes.
        best <<= 10 * parts // limits.max_parts
    if bandwidth is not None:
        best = min(best, int(bandwidth.rate) // 2)  # a part is paid for as a whole
    return max(limits.min_part if options.part_size is None else 1, min(best, limits.max_part))


class Part:
    """One part on its way.

    Attributes
    ----------
    data
        What is sent: the caller's memory, or the front of `buffer`.
    buffer
        Ours, to be used again afterwards; ``None`` if the memory is the caller's.
    """

    __slots__ = ("buffer", "data", "future", "number")

    def __init__(self, data: memoryview, buffer: memoryview | None) -> None:
        self.data = data
        self.buffer = buffer
        self.number = 0
        self.future: Future[None] = Future()


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
        """Return a buffer of `size` bytes, waiting for one to come back if no more may be held.

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

    def release(self, buffer: memoryview) -> None:
        """Let `buffer` be used again."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def close(self) -> None:
        """Release all buffers. No part may be in flight."""
        with self._changed:
            self._memory.release(self._held)
            self._held = 0
            self._free.clear()
