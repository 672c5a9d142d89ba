"""How bytes get from memory to an open local file and back."""

from __future__ import annotations

import errno
import os

__all__ = [
    "LARGE",
    "open_around_cache",
    "read_into",
    "rename_to_new",
    "require_room",
    "reserve",
    "says_its_size",
    "write_all",
    "write_around_cache",
]

# From here on a file of known size is reserved at once and written around the page cache. On a virtual machine's ext4
# disk, 512 MiB with fsync took 0.26 s and 0.03 s of CPU so, and 0.34 s and 0.12 s (up to 1.0 and 0.8 with little
# memory free) through the cache. Reading so gains nothing: cold files are as slow, cached ones six times as slow.
LARGE = 64 << 20
_DIRECT_AT_LEAST = 1 << 20
_BLOCK = 4096
_KEEP_SIZE = 1  # <linux/falloc.h>: FALLOC_FL_KEEP_SIZE
_NO_REPLACE = 1  # <linux/fs.h>: RENAME_NOREPLACE

# Linux moves at most this many bytes in one call (read(2)): a page less than 2 GiB
_MOST_AT_ONCE = 0x7FFF_F000


def says_its_size(descriptor: int, status: os.stat_result) -> bool:
    """Whether a regular file's size is that of its content; files below /proc and /sys say 0 or 4096 whatever it is."""
    if status.st_blocks or status.st_size > 4096:
        return True
    return len(os.pread(descriptor, 4097, 0)) == status.st_size


def read_into(descriptor: int, out: memoryview, offset: int | None = None) -> int:
    """Read once, at `offset` or at the descriptor's own position, straight into `out`. 0 only at the end."""
    out = out[:_MOST_AT_ONCE]
    return os.readv(descriptor, [out]) if offset is None else os.preadv(descriptor, [out], offset)


def write_all(descriptor: int, data: memoryview, offset: int | None = None) -> None:
    """Write all of `data`, at `offset` or at the descriptor's own position."""
    done = 0
    while done < len(data):
        piece = data[done : done + _MOST_AT_ONCE]
        if offset is None:
            done += os.write(descriptor, piece)
        else:
            done += os.pwrite(descriptor, piece, offset + done)


def open_around_cache(descriptor: int) -> int:
    """Open the file of a descriptor once more, to be written by O_DIRECT; -1 if that is not possible."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1


def write_around_cache(descriptor: int, data: memoryview, offset: int) -> int:
    """Write the front of `data` at `offset`, as far as alignment and filesystem allow.

    Parameters
    ----------
    descriptor
        Of `open_around_cache`.
    data, offset
        What and where; nothing is done unless both begin at a multiple of 4096 (address and byte).

    Returns
    -------
    int
        Bytes written. The rest is to be written in the usual way.
    """
    count = len(data) // _BLOCK * _BLOCK
    if count < _DIRECT_AT_LEAST or offset % _BLOCK or _address_of(data) % _BLOCK:
        return 0
    done = 0
    try:
        while done < count:
            done += os.pwrite(descriptor, data[done : min(count, done + _MOST_AT_ONCE)], offset + done)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is how a filesystem says that it cannot, or not from here
            raise
    return done


def require_room(descriptor: int, size: int) -> None:
    """Raise `OSError` (ENOSPC) if a filesystem has no room for `size` bytes."""
    room = os.fstatvfs(descriptor)
    if room.f_bavail * room.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def reserve(descriptor: int, size: int) -> None:
    """Reserve space for `size` bytes without changing the file's size, if the filesystem can.

    Raises
    ------
    OSError
        ENOSPC, EDQUOT or EFBIG, when there is no room for so much.
    """
    import ctypes  # os.posix_fallocate would change the size, and write zeros where the filesystem cannot reserve

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(descriptor, _KEEP_SIZE, 0, size) == -1:
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(code, os.strerror(code))


def rename_to_new(directory: int, name: str, new_name: str) -> bool:
    """Rename a file unless there is something of the new name, where kernel and filesystem can do that at once.

    Parameters
    ----------
    directory
        Descriptor of the directory of both names.

    Returns
    -------
    bool
        ``False`` if they cannot.

    Raises
    ------
    FileExistsError, OSError
        As renameat2(2).
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):  # glibc has it since 2.28
        return False
    both = os.fsencode(name), os.fsencode(new_name)
    library.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if library.renameat2(directory, both[0], directory, both[1], _NO_REPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):  # of the filesystem, of the kernel
        return False
    raise OSError(code, os.strerror(code), new_name)


def _address_of(data: memoryview) -> int:
    import numpy as np

    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return address
