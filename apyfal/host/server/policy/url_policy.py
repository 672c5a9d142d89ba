"""Decides which URLs a remote user may name, and how they are opened in this process.

Schemes are allowed, not denied: ``host://`` for files below the allowed directories, the web within the egress policy,
the operator's mounts by name, and the mounts of the client's session.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from apyfal.exceptions import MountError, ParameterError, did_you_mean
from apyfal.host.server.policy.allowed_directories import AllowedDirectories, host_path
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.limits import MAX_MOUNT_TIMEOUT
from apyfal.host.server.policy.tokens import Grant, NotAllowed
from apyfal.storage import providers
from apyfal.storage.handler import Handler
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import checked as parameters_of
from apyfal.storage.mounting.parameters import named
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.url import redact

__all__ = ["SessionMount", "UrlPolicy", "restricted_handler"]

_URL = re.compile(r"([a-z][a-z0-9+_.-]*)://(.*)", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)

#: providers whose connections all ask the egress policy; only these can be mounted by a session
_SESSION_PROVIDERS = ("s3", "swift", "oss", "gs", "az")
#: parameters that name an account or a location; others could name files of this host, its proxies or its own accounts
_SESSION_PARAMETERS = frozenset(
    {
        *("client_id", "secret_id", "session_token", "sas", "anonymous", "region", "endpoint_url", "addressing"),
        *("auth_type", "project", "project_id", "user_domain", "project_domain", "interface", "storage_url", "account"),
        *("requester_pays", "sse", "sse_kms_key_id", "sse_customer_key", "checksum", "timeout"),
    }
)
#: providers of the operator's mounts that would expose this machine's own files to clients
_LOCAL_PROVIDERS = ("file",)


@dataclass(frozen=True, slots=True)
class SessionMount:
    """A mount that a client has added to its session.

    Attributes
    ----------
    name, internal
        The client's name of the mount, and its name in this process.
    root
        Prefix of all paths.
    client_text
        The client's own text about the location, which may be shown in its error messages.
    """

    name: str
    internal: str
    root: str = ""
    client_text: str = ""


class UrlPolicy:
    """Admits or refuses URLs from clients. Usable from any thread.

    Parameters
    ----------
    directories
        For ``host://``; borrowed, like `egress`.
    egress
        Decides about all network connections.
    table
        Mounts of this process.
    serve
        Returns the store behind ``host://`` for the directories of a token and the user who writes there (``None``: it
        is only read), with the host's limits.
    """

    def __init__(
        self,
        directories: AllowedDirectories,
        egress: EgressPolicy,
        table: MountTable,
        serve: Callable[[AllowedDirectories, str | None], Handler],
    ) -> None:
        self._directories, self._egress = directories, egress
        self._table = table
        self._serve = serve
        self._lock = threading.Lock()
        #: by the directories of a token: what ``host://`` is for it
        self._limited: dict[tuple[str, ...], AllowedDirectories] = {}
        #: by these directories and the user who writes there: scheme under which ``host://`` is mounted
        self._schemes: dict[tuple[tuple[str, ...] | None, str | None], str] = {}

    def admit(
        self,
        url: str,
        mounts: Mapping[str, SessionMount],
        grant: Grant,
        *,
        write: bool = False,
        user: str | None = None,
    ) -> str:
        """Return the URL under which the client's `url` can be opened in this process.

        Parameters
        ----------
        url
            The URL as the client sent it.
        mounts
            Mounts of the client's session.
        grant
            Permissions of the request.
        write
            Whether the object is to be written or removed, not read or listed.
        user
            Whose quota a file written below ``host://`` counts against; ``None``: no quota.

        Raises
        ------
        AccessDenied
            The scheme is not for clients, the file is outside the allowed directories, the address is refused, or the
            token does not permit it. Nothing has been opened.
        """
        match = _URL.fullmatch(url)
        if match is None or not _encodable(url):
            raise NotAllowed(
                f"{redact(url)!r} is not a URL that a host takes: expected scheme://path in lower case, such as host://..."
            )
        scheme, path = match.groups()
        if scheme in ("http", "https"):
            self._egress.check_url(url)
            return url
        if scheme in mounts:
            return f"{mounts[scheme].internal}://{mounts[scheme].root}{path}"
        grant.require("storage:write" if write else "storage:read", f"{scheme}://")
        if scheme == "host":
            return f"{self._scheme_of(grant, user if write else None)}://{host_path(url)}"
        allowed = {name for name in self.operator_mounts() if grant.sees_mount(name)}
        if scheme not in allowed:
            known = ["host", "http", "https", *mounts, *allowed]
            raise NotAllowed(f"{scheme}:// is not mounted on this host{did_you_mean(scheme, known)}")
        if ".." in path.split("/"):
            raise NotAllowed(f"{scheme}://{path!r}: '..' is not allowed in it")
        return f"{scheme}://{path}"

    def names_operator_mount(self, url: str, mounts: Mapping[str, SessionMount]) -> bool:
        """Return whether `url` is in one of the operator's mounts. Clients must learn nothing about the store behind
        it.
        """
        scheme = url.partition("://")[0]
        return scheme not in ("host", "http", "https") and scheme not in mounts

    def _scheme_of(self, grant: Grant, user: str | None) -> str:
        """Return the scheme under which ``host://`` is mounted for a grant, and for a user who writes."""
        if grant.directories is None and user is None:
            return "host"
        with self._lock:
            known = self._schemes.get((grant.directories, user))
            if known is None:
                handler = self._serve(self._directories_of(grant), user)
                known = self._schemes[grant.directories, user] = f"client-{secrets.token_hex(8)}"
                self._table.attach(known, handler)
            return known

    def _directories_of(self, grant: Grant) -> AllowedDirectories:
        """Return the directories of a grant."""
        if grant.directories is None:
            return self._directories
        known = self._limited.get(grant.directories)
        if known is None:
            inside = tuple(path for path in grant.directories if self._is_shared(path))
            if not inside:
                raise NotAllowed("host://: the directories of the token are not shared by this host")
            known = self._limited[grant.directories] = AllowedDirectories(inside)
        return known

    def _is_shared(self, directory: str) -> bool:
        real = os.path.realpath(directory)
        return os.path.isdir(real) and any(
            real == root or real.startswith(root.rstrip("/") + "/") for root in self._directories.directories
        )

    def replace(self, directories: AllowedDirectories, egress: EgressPolicy) -> None:
        """Use these directories and this egress policy from now on. Mounts of sessions keep their egress policy."""
        with self._lock:
            self._directories, self._egress = directories, egress
            limited, self._limited = self._limited, {}
            schemes, self._schemes = self._schemes, {}
        for scheme in schemes.values():
            self._table.detach(scheme)  # transfers that use it run to their end
        for allowed in limited.values():
            allowed.close()

    def close(self) -> None:
        """Close the directories of tokens."""
        self.replace(self._directories, self._egress)

    def operator_mounts(self) -> dict[str, str]:
        """Return names and providers of the operator's mounts that clients may use."""
        return {
            name: info.provider
            for name, info in self._table.mounts().items()
            if not name.startswith("client-")
            and info.provider not in _LOCAL_PROVIDERS
            and name not in ("host", "http", "https")
        }

    def mount(self, name: str, parameters: Mapping[str, object]) -> SessionMount:
        """Mount a store for one session, with the client's own account and within the egress policy.

        Raises
        ------
        MountError, ParameterError
            The name, provider or a parameter is not for sessions, or there is no account.
        AccessDenied
            The egress policy refuses ``endpoint_url``.
        """
        if not _NAME.fullmatch(name) or name in ("host", "http", "https", "file"):
            raise ParameterError(f"mount {name!r}: expected a new name of small letters, digits, '-' and '_'")
        given = named(name, str(parameters.get("provider")), parameters)
        provider, root = given.pop("provider", None), given.pop("root", None)
        known = providers.find(provider) if isinstance(provider, str) and provider in _SESSION_PROVIDERS else None
        if known is None:
            choices = did_you_mean(str(provider), _SESSION_PROVIDERS)
            raise MountError(f"provider {provider!r} cannot be mounted by a client{choices}")
        if not isinstance(root, str | None):
            raise MountError(f"mount {name!r}, parameter 'root': expected a text")
        for key, value in given.items():
            if key not in _SESSION_PARAMETERS or not isinstance(value, str | int | float | bool):
                choices = did_you_mean(key, _SESSION_PARAMETERS)
                raise MountError(f"parameter {key!r} cannot be given by a client{choices}")
        if not _positive_up_to(given.get("timeout", MAX_MOUNT_TIMEOUT), MAX_MOUNT_TIMEOUT):
            raise MountError(f"mount {name!r}, parameter 'timeout': expected seconds, at most {MAX_MOUNT_TIMEOUT:g}")
        for key in ("endpoint_url", "storage_url"):
            if key in given:
                self._egress.check_url(str(given[key]))
        kind = providers.handler_factory(known)
        wanted = parameters_of(name, known.name, kind, {key: (value, True) for key, value in given.items()})
        handler = restricted_handler(MountSpec(name, known.name, parameters=wanted), self._egress)
        internal = f"client-{secrets.token_hex(8)}"
        self._table.attach(internal, handler)
        client_text = " ".join(str(given[key]) for key in ("endpoint_url", "auth_url", "storage_url") if key in given)
        return SessionMount(name, internal, "" if root is None else f"{root.strip('/')}/", f"{root} {client_text}")

    def unmount(self, mount: SessionMount) -> None:
        """Remove a session's mount. Transfers that use it run to their end."""
        self._table.detach(mount.internal)


def _positive_up_to(value: object, most: float) -> bool:
    """Return whether `value`, a number or its text, is above 0 and at most `most`; ``nan`` is not."""
    try:
        return 0 < float(str(value)) <= most
    except ValueError:
        return False


def _encodable(text: str) -> bool:
    """Return whether `text` can be encoded as UTF-8: JSON and percent-encoding can contain lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def restricted_handler(spec: MountSpec, egress: EgressPolicy) -> Handler:
    """Return the handler of a mount for clients. Each of its connections asks `egress`.

    It uses neither this host's credentials nor its settings, and no proxy, which would resolve names itself.

    Raises
    ------
    MountError
        The handler would use this host's credentials, or its connections cannot be made to ask `egress`.
    """
    handler = replace(spec, ambient=False).connect()
    client = getattr(handler, "client", None)
    if not isinstance(client, ConnectionPool):
        raise MountError(f"{handler.scheme}:// cannot be used by clients: its connections cannot be checked")
    client.gate = egress
    return handler
