"""Parts of an object that are received before a reader asks for them, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

from apyfal.exceptions import ChecksumMismatch
from apyfal.storage.checksums import best_checksum, combine, crc_function, digest_bytes
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import limits_for
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.transfer.parallel import MIB, adapted_part_size
from apyfal.storage.transfer.ranges import RangeFetcher
from apyfal.threads import start_threads

__all__ = ["ReadAhead", "mismatch"]

_FIRST_AHEAD = 1 * MIB


def mismatch(name: str, algorithm: str) -> ChecksumMismatch:
    """Return the error for bytes that are not what the store's checksum is of."""
    return ChecksumMismatch(f"{name!r}: the bytes read do not have the {algorithm} that the store states", path=name)


class ReadAhead:
    """Receives the parts of an object from `start` on into buffers, a bounded number of bytes ahead of the reader."""

    def __init__(
        self,
        handler: Handler,
        info: ObjectInfo,
        start: int,
        options: TransferOptions,
        cancel: CancelToken,
        reader: RangeReader | None,
    ) -> None:
        self._info = info
        self._name = handler.shown(info.path)
        self._size = info.size or 0
        self._options = options
        self._mount_limits = limits_for(handler)
        self._cancel = cancel
        self._algorithm = best_checksum(info.checksums) if options.verify and start == 0 else None
        crc = crc_function(self._algorithm) if self._algorithm is not None else None
        self._source = RangeFetcher(handler, info, self._mount_limits, self._cancel, options.attempts, crc)
        self._reader = reader
        self._connections = options.connections(handler)[0]
        self._changed = threading.Condition()
        self._parts: deque[_Ahead] = deque()  # being filled or full, in order
        self._free: list[memoryview] = []
        self._held = 0
        self._claimed = start
        self._combined = 0
        self._received = start
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._next_size = options.part_size or _FIRST_AHEAD

    def readinto(self, out: memoryview) -> int:
        """Copy what is there of the next bytes, at least one; waits for it."""
        with self._changed:
            self._start_parts()
            if not self._parts:
                return 0
            part = self._parts[0]
            while part.filled == part.taken and part.failure is None:
                self._changed.wait()
            if part.filled == part.taken and part.failure is not None:
                raise part.failure
            count = min(len(out), part.filled - part.taken)
        out[:count] = part.buffer[part.taken : part.taken + count]
        with self._changed:
            part.taken += count
            if part.taken == part.size:
                while not part.done and part.failure is None:
                    self._changed.wait()
                if part.failure is not None:
                    raise part.failure
                self._retire(part)
                self._start_parts()
        return count

    def _retire(self, part: _Ahead) -> None:
        """Take a part that was read out of the queue; the lock is held."""
        self._parts.popleft()
        self._free.append(part.memory)
        self._received += part.size
        if self._algorithm is None:
            return
        self._combined = combine(self._algorithm, self._combined, part.crc, part.size)
        if (
            self._received == self._size
            and digest_bytes(self._algorithm, self._combined) != self._info.checksums[self._algorithm]
        ):
            raise mismatch(self._name, self._algorithm)

    def _start_parts(self) -> None:
        """Begin to receive as many parts as memory and connections allow; the lock is held."""
        while self._claimed < self._size and sum(not part.done for part in self._parts) < self._connections:
            size = min(self._next_size, self._size - self._claimed)
            buffer = self._take_buffer(size)
            if buffer is None:
                return
            part = _Ahead(self._claimed, size, buffer, self._reader)
            self._reader = None
            self._claimed += size
            if self._options.part_size is None:
                # From small, so that the first bytes come soon and a reader of a few costs little.
                most = max(MIB, min(adapted_part_size(self._mount_limits.connection_rate), self._options.memory // 8))
                self._next_size = min(2 * self._next_size, most)
            self._parts.append(part)
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads += start_threads("read-ahead", 1, partial(self._receive, part))

    def _take_buffer(self, size: int) -> memoryview | None:
        for index, buffer in enumerate(self._free):
            if size <= len(buffer) <= max(2 * size, MIB):
                return self._free.pop(index)
        while self._free:
            self._give_up(self._free.pop())
        if self._parts and self._held + size > self._options.memory:
            return None
        if not self._parts:
            self._mount_limits.memory.hold(size)
        elif not self._mount_limits.memory.try_acquire(size):
            return None
        self._held += size
        return memoryview(bytearray(size))

    def _give_up(self, buffer: memoryview) -> None:
        self._held -= len(buffer)
        self._mount_limits.memory.release(len(buffer))

    def _receive(self, part: _Ahead) -> None:
        def moved(count: int) -> None:
            with self._changed:
                part.filled += count
                self._changed.notify_all()

        try:
            with self._cancel.scope():
                part.crc = self._source.receive(part.buffer, part.begin, moved, part.reader)
        except BaseException as error:
            part.failure = error
        with self._changed:
            part.done = part.failure is None
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads and give the buffers back."""
        if self._closed:
            return
        self._closed = True
        self._cancel.set()
        for thread in self._threads:
            thread.join()
        self._cancel.detach()
        self._mount_limits.memory.release(self._held)
        self._held = 0
        self._parts.clear()
        self._free.clear()


class _Ahead:
    """A part of the read-ahead: `filled` bytes of it have come, `taken` were read."""

    __slots__ = ("begin", "buffer", "crc", "done", "failure", "filled", "memory", "reader", "size", "taken")

    def __init__(self, begin: int, size: int, memory: memoryview, reader: RangeReader | None) -> None:
        self.reader = reader
        self.begin = begin
        self.size = size
        self.memory = memory
        self.buffer = memory[:size]
        self.filled = 0
        self.taken = 0
        self.crc = 0
        self.done = False
        self.failure: BaseException | None = None
