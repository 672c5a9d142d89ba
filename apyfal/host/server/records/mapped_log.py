"""A log in mapped memory: a record survives the process as soon as it is appended, without a system call.

The kernel writes the pages of a shared mapping to the file even if the process is killed, so a complete record survives
SIGKILL. A power failure can lose it, as it can lose the last commits of the journal.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from apyfal.exceptions import ConfigurationError
from apyfal.log import get_logger

__all__ = ["MappedLog", "open_log"]

_NBYTES: Final = 4 << 20
#: magic, and a number that changes whenever the log is cleared: earlier records no longer count
_HEADER = struct.Struct("=8sQ")
_MAGIC = b"apyfal-1"
#: bytes of the record, and its checksum, which covers the header's number
_RECORD = struct.Struct("=II")
_FIELD = struct.Struct("=I")
#: structures by the number of fields: that number, and the size of each field
_SIZES = [struct.Struct(f"={count + 1}I") for count in range(8)]


class MappedLog:
    """Records, each a sequence of byte strings, in a file of fixed size. Used from one thread.

    Parameters
    ----------
    path
        The file; created with mode 0600, with all its disk space allocated.

    Raises
    ------
    OSError
        The disk has no room for it, or another process uses it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_new = not os.fstat(descriptor).st_size
            try:
                os.posix_fallocate(descriptor, 0, _NBYTES)  # otherwise a full disk would kill the process with SIGBUS
            except OSError:
                if is_new:  # a file that is not empty may have records
                    os.ftruncate(descriptor, 0)
                raise
            self._memory = mmap.mmap(descriptor, _NBYTES)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor  # holds the lock
        magic, self._number = _HEADER.unpack_from(self._memory)
        self._end = _HEADER.size
        if magic != _MAGIC:
            self.clear()

    def records(self) -> Iterator[list[bytes]]:
        """Yield all complete records, oldest first. Later records are appended after the last one."""
        end = _HEADER.size
        while (start := end + _RECORD.size) <= _NBYTES:
            nbytes, checksum = _RECORD.unpack_from(self._memory, end)
            if not nbytes or start + nbytes > _NBYTES:
                break
            content = self._memory[start : start + nbytes]
            if zlib.crc32(content, self._number & 0xFFFFFFFF) != checksum:
                break
            end = start + nbytes
            yield _fields(content)
        self._end = end  # not earlier: if a reader stops half-way, the rest must not be overwritten

    def append(self, fields: Sequence[bytes]) -> bool:
        """Append a record of at most seven fields; return whether there was room for it."""
        count = len(fields)
        content = b"".join([_SIZES[count].pack(count, *map(len, fields)), *fields])
        start = self._end + _RECORD.size
        if start + len(content) > _NBYTES:
            return False
        self._memory[start : start + len(content)] = content
        _RECORD.pack_into(self._memory, self._end, len(content), zlib.crc32(content, self._number & 0xFFFFFFFF))
        self._end = start + len(content)
        return True

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was appended since `clear`."""
        return self._end == _HEADER.size

    def clear(self) -> None:
        """Remove all records."""
        self._number = secrets.randbits(64)
        _HEADER.pack_into(self._memory, 0, _MAGIC, self._number)
        self._end = _HEADER.size

    def close(self) -> None:
        """Close the file."""
        self._memory.close()
        os.close(self._descriptor)


def open_log(path: Path) -> MappedLog | None:
    """Return the log of the journal; ``None``: there is no room for one, and each job then costs commits.

    Raises
    ------
    ConfigurationError
        There is a log that cannot be used. Its records may be in no other file; if it were read later, it would replace
        newer records.
    """
    try:
        return MappedLog(path)
    except OSError as error:
        try:
            exists = path.stat().st_size > 0
        except OSError as unknown:
            exists = not isinstance(unknown, FileNotFoundError)
        if exists:
            advice = (
                "end the other daemon" if isinstance(error, BlockingIOError) else "mend that, or move the file away"
            )
            raise ConfigurationError(
                f"{path}: the journal's log cannot be used, and may have records of jobs: {error}; {advice}"
            ) from error
        get_logger().warning("%s cannot be used, so that small jobs take longer: %s", path, error)
        return None


def _fields(content: bytes) -> list[bytes]:
    count = _FIELD.unpack_from(content)[0]
    start = _FIELD.size * (count + 1)
    fields = []
    for number in range(1, count + 1):
        size = _FIELD.unpack_from(content, _FIELD.size * number)[0]
        fields.append(content[start : start + size])
        start += size
    return fields
