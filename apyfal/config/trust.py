"""The configuration files of working directories that the user trusts: by path and content, in one file of the user.

`TrustStore` is that file: ``trusted.json`` in the user's state directory (``$XDG_STATE_HOME/apyfal``, by default
``~/.local/state/apyfal``), with mode 0600 and replaced atomically. An entry is valid for one path and one SHA-256: a
file that changes is no longer trusted. Like OpenSSH with its own files (``StrictModes`` in sshd_config(5)), a file that
other users can change, or in a directory that other users can change, is refused regardless of its entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from apyfal.exceptions import ConfigurationError

__all__ = ["MAX_BYTES", "TrustStore", "content_of", "owner_name", "place_of", "unsafe"]

#: Largest configuration file that is read from a working directory, in bytes. Real files have a few kilobytes.
MAX_BYTES = 1 << 20


def place_of(file: str | os.PathLike[str]) -> Path:
    """Return the path under which a file is stored: its directory with links resolved, and its own name."""
    directory, name = os.path.split(os.path.abspath(os.path.expanduser(file)))
    return Path(os.path.realpath(directory), name)


def content_of(file: Path) -> tuple[bytes, os.stat_result]:
    """Read a configuration file, and return its content with the status of the file that was read.

    Raises
    ------
    OSError
        The file cannot be read.
    ConfigurationError
        The file is not a regular file, or is larger than `MAX_BYTES`.
    """
    # non-blocking: a FIFO in place of the file must not block a process that is started in the directory
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"cannot read configuration {str(file)!r}: it is not a regular file")
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"configuration {str(file)!r}: expected at most {MAX_BYTES} bytes; it has more")
    return content, status


def unsafe(file: Path, status: os.stat_result) -> str | None:
    """Return why `file` cannot be trusted even if the user wants to; ``None`` if it can.

    Parameters
    ----------
    file
        Path of the file.
    status
        Status of the file as it was read.
    """
    if status.st_uid != os.geteuid():
        return f"it belongs to {owner_name(status.st_uid)}, not to {owner_name(os.geteuid())}"
    if _others_can_write(status, file):
        return f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    try:
        if os.lstat(file).st_uid != os.geteuid():
            return "the link to it belongs to somebody else"
        targets = {file.parent.resolve(), file.resolve().parent}
        return next((problem for target in sorted(targets) if (problem := _unsafe_directory(target))), None)
    except OSError as error:
        return f"its directory cannot be examined: {error.strerror}"


def _unsafe_directory(directory: Path) -> str | None:
    """Return how other users could replace the file; ``None`` if they cannot."""
    for place in (directory, *directory.parents):
        status = os.stat(place)
        if status.st_uid not in (os.geteuid(), 0):
            return f"the directory {str(place)!r} belongs to {owner_name(status.st_uid)}"
        # in a sticky parent directory, only the owner of an entry can replace it
        sticky = place != directory and status.st_mode & stat.S_ISVTX
        if not sticky and _others_can_write(status, place):
            return f"others can write the directory {str(place)!r} (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _others_can_write(status: os.stat_result, path: Path) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not (_is_private_group(status) and not _has_acl(path))


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the owner is the group's only member, as in the groups that distributions create for each user."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and group.gr_gid == owner.pw_gid and set(group.gr_mem) <= {owner.pw_name}


def _has_acl(path: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False  # a filesystem without extended attributes has no access control lists


def owner_name(uid: int) -> str:
    """Return the name of a user; the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class TrustStore:
    """The configuration files that the user trusts. Usable from several processes.

    Parameters
    ----------
    path
        Path of the store. Default: ``apyfal/trusted.json`` in ``$XDG_STATE_HOME`` or ``~/.local/state``.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            state = os.environ.get("XDG_STATE_HOME", "")
            # A relative path must be ignored (XDG Base Directory Specification): it would depend on the working
            # directory.
            base = state if os.path.isabs(state) else os.path.expanduser("~/.local/state")
            path = Path(base, "apyfal", "trusted.json")
        self.path = path

    def refusal(self, file: Path, content: bytes, status: os.stat_result) -> str | None:
        """Return why a file is not trusted; ``None`` if it is."""
        if (problem := unsafe(file, status)) is not None:
            return problem
        try:
            known = self._read().get(str(place_of(file)))
        except ConfigurationError as error:
            return str(error)
        if known is None:
            return "the user has not said so"
        return None if known == _digest(content) else "it has changed since then"

    def trust(self, file: str | os.PathLike[str]) -> str:
        """Trust a file with its present content. Returns the SHA-256 of the content in hexadecimal.

        Raises
        ------
        ConfigurationError
            The file does not exist, or other users can change it.
        """
        place = place_of(file)
        try:
            content, status = content_of(place)
        except OSError as error:
            raise ConfigurationError(f"cannot read configuration {str(place)!r}: {error.strerror}") from None
        if (problem := unsafe(place, status)) is not None:
            raise ConfigurationError(f"{str(place)!r} cannot be trusted: {problem}")
        with self._changing() as known:
            known[str(place)] = _digest(content)
        return _digest(content)

    def untrust(self, file: str | os.PathLike[str]) -> bool:
        """Remove a file from the store; return whether it was there. The file need not exist."""
        with self._changing() as known:
            return known.pop(str(place_of(file)), None) is not None

    def _read(self) -> dict[str, str]:
        try:
            content, status = content_of(self.path)
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigurationError(f"{str(self.path)!r}: expected a file that only you can write (mode 0600)")
            entries = json.loads(content)["files"]
            return {str(path): str(digest) for path, digest in entries.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{str(self.path)!r} cannot be read: {type(error).__name__}") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        """Lock the store against other processes, yield its entries to be changed, and replace the file atomically."""
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self._read()
            yield entries
            temporary = f"{self.path}.{secrets.token_hex(4)}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump({"files": entries}, file, indent=1)
                    file.flush()
                    os.fsync(descriptor)
                os.rename(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise
        finally:
            os.close(lock)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
