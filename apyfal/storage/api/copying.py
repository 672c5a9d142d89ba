"""`copy`: from anywhere to anywhere, whole or not at all, in bounded memory."""

from __future__ import annotations

import mmap
import os
import posixpath
import queue
import stat
import threading
from collections.abc import Mapping
from typing import Any

from apyfal.exceptions import (
    InvalidURL,
    IsADirectory,
    ParameterError,
    StorageError,
    TransferCancelled,
    UnsupportedByStore,
)
from apyfal.storage import providers, transfer
from apyfal.storage.endpoints.factory import open_sink, open_source
from apyfal.storage.endpoints.sinks import Sink
from apyfal.storage.endpoints.sources import Source
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.flow.options import Progress, TransferOptions
from apyfal.storage.handler import Handler
from apyfal.storage.local import atomic
from apyfal.storage.local.copy import copy_file
from apyfal.storage.metadata import ObjectMetadata
from apyfal.storage.mounting.table import resolve
from apyfal.storage.stores.file import FileHandler
from apyfal.storage.url import Location, is_file_object, parse

__all__ = ["copy", "copy_to", "place_of_copy"]

#: Memory of a copy: the buffers of the pump below, or of the engine's between two stores (bytes).
_PIECE = 8 << 20
_PIECES = 4
#: Seconds that a copy which has failed waits for its reading thread.
_PATIENCE = 1.0
_OPTIONS = TransferOptions(memory=48 << 20)


def copy(
    src: object,
    dst: object,
    *,
    progress: Progress | None = None,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
) -> str:
    """Copy a file or object, as `shutil.copy` does, between any two places.

    Within one store, the store copies; between two local files, the kernel; else the data is streamed through a few
    buffers (at most 64 MiB), reading and writing at once.

    Parameters
    ----------
    src
        A storage URL, a path, or an open binary file, read from its position on.
    dst
        A storage URL, a path, or an open binary file. In a local directory, in a bucket, or below a URL that ends in
        ``/``, the copy gets the source's name.
    progress
        Called with the bytes written so far and their total (``None`` where it is not known).
    metadata
        Content type and the like of a copy in a store, as for `open`. A copy inside one store keeps what is not stated;
        there, an object can be copied onto itself to change its metadata. A copy from another store keeps the fields of
        HTTP and the user metadata.

    Returns
    -------
    str
        The URL or path of the copy; the name of an open file.

    Raises
    ------
    ObjectNotFound, IsADirectory, AccessDenied, ObjectChanged, ChecksumMismatch, StorageError
        The destination is then as it was. (An open file is only cut back to where it stood, if it can be.)

    Notes
    -----
    Between local files the permission bits are copied, and holes stay holes.
    """
    stated = ObjectMetadata.of(metadata)
    if is_file_object(dst) and stated is not None:
        raise ParameterError("an open file takes no metadata; expected a storage URL")
    if is_file_object(src) or is_file_object(dst):
        return _pump_between(src, dst, progress, stated)
    source = parse(src)
    return copy_to(source, place_of_copy(source, parse(dst)), progress=progress, metadata=stated)


def copy_to(
    source: Location,
    destination: Location,
    *,
    progress: Progress | None = None,
    metadata: ObjectMetadata | None = None,
    mtime: float | None = None,
) -> str:
    """Copy to the very name that is given, also if a directory has it, which is an error; see `copy`.

    Parameters
    ----------
    mtime
        Time of modification that a local copy appears with, in seconds since the epoch; ``None``: now.
    """
    if destination.is_local and metadata is not None:
        raise UnsupportedByStore(f"cannot copy to {str(destination)!r}: a local file keeps no metadata")
    mtime_ns = None if mtime is None else round(mtime * 1e9)
    waits = current_cancel() is not None and _is_stream(source)  # for a pipe; the pump below can be cancelled then
    if source.is_local and destination.is_local and not waits:
        copy_file(source.path, destination.path, _or_cancelled(progress), mtime_ns=mtime_ns)
    elif _is_stream(source) or _is_stream(destination):
        written = _pump_between(source.url, destination.url, progress, metadata)
        if mtime_ns is not None and destination.is_local:
            with atomic.translating("set the time of", destination.path):
                os.utime(destination.path, ns=(mtime_ns, mtime_ns))
        return written
    else:
        with _Place(source) as start, _Place(destination, mtime_ns) as end:
            handler = end.handler
            handler.require_writable(end.path)
            if start.on_disk and end.on_disk and _is_one_file(start.path, end.path):
                raise StorageError(f"cannot copy: {str(source)!r} and {str(destination)!r} are the same file")
            if start.target is not None and end.target is not None and start.target.same_store_as(end.target):
                handler = start.handler
                if start.path == end.path and metadata is None:
                    raise StorageError(f"cannot copy: {str(source)!r} and {str(destination)!r} are the same object")
            transfer.copy(
                start.handler, start.path, handler, end.path, metadata=metadata, progress=progress, options=_OPTIONS
            )
    return destination.url


def _or_cancelled(progress: Progress | None) -> Progress | None:
    """Return a progress function that ends a copy of local files when the caller's `CancelToken` is set."""
    cancel = current_cancel()
    if cancel is None:
        return progress

    def report(done: int, total: int | None) -> None:
        cancel.check()
        if progress is not None:
            progress(done, total)

    return report


class _Place:
    """A path in a store or among the local files, as the transfer engine takes it."""

    def __init__(self, location: Location, mtime_ns: int | None = None) -> None:
        self.target = None if location.is_local else resolve(location)
        self.handler: Handler = FileHandler.stamping(mtime_ns) if self.target is None else self.target.handler
        self.path = location.path if self.target is None else self.target.path
        self.on_disk = self.target is None or self.target.on_this_machine
        if self.target is not None:
            try:
                self.target.require_object("copy")
            except InvalidURL:
                self.target.release()
                raise

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self.target is not None:
            self.target.release()


def place_of_copy(source: Location, destination: Location) -> Location:
    """Return where a copy goes: into the destination, if that is a directory, under the source's name."""
    name = posixpath.basename(source.path.partition("?")[0] if _is_web(source) else source.path)
    path = destination.path
    if destination.is_local:
        if not os.path.isdir(path):
            return destination
        joined = os.path.join(path, name)
        if not name:
            raise IsADirectory(f"cannot copy: {path!r} is a directory, and the source has no name to go by")
        return Location("file", joined)
    bare = not path or (not path.strip("/").count("/") and _has_buckets(destination))
    if not path.endswith("/") and not bare:
        return destination
    if not name:
        raise InvalidURL(
            f"cannot copy to {str(destination)!r}: it names no object, and the source has no name to go by"
        )
    return Location(destination.scheme, path + name if not path or path.endswith("/") else f"{path}/{name}")


def _has_buckets(location: Location) -> bool:
    """Whether a path without ``/`` is a bucket here."""
    with resolve(location) as target:
        provider = providers.find(target.provider)
        return target.root is None and provider is not None and provider.buckets


def _is_one_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False  # one of them is not there


def _is_web(location: Location) -> bool:
    return location.scheme in ("http", "https")


def _is_stream(location: Location) -> bool:
    """Whether this is a pipe, a device or the like, or a file too small to say its size; see `disk.says_its_size`."""
    if not location.is_local:
        return False
    if atomic.own_descriptor(location.path) is not None:
        return True
    try:
        status = os.stat(location.path)
    except OSError:
        return False
    return not stat.S_ISDIR(status.st_mode) and not (
        stat.S_ISREG(status.st_mode) and (status.st_blocks or status.st_size > 4096)
    )


def _pump_between(src: object, dst: object, progress: Progress | None, metadata: ObjectMetadata | None) -> str:
    with open_source(src) as source, open_sink(dst, source.size, metadata=metadata) as sink:
        _pump(source, sink, progress)
        return sink.name


class _Waiting:
    """Wakes a copy that waits for its source, by a `CancelToken`."""

    def __init__(self, full: queue.SimpleQueue[memoryview | BaseException | None]) -> None:
        self._full = full

    def interrupt(self) -> None:
        self._full.put(TransferCancelled("the transfer was cancelled"))


def _pump(source: Source, sink: Sink, progress: Progress | None) -> None:
    """Read in a thread of its own and write in this one, with a ring of buffers between."""
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[memoryview | BaseException | None] = queue.SimpleQueue()
    for _ in range(_PIECES):
        free.put(memoryview(mmap.mmap(-1, _PIECE)))

    def read() -> None:
        try:
            while (buffer := free.get()) is not None:
                count = 0
                while count < len(buffer) and (got := source.readinto(buffer[count:])):
                    count += got
                if not count:
                    break
                full.put(buffer[:count])
        except BaseException as error:
            full.put(error)
        else:
            full.put(None)

    thread = threading.Thread(target=read, name="apyfal-copy", daemon=True)
    thread.start()
    done = 0
    patience: float | None = _PATIENCE
    waiting, cancel = _Waiting(full), current_cancel()
    try:
        if cancel is not None:
            cancel.add(waiting)
        while (piece := full.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            sink.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, source.size)
            free.put(memoryview(piece.obj))
        patience = None
    finally:
        if cancel is not None:
            cancel.discard(waiting)
        free.put(None)
        source.interrupt()
        # after a failure or a signal, a pipe that nobody writes to would keep the thread, and this call, for ever
        thread.join(patience)
