"""Tokens: who may use this host, for what, and until when.

A token is ``apf_<id>_<secret>``. The file stores the id, the user and a SHA-256 of the secret, never the secret itself.
The secret has 256 random bits, so a fast hash is as safe as a slow one. The file is read again when it has changed, so
that tokens created or revoked while the daemon runs take effect at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apyfal.exceptions import AccessDenied, ConfigurationError, ParameterError, did_you_mean
from apyfal.host.protocol.proof import hash_of, proof_of

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "SCOPES",
    "Grant",
    "NotAllowed",
    "Token",
    "TokenStore",
    "default_state_directory",
    "expanded_scopes",
]

_FORMAT = re.compile(r"apf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_USER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._@-]{0,63}")
_NO_HASH = "0" * 64


#: permissions of a token: to run jobs; to read, and to write and remove, on ``host://`` and the operator's mounts; to
#: see all users' jobs and the metrics
SCOPES = ("process", "storage:read", "storage:write", "admin")
#: names for several scopes together, used in tokens of earlier versions
_GROUPS = {"storage": ("storage:read", "storage:write")}


class NotAllowed(AccessDenied):
    """The request names something that its token, or this host's configuration, does not permit to clients.

    The message contains only what the client already knows, so it is sent unchanged.
    """


def expanded_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return `scopes` without duplicates, with ``storage`` expanded to the two scopes that it stands for.

    Raises
    ------
    ParameterError
        A scope is unknown, or there is none.
    """
    found: dict[str, None] = {}
    for scope in scopes:
        if scope not in SCOPES and scope not in _GROUPS:
            raise ParameterError(f"unknown scope {scope!r}{did_you_mean(scope, (*SCOPES, *_GROUPS))}")
        found.update(dict.fromkeys(_GROUPS.get(scope, (scope,))))
    if not found:
        raise ParameterError(f"a token needs a scope: {', '.join((*SCOPES, *_GROUPS))}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Grant:
    """Permissions of a request.

    Attributes
    ----------
    scopes
        Subset of `SCOPES`.
    accelerators, mounts
        Names of the accelerators that may be run, and of the operator's mounts that may be used; ``None``: all.
    directories
        Directories that ``host://`` refers to, each inside an allowed directory; ``None``: the allowed directories.
    """

    scopes: frozenset[str]
    accelerators: frozenset[str] | None = None
    mounts: frozenset[str] | None = None
    directories: tuple[str, ...] | None = None

    def require(self, scope: str, what: str) -> None:
        """Raise `NotAllowed` unless the token has `scope`. `what` names the operation in the message."""
        if scope not in self.scopes:
            raise NotAllowed(f"{what} needs the scope {scope}, which the token does not have")

    def require_accelerator(self, name: str | None) -> None:
        """Raise `NotAllowed` unless the accelerator may be run. It need not exist."""
        if self.accelerators is not None and name not in self.accelerators:
            choices = did_you_mean(name or "", self.accelerators)
            raise NotAllowed(f"the token does not allow the accelerator {name!r}{choices}")

    def sees_mount(self, name: str) -> bool:
        """Return whether the operator's mount `name` may be used."""
        return self.mounts is None or name in self.mounts


#: permissions of the user who runs the daemon
EVERYTHING = Grant(frozenset(SCOPES))
#: default permissions
NOTHING = Grant(frozenset())


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret.

    Attributes
    ----------
    id
        Identifies the token in lists and logs; public.
    user
        Owner of the token. Jobs, sessions and files belong to users, not to tokens.
    scopes
        Subset of `SCOPES`.
    created, expires, revoked
        Seconds since the epoch; ``None``: never.
    hash
        SHA-256 of the secret, hexadecimal.
    accelerators, mounts, directories
        Restrictions: see `apyfal.host.server.policy.tokens.Grant`; ``None``: unrestricted.
    """

    id: str
    user: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None
    hash: str
    revoked: float | None = None
    accelerators: tuple[str, ...] | None = None
    mounts: tuple[str, ...] | None = None
    directories: tuple[str, ...] | None = None

    def grant(self) -> Grant:
        """Return the permissions of requests with this token."""
        return Grant(
            frozenset(self.scopes),
            None if self.accelerators is None else frozenset(self.accelerators),
            None if self.mounts is None else frozenset(self.mounts),
            self.directories,
        )

    def state(self, now: float) -> str:
        """Return ``"valid"``, ``"expired"`` or ``"revoked"`` at the time `now` (seconds since the epoch)."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


def default_state_directory() -> Path:
    """Return the directory of the daemon's state: systemd's StateDirectory, else ``$XDG_STATE_HOME/apyfal``."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "apyfal"


class TokenStore:
    """The tokens of this host, in one file with mode 0600. Usable from any thread and from several processes.

    Parameters
    ----------
    path
        The file, created together with the first token. Default: ``tokens.json`` in the state directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else default_state_directory() / "tokens.json"
        self._name = str(self.path)  # text, since each request looks it up, and `Path` would build it anew
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._version: tuple[int, int, int] | None = None
        self._known: dict[str, Token] = {}  # tokens by the text that was presented, since the file was read

    def create(
        self,
        user: str,
        scopes: Iterable[str] = ("process", "storage"),
        lifetime: float | None = None,
        *,
        accelerators: Iterable[str] | None = None,
        mounts: Iterable[str] | None = None,
        directories: Iterable[str | os.PathLike[str]] | None = None,
    ) -> str:
        """Create a token.

        Parameters
        ----------
        user
            User name: letters, digits and ``._@-``; at most 64.
        scopes
            Subset of `SCOPES`; ``storage`` stands for ``storage:read`` and ``storage:write``.
        lifetime
            Seconds until it expires; ``None``: never.
        accelerators, mounts
            Accelerators, and mounts of this host, that the token is restricted to; ``None``: all.
        directories
            Directories that ``host://`` refers to, each inside a shared directory of the host; ``None``: all shared
            directories.

        Returns
        -------
        str
            The token with its secret, which is stored nowhere: it cannot be shown again.

        Raises
        ------
        ParameterError
            The user name is malformed, a scope is unknown, there is no scope, or the lifetime is not positive.
        """
        if not _USER.fullmatch(user):
            raise ParameterError(f"user {user!r}: expected 1 to 64 letters, digits and ._@-, a letter or digit first")
        wanted = expanded_scopes(scopes)
        if lifetime is not None and not lifetime > 0:
            raise ParameterError(f"lifetime {lifetime!r}: expected a positive number of seconds")
        secret = secrets.token_urlsafe(32)
        now = time.time()
        token = Token(
            id=secrets.token_hex(6),
            user=user,
            scopes=wanted,
            created=now,
            expires=None if lifetime is None else now + lifetime,
            hash=hash_of(secret),
            accelerators=_names("accelerator", accelerators),
            mounts=_names("mount", mounts),
            directories=_directories(directories),
        )
        with self._changing() as tokens:
            tokens[token.id] = token
        return f"apf_{token.id}_{secret}"

    def revoke(self, token_id: str) -> Token:
        """Revoke a token permanently; it may already be revoked. Raises `ParameterError` if the id is unknown."""
        with self._changing() as tokens:
            found = tokens.get(token_id)
            if found is None:
                raise ParameterError(f"unknown token {token_id!r}{did_you_mean(token_id, tokens)}")
            if found.revoked is None:
                tokens[token_id] = found = Token(**{**_fields(found), "revoked": time.time()})
        return found

    def list(self) -> list[Token]:
        """Return all tokens, oldest first, including expired and revoked ones."""
        return sorted(self._current().values(), key=lambda token: token.created)

    def authenticate(self, presented: str, now: float | None = None) -> Token | None:
        """Return the token if `presented` is valid; ``None`` if it is unknown, wrong, expired or revoked.

        The comparison takes the same time for a wrong secret and for an unknown id.
        """
        tokens = self._current()
        token = self._known.get(presented)
        if token is None or tokens.get(token.id) is not token:
            match = _FORMAT.fullmatch(presented)
            token_id, secret = match.groups() if match else ("", "")
            token = tokens.get(token_id)
            equal = hmac.compare_digest(hash_of(secret), token.hash if token is not None else _NO_HASH)
            if token is None or not equal:
                return None
            self._known[presented] = token
        return token if token.state(time.time() if now is None else now) == "valid" else None

    def prove(self, token_id: str, nonce: str, address: str) -> str | None:
        """Return the proof that this host knows a valid token (`apyfal.host.protocol.proof`); ``None``: it does not."""
        token = self._current().get(token_id)
        if token is None or token.state(time.time()) != "valid":
            return None
        return proof_of(token.hash, nonce, address)

    # -- the file ------------------------------------------------------------------------------------------------------
    def _current(self) -> dict[str, Token]:
        with self._lock:
            try:
                status = os.stat(self._name)
            except FileNotFoundError:
                self._tokens, self._known, self._version = {}, {}, None
                return self._tokens
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._tokens, self._known, self._version = self._read(), {}, version
            return self._tokens

    def _read(self) -> dict[str, Token]:
        try:
            entries: list[dict[str, Any]] = json.loads(self.path.read_bytes())
            tokens = [_token(entry) for entry in entries]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError, ParameterError) as error:
            # Deny by default: with a broken file, no token is valid.
            raise ConfigurationError(f"token file {str(self.path)!r} cannot be read: {type(error).__name__}") from error
        return {token.id: token for token in tokens}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Lock the file against other processes, yield its tokens to be changed, and replace it atomically."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = self._read()
            yield tokens
            temporary = f"{self.path}.{secrets.token_hex(4)}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump([_fields(token) for token in tokens.values()], file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, self.path)
            except BaseException:
                os.unlink(temporary)
                raise
        finally:
            os.close(lock)


def _token(entry: dict[str, Any]) -> Token:
    """Parse one token of the file. A malformed field is an error, because ignoring it could widen the token."""
    fields = {**entry, "scopes": expanded_scopes(entry["scopes"])}
    for name in ("accelerators", "mounts", "directories"):
        limit = entry.get(name)
        if limit is None:
            continue
        if not isinstance(limit, list) or not all(isinstance(text, str) for text in limit):
            raise ValueError(name)
        fields[name] = tuple(limit)
    return Token(**fields)


def _names(what: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    given = tuple(dict.fromkeys(names))
    for name in given:
        if not isinstance(name, str) or not name or len(name) > 256 or "/" in name:
            raise ParameterError(f"{what} {name!r}: expected a name")
    return given


def _directories(directories: Iterable[str | os.PathLike[str]] | None) -> tuple[str, ...] | None:
    if directories is None:
        return None
    given = tuple(dict.fromkeys(os.path.abspath(os.path.expanduser(os.fspath(path))) for path in directories))
    for path in given:
        if not os.path.isdir(path):
            raise ParameterError(f"directory {path!r}: there is no such directory")
    return given


def _fields(token: Token) -> dict[str, Any]:
    return asdict(token)
