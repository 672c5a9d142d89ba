"""Mounts that the configuration defines: ``[storage.NAME]``, and the accelerator's host (``[host]``, ``[host.TYPE]``).

For every key, the first of these that has it wins: the argument of `apyfal.storage.mount`, ``[storage.NAME]`` (with
its own fallbacks, dot by dot), ``[storage]``, ``[host.TYPE]``, ``[host]``; what none of them says is left to the
provider's SDK (profiles, environment, instance role). Two rules keep stores apart: a section that names another
provider gives nothing, and a ``secret_id`` never goes with another ``client_id`` than that of its own section.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from apyfal.config.configuration import ENVIRONMENT, FILE_NAME, Configuration, Section
from apyfal.config.ini import Value
from apyfal.config.trust import TrustStore
from apyfal.exceptions import MountError, did_you_mean
from apyfal.storage import providers
from apyfal.storage.mounting.parameters import named

__all__ = ["configured", "fingerprint", "gathered", "provider_of", "root_of"]

#: keys of a section that say what it is about, rather than something to its provider
_OWN_KEYS = frozenset({"provider", "root", "host_type"})
#: keys of a host section that are about the daemon and nothing to a store
_DAEMON_KEYS = frozenset({"host_ip", "token", "token_file"})

#: credentials that belong together
_IDENTITY, _SECRET = "client_id", "secret_id"


def fingerprint() -> object:
    """Give a value that changes when another configuration is found, or the same one with other content or trust."""
    named = os.environ.get(ENVIRONMENT)
    home = os.path.expanduser("~")
    files = [named] if named else [os.path.abspath(FILE_NAME), os.path.join(home, FILE_NAME), str(TrustStore().path)]
    return (named, home, *(_stamp(file) for file in files))


def configured(configuration: Configuration) -> list[str]:
    """List the names that the configuration mounts."""
    found = []
    for section in configuration.sections("storage"):
        _, dot, name = section.partition(".")
        if dot:
            found.append(providers.canonical(name.lower()))
    for kind in _host_types(configuration):
        provider = providers.find(kind)
        if provider is not None and not provider.local:
            found.append(provider.name)
    return list(dict.fromkeys(found))


def provider_of(name: str, configuration: Configuration, given: str | None = None) -> providers.Provider:
    """Find the provider of a mount.

    It is the one that is given; that which the sections of the mount name; that which the name itself says (``s3``,
    ``s3.lab``); the host's. A new name that has only credentials is a store of the S3 kind.

    Raises
    ------
    MountError, ConfigurationError
        When there is no such provider, or nothing says which.
    """
    stated: str | None = given
    for section in _storage_sections(name, configuration):
        if stated is None and "provider" in section:
            stated = section["provider"]
    if stated is not None:
        provider = providers.find(stated.lower())
        if provider is None:
            error = providers.unknown(stated)
            raise stated.error(str(error)) if isinstance(stated, Value) else error
        return provider
    provider = providers.find(name.partition(".")[0])
    if provider is not None:
        return provider
    for kind in _host_types(configuration):
        provider = providers.find(kind)
        if provider is not None and not provider.local:
            return provider
    near = did_you_mean(name, providers.names())
    if near.startswith("; did you mean"):
        raise MountError(f"{name!r} is not a storage provider{near} (for a name of your own, give provider=)")
    return providers.BUILT_IN["s3"]


def root_of(name: str, configuration: Configuration) -> Value | None:
    """Find the ``root`` that the configuration gives to a mount."""
    for section in _storage_sections(name, configuration):
        if "root" in section:
            return section["root"]
    return None


def gathered(
    name: str, provider: providers.Provider, configuration: Configuration, arguments: Mapping[str, object]
) -> dict[str, tuple[object, bool]]:
    """Collect the parameters of a mount.

    Parameters
    ----------
    name
        The mount's.
    provider
        Its provider, which sections must not contradict.
    configuration
        Where to look.
    arguments
        What the caller gave; ``None`` counts as not given.

    Returns
    -------
    dict
        Parameter name to its value, and whether it was said for this very mount (so that an unknown name is an error).
        `apyfal.storage.mounting.authority` says whether the values may be used.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    result = {key: (value, True) for key, value in named(name, provider.name, given).items()}
    own = _section_names(name, configuration)
    for section in _layers(name, provider, configuration):
        values = {key: value for key in section if (value := section.unchecked(key)) is not None}
        names = named(name, provider.name, {key: key for key in values})
        identity = values.get(str(names.get(_IDENTITY)))
        for key, alias in names.items():
            value = values[str(alias)]
            if key in _OWN_KEYS or key in result:
                continue
            if key in _DAEMON_KEYS and value.section.partition(".")[0] == "host":
                continue
            if key == _SECRET and identity is not None and identity != result.get(_IDENTITY, (identity,))[0]:
                continue  # it would be sent with another account's name
            result[key] = (value, value.section in own)
    return result


def _layers(name: str, provider: providers.Provider, configuration: Configuration) -> Iterator[Section]:
    for section in _storage_sections(name, configuration):
        stated = section.unchecked("provider")
        if stated is None or providers.find(stated.lower()) == provider:
            yield section
    if provider.local:
        return
    for section_name in configuration.sections("host"):
        _, dot, host_type = section_name.partition(".")
        if dot and providers.canonical(host_type.lower()) == provider.name:
            yield configuration.exactly(section_name)
    host = configuration.exactly("host")
    kind = host.unchecked("host_type")
    if kind is None or providers.canonical(kind.lower()) == provider.name:
        yield host


def _storage_sections(name: str, configuration: Configuration) -> Iterator[Section]:
    """Yield the storage sections for `name`, the most precise first."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        for section_name in _section_names(".".join(parts[:depth]), configuration):
            yield configuration.exactly(section_name)
    yield configuration.exactly("storage")


def _section_names(name: str, configuration: Configuration) -> list[str]:
    return [
        section
        for section in configuration.sections("storage")
        if providers.canonical(section.partition(".")[2].lower()) == name
    ]


def _host_types(configuration: Configuration) -> list[str]:
    stated = configuration.exactly("host").get("host_type")
    kinds = [stated.lower()] if stated else []
    return kinds + [section.partition(".")[2].lower() for section in configuration.sections("host") if "." in section]


def _stamp(file: str | Path) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return (str(file), status.st_ino, status.st_size, status.st_mtime_ns)
