"""Copies from one local file to another, by the kernel if it can.

In this order: a reflink (FICLONE: shared blocks, no data moved), copy_file_range(2) over the parts that hold data
(holes stay holes), and else reading and writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from apyfal.exceptions import StorageError
from apyfal.storage.local import atomic, direct_io

__all__ = ["copy_file"]

_FICLONE = 0x4004_9409  # <linux/fs.h>: _IOW(0x94, 9, int)
_STEP = 64 << 20  # bytes between two progress reports, and the most that one system call is asked for
_BUFFER = 4 << 20

# what filesystems say that cannot do it, or not between these two
_CANNOT = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)


def copy_file(
    source: str,
    destination: str,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    mtime_ns: int | None = None,
) -> None:
    """Copy a local file's content and permission bits; the destination appears whole or not at all.

    Parameters
    ----------
    source, destination
        Paths of files; symbolic links are followed.
    progress
        Called with the bytes copied so far and the total (``None`` for a pipe).
    mtime_ns
        Time of modification of the copy, in nanoseconds since the epoch; ``None``: now.

    Raises
    ------
    StorageError
        Of the matching kind; also when both are the same file.
    """
    descriptor = atomic.open_to_read(source)
    try:
        status = os.fstat(descriptor)
        regular = stat.S_ISREG(status.st_mode)
        _refuse_same(status, source, destination)
        writer = atomic.LocalWriter(destination, mode=stat.S_IMODE(status.st_mode) if regular else None)
        try:
            if regular and not writer.direct:
                with atomic.translating("write", destination):
                    direct_io.require_room(writer.fd, status.st_blocks * 512)
            total = status.st_size if regular else None
            with atomic.translating(f"copy to {destination!r}", source):
                if regular and not writer.direct and direct_io.says_its_size(descriptor, status):
                    for done in _by_kernel(descriptor, writer.fd, status.st_size):
                        if progress:
                            progress(done, total)
                else:
                    for done in _by_hand(descriptor, writer.fd):
                        if progress:
                            progress(done, total)
            writer.commit(mtime_ns)
        finally:
            writer.abort()
    finally:
        os.close(descriptor)


def _refuse_same(status: os.stat_result, source: str, destination: str) -> None:
    if stat.S_ISCHR(status.st_mode):
        return
    try:
        other = os.stat(destination)
    except OSError:
        return
    if os.path.samestat(status, other):
        raise StorageError(f"cannot copy: {source!r} and {destination!r} are the same file", path=source)


def _by_kernel(source: int, destination: int, size: int) -> Iterator[int]:
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    else:
        yield size
        return
    position = 0
    while position < size and (start := _next_data(source, position)) is not None:
        position = min(os.lseek(source, start, os.SEEK_HOLE), size)  # growth during the copy is not part of it
        while start < position:
            copied = _copy_range(source, destination, start, min(position - start, _STEP))
            if copied == 0:
                raise OSError(0, f"it was truncated to {start} of {size} bytes meanwhile")
            start += copied
            yield start
    os.ftruncate(destination, size)
    yield size


def _next_data(descriptor: int, position: int) -> int | None:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole, or nothing, from here to the end
            return None
        raise


def _copy_range(source: int, destination: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(source, destination, count, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    data = memoryview(os.pread(source, min(count, _BUFFER), offset))
    direct_io.write_all(destination, data, offset)
    return len(data)


def _by_hand(source: int, destination: int) -> Iterator[int]:
    buffer = memoryview(bytearray(_BUFFER))
    done = 0
    while count := direct_io.read_into(source, buffer):
        direct_io.write_all(destination, buffer[:count])
        done += count
        yield done
