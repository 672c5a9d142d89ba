"""Objects that cannot be resumed: no strong validator, no ranges, a Content-Encoding, or no known size.

They are received over one connection, from the first byte. When it breaks, everything is received again, unless
bytes were already handed out: then it is an error, as the two attempts may have seen two versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from apyfal.exceptions import ChecksumMismatch, ParameterError, StorageError, StoreUnavailable
from apyfal.storage.checksums import Hasher, best_checksum, new_hasher
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.options import Progress
from apyfal.storage.flow.retry import MountLimits, Retrying
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.transfer.ranges import CHUNK, changed, differs

__all__ = ["Room", "read_sequentially"]


class Room:
    """Memory for an object whose size may not be known.

    Parameters
    ----------
    path
        For messages.
    out
        The caller's memory, or ``None``.
    allocate
        Makes memory if there is no `out`; called again, with more, if the object turns out to be larger.
    """

    def __init__(self, path: str, out: memoryview | None, allocate: Callable[[int], memoryview] | None) -> None:
        self._path = path
        self._out = out
        self._allocate = allocate

    def exactly(self, need: int) -> memoryview:
        """Return memory for `need` bytes, which are all there will be."""
        if self._allocate is not None and (self._out is None or len(self._out) < need):
            self._out = self._allocate(need)
        if self._out is None or len(self._out) < need:
            have = 0 if self._out is None else len(self._out)
            raise ParameterError(f"{self._path!r}: {need} bytes do not fit into the {have} bytes of memory given")
        return self._out[:need]

    def at_least(self, filled: int) -> memoryview:
        """Return memory with room behind the `filled` bytes at its front, which stay."""
        if self._out is not None and len(self._out) > filled:
            return self._out
        if self._allocate is None:
            raise ParameterError(f"{self._path!r} has more than the {filled} bytes of memory given")
        before = self._out
        self._out = self._allocate(max(1 << 20, 2 * filled))
        if before is not None:
            self._out[:filled] = before[:filled]
        return self._out


def _verifier(info: ObjectInfo) -> str | None:
    """Choose the stated checksum to verify, cheapest first."""
    stated = info.checksums
    return best_checksum(stated) or next((name for name in ("sha1", "sha256", "md5") if name in stated), None)


def read_sequentially(
    handler: Handler,
    path: str,
    room: Room,
    start: int,
    stop: int | None,
    info: ObjectInfo | None,
    reader: RangeReader | None,
    *,
    mount_limits: MountLimits,
    cancel: CancelToken,
    attempts: int,
    verify: bool,
    progress: Progress | None,
    on_ready: Callable[[int], None] | None,
) -> ObjectInfo:
    """Receive bytes `start` to `stop` over one connection; see `apyfal.storage.transfer.download.download`.

    Parameters
    ----------
    reader
        The response to the first request, if that was sent to learn about the object; closed here.
    """
    known = info
    name = handler.shown(path)
    tries = Retrying(mount_limits.quota, attempts, cancel)
    mismatched = False
    while True:
        filled = 0
        try:
            with (
                mount_limits.connections.turn(cancel, taken=reader is not None),
                reader or _begin(handler, path, start, stop, known, cancel) as reader,
            ):
                cancel.check()
                info = reader.info
                if known is not None and differs(known, info):
                    raise changed(name, known, info)
                skip = start if known is not None and not known.ranges else 0
                complete = start == 0 and stop is None and info.encoding is None
                algorithm = _verifier(info) if verify and complete else None
                hasher = new_hasher(algorithm) if algorithm is not None else None
                need = None
                if info.size is not None and info.encoding is None:
                    need = (info.size if stop is None else stop) - start
                    room.exactly(need)
                elif stop is not None:
                    need = stop - start
                _skip(reader, skip, name)
                while need is None or filled < need:
                    filled = _receive_chunk(reader, room, filled, need, hasher, mount_limits, cancel)
                    if filled < 0:
                        filled = ~filled
                        break
                    if progress is not None:
                        progress(filled, need)
                    if on_ready is not None:
                        on_ready(filled)
            if need is not None and filled < need and info.size is not None:
                raise StoreUnavailable(f"the body ended {need - filled} bytes early", path=name, offset=start + filled)
        except StorageError as error:
            reader = None
            what = f"cannot read {name!r} at byte {start + filled}"
            if error.path is None:
                error.path, error.offset = name, start + filled
            if filled and on_ready is not None:
                raise type(error)(
                    f"{what}: {error} (it has no strong ETag and cannot be resumed)", path=name
                ) from error
            tries.failed(error, what)
            continue
        reader = None
        if algorithm is not None and hasher is not None and hasher.digest() != info.checksums[algorithm]:
            if not mismatched and on_ready is None:
                mismatched = True
                continue
            raise ChecksumMismatch(
                f"{name!r}: the bytes received do not have the {algorithm} that the store states", path=name
            )
        tries.success()
        if info.size is None and start == 0 and stop is None:
            info = replace(info, size=filled)
        return info


def _begin(
    handler: Handler, path: str, start: int, stop: int | None, known: ObjectInfo | None, cancel: CancelToken
) -> RangeReader:
    cancel.check()
    if known is not None and not known.ranges:
        return handler.read(path, 0, None, known if known.etag is not None else None)
    return handler.read(path, start, stop, known if known is not None and known.etag is not None else None)


def _skip(reader: RangeReader, count: int, name: str) -> None:
    """Receive and drop the front of a body of a store that has no ranges."""
    scratch = memoryview(bytearray(min(count, CHUNK)))
    while count:
        got = reader.readinto(scratch[:count])
        if not got:
            raise ParameterError(f"{name!r}: the range begins {count} bytes behind its end")
        count -= got


def _receive_chunk(
    reader: RangeReader,
    room: Room,
    filled: int,
    need: int | None,
    hasher: Hasher | None,
    mount_limits: MountLimits,
    cancel: CancelToken,
) -> int:
    """Receive once behind the `filled` bytes; returns what is filled then, as ``~filled`` at the end of the body."""
    if need is None:
        # At the end of the caller's memory the body may end too: one more byte tells.
        probe = memoryview(bytearray(1))
        try:
            out = room.at_least(filled)
        except ParameterError:
            if reader.readinto(probe):
                raise
            return ~filled
        part = out[filled : filled + CHUNK]
    else:
        part = room.exactly(need)[filled : filled + CHUNK]
    if mount_limits.bandwidth is not None:
        mount_limits.bandwidth.take(len(part), cancel)
    count = reader.readinto(part)
    if not count:
        return ~filled
    if hasher is not None:
        hasher.update(part[:count])
    return filled + count
