"""Local files: opened without surprises, written whole or not at all.

A file is written under no name (O_TMPFILE, linked into place when complete) or, where the filesystem lacks that,
under a temporary name beside its destination; then fsync, rename, fsync of the directory. Killed at any moment, the
old file or the new one is there. What is not a regular file (a pipe, ``/dev/null``, ``/dev/stdout``) is written
directly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import stat
import weakref
from types import TracebackType

from apyfal.exceptions import (
    AccessDenied,
    IsADirectory,
    NotADirectory,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    TransferTimeout,
    UnsupportedByStore,
)
from apyfal.storage.local import direct_io

__all__ = ["LocalWriter", "open_to_read", "own_descriptor", "storage_error", "translating"]

_KINDS: dict[int, type[StorageError]] = {
    errno.ENOENT: ObjectNotFound,
    errno.EEXIST: ObjectExists,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: AccessDenied,
    errno.EISDIR: IsADirectory,
    errno.ENOTDIR: NotADirectory,
    errno.ETIMEDOUT: TransferTimeout,
    errno.EOPNOTSUPP: UnsupportedByStore,
}

# "/dev/fd/3" and its like name this process's own descriptor, whatever it leads to
_OWN_DESCRIPTOR = re.compile(r"/(?:dev/(?:fd/(\d+)|(stdin|stdout|stderr))|proc/(?:self|thread-self)/fd/(\d+))")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def storage_error(code: int, text: str, path: str) -> StorageError:
    """Make the storage error that goes with a system error number.

    Parameters
    ----------
    code
        The number (`errno`), which decides the class.
    text
        What failed and why; the file's name is added.
    path
        The file.
    """
    if code == errno.ENOENT and re.search("%[0-9A-Fa-f]{2}", path):
        text += " (the path of a file URL is taken as it is, without percent-decoding)"
    error = _KINDS.get(code, StorageError)(text, path=path)
    error.errno, error.strerror, error.filename = code, text, path
    return error


class translating:  # noqa: N801  # used as a function; a generator in its place costs a small file a tenth of its time
    """Turn the system's errors inside the block into storage errors; those are left alone."""

    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: str) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, StorageError):
            return
        if isinstance(error, OSError):
            code = error.errno or 0
            why = os.strerror(code) if code else error.strerror or error
            raise storage_error(code, f"cannot {self._doing}: {why}", self._path) from error
        if isinstance(error, ValueError):  # what Python says to a NUL or an unencodable character in a name
            raise storage_error(errno.EINVAL, f"cannot {self._doing}: {error}", self._path) from error


def own_descriptor(path: str) -> int | None:
    """Return the descriptor that a path like ``/dev/stdout`` or ``/dev/fd/3`` names, or ``None``."""
    match = _OWN_DESCRIPTOR.fullmatch(path)
    if match is None:
        return None
    return _STANDARD[match[2]] if match[2] else int(match[1] or match[3])


def open_to_read(path: str) -> int:
    """Open a file to read; never waits.

    Returns
    -------
    int
        A descriptor of a regular file, a device, or a pipe that has a writer. The caller closes it.

    Raises
    ------
    IsADirectory, StorageError
        For a directory, a socket, a pipe that nobody writes to, and whatever open(2) refuses.
    """
    with translating("read", path):
        own = own_descriptor(path)
        if own is not None:
            return os.dup(own)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise storage_error(errno.EISDIR, "cannot read: it is a directory, expected a file", path)
            if stat.S_ISFIFO(mode) and not _has_writer(descriptor):
                raise storage_error(errno.EPIPE, "cannot read: no process has this pipe open for writing", path)
            if not stat.S_ISREG(mode):  # regular files do not know the difference
                os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _has_writer(descriptor: int) -> bool:
    # A hang-up is only reported once there was a writer; without data, a pipe with a writer answers EAGAIN, one without
    # end of file (pipe(7)).
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if poll.poll(0):
        return True
    try:
        os.read(descriptor, 1)
    except BlockingIOError:
        return True
    return False


def _require_place(path: str) -> None:
    """Raise what the system says to a path with ``.`` or ``..`` in it.

    `os.path.realpath` takes these away also behind a file, and behind what does not exist.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        folder, name = os.path.split(path.rstrip("/"))
        if name in (".", ".."):
            raise
        os.stat(folder or ".")


class LocalWriter:
    """One local file being written; nothing is visible before `commit`.

    Parameters
    ----------
    path
        The destination. A symbolic link is followed to what it names.
    size
        How many bytes will come, if known: without room for them the file is not even begun.
    exclusive
        Fail when the destination exists, now or at `commit`.
    readable
        Whether the descriptor can be read as well.
    mode
        The permission bits to give it; default: those of the file that is replaced, or else of the umask.

    Raises
    ------
    ObjectNotFound, AccessDenied, IsADirectory, ObjectExists, StorageError
        As open(2) would for writing.

    Notes
    -----
    A file that is replaced keeps its permission bits, and its owner where this process may give files away; a new one
    has those of the umask. Other hard links to a replaced file keep the old content.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int | None = None,
        exclusive: bool = False,
        readable: bool = False,
        mode: int | None = None,
    ) -> None:
        self.path = path
        self._exclusive = exclusive
        self._mode = mode
        self._temporary: str | None = None
        self._directory_fd = -1
        self._old: os.stat_result | None = None
        flags = os.O_CLOEXEC | (os.O_RDWR if readable else os.O_WRONLY)
        with translating("write", path):
            self.direct = self._open_special(flags)
            if not self.direct:
                self._open_unnamed(flags)
            self._around_fd = -1
            self._position = 0
            if size and not self.direct:
                try:
                    self._make_room(size)
                except BaseException:
                    _discard(os.getpid(), (self.fd,), self._directory_fd, self._temporary)
                    raise
            # for what is left behind without commit or abort; also runs at interpreter exit
            descriptors = (self.fd,) if self._around_fd < 0 else (self.fd, self._around_fd)
            self._cleanup = weakref.finalize(
                self, _discard, os.getpid(), descriptors, self._directory_fd, self._temporary
            )

    fd: int  #: the open descriptor, owned by this object until `commit` or `abort`

    @property
    def closed(self) -> bool:
        """Whether `commit` or `abort` was called."""
        return not self._cleanup.alive

    def write(self, data: memoryview) -> None:
        """Append all of `data`."""
        if self.direct:
            with translating("write", self.path):
                direct_io.write_all(self.fd, data)
        else:
            self.write_at(data, self._position)
        self._position += len(data)

    def write_at(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset` of a regular file; from any number of threads."""
        with translating("write", self.path):
            done = 0
            if self._around_fd >= 0:
                done = direct_io.write_around_cache(self._around_fd, data, offset)
            direct_io.write_all(self.fd, data[done:], offset + done)

    def commit(self, mtime_ns: int | None = None) -> None:
        """Make the file visible under its name, on disk. After an error the destination is as it was.

        Parameters
        ----------
        mtime_ns
            Its time of modification, in nanoseconds since the epoch; ``None``: now.

        Raises
        ------
        ObjectExists
            With `exclusive`, when the destination has come into being meanwhile.
        """
        try:
            with translating("write", self.path):
                if not self.direct:
                    self._adopt_permissions()
                    if mtime_ns is not None:
                        os.utime(self.fd, ns=(mtime_ns, mtime_ns))
                    os.fsync(self.fd)
                    self._publish()
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove every trace of the unfinished file. Does nothing after `commit`. Never raises."""
        self._cleanup()

    # -- opening ------------------------------------------------------------------------------------------------------
    def _open_special(self, flags: int) -> bool:
        own = own_descriptor(self.path)
        if own is not None:
            self.fd = os.dup(own)
            return True
        if self._exclusive and os.path.lexists(self.path):
            raise FileExistsError(errno.EEXIST, "File exists")
        if "/." in self.path:
            _require_place(self.path)
        # strict would refuse a destination that does not exist yet; a cycle shows in the stat below (ELOOP)
        self._target = os.path.realpath(self.path)
        try:
            self._old = os.stat(self._target)
        except FileNotFoundError:
            if self.path.endswith("/"):
                raise IsADirectoryError(errno.EISDIR, "Is a directory") from None
            return False
        mode = self._old.st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if self.path.endswith("/"):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        if stat.S_ISREG(mode):
            if not os.access(self._target, os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "Permission denied")
            return False
        # without waiting, a pipe that nobody reads is an error (ENXIO) instead of a hang
        self.fd = os.open(self._target, flags | os.O_NOCTTY | os.O_NONBLOCK)
        os.set_blocking(self.fd, True)
        return True

    def _open_unnamed(self, flags: int) -> None:
        folder, self._name = os.path.split(self._target)
        try:
            self._directory_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._can_sync = True
        except PermissionError:  # it may be written, perhaps, but not listed, nor synced then
            self._directory_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._can_sync = False
        try:
            try:
                if not os.path.isdir("/proc/self/fd"):  # through which such a file gets its name
                    raise OSError(errno.EOPNOTSUPP, "no /proc")
                self.fd = os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=self._directory_fd)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
                self._temporary = self._temporary_name()
                self.fd = os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._directory_fd)
        except BaseException:
            os.close(self._directory_fd)
            raise

    def _temporary_name(self) -> str:
        # cut, since a name may have 255 bytes and this adds to it; the random part makes it unique
        return f".{os.fsdecode(os.fsencode(self._name)[:200])}.{secrets.token_hex(8)}.tmp"

    def _make_room(self, size: int) -> None:
        if size < direct_io.LARGE:
            direct_io.require_room(self.fd, size)
        else:
            direct_io.reserve(self.fd, size)
            self._around_fd = direct_io.open_around_cache(self.fd)

    # -- publishing ---------------------------------------------------------------------------------------------------
    def _adopt_permissions(self) -> None:
        if self._old is None:
            if self._mode is not None:
                os.fchmod(self.fd, self._mode)
            return
        mode = stat.S_IMODE(self._old.st_mode) if self._mode is None else self._mode
        mine = os.fstat(self.fd)
        if (self._old.st_uid, self._old.st_gid) != (mine.st_uid, mine.st_gid):
            try:
                os.fchown(self.fd, self._old.st_uid, self._old.st_gid)
            except PermissionError:
                mode &= ~(stat.S_ISUID | stat.S_ISGID)  # these would now act for somebody else
        os.fchmod(self.fd, mode)

    def _publish(self) -> None:
        folder = self._directory_fd
        if self._temporary is None:
            unnamed = f"/proc/self/fd/{self.fd}"
            try:
                # a destination directory as descriptor is what makes Python use linkat(2), which can follow this link
                os.link(unnamed, self._name, dst_dir_fd=folder, follow_symlinks=True)
            except FileExistsError:
                if self._exclusive:
                    raise
                temporary = self._temporary_name()
                os.link(unnamed, temporary, dst_dir_fd=folder, follow_symlinks=True)
                self._rename(temporary)
        elif self._exclusive:
            if not direct_io.rename_to_new(folder, self._temporary, self._name):
                self._link_to_new(self._temporary)
        else:
            self._rename(self._temporary)
        if self._can_sync:
            os.fsync(folder)

    def _link_to_new(self, temporary: str) -> None:
        """Link the file to its destination unless that exists, on a filesystem that cannot rename so."""
        folder = self._directory_fd
        try:
            os.link(temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise storage_error(
                errno.EOPNOTSUPP,
                "cannot write: this filesystem can neither make hard links nor rename without replacing, so that"
                " mode 'x' could overwrite what somebody else writes at the same time; mode 'w' works",
                self.path,
            ) from error
        os.unlink(temporary, dir_fd=folder)

    def _rename(self, temporary: str) -> None:
        try:
            os.rename(temporary, self._name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._directory_fd)
            raise


def _discard(process: int, descriptors: tuple[int, ...], directory: int, temporary: str | None) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # somebody else may have closed it; there is nothing to lose any more
            os.close(descriptor)
    if directory >= 0:
        if temporary is not None and process == os.getpid():  # not a forked child's to remove
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
        os.close(directory)
