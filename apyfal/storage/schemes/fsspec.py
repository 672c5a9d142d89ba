"""Any filesystem that fsspec knows: SFTP, FTP, WebDAV, SMB, HDFS, memory, ...

``provider = fsspec`` with ``protocol = sftp`` and the parameters of that filesystem (``host``, ``username``, ...). What
fsspec cannot do is done without: a filesystem hands out `bytes`, which are copied once; versions are told apart by what
`ukey`, size and modification time say; there are no checksums. An object appears whole: it is written under a temporary
name beside its own and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any

from apyfal.exceptions import (
    AcceleratorException,
    AccessDenied,
    AuthenticationError,
    IsADirectory,
    MountError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    TransferTimeout,
    UnsupportedByStore,
    did_you_mean,
)
from apyfal.storage.cancel import current_cancel
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload

__all__ = ["FsspecHandler"]

_TEMPORARY = ".apyfal-"
#: Read at once from filesystems where each read is a request.
_BLOCK = 4 << 20
#: Names that the mounts of other providers use, to what fsspec's filesystems call the same.
_COMMON = {"client_id": "username", "secret_id": "password"}


class FsspecHandler(Handler):
    """One filesystem of fsspec.

    Parameters
    ----------
    protocol
        Its name there.
    parameters
        Of the filesystem; `client_id` and `secret_id` are its user and password.
    """

    scheme = "fsspec"
    # A part is a piece of one file that is written front to back; there is no smallest one.
    limits = Limits(min_part=1 << 20, max_part=5 << 30, max_parts=1 << 20, max_put=5 << 30)

    def __init__(self, *, protocol: str | None = None, **parameters: Any) -> None:
        try:
            from fsspec.registry import available_protocols, get_filesystem_class
        except ImportError:
            raise MountError("fsspec: it is not installed: pip install 'apyfal[fsspec]'") from None
        if not protocol:
            raise MountError("fsspec: no protocol; expected protocol='sftp', 'ftp', 'webdav', 'memory', ...")
        if protocol not in available_protocols():
            raise MountError(f"fsspec: unknown protocol {protocol!r}{did_you_mean(protocol, available_protocols())}")
        given = {_COMMON.get(name, name): value for name, value in parameters.items() if value is not None}
        try:
            kind = get_filesystem_class(protocol)
        except ImportError as error:
            raise MountError(f"fsspec: protocol {protocol!r}: {error}") from error
        self._protocol = protocol
        self._make: Any = functools.partial(kind, **given, skip_instance_cache=True)
        self._kept: Any = None
        # Filesystems over an event loop take calls from any thread; others (paramiko's, ftplib's) have one connection.
        safe = protocol in ("memory", "file", "local") or getattr(kind, "async_impl", False)
        # Those read a range in one request, where an open file would read ahead; and all open files of the one in
        # memory share their position.
        self._ranged = protocol == "memory" or getattr(kind, "async_impl", False)
        self._guard: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if safe else threading.RLock()
        self._lock = threading.Lock()

    @property
    def _files(self) -> Any:
        """The filesystem, connected when it is first used."""
        with self._lock:
            if self._kept is None:
                with self.doing("connect to", self._protocol):
                    self._kept = self._make()
                    _send_at_once(self._kept)
            return self._kept

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        """Look a file or a directory up."""
        with self.doing("look up", path):
            files = self._files
            files.invalidate_cache()
            return self._info(path, files.info(_absolute(path)))

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to read a range, of a file that still looks like `version_of`."""
        info = self.describe(path)
        if info.is_directory:
            raise IsADirectory(f"cannot read {path!r}: it is a directory", path=path)
        if version_of is not None and version_of.etag is not None and version_of.etag != info.etag:
            raise ObjectChanged(f"{path!r} changed while it was being read", path=path)
        if self._ranged:
            end = info.size if stop is None or info.size is None else min(stop, info.size)
            return _BlockReader(self, info, start, end)
        with self.doing("read", path):
            file = self._files.open(_absolute(path), "rb")
            if start:
                file.seek(start)
        return _FileReader(self, file, info, None if stop is None else stop - start)

    # -- write --------------------------------------------------------------------------------------------------------
    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole file."""
        upload = self.upload(path, size=len(data), exclusive=exclusive)
        try:
            upload.write_part(1, data, checksum)
            return upload.complete(len(data), checksum)
        except BaseException:
            upload.abort()
            raise

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        """Begin to write a file under a temporary name."""
        return _FileUpload(self, path, exclusive)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Leave it to the engine: most filesystems of fsspec copy through this machine anyway, and not atomically."""
        raise UnsupportedByStore(f"{self._protocol}: no server-side copy")

    def block(self, path: str, start: int, stop: int | None) -> bytes:
        """Read a range in one call; for readers."""
        with self.doing("read", path):
            data: bytes = self._files.cat_file(_absolute(path), start=start, end=stop)
            return data

    def begin(self, path: str) -> IO[bytes]:
        """Open a file to be written; for uploads."""
        parent = path.rpartition("/")[0]
        with self.doing("write", path):
            files = self._files
            if parent and not files.exists(_absolute(parent)):
                bucket = path.partition("/")[0]
                if not files.exists(_absolute(bucket)):
                    raise ObjectNotFound(f"cannot write {path!r}: there is no {bucket!r}", path=path)
                files.makedirs(_absolute(parent), exist_ok=True)
            file: IO[bytes] = files.open(_absolute(path), "wb")
            return file

    def rename(self, temporary: str, path: str, *, exclusive: bool) -> ObjectInfo:
        """Give a written file its name; for uploads."""
        with self.doing("write", path):
            files = self._files
            files.invalidate_cache()
            if files.isdir(_absolute(path)):
                raise IsADirectory(f"cannot write {path!r}: it is a directory", path=path)
            there = files.exists(_absolute(path))
            if there and exclusive:
                raise ObjectExists(f"cannot write {path!r}: it exists", path=path)
            try:
                files.mv(_absolute(temporary), _absolute(path))
            except OSError:
                # SFTP (version 3) renames to no name that is taken.
                if not there:
                    raise
                files.rm_file(_absolute(path))
                files.mv(_absolute(temporary), _absolute(path))
        return self.describe(path)

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove a file."""
        if self.describe(path).is_directory:
            raise IsADirectory(f"cannot remove {path!r}: it is a directory", path=path)
        with self.doing("remove", path):
            self._files.rm_file(_absolute(path))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List what is in a directory."""
        with self.doing("list", path):
            files = self._files
            files.invalidate_cache()
            place = _absolute(path)
            if not files.isdir(place) and path.strip("/"):
                # Directories that nothing was put into are like prefixes that nothing has: empty.
                top = path.strip("/").partition("/")[0]
                if not files.exists(_absolute(top)):
                    raise ObjectNotFound(f"cannot list {path!r}: there is no {top!r}", path=path)
                return
            found = files.find(place, detail=True).values() if recursive else files.ls(place, detail=True)
        for entry in found:
            name = str(entry["name"]).strip("/")
            if not name.rpartition("/")[2].startswith(_TEMPORARY):
                yield self._info(name, entry)

    def makedirs(self, path: str) -> None:
        """Make a directory with its parents."""
        with self.doing("make", path):
            self._files.makedirs(_absolute(path), exist_ok=True)

    def close(self) -> None:
        """Let go of the filesystem; it connects again when it is used."""
        with self._lock:
            kept, self._kept = self._kept, None
        # fsspec has no way to close a filesystem; those with one connection (SSH) keep it under this name.
        closing = getattr(getattr(kept, "client", None), "close", None)
        if callable(closing):
            with contextlib.suppress(StorageError), self.doing("close", self._protocol):
                closing()

    @contextlib.contextmanager
    def doing(self, what: str, path: str) -> Iterator[None]:
        """Make storage errors of what the filesystem raises; let in one thread at a time where it needs that."""
        cancel = current_cancel()
        if cancel is not None:
            cancel.check()
        try:
            with self._guard:
                yield
        except AcceleratorException:
            raise
        except NotImplementedError as error:
            raise UnsupportedByStore(f"cannot {what} {path!r}: this filesystem cannot", path=path) from error
        except Exception as error:  # every filesystem has its own library, with its own errors
            raise _kind(error)(f"cannot {what} {path!r}: {_reason(error)}", path=path) from error

    def _info(self, path: str, entry: dict[str, Any]) -> ObjectInfo:
        if entry.get("type") == "directory":
            return ObjectInfo(path, None, is_directory=True)
        size = entry.get("size")
        stamp = entry.get("mtime") or entry.get("modified") or entry.get("created") or entry.get("modify")
        mtime = stamp.timestamp() if isinstance(stamp, datetime) else stamp if isinstance(stamp, int | float) else None
        etag = entry.get("ETag") or entry.get("etag")
        if etag is None and mtime is not None and size is not None and mtime % 1:
            # A time in whole seconds (SFTP, FTP) tells no two versions apart: there is no validator then.
            etag = f'"{size:x}-{mtime}"'
        return ObjectInfo(path, size, str(etag) if etag else None, mtime)


class _BlockReader(RangeReader):
    """A range, asked for block by block."""

    def __init__(self, handler: FsspecHandler, info: ObjectInfo, start: int, stop: int | None) -> None:
        self.info = info
        self._handler = handler
        self._position = start
        self._stop = stop
        self._block = memoryview(b"")

    def readinto(self, out: memoryview) -> int:
        """Copy from the current block; 0 at the end of the range or of the file."""
        if not self._block and (self._stop is None or self._position < self._stop):
            end = self._position + max(len(out), _BLOCK)
            end = end if self._stop is None else min(end, self._stop)
            self._block = memoryview(self._handler.block(self.info.path, self._position, end))
        count = min(len(out), len(self._block))
        out[:count] = self._block[:count]
        self._block = self._block[count:]
        self._position += count
        return count

    def close(self) -> None:
        """Forget the block."""
        self._block = memoryview(b"")


class _FileReader(RangeReader):
    """An open file, from where it stands."""

    def __init__(self, handler: FsspecHandler, file: Any, info: ObjectInfo, length: int | None) -> None:
        self.info = info
        self._handler = handler
        self._file = file
        self._left = length

    def readinto(self, out: memoryview) -> int:
        """Read once; 0 at the end of the range or of the file."""
        if self._left is not None:
            out = out[: self._left]
        if not len(out):
            return 0
        with self._handler.doing("read", self.info.path):
            if hasattr(self._file, "readinto"):
                count = int(self._file.readinto(out))
            else:
                data = self._file.read(len(out))
                count = len(data)
                out[:count] = data
        if self._left is not None:
            self._left -= count
        return count

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(StorageError), self._handler.doing("close", self.info.path):
            self._file.close()


class _FileUpload(Upload):
    """One file being written front to back, whatever the order in which its parts come."""

    def __init__(self, handler: FsspecHandler, path: str, exclusive: bool) -> None:
        self._handler = handler
        self._path = path
        self._exclusive = exclusive
        folder, slash, _ = path.rpartition("/")
        self._temporary = f"{folder}{slash}{_TEMPORARY}{uuid.uuid4().hex}"
        self._file: IO[bytes] | None = None
        self._turn = threading.Condition()
        self._next = 1
        self._written = 0
        self._broken = False
        self._done: ObjectInfo | None = None
        self._ended = False

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Write a part when its turn has come: the one before it is being written by another thread."""
        cancel = current_cancel()
        with self._turn:
            while number > self._next and not self._broken:
                self._turn.wait(0.1)
                if cancel is not None:
                    cancel.check()
            if number == 1:
                self._begin()
            elif number < self._next or self._broken:
                raise StorageError(
                    f"cannot write part {number} of {self._path!r}: a file is written front to back", path=self._path
                )
            self._append(data)
            self._turn.notify_all()

    def _begin(self) -> None:
        """Open the file, for the first time or again."""
        self._close()
        self._file, self._next, self._written, self._broken = self._handler.begin(self._temporary), 1, 0, False

    def _append(self, data: memoryview) -> None:
        self._broken = True  # where a failed write leaves the file, nobody knows
        if self._file is not None:
            with self._handler.doing("write", self._path):
                self._file.write(data)
        self._broken = False
        self._written += len(data)
        self._next += 1

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Give the file its name."""
        with self._turn:
            if self._done is not None:
                return self._done
            if self._file is None:
                self._begin()
            if self._written != size or self._broken:
                raise StorageError(
                    f"cannot write {self._path!r}: {self._written} bytes were sent of {size}", path=self._path
                )
            self._close()
            self._done = self._handler.rename(self._temporary, self._path, exclusive=self._exclusive)
            return self._done

    def abort(self) -> None:
        """Remove the temporary file."""
        with self._turn:
            if self._file is None or self._done is not None or self._ended:
                return
            self._ended = True
            with contextlib.suppress(StorageError):
                self._close()
            with contextlib.suppress(ObjectNotFound):
                self._handler.remove(self._temporary)

    def _close(self) -> None:
        if self._file is not None:
            with self._handler.doing("write", self._path):
                self._file.close()


def _send_at_once(files: Any) -> None:
    """Switch Nagle's algorithm off for SFTP: paramiko waits for the answer to every 32 KiB, 40 ms each time with it."""
    transport: Any = getattr(getattr(files, "client", None), "get_transport", None)
    if callable(transport):
        connection: Any = transport()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _kind(error: Exception) -> type[StorageError]:
    name = type(error).__name__.lower()
    if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ENOENT:
        return ObjectNotFound
    if "auth" in name:
        return AuthenticationError
    if isinstance(error, PermissionError):
        return AccessDenied
    if isinstance(error, FileExistsError):
        return ObjectExists
    if isinstance(error, IsADirectoryError):
        return IsADirectory
    if isinstance(error, TimeoutError):
        return TransferTimeout
    if isinstance(error, ConnectionError | EOFError) or "connection" in name:
        return StoreUnavailable
    return StorageError


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return text or type(error).__name__


def _absolute(path: str) -> str:
    return "/" + path.strip("/")
