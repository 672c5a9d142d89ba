"""Files of fsspec's filesystems as the transfer engine reads and writes them."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
from typing import IO, Any

from apyfal.exceptions import ObjectNotFound, StorageError
from apyfal.storage.flow.cancel import current_cancel, shielded
from apyfal.storage.handler import ObjectInfo, RangeReader, Upload
from apyfal.storage.stores.fsspec.client import FsspecFiles
from apyfal.storage.stores.fsspec.quirks import BLOCK

__all__ = ["TEMPORARY", "BlockReader", "FileReader", "FileUpload"]

#: How the names of files begin that are being written.
TEMPORARY = ".apyfal-"


class BlockReader(RangeReader):
    """A range, asked for block by block."""

    def __init__(self, files: FsspecFiles, info: ObjectInfo, start: int, stop: int | None) -> None:
        self.info = info
        self._files = files
        self._position = start
        self._stop = stop
        self._block = memoryview(b"")

    def readinto(self, out: memoryview) -> int:
        """Copy from the current block; 0 at the end of the range or of the file."""
        if not self._block and (self._stop is None or self._position < self._stop):
            end = self._position + max(len(out), BLOCK)
            end = end if self._stop is None else min(end, self._stop)
            self._block = memoryview(self._files.block(self.info.path, self._position, end))
            if end is not None and len(self._block) > end - self._position:
                asked = f"{end - self._position} bytes from byte {self._position} on"
                raise StorageError(
                    f"cannot read {self.info.path!r}: the store sent {len(self._block)} bytes for {asked}",
                    path=self.info.path,
                )
        count = min(len(out), len(self._block))
        out[:count] = self._block[:count]
        self._block = self._block[count:]
        self._position += count
        return count

    def close(self) -> None:
        """Forget the block."""
        self._block = memoryview(b"")


class FileReader(RangeReader):
    """An open file, from where it stands."""

    def __init__(self, files: FsspecFiles, file: Any, info: ObjectInfo, length: int | None) -> None:
        self.info = info
        self._files = files
        self._file = file
        self._left = length

    def readinto(self, out: memoryview) -> int:
        """Read once; 0 at the end of the range or of the file."""
        if self._left is not None:
            out = out[: self._left]
        if not len(out):
            return 0
        with self._files.doing("read", self.info.path):
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
        with contextlib.suppress(StorageError), self._files.doing("close", self.info.path):
            self._file.close()


class FileUpload(Upload):
    """One file being written front to back, whatever the order in which its parts come."""

    def __init__(self, files: FsspecFiles, path: str, exclusive: bool) -> None:
        self._files = files
        self._path = path
        self._exclusive = exclusive
        folder, slash, _ = path.rpartition("/")
        self._temporary = f"{folder}{slash}{TEMPORARY}{uuid.uuid4().hex}"
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
        self._file, self._next, self._written, self._broken = self._files.begin(self._temporary), 1, 0, False

    def _append(self, data: memoryview) -> None:
        self._broken = True  # where a failed write leaves the file, nobody knows
        if self._file is not None:
            with self._files.doing("write", self._path):
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
            self._done = self._files.rename(self._temporary, self._path, exclusive=self._exclusive)
            return self._done

    def abort(self) -> None:
        """Remove the temporary file."""
        with self._turn:
            if self._file is None or self._done is not None or self._ended:
                return
            self._ended = True
            if isinstance(self._file, tempfile.SpooledTemporaryFile):  # what would send all of it on being closed
                tempfile.SpooledTemporaryFile.close(self._file)
                return
            with shielded():
                with contextlib.suppress(StorageError):
                    self._close()
                with contextlib.suppress(ObjectNotFound):
                    self._files.remove(self._temporary)

    def _close(self) -> None:
        if self._file is not None:
            with self._files.doing("write", self._path):
                self._file.close()
