"""Two Linux facilities that the allowed directories need and Python's `os` lacks: ``openat2`` and Landlock.

System call numbers are the same on every architecture since Linux 5.0 (``asm-generic/unistd.h``); structures and flags
are those of ``linux/openat2.h`` and ``linux/landlock.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

__all__ = ["RESOLVE_BENEATH", "RESOLVE_NO_MAGICLINKS", "have_openat2", "landlock_version", "openat2", "restrict_thread"]

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08

_OPENAT2 = 437
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# linux/landlock.h: thirteen rights in version 1, then REFER (2), TRUNCATE (3) and IOCTL_DEV (5).
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
# EXECUTE, MAKE_CHAR, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM and IOCTL_DEV: never needed below a shared directory.
_NEVER_GRANTED = 1 << 0 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 15

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make one system call and return its result. Raises `OSError` with its errno."""
    converted = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below the descriptor `directory` as ``openat2(2)`` does.

    Parameters
    ----------
    directory
        Descriptor of an open directory; ``O_PATH`` is sufficient. Borrowed.
    path
        The path to resolve, without NUL.
    flags, mode
        As in ``open(2)``; ``O_CLOEXEC`` is always added.
    resolve
        ``RESOLVE_*`` bits.

    Returns
    -------
    int
        A new descriptor, which the caller closes.

    Raises
    ------
    OSError
        Error of the kernel: ``EXDEV`` for an escape, ``ELOOP`` for a magic link or too many links, ``EAGAIN`` if a name
        was changed during resolution, ``ENOSYS`` before Linux 5.6.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(_OPENAT2, directory, os.fsencode(path), how, len(how))


def have_openat2() -> bool:
    """Return whether this kernel has ``openat2``, and no container policy blocks it."""
    try:
        descriptor = openat2(-100, "/", os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    os.close(descriptor)
    return True


def landlock_version() -> int:
    """Return the version of Landlock's ABI; 0 if the kernel does not have it or it is disabled."""
    try:
        return _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def restrict_thread(directories: Iterable[int]) -> bool:
    """Restrict the calling thread permanently to files below `directories`: to open, create and rename them.

    Other threads are not affected. The thread can also no longer gain privileges by ``execve``, because Landlock
    requires that.

    Parameters
    ----------
    directories
        Descriptors of the directories that remain accessible. Borrowed.

    Returns
    -------
    bool
        False if the kernel has no Landlock: nothing was restricted.
    """
    version = landlock_version()
    if version == 0:
        return False
    rights = _RIGHTS_BY_VERSION[max(known for known in _RIGHTS_BY_VERSION if known <= version)]
    attributes = struct.pack("=Q", rights)
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for directory in directories:
            rule = struct.pack("=Qi", rights & ~_NEVER_GRANTED, directory)
            _syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        if _libc.prctl(
            _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
        ):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True
