"""What has to be known of fsspec's filesystems to use each of them well: names, threads, renaming, errors.

What is said nowhere here holds for a filesystem that apyfal knows nothing of.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from apyfal.exceptions import (
    AccessDenied,
    AuthenticationError,
    IsADirectory,
    MountError,
    NotADirectory,
    ObjectExists,
    ObjectNotFound,
    ParameterError,
    StorageError,
    StoreUnavailable,
    TransferTimeout,
    did_you_mean,
)
from apyfal.storage.http.status import status_error
from apyfal.units import parse_boolean

__all__ = ["Kind", "checked_arguments", "error_class", "kind_of", "modified", "there", "without_ambient"]

#: Read or written at once by filesystems where each block is a request (bytes).
BLOCK = 4 << 20
#: What mounts call the parameters of filesystems that have another name for it.
_TOLD = {"base_url": "endpoint_url"}
#: Parameters that are true, false, or a text: of the kind of TLS, of a bundle of certificates.
_MORE_THAN_TRUTH = ("tls", "verify")
#: Seconds without a byte after which an SSH connection counts as dead; paramiko would wait for ever.
_STALLED = 60.0


@dataclass(frozen=True)
class Kind:
    """How one of fsspec's filesystems is used.

    Attributes
    ----------
    threads
        Several threads may call it at once. The others have one connection, and get one call at a time.
    ranged
        It reads a range in one request, where an open file would read ahead.
    block_size
        Of the files that it opens; ``None``: its own choice.
    arguments
        Makes the constructor's arguments of a mount's parameters.
    further
        Gives the names that the constructor passes on to the library below, and their defaults; ``None``: nobody knows.
    explicit
        Parameters that can be given where nothing of this machine may be used: they name no file, command or object of
        it. ``None``: the filesystem cannot be used there, as nobody has looked at what it reads.
    explicitly
        Arguments that keep the library below from looking around on this machine.
    needed
        Parameters without which it would use what this machine has, the name of its user for one.
    connected
        Called with a filesystem that has just been made.
    alive
        Whether its connection still stands.
    disconnect
        Ends its connections, for which fsspec itself has no way.
    rename
        Gives a file another name: filesystem, old path, new path, and whether that name must be free.
    """

    threads: bool = False
    ranged: bool = False
    block_size: int | None = None
    arguments: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: _named(given, {})
    further: Callable[[], Mapping[str, object]] | None = None
    explicit: frozenset[str] | None = None
    explicitly: Mapping[str, object] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    connected: Callable[[Any], None] = lambda files: None
    alive: Callable[[Any], bool] = lambda files: True
    disconnect: Callable[[Any], None] = lambda files: None
    rename: Callable[[Any, str, str, bool], None] = lambda files, old, new, free: _move(files, old, new, free)


def kind_of(protocol: str, filesystem: type) -> Kind:
    """Tell how a filesystem is used."""
    if protocol in _KINDS:
        return _KINDS[protocol]
    # Filesystems over an event loop take calls from any thread.
    over_a_loop = bool(getattr(filesystem, "async_impl", False))
    return Kind(threads=over_a_loop, ranged=over_a_loop)


def checked_arguments(protocol: str, filesystem: Any, kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments of a filesystem's constructor from a mount's parameters.

    Raises
    ------
    MountError
        For a name that it does not have, and one that it needs.
    """
    arguments = kind.arguments({name: value for name, value in given.items() if value is not None})
    own = inspect.signature(filesystem.__init__).parameters
    known = {name: one.default for name, one in own.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    known.pop("self", None)
    needed = [name for name, default in known.items() if default is inspect.Parameter.empty]
    if kind.further is not None or not any(one.kind is one.VAR_KEYWORD for one in own.values()):
        known = {**(kind.further() if kind.further is not None else {}), **known}
        for name in arguments:
            if name not in known:
                raise MountError(f"fsspec: unknown parameter {name!r} of {protocol!r}{did_you_mean(name, known)}")
    for name in needed:
        if name not in arguments:
            raise MountError(f"fsspec: protocol {protocol!r} needs {_TOLD.get(name, name)}=")
    return {name: _read(name, value, known.get(name)) for name, value in arguments.items()}


def without_ambient(protocol: str, kind: Kind, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the arguments of a filesystem so that it uses nothing of this machine.

    Raises
    ------
    MountError
        It would all the same, or an argument names something of this machine.
    """
    if kind.explicit is None:
        usable = sorted(name for name, one in _KINDS.items() if one.explicit is not None)
        raise MountError(
            f"fsspec: protocol {protocol!r} may use what it finds on this machine, and only given credentials may be "
            f"used here; expected {', '.join(usable)}"
        )
    for name, value in arguments.items():
        if name not in kind.explicit or (name == "verify" and not isinstance(value, bool)):
            raise MountError(
                f"fsspec: parameter {name!r} of {protocol!r} cannot be given where nothing of this machine may be used"
                f"{did_you_mean(name, kind.explicit)}"
            )
    for name in kind.needed:
        if not arguments.get(name):
            shown = {"username": "client_id", "password": "secret_id"}.get(name, name)
            raise MountError(f"fsspec: protocol {protocol!r} needs {shown}=, as nothing of this machine may be used")
    return {**arguments, **kind.explicitly}


def there(files: Any, path: str) -> bool:
    """Whether a file or directory exists; fsspec's `exists` says no to a broken connection, too."""
    try:
        files.info(path)
    except Exception as error:
        if error_class(error, path) is ObjectNotFound:
            return False
        raise
    return True


def error_class(error: Exception, path: str) -> type[StorageError]:
    """Choose the storage error for what a filesystem raised: each has its own library, with its own errors."""
    for kinds, chosen in _BUILT_IN:
        if isinstance(error, kinds):
            return chosen
    if getattr(error, "errno", None) == errno.ENOENT:
        return ObjectNotFound
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        return type(status_error(status, "", path=path, headers={}))
    text = str(error)
    if type(error).__module__ == "ftplib":
        return _of_ftp(text)
    name = type(error).__name__.lower()
    return next((chosen for part, chosen in _NAMED if part in name), StorageError)


def modified(entry: Mapping[str, Any]) -> float | None:
    """Find the modification time in what a filesystem tells of a file (seconds since the epoch)."""
    stamp = next((entry[key] for key in ("mtime", "modified", "modify", "created") if entry.get(key)), None)
    if isinstance(stamp, str) and re.match(r"\d{14}", stamp):  # FTP: RFC 3659, 2.3
        stamp = datetime.strptime(stamp[:14], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    if isinstance(stamp, datetime):
        return stamp.timestamp()
    return stamp if isinstance(stamp, int | float) else None


# -- parameters -------------------------------------------------------------------------------------------------------
def _named(given: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Call things what fsspec's filesystems mostly call them."""
    usual = {"client_id": "username", "secret_id": "password", **names}
    return {usual.get(name, name): value for name, value in given.items()}


def _named_for_webdav(given: dict[str, Any]) -> dict[str, Any]:
    """Make one `auth` of user and password, as httpx takes them."""
    arguments = _named(given, {"endpoint_url": "base_url"})
    user, password = arguments.pop("username", None), arguments.pop("password", None)
    if user is not None or password is not None:
        arguments["auth"] = (user or "", password or "")
    return arguments


def _read(name: str, value: object, default: object) -> object:
    """Read the text of a configuration as what the filesystem's own default is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if isinstance(default, bool):
        try:
            return parse_boolean(text)
        except ParameterError as error:
            if name in _MORE_THAN_TRUTH:
                return value
            raise MountError(f"fsspec: parameter {name!r}: {error}") from None
    if name == "port" or isinstance(default, int):
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
            raise MountError(f"fsspec: parameter {name!r}: expected a whole number, not {value!r}")
        return int(text)
    return value


def _defaults_of(module: str, function: str) -> Callable[[], Mapping[str, object]]:
    def defaults() -> Mapping[str, object]:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
        return {name: one.default for name, one in inspect.signature(found).parameters.items() if name != "self"}

    return defaults


# -- connections ------------------------------------------------------------------------------------------------------
def _prepare_ssh(files: Any) -> None:
    """Send at once: paramiko waits for the answer to every 32 KiB, 40 ms each time otherwise. Do not wait for ever."""
    files.client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    files.ftp.get_channel().settimeout(_STALLED)


def _ssh_is_alive(files: Any) -> bool:
    transport = files.client.get_transport()
    return transport is not None and bool(transport.is_active())


def _prepare_webdav(files: Any) -> None:
    """Let names be names: webdav4 sends ``%``, ``?``, ``#`` and ``;`` as they are, and they mean something in a URL."""
    client, base = files.client, files.client.base_url
    root = base.path.rstrip("/")

    def join_url(path: str, add_trailing_slash: bool = False) -> Any:
        whole = quote(f"{root}/{path.strip('/')}".rstrip("/"))
        return base.copy_with(path=whole + "/" if add_trailing_slash or not whole else whole)

    client.join_url = join_url


# -- renaming ---------------------------------------------------------------------------------------------------------
def _rename(files: Any, old: str, new: str) -> None:
    """Rename one file; fsspec's general `mv` would read ``*``, ``?`` and ``[`` in its name as a pattern."""
    from fsspec.spec import AbstractFileSystem

    if getattr(type(files), "mv", None) is AbstractFileSystem.mv:
        files.cp_file(old, new)
        files.rm_file(old)
    else:
        files.mv(old, new)


def _move(files: Any, old: str, new: str, free: bool) -> None:
    """Rename where a name that is taken may be refused: what has it is put aside, and back if that was in vain."""
    taken = there(files, new)
    if taken and free:
        raise FileExistsError(errno.EEXIST, "it exists")
    try:
        _rename(files, old, new)
    except Exception:
        if not taken:
            raise
        aside = f"{old}-old"
        _rename(files, new, aside)
        try:
            _rename(files, old, new)
        except Exception:
            _rename(files, aside, new)
            raise
        files.rm_file(aside)


def _move_by_ssh(files: Any, old: str, new: str, free: bool) -> None:
    """Rename by the server alone: SFTP's own request takes no name that is taken."""
    if not free:
        _move(files, old, new, free)
        return
    try:
        files.ftp.rename(old, new)
    except OSError:
        if there(files, new):
            raise FileExistsError(errno.EEXIST, "it exists") from None
        raise


def _move_by_webdav(files: Any, old: str, new: str, free: bool) -> None:
    """Rename by the server: `mv` would copy."""
    files.client.move(old, new, overwrite=not free)


_SSH = Kind(
    further=_defaults_of("paramiko", "SSHClient.connect"),
    explicit=frozenset({"host", "port", "username", "password", "timeout", "banner_timeout", "auth_timeout"}),
    explicitly={"look_for_keys": False, "allow_agent": False},
    needed=("username", "password"),  # paramiko would log in with the name of this machine's user
    connected=_prepare_ssh,
    alive=_ssh_is_alive,
    disconnect=lambda files: files.client.close(),
    rename=_move_by_ssh,
)
_WEBDAV = Kind(
    threads=True,
    arguments=_named_for_webdav,
    further=_defaults_of("httpx", "Client.__init__"),
    explicit=frozenset({"base_url", "auth", "headers", "timeout", "verify"}),
    explicitly={"trust_env": False},  # proxies, .netrc
    connected=_prepare_webdav,
    disconnect=lambda files: files.client.http.close(),
    rename=_move_by_webdav,
)
_LOCAL = Kind(threads=True)
_KINDS = {
    "memory": Kind(threads=True, ranged=True, further=dict),  # whose open files share their position
    "file": _LOCAL,
    "local": _LOCAL,
    "sftp": _SSH,
    "ssh": _SSH,
    # every block of a file is a request over a connection of its own
    "ftp": Kind(
        ranged=True,
        block_size=BLOCK,
        further=dict,
        explicit=frozenset({"host", "port", "username", "password", "acct", "timeout", "encoding", "tls"}),
        disconnect=lambda files: files.ftp.close(),
    ),
    "webdav": _WEBDAV,
    "dav": _WEBDAV,
}

# -- errors -----------------------------------------------------------------------------------------------------------
_BUILT_IN: tuple[tuple[Any, type[StorageError]], ...] = (
    (FileNotFoundError, ObjectNotFound),
    (PermissionError, AccessDenied),
    (FileExistsError, ObjectExists),
    (IsADirectoryError, IsADirectory),
    (NotADirectoryError, NotADirectory),
    (TimeoutError, TransferTimeout),
    ((ConnectionError, EOFError, socket.gaierror), StoreUnavailable),
)
#: Parts of the names of libraries' errors, in lower case, and what they mean.
_NAMED: tuple[tuple[str, type[StorageError]], ...] = (
    ("auth", AuthenticationError),
    ("forbidden", AccessDenied),
    ("notfound", ObjectNotFound),
    ("alreadyexists", ObjectExists),
    ("conflict", ObjectNotFound),  # WebDAV's 409: a directory on the way is missing
    ("timeout", TransferTimeout),
    ("connect", StoreUnavailable),
    ("ssh", StoreUnavailable),
    ("gateway", StoreUnavailable),
    ("readerror", StoreUnavailable),
    ("writeerror", StoreUnavailable),
    ("protocolerror", StoreUnavailable),
)


def _of_ftp(text: str) -> type[StorageError]:
    """Read a reply of FTP (RFC 959, 4.2): its number, and where that has two meanings its words."""
    number = text[:3]
    if number in ("530", "532", "331", "332"):
        return AuthenticationError
    if number == "553" or re.search(r"denied|privilege|permission|not allowed|forbidden", text, re.I):
        return AccessDenied
    if number == "550":
        return ObjectNotFound
    return StoreUnavailable if number.startswith("4") and number != "452" else StorageError
