"""Tokens: who may use this host, for what, and until when.

A token is ``apf_<id>_<secret>``. The file keeps the id, the user and a SHA-256 of the secret, never the secret: it has
256 random bits, so a fast hash is as good as a slow one. The file is read again whenever it has changed, so that a
token created or revoked while the daemon runs counts at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
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

from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["SCOPES", "Token", "TokenStore", "default_state_directory"]

#: what a token can be good for: running jobs; reading and writing storage; seeing all users' work and the metrics
SCOPES = ("process", "storage", "admin")

_FORMAT = re.compile(r"apf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_USER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._@-]{0,63}")
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret.

    Attributes
    ----------
    id
        Names the token in lists and logs; public.
    user
        Whose it is. Jobs, sessions and files belong to users, not to tokens.
    scopes
        Out of `SCOPES`.
    created, expires, revoked
        Seconds since the epoch; ``None``: never.
    hash
        SHA-256 of the secret, hexadecimal.
    """

    id: str
    user: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None
    hash: str
    revoked: float | None = None

    def state(self, now: float) -> str:
        """``"valid"``, ``"expired"`` or ``"revoked"`` at the time `now`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


def default_state_directory() -> Path:
    """Where the daemon keeps what outlives it: systemd's StateDirectory, else ``$XDG_STATE_HOME/apyfal``."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "apyfal"


class TokenStore:
    """The tokens of this host, in one file of mode 0600. Usable from any thread and from several processes.

    Parameters
    ----------
    path
        The file; made, with its directory, when the first token is. Default: ``tokens.json`` in the state directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else default_state_directory() / "tokens.json"
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._version: tuple[int, int, int] | None = None

    def create(self, user: str, scopes: Iterable[str] = ("process", "storage"), lifetime: float | None = None) -> str:
        """Make a token.

        Parameters
        ----------
        user
            Letters, digits and ``._@-``; at most 64.
        scopes
            Out of `SCOPES`.
        lifetime
            Seconds until it expires; ``None``: it does not.

        Returns
        -------
        str
            The token with its secret, which is nowhere else: it cannot be shown again.

        Raises
        ------
        ParameterError
            A malformed user, an unknown or no scope, a lifetime that is not positive.
        """
        if not _USER.fullmatch(user):
            raise ParameterError(f"user {user!r}: expected 1 to 64 letters, digits and ._@-, a letter or digit first")
        wanted = tuple(dict.fromkeys(scopes))
        for scope in wanted:
            if scope not in SCOPES:
                raise ParameterError(f"unknown scope {scope!r}{did_you_mean(scope, SCOPES)}")
        if not wanted:
            raise ParameterError(f"a token needs a scope: {', '.join(SCOPES)}")
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
            hash=_hash(secret),
        )
        with self._changing() as tokens:
            tokens[token.id] = token
        return f"apf_{token.id}_{secret}"

    def revoke(self, token_id: str) -> Token:
        """Revoke the token with this id, for good; revoking it twice is fine. `ParameterError` for an unknown id."""
        with self._changing() as tokens:
            found = tokens.get(token_id)
            if found is None:
                raise ParameterError(f"unknown token {token_id!r}{did_you_mean(token_id, tokens)}")
            if found.revoked is None:
                tokens[token_id] = found = Token(**{**_fields(found), "revoked": time.time()})
        return found

    def list(self) -> list[Token]:
        """All tokens, oldest first, including expired and revoked ones."""
        return sorted(self._current().values(), key=lambda token: token.created)

    def authenticate(self, presented: str, now: float | None = None) -> Token | None:
        """Return the valid token that `presented` is, or ``None``: unknown, wrong, expired or revoked.

        The comparison takes the same time for a wrong secret and for an unknown id.
        """
        match = _FORMAT.fullmatch(presented)
        token_id, secret = match.groups() if match else ("", "")
        token = self._current().get(token_id)
        equal = hmac.compare_digest(_hash(secret), token.hash if token is not None else _NO_HASH)
        if token is None or not equal:
            return None
        return token if token.state(time.time() if now is None else now) == "valid" else None

    # -- the file ------------------------------------------------------------------------------------------------------
    def _current(self) -> dict[str, Token]:
        with self._lock:
            try:
                status = os.stat(self.path)
            except FileNotFoundError:
                self._tokens, self._version = {}, None
                return self._tokens
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._tokens, self._version = self._read(), version
            return self._tokens

    def _read(self) -> dict[str, Token]:
        try:
            entries: list[dict[str, Any]] = json.loads(self.path.read_bytes())
            tokens = [Token(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in entries]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            # Deny by default: a broken file admits nobody.
            raise ConfigurationError(f"token file {str(self.path)!r} cannot be read: {type(error).__name__}") from error
        return {token.id: token for token in tokens}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Lock the file against other processes, yield its tokens, and replace it whole."""
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


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _fields(token: Token) -> dict[str, Any]:
    return asdict(token)
