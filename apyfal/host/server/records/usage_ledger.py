"""Which user wrote which file below ``host://``, and how many bytes each user keeps there."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import sqlite3
import stat
import threading
import time

from apyfal.exceptions import ConfigurationError, StorageError
from apyfal.host.server.policy.host_files import is_part
from apyfal.host.server.policy.refusals import TooLarge, TooMany
from apyfal.log import get_logger

__all__ = ["FileClaim", "UsageLedger", "UserAccount"]

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS files (
    file TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    path BLOB NOT NULL,
    nbytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_user ON files (user);
CREATE TABLE IF NOT EXISTS parts (
    file TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    path BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA user_version={_VERSION};
"""
#: a file counts in whole blocks, and an empty one as one block: names and inodes take disk space, too
_BLOCK = 4096
#: seconds between two checks of all files of one user
_LOOK = 10.0


def _counted(size: int) -> int:
    """Return the bytes that a file of `size` bytes counts as."""
    return max(1, -(-size // _BLOCK)) * _BLOCK


class UsageLedger:
    """The files that users wrote below ``host://``, in one SQLite file. Usable from any thread.

    A file counts for the user who wrote it last through this host, from its first byte until it is removed or replaced.
    If somebody with an account on the machine removed or changed files, this is noticed before a write is refused.
    The incomplete files of a killed daemon are removed when the ledger is opened; those that cannot be removed count.

    Parameters
    ----------
    path
        The file; created with mode 0600.
    limit
        Bytes that one user may keep.

    Raises
    ------
    ConfigurationError
        The file was written by another version, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._placing: set[str] = set()  # files that do not have their final name yet
        self._looked: dict[str, float] = {}
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise ConfigurationError(f"{path}: a ledger of version {version}, not {_VERSION}; move it away")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
            self._clear_parts()
            sums = self._database.execute("SELECT user, sum(nbytes) FROM files GROUP BY user").fetchall()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ConfigurationError(f"{path}: cannot be read ({error}); move it away") from error
        except BaseException:
            self._database.close()
            raise
        self._held: collections.Counter[str] = collections.Counter(dict(sums))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def held_by(self, user: str) -> int:
        """Return the bytes that a user keeps or is writing."""
        return self._held[user]

    def fits(self, user: str, size: int) -> bool:
        """Return whether a file of `size` bytes certainly fits. If not, `require` checks the files themselves."""
        return self._held[user] + _counted(size) <= self.limit

    def require(self, user: str, size: int) -> None:
        """Raise `TooLarge` or `TooMany` unless the user may keep a new file of `size` bytes. Reads directories."""
        self._claim(user, _counted(size))
        self._give(user, _counted(size))

    def account(self, user: str) -> UserAccount:
        """Return one user's part of the ledger."""
        return UserAccount(self, user)

    def forget(self, status: os.stat_result) -> None:
        """Stop counting a file that was removed or replaced."""
        with self._lock:
            self._drop(_name(status))

    # -- for FileClaim -------------------------------------------------------------------------------------------------
    def _claim(self, user: str, nbytes: int) -> None:
        """Count `nbytes` more for a user. Raises `TooLarge` or `TooMany`."""
        if nbytes > self.limit:
            raise TooLarge(f"host://: a file of {nbytes} bytes: a user may keep {self.limit} there")
        own = 0
        for attempt in range(2):
            with self._lock:
                own = self._held[user]
                if own + nbytes <= self.limit:
                    self._held[user] += nbytes
                    return
            if attempt or not self._check_files(user):
                break
        raise TooMany(
            f"host://: {nbytes} bytes: you keep {own} there, and a user may keep {self.limit}; remove some files"
        )

    def _give(self, user: str, nbytes: int) -> None:
        with self._lock:
            self._held[user] -= nbytes
            if self._held[user] <= 0:
                del self._held[user]

    def _begin(self, user: str, name: str, path: bytes) -> None:
        """Record a temporary file."""
        with self._lock:
            try:
                self._database.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (name, user, path))
            except sqlite3.Error as error:
                raise StorageError(f"the host cannot record a file: {error}") from error

    def _end(self, name: str, path: bytes) -> None:
        """Record that a temporary file has its final name, or is removed. Otherwise the next start handles it."""
        if _found(name, path) != 0:
            return
        with self._lock:
            try:  # also by its path, because another file may have its inode number already
                self._database.execute("DELETE FROM parts WHERE file = ? AND path = ?", (name, path))
            except sqlite3.Error as error:  # the next start finds that it is gone
                get_logger().error("the ledger of host:// cannot be written: %s", error)

    def _clear_parts(self) -> None:
        """Remove what a killed daemon did not complete."""
        for name, user, path in self._database.execute("SELECT file, user, path FROM parts").fetchall():
            try:
                left = _remove_part(name, path)
            except BlockingIOError:
                continue  # another daemon is writing it
            except OSError as error:
                get_logger().warning("%s: cannot be removed (%s)", os.fsdecode(path), error.strerror)
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    if _name(status) == name and status.st_nlink == 1:  # else it counts under its final name
                        row = (name, user, path, _counted(status.st_size))
                        self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)
                continue
            if not left:
                self._database.execute("DELETE FROM files WHERE file = ?", (name,))
            self._database.execute("DELETE FROM parts WHERE file = ?", (name,))

    def _enter(self, user: str, path: str, status: os.stat_result, nbytes: int) -> None:
        """Record a file whose `nbytes` are counted already, before it has its final name."""
        name = _name(status)
        with self._lock:
            self._drop(name)  # of a file that somebody else removed, whose inode number this file has now
            self._placing.add(name)
            try:
                self._database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (name, user, os.fsencode(path), nbytes))
            except sqlite3.Error as error:
                self._placing.discard(name)
                raise StorageError(f"the host cannot record a file: {error}") from error

    def _placed(self, status: os.stat_result) -> None:
        with self._lock:
            self._placing.discard(_name(status))

    def _drop(self, name: str) -> None:
        self._placing.discard(name)
        try:
            row = self._database.execute("DELETE FROM files WHERE file = ? RETURNING user, nbytes", (name,)).fetchone()
        except sqlite3.Error as error:  # it counts until the next check
            get_logger().error("the ledger of host:// cannot be written: %s", error)
            return
        if row is not None:
            user, nbytes = row
            self._held[user] -= nbytes
            if self._held[user] <= 0:
                del self._held[user]

    def _check_files(self, user: str) -> bool:
        """Compare the ledger with a user's files, unless that was done recently; return whether it was done now."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked.get(user, -_LOOK) < _LOOK:
                return False
            self._looked[user] = now
            rows = self._database.execute("SELECT file, path, nbytes FROM files WHERE user = ?", (user,)).fetchall()
        for name, path, nbytes in rows:
            if _found(name, path) in (nbytes, None):
                continue
            with self._lock:
                # Check again: it may have got its name meanwhile, or another file its inode number.
                row = self._database.execute("SELECT user, path FROM files WHERE file = ?", (name,)).fetchone()
                actual = _found(name, path)
                if row != (user, path) or name in self._placing or actual in (nbytes, None):
                    continue
                self._drop(name)
                if actual:
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (name, user, path, actual))
                        self._held[user] += actual
        return True


class UserAccount:
    """One user's part of a ledger.

    Parameters
    ----------
    ledger, user
        The ledger, and the user.
    """

    def __init__(self, ledger: UsageLedger, user: str) -> None:
        self._ledger = ledger
        self._user = user

    def claim(self) -> FileClaim:
        """Return the claim of a file that is about to be written."""
        return FileClaim(self._ledger, self._user)

    def forget(self, removed: os.stat_result) -> None:
        """Stop counting a removed file, whoever wrote it."""
        self._ledger.forget(removed)


class FileClaim:
    """The share of a user's quota that one file takes while it is written. Used by one thread at a time.

    Parameters
    ----------
    ledger, user
        The ledger, and the user who writes.
    """

    def __init__(self, ledger: UsageLedger, user: str) -> None:
        self._ledger = ledger
        self._user = user
        self._lock = threading.Lock()
        self._nbytes = 0
        self._part: tuple[str, bytes] | None = None

    def grow(self, size: int) -> None:
        """Count a file of at least `size` bytes. If this raises `TooLarge` or `TooMany`, the count stays as it was."""
        with self._lock:
            more = _counted(size) - self._nbytes
            if more > 0:
                self._ledger._claim(self._user, more)
                self._nbytes += more

    def begin(self, path: str, status: os.stat_result) -> None:
        """Record the temporary file at `path`, which the next start removes if this process is killed."""
        part = _name(status), os.fsencode(path)
        self._ledger._begin(self._user, *part)
        self._part = part

    def enter(self, path: str, status: os.stat_result) -> None:
        """Record the file, which is about to get the name `path`. Call `placed` or `UsageLedger.forget` afterwards."""
        self.grow(status.st_size)
        with self._lock:
            actual = _counted(status.st_size)
            self._ledger._enter(self._user, path, status, actual)
            left, self._nbytes = self._nbytes - actual, 0
            if left:
                self._ledger._give(self._user, left)

    def placed(self, status: os.stat_result, replaced: os.stat_result | None) -> None:
        """Record that the file now has its name, and which file it replaced (``None``: none)."""
        self._ledger._placed(status)
        if replaced is not None:
            self._ledger.forget(replaced)

    def abandon(self, status: os.stat_result) -> None:
        """Record that a file entered before did not get its name."""
        self._ledger.forget(status)

    def close(self) -> None:
        """Stop counting a file that was not recorded, and forget its temporary name. It can be called again."""
        with self._lock:
            nbytes, self._nbytes = self._nbytes, 0
            part, self._part = self._part, None
        if part is not None:
            self._ledger._end(*part)
        if nbytes:
            self._ledger._give(self._user, nbytes)


def _name(status: os.stat_result) -> str:
    return f"{status.st_dev:x}-{status.st_ino:x}"


def _found(name: str, path: bytes) -> int | None:
    """Return the bytes that the file with this name and path counts as; 0: it is gone; ``None``: unknown."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError:
        return None
    return _counted(status.st_size) if _name(status) == name else 0


def _remove_part(name: str, path: bytes) -> bool:
    """Remove a temporary file that nobody writes any longer. Returns whether the file may have another name.

    Raises `BlockingIOError` if somebody writes it, and `OSError`.
    """
    directory, last = os.path.split(path)
    if not is_part(os.fsdecode(last)):
        return True
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if _name(status) != name or not stat.S_ISREG(status.st_mode):
            return True
        part = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(part)
            if _name(status) != name:
                return True
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(last, dir_fd=parent)
            return status.st_nlink > 1
        finally:
            os.close(part)
    except FileNotFoundError:
        return True
    finally:
        os.close(parent)
