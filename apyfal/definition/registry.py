"""Accelerators by name."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING

from apyfal.definition.definition import Definition
from apyfal.exceptions import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["find", "get", "names", "register"]

PLUGIN_GROUP = "apyfal.accelerators"

#: Each is the module of `apyfal.accelerators` that defines it.
_REFERENCE = ("gunzip", "gzip", "histogram", "loopback", "scale", "sha3", "trng")

_lock = threading.Lock()
_definitions: dict[str, Definition] = {}


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # takes longer to import than all of apyfal

    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP)}


def register(definition: Definition, *, replace: bool = False) -> Definition:
    """Make `definition` usable by its name.

    Parameters
    ----------
    definition
        Returned, for use as an expression.
    replace
        Take the place of another accelerator of this name.

    Raises
    ------
    ConfigurationError
        The name is taken, or belongs to a reference accelerator.
    """
    name = definition.name
    with _lock:
        if name in _REFERENCE or (name in _definitions and not replace):
            raise ConfigurationError(f"accelerator {name!r} is already there; choose another name")
        _definitions[name] = definition
    return definition


def names() -> list[str]:
    """Return the names of all accelerators outside the configuration, sorted."""
    return sorted({*_REFERENCE, *_definitions, *_plugins()})


def find(name: str) -> Definition | None:
    """Return the accelerator `name`, or ``None``; `ConfigurationError` where its plugin is broken."""
    if (definition := _definitions.get(name)) is not None:
        return definition
    if name in _REFERENCE:
        found = importlib.import_module(f"apyfal.accelerators.{name}").DEFINITION
    elif (entry := _plugins().get(name)) is not None:
        found = _load(entry)
    else:
        return None
    with _lock:
        return _definitions.setdefault(name, found)


def get(name: str) -> Definition:
    """Return the accelerator `name`.

    Raises
    ------
    ConfigurationError
        There is none, or its plugin is broken.
    """
    definition = find(name)
    if definition is None:
        raise ConfigurationError(f"unknown accelerator {name!r}{did_you_mean(name, names())}")
    return definition


def _load(entry: EntryPoint) -> Definition:
    origin = f"accelerator {entry.name!r}: plugin {entry.value!r}"
    try:
        found = entry.load()
    except Exception as error:  # whatever a plugin's import does
        raise ConfigurationError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Definition):
        raise ConfigurationError(f"{origin} is a {type(found).__name__}, not a Definition")
    return found
