"""One mount: what it is, its connection, and who uses it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from apyfal.config.ini import without_user_info
from apyfal.exceptions import InvalidURL
from apyfal.storage import providers
from apyfal.storage.handler import Handler
from apyfal.storage.mounting.parameters import MountParameter, shown, without_ambient
from apyfal.storage.url import Location

__all__ = ["Mount", "MountInfo", "MountSpec", "MountedPath"]

_LOG = logging.getLogger(__name__)

#: Parameters that say where a store is, and not who asks it or how.
_ADDRESS = ("endpoint_url", "account", "storage_url", "protocol", "host", "port")


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One mount, as it may be shown.

    Attributes
    ----------
    name
        The URL scheme.
    provider
        Which kind of store.
    root
        What stands before every path, or ``None``.
    parameters
        Names to texts; secrets are ``***``.
    origins
        Names to where each value was said: ``argument``, or file, line, section and key.
    connected
        Whether it has been used.
    """

    name: str
    provider: str
    root: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    connected: bool = False

    def __str__(self) -> str:
        said = "".join(f" {name}={value}" for name, value in self.parameters.items())
        return f"{self.name}:// {self.provider}{f' root={self.root}' if self.root else ''}{said}"


@dataclass(frozen=True, slots=True)
class MountSpec:
    """What a mount is, without its connections. Can be pickled; its ``repr`` shows no secret.

    Attributes
    ----------
    name, provider, root
        As in `MountInfo`.
    parameters
        Names to values, checked.
    ambient
        Whether credentials and settings that are not given may be looked for on this machine: environment variables,
        profiles, token files, instance roles, proxies, ssh keys. ``False`` for a mount of somebody who is not this
        process's user. It is not a parameter: who writes parameters cannot set it.
    """

    name: str
    provider: str
    root: str | None = None
    parameters: Mapping[str, MountParameter] = field(default_factory=dict)
    ambient: bool = True

    def __repr__(self) -> str:
        return f"<mount {self.info(False)}>"

    def same_as(self, other: MountSpec) -> bool:
        """Whether both mean the same store in the same way, wherever it was said."""
        mine = (self.name, self.provider, self.root, self.ambient, self.values())
        return mine == (other.name, other.provider, other.root, other.ambient, other.values())

    def values(self) -> dict[str, object]:
        """Give the parameters by name."""
        return {name: parameter.value for name, parameter in self.parameters.items()}

    def info(self, connected: bool) -> MountInfo:
        """Give what may be shown."""
        return MountInfo(
            self.name,
            self.provider,
            None if self.root is None else _shown_root(self.provider, self.root),
            {name: shown(name, parameter.value) for name, parameter in self.parameters.items()},
            {name: parameter.origin for name, parameter in self.parameters.items()},
            connected,
        )

    def below(self, location: Location) -> str:
        """Put the root before a location's path."""
        path = location.path
        if self.root is None:
            return path
        provider = providers.BUILT_IN.get(self.provider)
        hierarchical = provider is not None and (provider.local or provider.name == "fsspec")
        if hierarchical and ".." in path.split("/"):
            raise InvalidURL(f"{str(location)!r} leaves the root of its mount")
        return f"{self.root.rstrip('/')}/{path.lstrip('/') if hierarchical else path}"

    def connect(self) -> Handler:
        """Make the handler.

        Raises
        ------
        MountError
            The provider is unknown, a parameter is wrong, or (without `ambient`) something of this machine is needed.
        """
        provider = providers.find(self.provider)
        if provider is None:
            raise providers.unknown(self.provider)
        values = self.values()
        limits = {name: values.pop(name) for name in ("bandwidth", "memory_limit", "max_concurrency") if name in values}
        kind: Any = providers.handler_factory(provider)  # each has its own parameters
        if self.ambient:
            handler: Handler = kind(**values)
        else:
            without_ambient(self.name, self.provider, kind, values)
            handler = kind(False, **values)
        for name, limit in limits.items():
            setattr(handler, name, limit)
        return handler


def _shown_root(provider: str, root: str) -> str:
    if "://" in root:  # a URL, by mistake
        return without_user_info(root)
    before = "http://" if provider in ("http", "https") else "root://"
    return without_user_info(before + root).removeprefix(before)


class Mount:
    """One name in the table: its definition, its handler once it is used, and how many use it.

    Parameters
    ----------
    definition
        What it is.
    attached
        A handler that exists already, instead of one made from the definition.
    """

    def __init__(self, definition: MountSpec, attached: Handler | None = None) -> None:
        self.definition = definition
        self.handler = attached
        self.attached = attached is not None  # not made from the definition, and cannot be made again
        self.users = 0
        self.idle = threading.Condition()
        self.closing = False

    def lease(self) -> Handler:
        """Use the mount: connect if it is the first time, and keep it until `release`."""
        with self.idle:
            if self.closing:
                raise InvalidURL(f"{self.definition.name}:// is being unmounted")
            if self.handler is None:
                self.handler = self.definition.connect()
                _LOG.debug("mount %s:// made: %s", self.definition.name, self.definition.provider)
            self.users += 1
            return self.handler

    def release(self) -> None:
        """End one use; the last one closes a mount that is to be closed."""
        with self.idle:
            self.users -= 1
            if self.users == 0:
                self.idle.notify_all()
                if self.closing:
                    self._close()

    def close_when_idle(self) -> None:
        """Close as soon as nobody uses it."""
        with self.idle:
            self.closing = True
            if self.users == 0:
                self._close()

    def close_within(self, timeout: float) -> int:
        """Close when nobody uses it within `timeout` seconds; else give the number of users and leave all as it was."""
        deadline = time.monotonic() + timeout
        with self.idle:
            self.closing = True
            while self.users and (rest := deadline - time.monotonic()) > 0:
                self.idle.wait(rest)
            if self.users:
                self.closing = False
                return self.users
            self._close()
            return 0

    def _close(self) -> None:
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.close()


class MountedPath:
    """A path in a mounted store, in use: the mount stays until `release`. A context manager."""

    def __init__(self, mount: Mount, path: str, location: Location) -> None:
        self.handler = mount.lease()
        self.path = path
        self.location = location
        self._mount: Mount | None = mount

    @property
    def root(self) -> str | None:
        """What stands before every path of this mount."""
        return self._mount.definition.root if self._mount else None

    @property
    def provider(self) -> str:
        """Which kind of store it is."""
        return self._mount.definition.provider if self._mount else ""

    @property
    def is_hierarchical(self) -> bool:
        """Whether directories are real here, as on a disk, and not only the first part of objects' names."""
        provider = providers.BUILT_IN.get(self.provider)
        return provider is not None and (provider.local or provider.name == "fsspec")

    @property
    def on_this_machine(self) -> bool:
        """Whether `path` is that of a file of this machine."""
        return self.provider == "file"  # the web is as `local`, for it has no keys either

    @property
    def above_objects(self) -> str | None:
        """What the path names if that is not an object whatever the store holds (the root, a bucket); else ``None``."""
        if self.provider in ("http", "https"):
            return None
        if not self.path.strip("/"):
            return "the root of a store"
        provider = providers.BUILT_IN.get(self.provider)
        if provider is not None and provider.buckets and not self.path.partition("/")[2]:
            return "a bucket"
        return None if self.location.path else "the root of a mount"

    def beside(self, location: Location) -> str | None:
        """Give the path of another location of the same mount; ``None`` if it is none, or no object's for sure."""
        if self._mount is None or location.scheme != self.location.scheme or not location.path:
            return None
        path = self._mount.definition.below(location)
        provider = providers.BUILT_IN.get(self.provider)
        with_key = provider is None or not provider.buckets or bool(path.partition("/")[2])
        return path if with_key and path.strip("/") else None

    def require_object(self, what: str) -> None:
        """Raise `InvalidURL` if the path can be no object's, before a store takes it for more than it says.

        Parameters
        ----------
        what
            For the message: cannot `what`.
        """
        if (above := self.above_objects) is not None:
            raise InvalidURL(f"cannot {what} {str(self.location)!r}: it names {above}, and no object in it")

    def same_store_as(self, other: MountedPath) -> bool:
        """Whether both are in one store, reached in the same way, though perhaps under two names."""
        if self.handler is other.handler:
            return True
        if self._mount is None or other._mount is None or self._mount.attached or other._mount.attached:
            return False
        mine, theirs = self._mount.definition, other._mount.definition
        return (mine.provider, mine.ambient) == (theirs.provider, theirs.ambient) and mine.values() == theirs.values()

    def may_be_same_store_as(self, other: MountedPath) -> bool:
        """Whether both may be in one store, perhaps as two users: the same kind of store at the same address."""
        if self.handler is other.handler:
            return True
        if self._mount is None or other._mount is None or self._mount.attached or other._mount.attached:
            return False
        mine, theirs = self._mount.definition, other._mount.definition
        mine_at, theirs_at = mine.values(), theirs.values()
        return mine.provider == theirs.provider and all(mine_at.get(name) == theirs_at.get(name) for name in _ADDRESS)

    @property
    def closing(self) -> bool:
        """Whether the mount waits for its users to end."""
        return self._mount is not None and self._mount.closing

    def release(self) -> None:
        """Stop using the mount. May be called again."""
        mount, self._mount = self._mount, None
        if mount is not None:
            mount.release()

    def __enter__(self) -> MountedPath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
