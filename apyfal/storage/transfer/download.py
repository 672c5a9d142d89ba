"""One object, or a range of it, into the caller's memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from apyfal.exceptions import ChecksumMismatch, ParameterError, StorageError
from apyfal.storage.checksums import best_checksum, crc_function, digest_bytes, new_hasher
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.flow.retry import Retrying, limits_for
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.transfer.parallel import FIRST_PART, ParallelDownload
from apyfal.storage.transfer.ranges import RangeFetcher, is_resumable
from apyfal.storage.transfer.sequential import Room, read_sequentially

__all__ = ["Allocate", "byte_view", "download"]

#: Makes memory for an object: called with a number of bytes, returns as many or more. Called again, with more, while
#: the size is not known.
Allocate = Callable[[int], memoryview]


def download(
    handler: Handler,
    path: str,
    out: memoryview | None,
    *,
    start: int = 0,
    stop: int | None = None,
    info: ObjectInfo | None = None,
    progress: Progress | None = None,
    on_ready: Callable[[int], None] | None = None,
    options: TransferOptions = TransferOptions(),  # noqa: B008  # it is frozen
    allocate: Allocate | None = None,
    first: Callable[[], RangeReader] | None = None,
) -> ObjectInfo:
    """Receive bytes `start` to `stop` of an object at their final address.

    All bytes are of one version of the object. Where the whole object is read and the store states a checksum of it,
    they are compared.

    Parameters
    ----------
    handler, path
        The store, and the object in it.
    out
        Where the bytes go: a writable view, at least as long as what is asked for; what is behind the end stays as it
        is. ``None``: `allocate` is called once the size is known.
    start, stop
        Offsets in the object; ``stop=None``: its end.
    info
        The version to read, if known; otherwise the one that is there now, and no request is spent on looking it up.
    progress
        Called with the bytes received and their total.
    on_ready
        Called with a number of bytes at the front of `out` that are in place. They were received from the right
        version, but a checksum over the whole can only be compared at the end: with `on_ready` a mismatch is an error
        at once, without it the object is read once more.
    options
        Parallelism, retries, verification, cancellation.
    allocate
        See `out`.
    first
        The first attempt at the first request, without `info`: returns or raises what `Handler.read` would.

    Returns
    -------
    ObjectInfo
        The version that was read; its `size` is the whole object's.

    Raises
    ------
    ParameterError
        `out` is too small or read-only, or the range is not in the object.
    ObjectNotFound, AccessDenied, ObjectChanged, ChecksumMismatch, StoreUnavailable, TransferTimeout, TransferCancelled
        The content of `out` is undefined then.

    Notes
    -----
    `on_ready` and `progress` are called from the threads that receive, one at a time; they must be quick. All threads
    have ended when this returns or raises.
    """
    if start < 0 or (stop is not None and stop < start):
        raise ParameterError(f"{handler.shown(path)!r}: bytes {start} to {stop} are not a range")
    if out is not None:
        out = byte_view(out)
    elif allocate is None:
        raise ParameterError("download needs memory: give out or allocate")
    room = Room(handler.shown(path), out, allocate)
    cancel = options.own_cancel()
    try:
        with cancel.scope():
            for again in (True, False):
                found = _attempt(handler, path, room, start, stop, info, progress, on_ready, options, cancel, first)
                first = None
                if found is not None:
                    return found
                if not again or on_ready is not None:
                    break
    finally:
        cancel.detach()
    name = handler.shown(path)
    raise ChecksumMismatch(f"{name!r}: the bytes received do not have the checksum that the store states", path=name)


def byte_view(out: memoryview) -> memoryview:
    """Return a writable, contiguous view as bytes; `ParameterError` for any other."""
    if out.readonly:
        raise ParameterError("the memory to receive into is read-only")
    if not out.c_contiguous:
        raise ParameterError("the memory to receive into is not contiguous")
    return out if out.format == "B" and out.ndim == 1 else out.cast("B")


def _attempt(
    handler: Handler,
    path: str,
    room: Room,
    start: int,
    stop: int | None,
    known: ObjectInfo | None,
    progress: Progress | None,
    on_ready: Callable[[int], None] | None,
    options: TransferOptions,
    cancel: CancelToken,
    first: Callable[[], RangeReader] | None,
) -> ObjectInfo | None:
    """Receive everything once; ``None`` if the checksum over the whole is wrong."""
    mount_limits = limits_for(handler)
    reader = None
    if known is None:
        reader = _open(handler, path, start, stop, options.attempts, cancel, first)
    info = reader.info if reader is not None else known
    if info is None or not is_resumable(info) or info.size is None:
        return read_sequentially(
            handler,
            path,
            room,
            start,
            stop,
            known,
            reader,
            mount_limits=mount_limits,
            cancel=cancel,
            attempts=options.attempts,
            verify=options.verify,
            progress=progress,
            on_ready=on_ready,
        )
    end = info.size if stop is None else stop
    try:
        if end > info.size or start > end:
            name = handler.shown(path)
            raise ParameterError(f"{name!r}: bytes {start} to {end} are not in an object of {info.size} bytes")
        view = room.exactly(end - start)
    except BaseException:
        if reader is not None:
            reader.close()
        raise
    algorithm = best_checksum(info.checksums) if options.verify and start == 0 and end == info.size else None
    crc = crc_function(algorithm) if algorithm is not None else None
    source = RangeFetcher(handler, info, mount_limits, cancel, options.attempts, crc)
    if len(view) <= (options.part_size or FIRST_PART):
        value = _receive_one(source, view, start, reader, progress, on_ready)
        if algorithm is None and options.verify and len(view) == info.size and not _digest_agrees(info, view):
            return None
    else:
        value = ParallelDownload(source, view, start, algorithm, options, progress, on_ready).run(reader)
    if algorithm is not None and digest_bytes(algorithm, value) != info.checksums[algorithm]:
        return None
    return info


def _receive_one(
    source: RangeFetcher,
    out: memoryview,
    start: int,
    reader: RangeReader | None,
    progress: Progress | None,
    on_ready: Callable[[int], None] | None,
) -> int:
    """Receive what is not worth a second connection, in this thread; returns its CRC."""
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        if on_ready is not None:
            on_ready(done)
        if progress is not None:
            progress(done, len(out))

    return source.receive(out, start, moved, reader) if len(out) or reader is not None else 0


def _digest_agrees(info: ObjectInfo, data: memoryview) -> bool:
    """Compare a small object with a checksum that cannot be combined from parts (MD5, SHA), where one is stated."""
    for algorithm, stated in info.checksums.items():
        hasher = new_hasher(algorithm)
        if hasher is not None:
            hasher.update(data)
            return hasher.digest() == stated
    return True


def _open(
    handler: Handler,
    path: str,
    start: int,
    stop: int | None,
    attempts: int,
    cancel: CancelToken,
    first: Callable[[], RangeReader] | None,
) -> RangeReader:
    """Ask for the range without knowing the object: the response tells what a look-up would."""
    limits = limits_for(handler)
    tries = Retrying(limits.quota, attempts, cancel)
    while True:
        attempt, first = first, None
        begin = partial(handler.read, path, start, stop, None) if attempt is None else attempt
        try:
            reader = limits.connections.opened(begin, cancel)
        except StorageError as error:
            tries.failed(error, f"cannot read {handler.shown(path)!r}")
        else:
            tries.success()
            return reader
