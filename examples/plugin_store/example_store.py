"""A whole storage provider: ``shelf://bucket/key``, where a bucket is a directory and an object a file in it.

A key is one file name, percent-encoded, so that there are no directories, as in an object store. A real provider asks a
server instead; what the transfer engine wants of it is the same.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from apyfal.exceptions import MountError, ObjectChanged, ObjectExists, ObjectNotFound
from apyfal.storage.handler import Handler, Limits, ObjectInfo, RangeReader, Upload


class ShelfHandler(Handler):
    """One directory of buckets.

    Parameters
    ----------
    endpoint_url
        The directory.
    """

    scheme = "shelf"
    limits = Limits(min_part=1 << 20)

    def __init__(self, *, endpoint_url: str | None = None) -> None:
        if endpoint_url is None:
            raise MountError("shelf: no directory; expected endpoint_url='/a/directory'")
        self.root = Path(endpoint_url)

    # -- read ---------------------------------------------------------------------------------------------------------
    def describe(self, path: str) -> ObjectInfo:
        """Look an object or a bucket up."""
        try:
            found = os.stat(self.file(path))
        except FileNotFoundError:
            raise ObjectNotFound(f"cannot look up {path!r}: there is no such object", path=path) from None
        if "/" not in path.rstrip("/"):
            return ObjectInfo(path, None, is_directory=True)
        return ObjectInfo(path, found.st_size, f'"{found.st_ino:x}-{found.st_mtime_ns:x}"', found.st_mtime)

    def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
        """Begin to read a range of one version."""
        info = self.describe(path)
        if version_of is not None and version_of.etag != info.etag:
            raise ObjectChanged(f"cannot read {path!r}: it has changed", path=path)
        return ShelfReader(self.file(path), info, start, stop)

    # -- write --------------------------------------------------------------------------------------------------------
    def put(self, path: str, data: memoryview, checksum: bytes | None, *, exclusive: bool = False) -> ObjectInfo:
        """Write a whole object."""
        upload = self.upload(path, size=len(data), exclusive=exclusive)
        upload.write_part(1, data, checksum)
        return upload.complete(len(data), checksum)

    def upload(self, path: str, *, size: int | None, exclusive: bool = False) -> Upload:
        """Begin an object in parts."""
        if not self.file(path).parent.is_dir():
            raise ObjectNotFound(f"cannot write {path!r}: there is no such bucket", path=path)
        return ShelfUpload(self, path, exclusive)

    def copy(self, source: ObjectInfo, destination: str) -> ObjectInfo:
        """Copy inside the store."""
        if self.describe(source.path).etag != source.etag:
            raise ObjectChanged(f"cannot copy {source.path!r}: it has changed", path=source.path)
        target = self.file(destination)
        with (
            tempfile.NamedTemporaryFile(prefix=" ", dir=target.parent, delete=False) as copied,
            self.file(source.path).open("rb") as file,
        ):
            shutil.copyfileobj(file, copied)
        os.replace(copied.name, target)
        return self.describe(destination)

    # -- names --------------------------------------------------------------------------------------------------------
    def remove(self, path: str) -> None:
        """Remove an object."""
        self.describe(path)
        self.file(path).unlink()

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        """List objects whose names begin like this, and what stands for directories among them."""
        bucket, _, prefix = path.partition("/")
        if not bucket:
            yield from (ObjectInfo(place.name, None, is_directory=True) for place in self.root.iterdir())
            return
        self.describe(bucket)
        prefix += "" if not prefix or prefix.endswith("/") else "/"
        folders = set()
        for key in sorted(unquote(name) for name in os.listdir(self.root / bucket) if name[0] != " "):
            rest = key[len(prefix) :]
            if key.startswith(prefix) and (recursive or "/" not in rest):
                yield self.describe(f"{bucket}/{key}")
            elif key.startswith(prefix) and (folder := rest.partition("/")[0]) not in folders:
                folders.add(folder)
                yield ObjectInfo(f"{bucket}/{prefix}{folder}", None, is_directory=True)

    def makedirs(self, path: str) -> None:
        """Make a bucket; what is in one needs no directories."""
        (self.root / path.partition("/")[0]).mkdir(exist_ok=True)

    def file(self, path: str) -> Path:
        """Find the file of an object, or the directory of a bucket."""
        bucket, _, key = path.partition("/")
        return self.root / bucket / quote(key, safe=" ").replace(" ", "%20")


class ShelfReader(RangeReader):
    """A range of a file, read to where it is wanted."""

    def __init__(self, file: Path, info: ObjectInfo, start: int, stop: int | None) -> None:
        self.info = info
        self.file = file.open("rb", buffering=0)
        self.file.seek(start)
        size = info.size or 0
        self.left = max(0, min(size, size if stop is None else stop) - start)

    def readinto(self, out: memoryview) -> int:
        """Read once."""
        count = self.file.readinto(out[: self.left])
        self.left -= count
        return count

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ShelfUpload(Upload):
    """The parts of an object, a file each until the last has come."""

    def __init__(self, handler: ShelfHandler, path: str, exclusive: bool) -> None:
        self.handler = handler
        self.path = path
        self.exclusive = exclusive
        # Names with a blank are no objects.
        self.parts = Path(tempfile.mkdtemp(prefix=" ", dir=handler.file(path).parent))

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Write one part, again if it has to be."""
        (self.parts / str(number)).write_bytes(data)

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Put the parts together, and show them at once."""
        if self.parts.is_dir():  # else it was complete before
            with tempfile.NamedTemporaryFile(dir=self.parts, delete=False) as whole:
                for part in sorted((file for file in self.parts.iterdir() if file.name.isdigit()), key=number_of):
                    with part.open("rb") as one:
                        shutil.copyfileobj(one, whole)
            target = self.handler.file(self.path)
            try:
                os.link(whole.name, target) if self.exclusive else os.replace(whole.name, target)
            except FileExistsError:
                self.abort()
                raise ObjectExists(f"cannot write {self.path!r}: it exists", path=self.path) from None
            self.abort()
        return self.handler.describe(self.path)

    def abort(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.parts, ignore_errors=True)


def number_of(part: Path) -> int:
    """Give the number that a part's file is named by."""
    return int(part.name)
