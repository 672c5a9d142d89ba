"""Files of this machine as remote users see them: their attributes, and a file that is being written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from apyfal.exceptions import ObjectExists, StorageError

__all__ = ["Claim", "HeldFile", "HostEntry", "PendingFile", "entry_of", "is_part"]

_PART = re.compile(r"\.apyfal-[0-9a-f]{16}\.part")


def is_part(name: str) -> bool:
    """Return whether this is the name of an incomplete file, which only the host gives."""
    return _PART.fullmatch(name) is not None


class Claim(Protocol):
    """The share of a user's quota that a file takes while it is written."""

    def grow(self, size: int) -> None:
        """Count a file of at least `size` bytes; raise if that exceeds the user's quota."""

    def begin(self, path: str, status: os.stat_result) -> None:
        """Record the temporary file at `path`, which the next start removes if this process is killed."""

    def enter(self, path: str, status: os.stat_result) -> None:
        """Record the file, which is about to get the name `path`."""

    def placed(self, status: os.stat_result, replaced: os.stat_result | None) -> None:
        """Record that the file now has its name, and which file it replaced (``None``: none)."""

    def abandon(self, status: os.stat_result) -> None:
        """Record that a file entered before did not get its name."""

    def close(self) -> None:
        """Stop counting a file that was not recorded."""


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A file or directory below an allowed directory. `path` can be passed to `AllowedDirectories` again.

    In a listing, `is_link` tells that the last name of the path is a symbolic link, which was followed.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    is_directory: bool
    is_link: bool = False

    @property
    def etag(self) -> str:
        """A validator that changes with the file's identity, its size and every write to it."""
        return f'"{self.inode:x}-{self.size:x}-{self.mtime_ns:x}"'


def entry_of(path: str, found: os.stat_result, is_link: bool = False) -> HostEntry:
    """Describe a regular file or a directory. Raises `OSError` (``EACCES``) for anything else."""
    is_directory = stat.S_ISDIR(found.st_mode)
    if not is_directory and not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return HostEntry(path, 0 if is_directory else found.st_size, found.st_mtime_ns, found.st_ino, is_directory, is_link)


class HeldFile:
    """A file that is about to lose its name. As long as this is open, no other file gets its inode number.

    What is recorded of the file by that number can thus be removed after the file, and is not that of another one.

    Parameters
    ----------
    name, parent
        Its name, which is not followed if it is a link, and the descriptor of its directory.

    Attributes
    ----------
    status
        As it was.
    """

    def __init__(self, name: str, parent: int) -> None:
        self._fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        self.status = os.fstat(self._fd)

    def close(self) -> None:
        """Let the inode number be used again. It can be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PendingFile:
    """A file being written below an allowed directory, under a temporary name in the directory of its final name.

    Created by `AllowedDirectories.create`. If the ``with`` block ends without `commit`, the file is removed. It is
    locked (flock) while it is written, so that it is not mistaken for a file that a killed process left.

    Parameters
    ----------
    in_thread
        Calls a function in a thread that can access the files, and returns its result.
    parent
        Descriptor of the directory; owned by this object from now on.
    name, path
        The file's name in the directory, and its path as the client wrote it.
    exclusive
        Whether `commit` fails if the file exists.
    mode
        Mode of the file that is replaced.

    Attributes
    ----------
    fd
        Descriptor to write to; owned by this object.
    """

    def __init__(
        self,
        in_thread: Callable[[Callable[[], Any]], Any],
        parent: int,
        name: str,
        path: str,
        exclusive: bool,
        mode: int | None,
    ) -> None:
        self._in_thread = in_thread
        self._name = name
        self._path = path
        self._exclusive = exclusive
        self._replaced: HeldFile | None = None
        self._temporary: str | None = f".apyfal-{secrets.token_hex(8)}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self._temporary, flags, 0o666, dir_fd=parent)
        self._parent = parent
        self._synced = False
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes it at the next start
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if mode is not None:
            os.fchmod(self.fd, stat.S_IMODE(mode))

    def begin(self, claim: Claim) -> None:
        """Record the temporary file, before anything is written to it."""
        if self._temporary is not None:
            claim.begin(self._path_of(self._temporary), os.fstat(self.fd))

    def commit(self, claim: Claim | None = None) -> HostEntry:
        """Give the file its final name and sync it.

        With a claim, the file is recorded before it gets its name, so that it is counted even if the daemon is killed.

        Raises
        ------
        ObjectExists
            It is exclusive, and the name exists.
        StorageError
            The system refused. If only the directory could not be synced, the file has its name, and counts.
        """
        try:
            return self._commit_counted(claim)
        except StorageError:
            raise
        except OSError as error:
            what = "cannot sync the directory of" if self._has_its_name() else "cannot write"
            raise StorageError(f"{what} host://{self._path}: {error.strerror}", path=self._path) from error

    def _commit_counted(self, claim: Claim | None) -> HostEntry:
        if self._temporary is not None:
            os.fsync(self.fd)  # can take long and needs no path: not in the thread, which others wait for
        if self._temporary is None or claim is None:
            entry: HostEntry = self._in_thread(self._commit)
            return entry
        status = os.fstat(self.fd)
        claim.enter(self._path_of(self._name), status)
        try:
            entry = self._in_thread(self._commit)
        except BaseException:
            if self._has_its_name():
                self._record(claim, status)
            else:
                claim.abandon(status)
            raise
        self._record(claim, status)
        return entry

    def _record(self, claim: Claim, status: os.stat_result) -> None:
        claim.placed(status, None if self._replaced is None else self._replaced.status)

    def _has_its_name(self) -> bool:
        return self._temporary is None

    def _path_of(self, name: str) -> str:
        directory = os.readlink(f"/proc/self/fd/{self._parent}")
        return f"{directory.rstrip('/')}/{name}"

    def _commit(self) -> HostEntry:
        if not self._synced:
            # Opened first: without a descriptor to sync with, the file does not get its name.
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._parent)
            try:
                if self._temporary is not None:
                    self._place(self._temporary)
                os.fsync(directory)
                self._synced = True
            finally:
                os.close(directory)
        return entry_of(self._path, os.fstat(self.fd))

    def _place(self, temporary: str) -> None:
        if self._exclusive:
            try:
                os.link(temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            except FileExistsError as error:
                raise ObjectExists(f"host://{self._path}: exists already") from error
            self._temporary = None
            try:
                os.unlink(temporary, dir_fd=self._parent)
            except FileNotFoundError:
                pass  # somebody removed it: the file has its name
            except OSError:
                found = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(self.fd)):
                    os.unlink(self._name, dir_fd=self._parent)
                self._temporary = temporary
                raise
        else:
            if self._replaced is not None:  # by an attempt that failed
                self._replaced.close()
                self._replaced = None
            with contextlib.suppress(FileNotFoundError):
                self._replaced = HeldFile(self._name, self._parent)
            os.rename(temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            self._temporary = None

    def close(self) -> None:
        """Close the descriptors; without `commit`, remove the file. Idempotent."""
        if self.fd >= 0:
            self._in_thread(self._close)

    def _close(self) -> None:
        try:
            if self._temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._temporary, dir_fd=self._parent)
                self._temporary = None
        finally:
            if self._replaced is not None:
                self._replaced.close()
            os.close(self._parent)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> PendingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
