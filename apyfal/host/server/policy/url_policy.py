"""What remote users may name: which URLs the layers below are asked to open for them, and which never.

Schemes are allowed, not denied: files of the host through the whitelist, the web through the outbound gate, the mounts
that the operator made by their names, and those that the session brought itself.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from apyfal.exceptions import MountError, ParameterError, did_you_mean
from apyfal.host.server.policy.allowed_directories import AllowedDirectories, host_path
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.policy.tokens import Grant, NotAllowed
from apyfal.storage import providers
from apyfal.storage.handler import Handler
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import checked as parameters_of
from apyfal.storage.mounting.parameters import named
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.url import redact

__all__ = ["SessionMount", "UrlPolicy", "gated"]

_URL = re.compile(r"([a-z][a-z0-9+_.-]*)://(.*)", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)

#: providers whose connections all pass through the gate, and which a session may therefore mount
_SESSION_PROVIDERS = ("s3", "swift", "oss", "gs", "az")
#: parameters that name an account or a place; others could name files of this host, its proxies or its own accounts
_SESSION_PARAMETERS = frozenset(
    {
        *("client_id", "secret_id", "session_token", "sas", "anonymous", "region", "endpoint_url", "addressing"),
        *("auth_type", "project", "project_id", "user_domain", "project_domain", "interface", "storage_url", "account"),
        *("requester_pays", "sse", "sse_kms_key_id", "sse_customer_key", "checksum", "timeout"),
    }
)
#: providers of the operator's mounts that would give clients this machine's own files
_LOCAL_PROVIDERS = ("file",)


@dataclass(frozen=True, slots=True)
class SessionMount:
    """A mount that a client brought.

    Attributes
    ----------
    name, internal
        What the client calls it, and its name in this process.
    root
        What precedes paths.
    said
        What the client has said of its place, and may therefore read in an error.
    """

    name: str
    internal: str
    root: str = ""
    said: str = ""


class UrlPolicy:
    """Decides about URLs from clients. Usable from any thread.

    Parameters
    ----------
    whitelist
        For ``host://``; borrowed, as is the gate.
    gate
        For everything that is reached over the network.
    table
        The mounts of this process.
    """

    def __init__(self, whitelist: AllowedDirectories, gate: EgressPolicy, table: MountTable) -> None:
        self._whitelist, self._gate = whitelist, gate
        self._table = table
        self._lock = threading.Lock()
        #: by the directories that tokens are limited to: where ``host://`` is mounted for them
        self._limited: dict[tuple[str, ...], tuple[str, AllowedDirectories]] = {}

    def admit(self, url: str, mounts: Mapping[str, SessionMount], grant: Grant, *, write: bool = False) -> str:
        """Return `url` as it may be opened in this process.

        Parameters
        ----------
        url
            As the client wrote it.
        mounts
            Those of its session.
        grant
            What the request may do.
        write
            Whether the object is written or removed, not read or listed.

        Raises
        ------
        AccessDenied
            A scheme that clients may not use, a file outside of the whitelist, an address that is refused, or what the
            token does not allow. All of it is said before anything is opened.
        """
        match = _URL.fullmatch(url)
        if match is None or not _encodable(url):
            raise NotAllowed(
                f"{redact(url)!r} is no URL that a host takes: expected scheme://path in lower case, such as host://..."
            )
        scheme, path = match.groups()
        if scheme in ("http", "https"):
            self._gate.check_url(url)
            return url
        if scheme in mounts:
            return f"{mounts[scheme].internal}://{mounts[scheme].root}{path}"
        grant.require("storage:write" if write else "storage:read", f"{scheme}://")
        if scheme == "host":
            return f"{self._directories_of(grant)}://{host_path(url)}"
        allowed = {name for name in self.operator_mounts() if grant.sees_mount(name)}
        if scheme not in allowed:
            known = ["host", "http", "https", *mounts, *allowed]
            raise NotAllowed(f"{scheme}:// is not mounted on this host{did_you_mean(scheme, known)}")
        if ".." in path.split("/"):
            raise NotAllowed(f"{scheme}://{path!r}: '..' is not allowed in it")
        return f"{scheme}://{path}"

    def names_operator_mount(self, url: str, mounts: Mapping[str, SessionMount]) -> bool:
        """Whether a client's URL is in a mount of the operator's, about whose store it must learn nothing."""
        scheme = url.partition("://")[0]
        return scheme not in ("host", "http", "https") and scheme not in mounts

    def _directories_of(self, grant: Grant) -> str:
        """Return the scheme under which ``host://`` is mounted for a grant."""
        if grant.directories is None:
            return "host"
        with self._lock:
            known = self._limited.get(grant.directories)
            if known is None:
                inside = tuple(path for path in grant.directories if self._is_shared(path))
                if not inside:
                    raise NotAllowed("host://: the directories of the token are not shared by this host")
                whitelist = AllowedDirectories(inside)
                known = self._limited[grant.directories] = (f"client-{secrets.token_hex(8)}", whitelist)
                self._table.attach(known[0], HostStore(whitelist))
            return known[0]

    def _is_shared(self, directory: str) -> bool:
        real = os.path.realpath(directory)
        return os.path.isdir(real) and any(
            real == root or real.startswith(root.rstrip("/") + "/") for root in self._whitelist.directories
        )

    def replace(self, whitelist: AllowedDirectories, gate: EgressPolicy) -> None:
        """Decide by others from now on; mounts of sessions keep the gate that they were made with."""
        with self._lock:
            self._whitelist, self._gate = whitelist, gate
            limited, self._limited = self._limited, {}
        for scheme, directories in limited.values():
            self._table.unmount(scheme, timeout=0.0)
            directories.close()

    def close(self) -> None:
        """Close the directories that tokens are limited to."""
        self.replace(self._whitelist, self._gate)

    def operator_mounts(self) -> dict[str, str]:
        """Names and providers of the mounts that the operator made and clients may use."""
        return {
            name: info.provider
            for name, info in self._table.mounts().items()
            if not name.startswith("client-")
            and info.provider not in _LOCAL_PROVIDERS
            and name not in ("host", "http", "https")
        }

    def mount(self, name: str, parameters: Mapping[str, object]) -> SessionMount:
        """Make a mount for one session, with the client's own account and through the gate.

        Raises
        ------
        MountError, ParameterError
            A name, provider or parameter that a session may not have, or no account.
        AccessDenied
            An ``endpoint_url`` that the gate refuses.
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
        for key in ("endpoint_url", "storage_url"):
            if key in given:
                self._gate.check_url(str(given[key]))
        kind = providers.handler_factory(known)
        wanted = parameters_of(name, known.name, kind, {key: (value, True) for key, value in given.items()})
        handler = gated(MountSpec(name, known.name, parameters=wanted), self._gate)
        internal = f"client-{secrets.token_hex(8)}"
        self._table.attach(internal, handler)
        said = " ".join(str(given[key]) for key in ("endpoint_url", "auth_url", "storage_url") if key in given)
        return SessionMount(name, internal, "" if root is None else f"{root.strip('/')}/", f"{root} {said}")

    def unmount(self, mount: SessionMount) -> None:
        """Forget a session's mount; what still runs on it ends on its own."""
        self._table.detach(mount.internal)


def _encodable(text: str) -> bool:
    """Whether a text is one that a name can have: JSON and percent-encoding can spell lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def gated(spec: MountSpec, gate: EgressPolicy) -> Handler:
    """Make the handler of a mount for clients: its every connection asks `gate`, and nothing of this host is used.

    Neither its credentials nor its settings; no proxy either, which would resolve names itself.

    Raises
    ------
    MountError
        The handler would look for this host's credentials, or makes connections in a way that the gate would not see.
    """
    handler = replace(spec, ambient=False).connect()
    client = getattr(handler, "client", None)
    if not isinstance(client, ConnectionPool):
        raise MountError(f"{handler.scheme}:// cannot be used through a gate")
    client.gate = gate
    return handler
