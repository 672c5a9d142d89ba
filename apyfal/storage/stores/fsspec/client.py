"""A filesystem of fsspec, connected when it is used: what the handler and the files that it opens both need."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO, Any

from apyfal.config.ini import is_secret
from apyfal.exceptions import (
    AcceleratorException,
    IsADirectory,
    MountError,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    TransferTimeout,
    UnsupportedByStore,
    did_you_mean,
)
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.handler import Handler, Limits, ObjectInfo
from apyfal.storage.stores.fsspec.quirks import (
    checked_arguments,
    error_class,
    kind_of,
    modified,
    there,
    without_ambient,
)

__all__ = ["FsspecFiles", "absolute"]


class FsspecFiles(Handler):
    """One filesystem of fsspec.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine: keys, agents, configuration files, variables. Without it
        only the protocols can be used of which it is known what their libraries would look at.
    protocol
        Its name there.
    parameters
        Of the filesystem; `client_id` and `secret_id` are its user and password, `endpoint_url` is WebDAV's base URL.
    """

    scheme = "fsspec"
    # A part is a piece of one file that is written front to back; there is no smallest one.
    limits = Limits(min_part=1 << 20, max_part=5 << 30, max_parts=1 << 20, max_put=5 << 30)

    def __init__(self, ambient: bool = True, /, *, protocol: str | None = None, **parameters: Any) -> None:
        try:
            from fsspec.registry import available_protocols, get_filesystem_class, registry
        except ImportError:
            raise MountError("fsspec: it is not installed: pip install 'apyfal[fsspec]'") from None
        if not protocol:
            raise MountError("fsspec: no protocol; expected protocol='sftp', 'ftp', 'webdav', 'memory', ...")
        known = {*available_protocols(), *registry}  # those of the program are in the registry only
        if protocol not in known:
            raise MountError(f"fsspec: unknown protocol {protocol!r}{did_you_mean(protocol, known)}")
        try:
            self._filesystem: Any = get_filesystem_class(protocol)
        except ImportError as error:
            raise MountError(f"fsspec: protocol {protocol!r}: {error}") from error
        self._protocol = protocol
        self._kind = kind_of(protocol, self._filesystem)
        self._arguments = checked_arguments(protocol, self._filesystem, self._kind, parameters)
        if not ambient:
            self._arguments = without_ambient(protocol, self._kind, self._arguments)
            # fsspec completes the arguments of a protocol from its configuration files and FSSPEC_* variables.
            self._filesystem = type(self._filesystem.__name__, (self._filesystem,), {"protocol": "apyfal-explicit"})
        self._secrets = [str(value) for name, value in parameters.items() if value and is_secret(name)]
        self._kept: Any = None
        self._guard: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if self._kind.threads else threading.RLock()
        )
        self._lock = threading.Lock()

    @property
    def _files(self) -> Any:
        """The filesystem, connected when it is first used."""
        with self._lock:
            if self._kept is None:
                with self.doing("connect to", self._protocol):
                    self._kept = self._filesystem(**self._arguments, skip_instance_cache=True)
                    self._kind.connected(self._kept)
            return self._kept

    def describe(self, path: str) -> ObjectInfo:
        """Look a file or a directory up."""
        with self.doing("look up", path):
            files = self._files
            files.invalidate_cache()
            return self._info(path, files.info(absolute(path)))

    def block(self, path: str, start: int, stop: int | None) -> bytes:
        """Read a range in one call; for readers."""
        with self.doing("read", path):
            data: bytes = self._files.cat_file(absolute(path), start=start, end=stop)
            return data

    def begin(self, path: str) -> IO[bytes]:
        """Open a file to be written; for uploads."""
        parent = path.rpartition("/")[0]
        with self.doing("write", path):
            files = self._files
            if parent and not there(files, absolute(parent)):
                bucket = path.partition("/")[0]
                if not there(files, absolute(bucket)):
                    raise ObjectNotFound(f"cannot write {path!r}: there is no {bucket!r}", path=path)
                files.makedirs(absolute(parent), exist_ok=True)
            file: IO[bytes] = files.open(absolute(path), "wb", self._kind.block_size)
            return file

    def rename(self, temporary: str, path: str, *, exclusive: bool) -> ObjectInfo:
        """Give a written file its name; for uploads."""
        with self.doing("write", path):
            files = self._files
            files.invalidate_cache()
            if files.isdir(absolute(path)):
                raise IsADirectory(f"cannot write {path!r}: it is a directory", path=path)
            self._kind.rename(files, absolute(temporary), absolute(path), exclusive)
        return self.describe(path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        if self.describe(path).is_directory:
            raise IsADirectory(f"cannot remove {path!r}: it is a directory", path=path)
        with self.doing("remove", path):
            self._files.rm_file(absolute(path))

    @contextlib.contextmanager
    def doing(self, what: str, path: str) -> Iterator[None]:
        """Make storage errors of what the filesystem raises; let in one thread at a time where it needs that."""
        cancel = current_cancel()
        if cancel is not None:
            cancel.check()
        kept = self._kept
        try:
            with self._guard:
                yield
        except AcceleratorException:
            raise
        except NotImplementedError as error:
            raise UnsupportedByStore(f"cannot {what} {path!r}: this filesystem cannot", path=path) from error
        except Exception as error:  # every filesystem has its own library, with its own errors
            kind = self._kind_of(error, kept, path)
            text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
            shown = text
            for secret in self._secrets:
                shown = shown.replace(secret, "***")
            raise kind(f"cannot {what} {path!r}: {shown[:200]}", path=path) from (error if shown == text else None)

    def _kind_of(self, error: Exception, kept: Any, path: str) -> type[StorageError]:
        """Choose the storage error for a library's; forget the one connection that was in use if it is lost."""
        kind = error_class(error, path)
        if self._kind.threads or kept is None:
            return kind
        if kind is StorageError and not self._kind.alive(kept):
            kind = StoreUnavailable
        if kind in (StoreUnavailable, TransferTimeout):
            with self._lock:
                if self._kept is kept:
                    self._kept = None  # the next attempt makes another one
            with contextlib.suppress(Exception):  # of whatever library: it was broken before
                self._kind.disconnect(kept)
        return kind

    def _info(self, path: str, entry: dict[str, Any]) -> ObjectInfo:
        if entry.get("type") == "directory":
            return ObjectInfo(path, None, is_directory=True)
        size, mtime = entry.get("size"), modified(entry)
        etag = entry.get("ETag") or entry.get("etag")
        if etag is None and mtime is not None and size is not None and mtime % 1:
            # A time in whole seconds (SFTP, FTP) tells no two versions apart: there is no validator then.
            etag = f'"{size:x}-{mtime}"'
        return ObjectInfo(path, size, str(etag) if etag else None, mtime)


def absolute(path: str) -> str:
    """Return a path as filesystems take it."""
    return "/" + path.strip("/")
