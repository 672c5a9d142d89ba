"""Resolves a path below a directory so that nothing outside can be reached, regardless of links and races.

Two resolvers with the same contract: `kernel_resolve` uses ``openat2(2)``; `walk_resolve` does the same step by step
with ``O_PATH`` descriptors, for kernels before 5.6 and containers that block the call. Both return an ``O_PATH``
descriptor, which refers to the object without opening it: no FIFO blocks and no device is accessed before its type is
known.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from apyfal.host.server.policy import linux_sandbox

__all__ = ["MAX_LINKS", "Resolver", "kernel_resolve", "walk_resolve"]

#: (directory descriptor, relative path) -> O_PATH descriptor; OSError EXDEV for an escape, ELOOP for too many links
Resolver = Callable[[int, str], int]

#: links followed in one resolution: the kernel's own limit (``MAXSYMLINKS`` in linux/namei.h)
MAX_LINKS = 40

# openat2 fails with EAGAIN if a name is exchanged during the resolution; each retry is a new resolution.
_MAX_RETRIES = 32


def kernel_resolve(directory: int, path: str) -> int:
    """Resolve by ``openat2`` with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS."""
    for _ in range(_MAX_RETRIES):
        try:
            return linux_sandbox.openat2(
                directory, path, os.O_PATH, linux_sandbox.RESOLVE_BENEATH | linux_sandbox.RESOLVE_NO_MAGICLINKS
            )
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
    return walk_resolve(directory, path)  # it never has to restart: it holds a descriptor of each directory on the way


def walk_resolve(directory: int, path: str) -> int:
    """Resolve one component at a time. ``..`` returns to the descriptor it came from: no rename can divert it."""
    held = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)]
    try:
        pending = _components(path)
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                _require_directory(held[-1])
                if len(held) == 1:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                os.close(held.pop())
                continue
            if name == ".":
                _require_directory(held[-1])
                continue
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                held.append(found)
                continue
            try:
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            pending += _components(target)
        return held.pop()
    finally:
        for descriptor in held:
            os.close(descriptor)


def _components(path: str) -> list[str]:
    """Split `path` into names, last first. A trailing slash becomes ``.``, because it requires a directory."""
    if path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    names = [name for name in path.split("/") if name]
    if path.endswith("/"):
        names.append(".")
    names.reverse()
    return names


def _require_directory(descriptor: int) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
