"""Which module speaks to which kind of store.

The built-in providers are a static table, so that finding one imports nothing. Others come from packages that declare
an entry point in the group ``apyfal.storage``: its name is the provider's (a URL scheme), its value a subclass of
`apyfal.storage.handler.Handler`, or a function that returns one: ``package.module:Name``.

The keyword-only parameters of the class or function are what can be given to `apyfal.storage.mount`; their
annotations (``str``, ``int``, ``float``, ``bool``, each perhaps ``| None``) say how a text from a configuration file
is read.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apyfal.exceptions import MountError, did_you_mean
from apyfal.storage.handler import Handler

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "HOST_SCHEME",
    "Provider",
    "canonical",
    "find",
    "handler_factory",
    "names",
    "unknown",
]

#: entry point group in which other packages declare their providers
ENTRY_POINTS = "apyfal.storage"

#: files on a remotely controlled accelerator's host: a scheme that means something to the host only
HOST_SCHEME = "host"


@dataclass(frozen=True, slots=True)
class Provider:
    """Where one kind of store is implemented.

    Attributes
    ----------
    name
        The URL scheme that stands for it.
    target
        The handler class, ``package.module:ClassName``.
    aliases
        Other schemes that mean the same.
    web
        Pattern of the web addresses (without scheme) of its objects, if they can be distinguished from others.
    buckets
        The first part of every path is a bucket or container.
    local
        Needs no account: usable without being mounted, and never mounted from a configuration's host sections.
    """

    name: str
    target: str
    aliases: tuple[str, ...] = ()
    web: str | None = None
    buckets: bool = False
    local: bool = False

    def may_be_at(self, address: str, endpoint_url: str | None) -> bool:
        """Whether a web address (without scheme) may be that of an object in a store of this kind."""
        if self.local:
            return False
        if endpoint_url and address.startswith(endpoint_url.partition("://")[2].rstrip("/") + "/"):
            return True
        return self.web is not None and re.match(self.web, address) is not None


BUILT_IN = {
    provider.name: provider
    for provider in (
        Provider("file", "apyfal.storage.stores.file:FileHandler", local=True),
        Provider("http", "apyfal.storage.stores.web:HTTPHandler", local=True),
        Provider("https", "apyfal.storage.stores.web:HTTPSHandler", local=True),
        Provider(
            "s3",
            "apyfal.storage.stores.s3.handler:S3Handler",
            ("aws",),
            web=r"([^/]+\.)?s3[.-][^/]*\.?amazonaws\.com(\.cn)?/",
            buckets=True,
        ),
        Provider(
            "swift",
            "apyfal.storage.stores.swift.handler:SwiftHandler",
            ("openstack",),
            web=r"[^/]+/(?:.*/)?v1/[^/]+/.",
            buckets=True,
        ),
        Provider(
            "oss",
            "apyfal.storage.stores.oss:OSSHandler",
            ("alibaba",),
            web=r"[^/]+\.aliyuncs\.com/.",
            buckets=True,
        ),
        Provider(
            "gs",
            "apyfal.storage.stores.gcs.handler:open_gs",
            ("gcs",),
            web=r"([^/]+\.)?storage\.googleapis\.com/.",
            buckets=True,
        ),
        Provider(
            "az",
            "apyfal.storage.stores.azure.handler:AzureHandler",
            ("azure",),
            web=r"[^/]+\.blob\.core\.[^/]+/.",
            buckets=True,
        ),
        Provider("fsspec", "apyfal.storage.stores.fsspec.handler:FsspecHandler"),
    )
}

_ALIASES = {alias: provider.name for provider in BUILT_IN.values() for alias in provider.aliases}


def canonical(name: str) -> str:
    """Give a provider's own name for any of its names: ``aws`` is ``s3``, ``aws.lab`` is ``s3.lab``, others stay."""
    head, dot, rest = name.partition(".")
    return _ALIASES.get(head, head) + dot + rest


def names() -> list[str]:
    """List every provider that can be named, aliases included."""
    return sorted({*BUILT_IN, *_ALIASES, *(provider.name for provider in _third_party())})


def find(name: str) -> Provider | None:
    """Find a provider by any of its names, or return ``None``."""
    name = canonical(name)
    if name in BUILT_IN:
        return BUILT_IN[name]
    return next((provider for provider in _third_party() if provider.name == name), None)


def handler_factory(provider: Provider) -> Callable[..., Handler]:
    """Import what makes a provider's handlers: their class, or a function that chooses among several.

    Raises
    ------
    MountError
        When the module does not exist, cannot be imported, or does not hold the handler.
    """
    module_name, _, class_name = provider.target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise MountError(
            f"storage provider {provider.name!r} cannot be loaded from {provider.target}: {error}"
        ) from error
    if not (issubclass(found, Handler) if isinstance(found, type) else callable(found)):
        raise MountError(f"provider {provider.name!r}: {provider.target} is not an apyfal.storage.handler.Handler")
    factory: Callable[..., Handler] = found
    return factory


def unknown(name: str) -> MountError:
    """Make the error for a provider that nobody offers."""
    return MountError(f"unknown storage provider {name!r}{did_you_mean(name, names())}")


def _third_party() -> Iterator[Provider]:
    from importlib.metadata import entry_points  # reads every installed package's metadata: only when it comes to that

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in BUILT_IN and entry.name not in _ALIASES:
            yield Provider(entry.name, entry.value)
