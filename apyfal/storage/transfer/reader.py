"""One object read front to back with bounded read-ahead, or at any offset."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import NamedTuple

from apyfal.exceptions import ParameterError, StorageError
from apyfal.storage.checksums import best_checksum, combine, crc_function, digest_bytes
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import limits_for, retry_call
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.transfer.download import byte_view, download
from apyfal.storage.transfer.parallel import MIB
from apyfal.storage.transfer.ranges import RangeFetcher, changed, differs, is_resumable
from apyfal.storage.transfer.read_ahead import ReadAhead, mismatch

__all__ = ["ObjectStream", "stream"]

#: A read this long goes straight to its destination, over several connections, instead of through the read-ahead.
_DIRECT = 32 * MIB


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
        When it cannot be looked up, or (`Handler.opens_by_reading`) not be read.
    """
    if info is not None:
        return ObjectStream(handler, info, options)
    what = f"cannot read {handler.shown(path)!r}"
    if not handler.opens_by_reading:
        info = retry_call(handler, lambda: handler.describe(path), what, limit=options.attempts)
        return ObjectStream(handler, info, options)
    cancel = options.own_cancel()
    own = CancelToken(cancel)
    try:
        with own.scope():
            reader = retry_call(handler, lambda: handler.read(path, 0, None, None), what, limit=options.attempts)
    except BaseException:
        cancel.detach()
        raise
    reader = limits_for(handler).connections.stream(reader)
    return ObjectStream(handler, reader.info, options, _Opened(reader, own, cancel))


class ObjectStream:
    """One version of one object.

    `readinto` and `seek` are for one thread; `pread` for any number of threads at once.

    Parameters
    ----------
    handler, info
        The store, and the version to read.
    options
        Parallelism, read-ahead, retries, verification, cancellation.
    opened
        The response whose head told `info`, to be used for what begins at byte 0.
    """

    def __init__(
        self, handler: Handler, info: ObjectInfo, options: TransferOptions, opened: _Opened | None = None
    ) -> None:
        self._handler = handler
        self._options = options
        self._cancel = options.own_cancel() if opened is None else opened.parent
        self._position = 0
        self._closed = False
        self._ahead: ReadAhead | None = None
        self._opened = opened
        self._plain: RangeReader | None = None
        self._sequential_to = 0  # reads that follow each other make read-ahead worth it
        self._lock = threading.Lock()
        self._pieces: dict[int, tuple[int, int]] = {}  # what `receive` got: offset to length and CRC
        self._algorithm = best_checksum(info.checksums) if options.verify else None
        self._name = handler.shown(info.path)
        self.info = info

    @property
    def size(self) -> int | None:
        """Bytes of the object, or ``None`` if the store does not say."""
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
                opened = self._take_opened() if self._position == 0 else None
                cancel = CancelToken(self._cancel) if opened is None else opened.cancel
                reader = None if opened is None else opened.reader
                self._ahead = ReadAhead(self._handler, self.info, self._position, self._options, cancel, reader)
            count = self._ahead.readinto(want)
        self._position += count
        self._sequential_to = self._position
        return count

    def pread(self, out: memoryview, offset: int) -> int:
        """Fill the front of `out` with the bytes from `offset` on, over several connections if it is long.

        Returns
        -------
        int
            ``len(out)``, or what there is before the end.
        """
        self._check()
        if not self.seekable:
            raise ParameterError(f"{self._name!r} can only be read from front to back")
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
        opened = self._take_opened() if offset == 0 else None
        with (self._cancel if opened is None else opened.cancel).scope():
            crc = self._pieces_source().receive(out, offset, _nothing, None if opened is None else opened.reader)
        with self._lock:
            self._pieces[offset] = (len(out), crc)

    def verify(self) -> None:
        """Compare all that `receive` has received with the checksum that the store states, if it states one.

        Raises
        ------
        ChecksumMismatch
            The bytes are not those.
        """
        if self._algorithm is None or self.info.size == 0:
            return
        combined = position = 0
        for offset, (nbytes, crc) in sorted(self._pieces.items()):
            if offset != position:
                raise ParameterError(f"{self._name!r}: byte {position} was not received")
            combined = combine(self._algorithm, combined, crc, nbytes)
            position += nbytes
        if position != self.info.size:
            raise ParameterError(f"{self._name!r}: byte {position} was not received")
        if digest_bytes(self._algorithm, combined) != self.info.checksums[self._algorithm]:
            raise mismatch(self._name, self._algorithm)

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
            raise ParameterError(f"{self._name!r} can only be read from front to back")
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
        opened = self._take_opened()
        for reader in (self._plain, opened.reader if opened is not None else None):
            if reader is not None:
                reader.close()
        self._cancel.detach()

    def __enter__(self) -> ObjectStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"{self._name!r} is closed")

    def _take_opened(self) -> _Opened | None:
        """Return the response that told about the object, once."""
        with self._lock:
            opened, self._opened = self._opened, None
            return opened

    def _read_plain(self, out: memoryview) -> int:
        """Read over the one connection that a store without versions allows; it cannot be resumed."""
        with self._cancel.scope():
            if self._plain is None:
                path, version = self.info.path, self.info if self.info.etag is not None else None
                opened = self._take_opened()
                if opened is not None:
                    self._plain = opened.reader
                else:
                    began = retry_call(
                        self._handler,
                        lambda: self._handler.read(path, 0, None, version),
                        f"cannot read {self._name!r}",
                        limit=self._options.attempts,
                    )
                    self._plain = limits_for(self._handler).connections.stream(began)
                if differs(self.info, self._plain.info):
                    raise changed(self._name, self.info, self._plain.info)
            count = self._plain.readinto(out)
        self._position += count
        if not count and self.size is not None and self._position != self.size:
            raise StorageError(f"{self._name!r} ended after {self._position} of {self.size} bytes")
        return count


class _Opened(NamedTuple):
    """A response that begins at byte 0, of which nothing was read yet.

    Attributes
    ----------
    reader
        Its body.
    cancel, parent
        The token that its connection is registered with, and the one of the whole stream.
    """

    reader: RangeReader
    cancel: CancelToken
    parent: CancelToken


def _nothing(_: int) -> None:
    """Take note of no progress."""
