"""Any filesystem that fsspec knows: SFTP, FTP, WebDAV, SMB, HDFS, memory, ...

``provider = fsspec`` with ``protocol = sftp`` and the parameters of that filesystem (``host``, ``username``, ...). What
fsspec cannot do is done without: a filesystem hands out `bytes`, which are copied once; versions are told apart by what
`ukey`, size and modification time say; there are no checksums. An object appears whole: it is written under a temporary
name beside its own and renamed.
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

from apyfal.exceptions import (
    IsADirectory,
    NotADirectory,
    ObjectChanged,
    ObjectNotFound,
    StorageError,
    UnsupportedByStore,
)
from apyfal.storage.handler import ObjectInfo, RangeReader, Upload
from apyfal.storage.http.answers import understood
from apyfal.storage.stores.fsspec.client import FsspecFiles, absolute
from apyfal.storage.stores.fsspec.files import TEMPORARY, BlockReader, FileReader, FileUpload
from apyfal.storage.stores.fsspec.quirks import (
    there,
)

__all__ = ["FsspecHandler"]

#: Largest depth of directories in a listing: more than a path on a disk can have.
_DEEPEST = 2048


class FsspecHandler(FsspecFiles):
    """One filesystem of fsspec; its parameters are those of `FsspecFiles`."""

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to read a range, of a file that still looks like `version_of`."""
        info = self.describe(path)
        if info.is_directory:
            raise IsADirectory(f"cannot read {path!r}: it is a directory", path=path)
        if version_of is not None and version_of.etag is not None and version_of.etag != info.etag:
            raise ObjectChanged(f"{path!r} changed while it was being read", path=path)
        if self._kind.ranged:
            end = info.size if stop is None or info.size is None else min(stop, info.size)
            return BlockReader(self, info, start, end)
        with self.doing("read", path):
            file = self._files.open(absolute(path), "rb")
            if start:
                file.seek(start)
        return FileReader(self, file, info, None if stop is None else stop - start)

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
        return FileUpload(self, path, exclusive)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Leave it to the engine: most filesystems of fsspec copy through this machine anyway, and not atomically."""
        raise UnsupportedByStore(f"{self._protocol}: no server-side copy")

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List what is in a directory."""
        waiting = [path]
        while waiting:
            # fsspec's find would leave out directories that it cannot list
            folder = waiting.pop()
            if folder.count("/") > path.count("/") + _DEEPEST:
                raise StorageError(f"cannot list {path!r}: it is more than {_DEEPEST} directories deep", path=path)
            for info in self._in_directory(folder):
                if recursive and info.is_directory:
                    waiting.append(info.path)
                elif not info.path.rpartition("/")[2].startswith(TEMPORARY):
                    yield info

    def _in_directory(self, path: str) -> builtins.list[ObjectInfo]:
        own = path.strip("/")
        with self.doing("list", path):
            files = self._files
            files.invalidate_cache()
            place = absolute(path)
            # fsspec's isdir returns False for a broken connection, too
            if own and not (there(files, place) and files.info(place)["type"] == "directory"):
                # Directories that nothing was put into are like prefixes that nothing has: empty.
                top = own.partition("/")[0]
                if not there(files, absolute(top)):
                    raise ObjectNotFound(f"cannot list {path!r}: there is no {top!r}", path=path)
                return []
            found = files.ls(place, detail=True)
        with understood("list", path):
            listed = {str(entry["name"]).strip("/"): entry for entry in found}
            infos = [self._info(name, entry) for name, entry in listed.items() if name != own]  # some list it in itself
        for info in infos:
            parent, _, name = info.path.rpartition("/")
            if parent != own or not name:
                raise StorageError(
                    f"cannot list {path!r}: the store listed {info.path!r}, which is not in it", path=path
                )
        return infos

    def makedirs(self, path: str) -> None:
        """Make a directory with its parents."""
        with self.doing("make", path):
            self._files.makedirs(absolute(path), exist_ok=True)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        if not self.describe(path).is_directory:
            raise NotADirectory(f"cannot remove the directory {path!r}: it is a file", path=path)
        with self.doing("remove", path):
            self._files.rmdir(absolute(path))

    def close(self) -> None:
        """Let go of the filesystem; it connects again when it is used."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            with contextlib.suppress(StorageError), self.doing("close", self._protocol):
                self._kind.disconnect(kept)
