"""Run a write again and again, each time killed one step later: at the entry of a system call, then at its exit.

Run as a program, it prints one JSON line: for each run, what stood under the destination's name and what else in the
directory. The stepping is ptrace(2)'s PTRACE_SYSCALL, the same on every architecture, as no register is looked at.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

OLD = b"old" * 1000
NEW = b"new" * 100_000
NAME = "destination"

# <sys/ptrace.h>
_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_EXITKILL = 0x100000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, process: int, data: int = 0) -> None:
    if _libc.ptrace(request, process, None, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace({request}) failed")


def _traced(write: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            write()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise OSError(errno.EPERM, "the child could not be traced")
    _ptrace(_SETOPTIONS, child, _EXITKILL)
    return child


def _killed_after(steps: int, write: Callable[[], None]) -> bool:
    """Kill the write after so many steps; ``False`` if it ended before."""
    child = _traced(write)
    for _ in range(steps):
        _ptrace(_SYSCALL, child)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise OSError(0, "the write failed")
            return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _opened(path: Path, mode: str) -> None:
    from apyfal import storage

    with storage.open(path, mode) as file:
        file.write(NEW)


def _copied(path: Path) -> None:
    from apyfal import storage

    storage.copy(path.parent.parent / "source", path)


def _saved(path: Path) -> None:
    import numpy as np

    from apyfal import storage

    storage.save(path, np.frombuffer(NEW, np.uint8))


def _around_cache(path: Path) -> None:
    """Write as large files are written, from aligned memory."""
    import mmap

    from apyfal.storage.endpoints import factory
    from apyfal.storage.local import direct_io

    direct_io.LARGE = direct_io._DIRECT_AT_LEAST = 4096
    memory = memoryview(mmap.mmap(-1, len(NEW)))
    memory[:] = NEW
    with factory.open_sink(path, len(NEW)) as sink:
        sink.write(memory)


def _named(path: Path) -> None:
    os.path.isdir = lambda _: False  # type: ignore[assignment]  # no /proc: as where unnamed files cannot be had
    _opened(path, "wb")


#: what is done, and whether there is a file before
WRITES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "replace": (lambda path: _opened(path, "wb"), True),
    "new": (lambda path: _opened(path, "wb"), False),
    "exclusive": (lambda path: _opened(path, "xb"), False),
    "named": (_named, True),
    "copy": (_copied, True),
    "save": (_saved, True),
    "around-cache": (_around_cache, True),
}


def main(name: str, folder: str) -> None:
    """Step through the write `name` in a directory of its own below `folder`."""
    write, before = WRITES[name]
    place = Path(folder) / name
    place.mkdir()
    (place.parent / "source").write_bytes(NEW)
    path = place / NAME
    write(path)  # imports what it needs
    runs = []
    steps = 0
    while True:
        for left in place.iterdir():
            left.unlink()
        if before:
            path.write_bytes(OLD)
        killed = _killed_after(steps, lambda: write(path))
        content = path.read_bytes() if path.exists() else None
        found = {None: "nothing", OLD: "old", NEW: "new"}.get(content, f"{len(content or b'')} bytes of something else")
        runs.append((found, sorted(one.name for one in place.iterdir() if one != path)))
        if not killed:
            break
        steps += 1
    print(json.dumps(runs))


if __name__ == "__main__":
    main(*sys.argv[1:])
