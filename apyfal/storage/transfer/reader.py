"""One object read front to back with bounded read-ahead, or at any offset."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from apyfal.exceptions import ChecksumMismatch, ParameterError, StorageError
from apyfal.storage.checksums import best_checksum, combine, crc_function, digest_bytes
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import limits_for, retry_call
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.transfer.download import byte_view, download
from apyfal.storage.transfer.parallel import MIB, adapted_part_size
from apyfal.storage.transfer.ranges import RangeFetcher, changed, is_resumable

__all__ = ["ObjectStream", "stream"]

#: A read this long goes straight to its destination, over several connections, instead of through the read-ahead.
_DIRECT = 32 * MIB
_FIRST_AHEAD = 1 * MIB


def stream(
    handler: Handler,
    path: str,
    *,
    info: ObjectInfo | None = None,
    options: TransferOptions = TransferOptions(),  # noqa: B008  # it is frozen
) -> ObjectStream:
    """Open one version of an object for reading.

    Parameters
    ----------
    handler, path
        The store, and the object in it.
    info
        The version, if known; otherwise the object is looked up.
    options
        ``options.memory`` bounds the read-ahead.

    Raises
    ------
    ObjectNotFound, AccessDenied, StoreUnavailable, TransferTimeout
        When it cannot be looked up.
    """
    if info is None:
        info = retry_call(handler, lambda: handler.describe(path), f"cannot read {path!r}", limit=options.attempts)
    return ObjectStream(handler, info, options)


class ObjectStream:
    """One version of one object.

    `readinto` and `seek` are for one thread; `pread` for any number of threads at once.

    Parameters
    ----------
    handler, info
        The store, and the version to read.
    options
        Parallelism, read-ahead, retries, verification, cancellation.
    """

    def __init__(self, handler: Handler, info: ObjectInfo, options: TransferOptions) -> None:
        self._handler = handler
        self._options = options
        self._cancel = options.own_cancel()
        self._position = 0
        self._closed = False
        self._ahead: _ReadAhead | None = None
        self._plain: RangeReader | None = None
        self._sequential_to = 0  # reads that follow each other make read-ahead worth it
        self._lock = threading.Lock()
        self._pieces: dict[int, tuple[int, int]] = {}  # what `receive` got: offset to length and CRC
        self._algorithm = best_checksum(info.checksums) if options.verify else None
        self.info = info

    @property
    def size(self) -> int | None:
        """Bytes of the object, or ``None`` where the store does not tell."""
        return self.info.size if self.info.encoding is None else None

    @property
    def seekable(self) -> bool:
        """Whether `seek` and `pread` work: the store can be asked for a range of just this version."""
        return is_resumable(self.info)

    def readinto(self, out: memoryview) -> int:
        """Fill the front of `out` with the next bytes.

        Returns
        -------
        int
            ``len(out)``, or less before the end of the object, or 0 at the end only.

        Raises
        ------
        ChecksumMismatch
            At the end, if everything was read from the front and is not what the store states.
        ObjectChanged, StorageError
            A break is resumed; these are what is left. Nothing is ever reported as the end but the end.
        """
        self._check()
        out = byte_view(out)
        if not len(out):
            return 0
        if not self.seekable:
            return self._read_plain(out)
        left = (self.info.size or 0) - self._position
        want = out[: min(len(out), left)]
        if not len(want) and self._ahead is None:
            return 0
        if self._ahead is None and (len(want) >= _DIRECT or self._position != self._sequential_to):
            count = self.pread(want, self._position)
        else:
            if self._ahead is None:
                self._ahead = _ReadAhead(self._handler, self.info, self._position, self._options, self._cancel)
            count = self._ahead.readinto(want)
        self._position += count
        self._sequential_to = self._position
        return count

    def pread(self, out: memoryview, offset: int) -> int:
        """Fill the front of `out` with the bytes from `offset` on, over several connections where it is long.

        Returns
        -------
        int
            ``len(out)``, or what there is before the end.
        """
        self._check()
        if not self.seekable:
            raise ParameterError(f"{self.info.path!r} can only be read from front to back")
        stop = min(offset + len(out), self.info.size or 0)
        if stop <= offset:
            return 0
        with self._cancel.scope():
            download(
                self._handler,
                self.info.path,
                out[: stop - offset],
                start=offset,
                stop=stop,
                info=self.info,
                options=self._options,
            )
        return stop - offset

    def receive(self, out: memoryview, offset: int) -> None:
        """Fill all of `out` with the bytes from `offset` on, at their final address, over one connection.

        For readers that take the whole object in pieces, from several threads at once, and call `verify` at the end.

        Raises
        ------
        ObjectChanged, StorageError
            A break is resumed; these are what is left.
        """
        self._check()
        with self._cancel.scope():
            crc = self._pieces_source().receive(out, offset, _nothing)
        with self._lock:
            self._pieces[offset] = (len(out), crc)

    def verify(self) -> None:
        """Compare what `receive` has got, all together, with the checksum that the store states, where it has one.

        Raises
        ------
        ChecksumMismatch
            The bytes are not those.
        """
        if self._algorithm is None or self.info.size == 0:
            return
        whole = position = 0
        for offset, (nbytes, crc) in sorted(self._pieces.items()):
            if offset != position:
                raise ParameterError(f"{self.info.path!r}: byte {position} was not received")
            whole = combine(self._algorithm, whole, crc, nbytes)
            position += nbytes
        if position != self.info.size:
            raise ParameterError(f"{self.info.path!r}: byte {position} was not received")
        if digest_bytes(self._algorithm, whole) != self.info.checksums[self._algorithm]:
            raise _mismatch(self.info, self._algorithm)

    def _pieces_source(self) -> RangeFetcher:
        crc = crc_function(self._algorithm) if self._algorithm is not None else None
        mount_limits = limits_for(self._handler)
        return RangeFetcher(self._handler, self.info, mount_limits, self._cancel, self._options.attempts, crc)

    def seek(self, position: int) -> None:
        """Let the next `readinto` begin at `position`."""
        self._check()
        if position == self._position:
            return
        if not self.seekable:
            raise ParameterError(f"{self.info.path!r} can only be read from front to back")
        if position < 0:
            raise ParameterError(f"cannot seek to {position}")
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        self._position = position

    def tell(self) -> int:
        """Return the offset of the next byte that `readinto` reads."""
        return self._position

    def close(self) -> None:
        """Stop reading ahead; calls that are under way in other threads fail. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._cancel.set()
        if self._ahead is not None:
            self._ahead.close()
        if self._plain is not None:
            self._plain.close()
        self._cancel.detach()

    def __enter__(self) -> ObjectStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"{self.info.path!r} is closed")

    def _read_plain(self, out: memoryview) -> int:
        """Read over the one connection that a store without versions allows; it cannot be resumed."""
        with self._cancel.scope():
            if self._plain is None:
                path, version = self.info.path, self.info if self.info.etag is not None else None
                self._plain = retry_call(
                    self._handler,
                    lambda: self._handler.read(path, 0, None, version),
                    f"cannot read {path!r}",
                    limit=self._options.attempts,
                )
                if (self._plain.info.etag, self._plain.info.size) != (self.info.etag, self.info.size):
                    raise changed(self.info, self._plain.info)
            count = self._plain.readinto(out)
        self._position += count
        if not count and self.size is not None and self._position != self.size:
            raise StorageError(f"{self.info.path!r} ended after {self._position} of {self.size} bytes")
        return count


def _nothing(_: int) -> None:
    """Take note of no progress."""


def _mismatch(info: ObjectInfo, algorithm: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"{info.path!r}: the bytes read do not have the {algorithm} that the store states", path=info.path
    )


class _ReadAhead:
    """Receives the parts of an object from `start` on into buffers, a bounded number of bytes ahead of the reader."""

    def __init__(
        self, handler: Handler, info: ObjectInfo, start: int, options: TransferOptions, cancel: CancelToken
    ) -> None:
        self._info = info
        self._size = info.size or 0
        self._options = options
        self._mount_limits = limits_for(handler)
        self._cancel = CancelToken(cancel)
        self._algorithm = best_checksum(info.checksums) if options.verify and start == 0 else None
        crc = crc_function(self._algorithm) if self._algorithm is not None else None
        self._source = RangeFetcher(handler, info, self._mount_limits, self._cancel, options.attempts, crc)
        self._connections = options.connections(handler)[0]
        self._changed = threading.Condition()
        self._parts: deque[_Ahead] = deque()  # being filled or full, in order
        self._free: list[memoryview] = []
        self._held = 0
        self._claimed = start
        self._whole = 0
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
        self._free.append(part.whole)
        self._received += part.size
        if self._algorithm is None:
            return
        self._whole = combine(self._algorithm, self._whole, part.crc, part.size)
        if (
            self._received == self._size
            and digest_bytes(self._algorithm, self._whole) != self._info.checksums[self._algorithm]
        ):
            raise _mismatch(self._info, self._algorithm)

    def _start_parts(self) -> None:
        """Begin to receive as many parts as memory and connections allow; the lock is held."""
        while self._claimed < self._size and sum(not part.done for part in self._parts) < self._connections:
            size = min(self._next_size, self._size - self._claimed)
            buffer = self._take_buffer(size)
            if buffer is None:
                return
            part = _Ahead(self._claimed, size, buffer)
            self._claimed += size
            if self._options.part_size is None:
                # From small, so that the first bytes come soon and a reader of a few costs little.
                most = max(MIB, min(adapted_part_size(self._mount_limits.connection_rate), self._options.memory // 8))
                self._next_size = min(2 * self._next_size, most)
            self._parts.append(part)
            thread = threading.Thread(target=self._receive, args=(part,), name="apyfal-read-ahead", daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
            thread.start()

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
                part.crc = self._source.receive(part.buffer, part.begin, moved)
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

    __slots__ = ("begin", "buffer", "crc", "done", "failure", "filled", "size", "taken", "whole")

    def __init__(self, begin: int, size: int, whole: memoryview) -> None:
        self.begin = begin
        self.size = size
        self.whole = whole
        self.buffer = whole[:size]
        self.filled = 0
        self.taken = 0
        self.crc = 0
        self.done = False
        self.failure: BaseException | None = None
