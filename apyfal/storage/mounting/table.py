"""The mounts of this process: which name stands for which store.

A mount connects when it is first used. Names come from `mount`, from the configuration
(`apyfal.storage.mounting.from_config`),
or are a provider's own (``s3://`` without any mount works with what the provider's SDK finds). All of it can be used
from any thread, and after a fork: the child makes its own connections.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apyfal.config.configuration import ConfigSource, Configuration
from apyfal.exceptions import ConfigurationError, InvalidURL, MountError, StorageError, did_you_mean
from apyfal.storage import providers
from apyfal.storage.handler import Handler
from apyfal.storage.mounting import from_config
from apyfal.storage.mounting.authority import lends_credentials
from apyfal.storage.mounting.mount import Mount, MountedPath, MountInfo, MountSpec
from apyfal.storage.mounting.parameters import accepted, checked, takes_anything
from apyfal.storage.url import Location, ask_mounts
from apyfal.units import parse_duration

__all__ = ["MountInfo", "MountTable", "MountedPath", "mount", "mounts", "resolve", "snapshot", "table", "unmount"]

_NAME = re.compile(r"[a-z][a-z0-9+_-]*(\.[a-z0-9+_-]+)*", re.ASCII)


class MountTable:
    """All mounts of a process. There is one, `table`; its functions are those of `apyfal.storage`."""

    def __init__(self) -> None:
        self._reset_lock()
        self._mounts: dict[str, Mount] = {}  # by `mount`
        self._automatic: dict[str, Mount] = {}  # from the configuration, or a provider's own name
        self._hidden: set[str] = set()  # unmounted, though the configuration has them
        self._seen: object = None
        self._configuration = Configuration({})
        self._given: Configuration | None = None

    # -- public -------------------------------------------------------------------------------------------------------
    def mount(
        self,
        storage_type: str,
        *,
        provider: str | None = None,
        root: str | None = None,
        client_id: str | None = None,
        secret_id: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        config: ConfigSource = None,
        replace: bool = False,
        **parameters: object,
    ) -> None:
        """Make a store usable under a name, which becomes a URL scheme. Nothing is connected yet.

        Parameters
        ----------
        storage_type
            A provider's own name (``"s3"``), a dotted name (``"s3.lab"``: provider ``s3``) or any new name.
        provider
            The kind of store, for a name that does not say it.
        root
            A bucket, or bucket and prefix, that stands before every path: with ``root="bucket/prefix"``,
            ``my_storage://key`` is ``bucket/prefix/key``.
        client_id, secret_id
            The account and its secret, whatever the provider calls them.
        region, endpoint_url
            Where the store is.
        config
            Where to find what is not given here; default: the configuration file that is found.
        replace
            Allow to mount a name again with other parameters. Transfers under way end with the old ones.
        **parameters
            Other parameters of the provider. ``bandwidth`` (bytes a second), ``memory_limit`` (bytes, or text like
            ``"64MiB"``) and ``max_concurrency`` (connections) limit all transfers of this mount together. Without
            ``max_concurrency``, one transfer, or one call for many objects, has at most 16 connections.

        Raises
        ------
        MountError
            For an unknown provider, a misspelled parameter, a wrong value or a name that is taken.
        ConfigurationError
            For a mistake in the configuration file.
        """
        given: dict[str, object] = dict(
            parameters, client_id=client_id, secret_id=secret_id, region=region, endpoint_url=endpoint_url
        )
        configuration = Configuration.load(config)
        definition = _define(_checked_name(storage_type), configuration, given, provider=provider, root=root)
        with self._lock:
            old = self._mounts.get(definition.name)
            if old is not None:
                if old.definition.same_as(definition):
                    return
                if not replace:
                    raise MountError(
                        f"{definition.name!r} is already mounted with other parameters; "
                        f"give replace=True, or another name such as '{definition.name.partition('.')[0]}.other'"
                    )
            self._mounts[definition.name] = Mount(definition)
            self._hidden.discard(definition.name)
        if old is not None:
            old.close_when_idle()

    def unmount(self, storage_type: str, *, timeout: float | str = 30.0) -> None:
        """Forget a mount and close its connections, once the transfers and files that use it have ended.

        Parameters
        ----------
        storage_type
            The mount's name.
        timeout
            Seconds, or text (``"2min"``), to wait for them. New ones are refused meanwhile.

        Raises
        ------
        MountError
            When there is no such mount, or it is still in use after `timeout`; it then stays mounted.
        ParameterError
            `timeout` is not a duration.
        """
        seconds = parse_duration(timeout)
        name = providers.canonical(storage_type.lower())
        mounted = self._find(name)
        if mounted is None:
            raise MountError(f"{storage_type!r} is not mounted{did_you_mean(name, self.mounts())}")
        if users := mounted.close_within(seconds):
            raise MountError(
                f"cannot unmount {name!r}: {users} of its files and transfers still run after {seconds:g} s"
            )
        with self._lock:
            for known in (self._mounts, self._automatic):
                if known.get(name) is mounted:
                    del known[name]
            self._hidden.add(name)

    def detach(self, name: str) -> None:
        """Forget at once a mount that `attach` made; its connections close when nothing uses them any more.

        Raises
        ------
        MountError
            When there is no such mount.
        """
        with self._lock:
            mounted = self._mounts.pop(name, None)
        if mounted is None:
            raise MountError(f"{name!r} is not mounted")
        mounted.close_when_idle()

    def mounts(self) -> dict[str, MountInfo]:
        """List the mounts by name: those made by `mount`, those of the configuration, and what needs none.

        Raises
        ------
        ConfigurationError, MountError
            For a mistake in the configuration file.
        """
        result = {name: MountInfo(name, name) for name, provider in providers.BUILT_IN.items() if provider.local}
        with self._lock:  # another configuration, found meanwhile, would forget the mounts of this one
            configuration = self._refreshed()
            for name in from_config.configured(configuration):
                self._find(name, configuration)
            for known in (self._automatic, self._mounts):
                for name, mounted in known.items():
                    result[name] = mounted.definition.info(mounted.handler is not None)
        return result

    def has(self, name: str) -> bool:
        """Whether there is a mount of this name, made by `mount` or in the configuration."""
        with self._lock:
            if name in self._mounts or name in self._hidden:
                return name in self._mounts
        with contextlib.suppress(MountError, ConfigurationError):
            return name in from_config.configured(self._refreshed())
        return False

    def attach(self, name: str, handler: Handler) -> None:
        """Mount a handler that exists already, such as one of the host's own. It is not part of `snapshot`."""
        with self._lock:
            old = self._mounts.get(name)
            self._mounts[name] = Mount(MountSpec(name, handler.scheme), handler)
            self._hidden.discard(name)
        if old is not None:
            old.close_when_idle()

    def resolve(self, location: Location) -> MountedPath:
        """Find the store of a location, and use it: the caller releases the target.

        A full web address of a mounted store's object (``https://bucket.s3.eu-west-1.amazonaws.com/key``,
        ``https://domain/v1/project/container/object``) is that object, with the mount's credentials, unless it
        carries a query of its own (a signature), or the web itself was attached: a daemon does that for its clients,
        who may not use a mount's credentials by spelling its address.

        Raises
        ------
        InvalidURL
            For a scheme that is neither mounted nor a provider's.
        MountError, ConfigurationError
            When the store cannot be mounted.
        """
        if location.scheme in ("http", "https") and "?" not in location.path and not self._is_attached(location.scheme):
            claimed = self._claimed(location)
            if claimed is not None:
                return claimed
        while True:
            mounted = self._find(location.scheme)
            if mounted is None:
                raise self._not_mounted(location)
            path = mounted.definition.below(location)
            try:
                return MountedPath(mounted, path, location)
            except InvalidURL:
                if self._find(location.scheme) in (None, mounted):  # else it was replaced since it was found
                    raise

    def snapshot(self) -> Snapshot:
        """Give what `mount` has made in this process, to be pickled and restored in another."""
        with self._lock:
            return Snapshot(tuple(mounted.definition for mounted in self._mounts.values() if not mounted.attached))

    def restore(self, definitions: Iterable[MountSpec]) -> None:
        """Mount what another process had, replacing mounts of the same names."""
        for definition in definitions:
            with self._lock:
                old = self._mounts.get(definition.name)
                if old is not None and old.definition.same_as(definition):
                    continue
                self._mounts[definition.name] = Mount(definition)
                self._hidden.discard(definition.name)
            if old is not None:
                old.close_when_idle()

    def configure(self, configuration: Configuration | None) -> None:
        """Take mounts from `configuration`, whatever becomes of its file; ``None``: from the one that is found.

        Mounts that came from the former configuration are closed when nobody uses them.
        """
        with self._lock:
            self._given, self._seen = configuration, None
            old, self._automatic = self._automatic, {}
        for mounted in old.values():
            mounted.close_when_idle()

    def clear(self) -> None:
        """Forget everything, the connections included; the configuration is read again when it is needed."""
        with self._lock:
            known = [*self._mounts.values(), *self._automatic.values()]
            self._mounts, self._automatic, self._hidden, self._seen = {}, {}, set(), None
            self._given = None
        for mounted in known:
            mounted.close_when_idle()

    def after_fork(self) -> None:
        """Forget the parent's connections, locks and users in a forked child."""
        self._reset_lock()
        for known in (self._mounts, self._automatic):
            for name, mounted in known.items():
                known[name] = Mount(mounted.definition, mounted.handler if mounted.attached else None)

    # -- private ------------------------------------------------------------------------------------------------------
    def _reset_lock(self) -> None:
        self._lock = threading.RLock()

    def _refreshed(self) -> Configuration:
        """Give the configuration as it is now; automatic mounts that it no longer describes are closed."""
        if (given := self._given) is not None:
            return given
        seen = from_config.fingerprint()
        with self._lock:
            if seen == self._seen:
                return self._configuration
            configuration = Configuration.load()
            old, self._automatic = self._automatic, {}
            self._configuration, self._seen = configuration, seen
        for mounted in old.values():
            mounted.close_when_idle()
        return configuration

    def _find(self, name: str, configuration: Configuration | None = None) -> Mount | None:
        """Give a mount; by default, as the configuration is now."""
        with self._lock:
            mounted = self._mounts.get(name)
            if mounted is not None or name in self._hidden or name == providers.HOST_SCHEME:
                return mounted
            if configuration is None:
                configuration = self._refreshed()
            mounted = self._automatic.get(name)
            if mounted is None and (name in from_config.configured(configuration) or providers.find(name) is not None):
                mounted = self._automatic[name] = Mount(_define(name, configuration, {}))
            return mounted

    def _is_attached(self, name: str) -> bool:
        with self._lock:
            mounted = self._mounts.get(name)
            return mounted is not None and mounted.attached

    def _usable(self) -> dict[str, MountSpec]:
        """Give the mounts that can be made: what is wrong with another one is reported when that is used."""
        with self._lock:
            configuration = self._refreshed()
            for name in from_config.configured(configuration):
                with contextlib.suppress(MountError, ConfigurationError):
                    self._find(name, configuration)
            known = self._automatic | self._mounts
        return {name: mounted.definition for name, mounted in known.items()}

    def _claimed(self, location: Location) -> MountedPath | None:
        for name, definition in self._usable().items():
            provider = providers.find(definition.provider)
            endpoint = definition.values().get("endpoint_url")
            if provider is None or not provider.may_be_at(location.path, str(endpoint) if endpoint else None):
                continue
            mounted = self._find(name)
            if mounted is None:
                continue
            target = MountedPath(mounted, "", location)
            path = None
            try:
                # a store that cannot be asked does not keep anybody from an ordinary web page
                with contextlib.suppress(StorageError):
                    path = target.handler.path_of(location.url)
            finally:
                if path is None:
                    target.release()
            if path is not None:
                target.path = path
                return target
        return None

    def _not_mounted(self, location: Location) -> InvalidURL:
        scheme = location.scheme
        if scheme == providers.HOST_SCHEME:
            return InvalidURL(
                f"{str(location)!r}: host:// names a file on the accelerator's host, and works only with a remotely "
                "controlled accelerator (host_ip=); a file of this machine is given by its plain path"
            )
        if scheme in self._hidden:
            return InvalidURL(f"{str(location)!r}: {scheme!r} was unmounted")
        return InvalidURL(
            f"{str(location)!r}: {scheme!r} is neither mounted nor a storage provider"
            f"{did_you_mean(scheme, {*self._usable(), *providers.names()})}"
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The mounts of one process, for another: ``ProcessPoolExecutor(initializer=snapshot().restore)``.

    Pickled, it holds the mounts' secrets; its ``repr`` does not.
    """

    definitions: tuple[MountSpec, ...]

    def restore(self) -> None:
        """Mount in this process what was mounted in the other."""
        table.restore(self.definitions)


table = MountTable()
mount = table.mount
unmount = table.unmount
mounts = table.mounts
resolve = table.resolve
snapshot = table.snapshot
ask_mounts(table.has)
os.register_at_fork(after_in_child=table.after_fork)


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name.lower()):
        raise MountError(
            f"{name!r} cannot be mounted: a storage type is a URL scheme (a letter, then letters, digits and '+_-', "
            "with dots between the parts)"
        )
    if name.lower() == providers.HOST_SCHEME:
        raise MountError(f"{name!r} cannot be mounted: it names the files of a remotely controlled accelerator's host")
    return providers.canonical(name.lower())


def _define(
    name: str,
    configuration: Configuration,
    arguments: Mapping[str, object],
    *,
    provider: str | None = None,
    root: str | None = None,
) -> MountSpec:
    found = from_config.provider_of(name, configuration, provider)
    given = from_config.gathered(name, found, configuration, arguments)
    handler = providers.handler_factory(found)
    if root is None:
        root = from_config.root_of(name, configuration)
    known = None if takes_anything(handler) else accepted(handler)
    ambient = lends_credentials(name, found, given, known, root)
    parameters = checked(name, found.name, handler, given)
    return MountSpec(name, found.name, str.__str__(root) if root else None, parameters, ambient)
