"""The files behind ``host://``: those below the allowed directories, and no other files of this machine.

Each allowed directory is opened once, at startup. `path_resolver` resolves every later access from that descriptor, so
that the checked path cannot differ from the path used. All accesses run in threads that Landlock, if the kernel has it,
restricts to the same directories: the kernel would stop an access that a bug here allows.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn, TypeVar

from apyfal.exceptions import (
    AccessDenied,
    ConfigurationError,
    IsADirectory,
    ObjectExists,
    ObjectNotFound,
    StorageError,
)
from apyfal.host.protocol.audit import without_secrets
from apyfal.host.server.policy import linux_sandbox
from apyfal.host.server.policy.host_files import HeldFile, HostEntry, PendingFile, entry_of, is_part
from apyfal.host.server.policy.limits import MAX_LISTED
from apyfal.host.server.policy.path_resolver import MAX_LINKS, Resolver, kernel_resolve, walk_resolve
from apyfal.host.server.policy.refusals import TooLarge

__all__ = ["DEFAULT_DIRECTORY", "AllowedDirectories", "host_path"]

#: default if the configuration names no directory; created on first use
DEFAULT_DIRECTORY = "~/shared"

_T = TypeVar("_T")

# An encoded separator, dot, NUL or percent sign has no legitimate use in a name; code that decodes it later would see
# another path.
_ENCODED = re.compile(r"%(2e|2f|5c|00|25)", re.IGNORECASE)
#: number of threads, so that a slow directory of one user does not block others
_THREADS = 4
_SCANNED_AT_ONCE = 256
_MAX_PATH = 4095  # PATH_MAX of linux/limits.h, without its NUL


def host_path(url: str) -> str:
    """Return the path of a ``host://`` URL. Refuses every spelling that other software could interpret differently.

    Parameters
    ----------
    url
        ``host://relative/path``, or ``host:///absolute/path`` below an allowed directory.

    Returns
    -------
    str
        The path, empty for ``host://`` itself.

    Raises
    ------
    AccessDenied
        The scheme has another spelling, or the path has control characters, backslashes, encoded separators, or leading
        or trailing spaces.
    """
    path = url.removeprefix("host://") if isinstance(url, str) else None
    if path is None or path == url:
        raise AccessDenied(f"{without_secrets(str(url))!r}: files of the host are named host://path, in lower case")
    if (
        path != path.strip()
        or path == "/"
        or path.startswith("//")
        or len(os.fsencode(path)) > _MAX_PATH
        or any(character < " " or character in "\\\x7f" for character in path)
        or _ENCODED.search(path)
    ):
        _deny(path)
    return path


class AllowedDirectories:
    """The directories of this machine that remote users can use, with all operations on the files below them.

    Usable from any thread. A relative path is looked up in each directory in order, an absolute path in those that
    contain it. Writing replaces an existing file where it is; otherwise it goes to the first directory that has the
    parent.

    Parameters
    ----------
    directories
        Allowed directories. ``~`` is expanded and symbolic links are resolved once, here. Default: ``~/shared``,
        created with mode 0700.
    resolver
        For tests: `kernel_resolve` or `walk_resolve`. Default: `kernel_resolve` if the kernel has ``openat2``.
    landlock
        Whether to restrict the threads that access the files, if the kernel can.

    Attributes
    ----------
    directories
        The resolved paths, for messages to the operator (never shown to a client).
    landlocked
        Whether Landlock restricts the threads.

    Raises
    ------
    ConfigurationError
        An allowed directory does not exist, or is not a directory.
    """

    def __init__(
        self, directories: Iterable[str] | None = None, *, resolver: Resolver | None = None, landlock: bool = True
    ) -> None:
        if directories is None:
            shared = os.path.expanduser(DEFAULT_DIRECTORY)
            os.makedirs(shared, mode=0o700, exist_ok=True)
            directories = [shared]
        self._roots: list[tuple[int, tuple[str, ...]]] = []
        self.landlocked = False
        self._resolve = resolver or (kernel_resolve if linux_sandbox.have_openat2() else walk_resolve)
        try:
            for directory in directories:
                self._roots.append(_open_root(directory))
        except ConfigurationError:
            self._close_roots()
            raise
        self.directories = tuple(spellings[-1] for _, spellings in self._roots)
        self._threads = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="apyfal-host-files", initializer=self._confine if landlock else None
        )
        self._threads.submit(int).result()  # sets `landlocked`, and raises an error of Landlock here

    def _confine(self) -> None:
        self.landlocked = linux_sandbox.restrict_thread(root for root, _ in self._roots)

    def close(self) -> None:
        """Close the allowed directories. Files that were opened before stay usable."""
        self._threads.shutdown(wait=True)
        self._close_roots()

    def _close_roots(self) -> None:
        while self._roots:
            os.close(self._roots.pop()[0])

    def __enter__(self) -> AllowedDirectories:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- operations ----------------------------------------------------------------------------------------------------
    def open(self, path: str) -> int:
        """Open a regular file for reading.

        Returns
        -------
        int
            A new descriptor, which the caller closes.

        Raises
        ------
        AccessDenied
            The path is not below an allowed directory, or is not a regular file. The error does not depend on whether
            it exists.
        ObjectNotFound
            The path is below an allowed directory, and does not exist.
        """
        return self._run(lambda: self._open(path))

    def stat(self, path: str) -> HostEntry:
        """Return size, times and type of a regular file or a directory. Raises the errors of `open`."""
        return self._run(lambda: self._stat(path))

    def scan(self, path: str) -> Iterator[HostEntry]:
        """List a directory in the order of names: only regular files and directories that `open` and `scan` accept.

        The threads read a few names at a time, so that other users' calls run in between.

        Raises
        ------
        AccessDenied, ObjectNotFound
            As for `open`. A file raises `ObjectNotFound`, because it is not a directory.
        TooLarge
            The directory has more than `limits.MAX_LISTED` names.
        """
        found = self._run(lambda: self._names(path))
        parts = (found[start : start + _SCANNED_AT_ONCE] for start in range(0, len(found), _SCANNED_AT_ONCE))
        return (entry for part in parts for entry in self._run(functools.partial(self._entries, path, part)))

    def create(self, path: str, *, exclusive: bool = False) -> PendingFile:
        """Start to write a file. It appears with its whole content at `PendingFile.commit`, or not at all.

        Raises the errors of `open`, and `ObjectExists` with `exclusive`. The parent directory must exist.
        """
        return self._run(lambda: self._create(path, exclusive))

    def remove(self, path: str) -> HeldFile:
        """Remove a regular file, or a symbolic link to one. Raises the errors of `open`.

        Returns
        -------
        HeldFile
            What was removed. Close it once nothing is recorded of it.
        """
        return self._run(lambda: self._remove(path))

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents in the first allowed directory that can contain `path`. It may already
        exist.

        Raises
        ------
        AccessDenied
            As for `open`; also for any ``..`` in `path`, which has no meaning before the parents exist.
        """
        self._run(lambda: self._makedirs(path))

    # -- in a confined thread ------------------------------------------------------------------------------------------
    def _run(self, operation: Callable[[], _T]) -> _T:
        return self._threads.submit(operation).result()

    def _candidates(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield each pair (descriptor of an allowed directory, path relative to it) that `path` can mean."""
        if not path.startswith("/"):
            for root, _ in self._roots:
                yield root, path or "."
            return
        for root, spellings in self._roots:
            for spelling in spellings:
                if path == spelling or path.startswith(spelling.rstrip("/") + "/"):
                    yield root, path[len(spelling) :].lstrip("/") or "."
                    break

    def _first(self, path: str, operation: Callable[[int, str], _T]) -> _T:
        """Call `operation` with each candidate until one succeeds. Otherwise a denial comes before an absence."""
        absent: OSError | None = None
        denied = False
        for root, relative in self._candidates(path):
            try:
                return operation(root, relative)
            except OSError as error:
                if isinstance(error, StorageError):
                    raise
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    absent = error
                elif error.errno in (errno.EXDEV, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
                    denied = True
                else:
                    raise StorageError(f"host://{path}: {error.strerror}") from error
        if denied or absent is None:
            _deny(path)
        raise ObjectNotFound(f"host://{path}: no such file on the host")

    def _open(self, path: str) -> int:
        def attempt(root: int, relative: str) -> int:
            with self._resolved(root, relative) as found:
                if not stat.S_ISREG(os.fstat(found).st_mode):
                    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
                # Reopen the descriptor, not the name: the checked file is the one that is opened.
                return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)

        if not path:
            _deny(path)
        return self._first(path, attempt)

    def _stat(self, path: str) -> HostEntry:
        def attempt(root: int, relative: str) -> HostEntry:
            with self._resolved(root, relative) as found:
                return entry_of(path, os.fstat(found))

        return self._first(path, attempt)

    def _names(self, path: str) -> list[tuple[str, int, str, bool]]:
        """Return the names in a directory, each with its root, its directory, and whether it is a symbolic link.

        The top directory has the names of all roots. If two roots have the same name, the first one counts.
        """

        def attempt(root: int, relative: str) -> list[tuple[str, int, str, bool]]:
            with self._resolved(root, relative) as found:
                directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
            try:
                with os.scandir(directory) as scan:
                    names = [
                        (entry.name, root, relative, entry.is_symlink())
                        for entry in scan
                        if not (is_part(entry.name) and entry.is_file(follow_symlinks=False))  # not complete yet
                    ]
            finally:
                os.close(directory)
            if len(names) > MAX_LISTED:
                raise TooLarge(f"host://{path}: more than {MAX_LISTED} names, the most that are listed")
            return names

        if path:
            return sorted(self._first(path, attempt))
        named: dict[str, tuple[str, int, str, bool]] = {}
        for root, relative in self._candidates(path):
            for name in attempt(root, relative):
                named.setdefault(name[0], name)
        return sorted(named.values())

    def _entries(self, path: str, names: Iterable[tuple[str, int, str, bool]]) -> list[HostEntry]:
        prefix = path.rstrip("/") + "/" if path else ""
        entries = []
        for name, root, relative, is_link in names:
            # Links to the outside, names that have vanished, FIFOs, and names that no URL can express cannot be
            # requested, so they are not listed.
            with contextlib.suppress(OSError), self._resolved(root, f"{relative}/{name}") as found:
                host_path(f"host://{prefix}{name}")
                entries.append(entry_of(f"{prefix}{name}", os.fstat(found), is_link))
        return entries

    def _create(self, path: str, exclusive: bool) -> PendingFile:
        name = path.rpartition("/")[2]
        if name in ("", ".", ".."):
            _deny(path)
        with contextlib.suppress(ObjectNotFound):
            if self._stat(path).is_directory:
                raise IsADirectory(f"host://{path}: is a directory")
            if exclusive:
                raise ObjectExists(f"host://{path}: exists already")

        def attempt(root: int, relative: str, must_exist: bool) -> PendingFile:
            parent, last = self._parent(root, relative)
            try:
                if is_part(last):
                    raise AccessDenied(f"host://{path}: only files that are being written have a name like {last!r}")
                mode = None
                try:
                    mode = os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    if must_exist:
                        raise
                if mode is not None and not stat.S_ISREG(mode):
                    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
                return PendingFile(self._run, parent, last, path, exclusive, mode)
            except OSError:
                os.close(parent)
                raise

        try:
            return self._first(path, lambda root, relative: attempt(root, relative, must_exist=True))
        except ObjectNotFound:
            return self._first(path, lambda root, relative: attempt(root, relative, must_exist=False))

    def _parent(self, root: int, relative: str) -> tuple[int, str]:
        """Return the directory (a new descriptor) and the last name at which a write to `relative` ends, links
        followed.
        """
        for _ in range(MAX_LINKS):
            head, _, last = relative.rpartition("/")
            if last in ("", ".", ".."):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            with self._resolved(root, head or ".") as found:
                parent = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
            try:
                target = os.readlink(last, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT):  # not a link, or it does not exist
                    return parent, last
                os.close(parent)
                raise
            os.close(parent)
            if target.startswith("/"):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            relative = f"{head}/{target}" if head else target
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _remove(self, path: str) -> HeldFile:
        def attempt(root: int, relative: str) -> HeldFile:
            with self._resolved(root, relative) as found:
                if not stat.S_ISREG(os.fstat(found).st_mode):
                    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            head, _, last = relative.rpartition("/")
            with self._resolved(root, head or ".") as parent:
                removed = HeldFile(last, parent)
                try:
                    os.unlink(last, dir_fd=parent)
                except BaseException:
                    removed.close()
                    raise
            return removed

        if not path:
            _deny(path)
        return self._first(path, attempt)

    def _makedirs(self, path: str) -> None:
        names = [name for name in path.split("/") if name]
        if ".." in names:
            _deny(path)

        def attempt(root: int, relative: str) -> None:
            made = "."
            for name in (name for name in relative.split("/") if name):
                with self._resolved(root, made) as parent, contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o777, dir_fd=parent)
                made = f"{made}/{name}"
            with self._resolved(root, made) as found:
                if not stat.S_ISDIR(os.fstat(found).st_mode):
                    raise ObjectExists(f"host://{path}: exists and is not a directory")

        self._first(path, attempt)

    @contextlib.contextmanager
    def _resolved(self, root: int, relative: str) -> Iterator[int]:
        descriptor = self._resolve(root, relative)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _open_root(directory: str) -> tuple[int, tuple[str, ...]]:
    """Open an allowed directory. Returns its descriptor, and its spellings (given, resolved) that clients can use."""
    given = os.path.abspath(os.path.expanduser(directory))
    try:
        descriptor = os.open(given, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"[security] authorized_host_dirs: {directory!r} is not a usable directory ({error.strerror})"
        ) from error
    resolved = os.path.realpath(given)
    return descriptor, (given, resolved) if given != resolved else (given,)


def _deny(path: str) -> NoReturn:
    raise AccessDenied(f"{'host://' + path!r}: not inside a directory that this host allows")
