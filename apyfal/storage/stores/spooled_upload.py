"""An upload to stores that accept an object only in one request: a temporary file collects the parts."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Sequence

from apyfal.exceptions import StorageError
from apyfal.storage.handler import ObjectInfo, Upload
from apyfal.storage.local import atomic

__all__ = ["SpooledUpload"]

_WHAT = "write a temporary file for"


class SpooledUpload(Upload):
    """Collects parts in a temporary file without a name, which the system removes when this process ends at the latest.

    Memory use stays constant: at the end, the mapped file is sent.

    Parameters
    ----------
    shown
        Name of the object, for messages.
    require
        Called with the number of bytes so far; raises if that is more than the store accepts.
    send
        Called with the pieces of the object; writes it with one request.
    """

    def __init__(
        self, shown: str, require: Callable[[int], None], send: Callable[[Sequence[memoryview]], ObjectInfo]
    ) -> None:
        self._shown = shown
        self._require = require
        self._send = send
        self._lock = threading.Lock()
        with atomic.translating(_WHAT, shown):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by `abort`
        self._end = 0
        self._total = 0
        self._parts: dict[int, tuple[int, int]] = {}
        self._done: ObjectInfo | None = None

    def write_part(self, number: int, data: memoryview, checksum: bytes | None) -> None:
        """Append a part to the file, and keep its place by its number."""
        with self._lock:  # also against `abort`, after which the descriptor may belong to another file
            if self._file.closed:
                raise StorageError(f"the upload to {self._shown!r} was aborted", path=self._shown)
            _, before = self._parts.get(number, (0, 0))
            self._require(self._total - before + len(data))
            done = 0
            with atomic.translating(_WHAT, self._shown):
                while done < len(data):
                    done += os.pwrite(self._file.fileno(), data[done:], self._end + done)
            self._parts[number] = (self._end, len(data))
            self._end += len(data)
            self._total += len(data) - before

    def complete(self, size: int, checksum: bytes | None) -> ObjectInfo:
        """Send the object."""
        if self._done is None:
            parts = [self._parts[number] for number in sorted(self._parts)]
            if self._total != size:
                raise StorageError(
                    f"cannot write {self._shown!r}: {self._total} bytes were kept of {size}", path=self._shown
                )
            pieces: list[memoryview] = []
            if size:
                with atomic.translating(_WHAT, self._shown):
                    content = memoryview(mmap.mmap(self._file.fileno(), self._end, prot=mmap.PROT_READ))
                pieces = [content[start : start + length] for start, length in parts if length]
            self._done = self._send(pieces)
        self._file.close()
        return self._done

    def abort(self) -> None:
        """Discard the parts; nothing has been sent."""
        with self._lock:
            self._file.close()
