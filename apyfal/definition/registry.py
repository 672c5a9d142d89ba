"""Accelerators by name: reference accelerators, those that a program registered, and plugins."""

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

#: Each is defined in the module of `apyfal.accelerators` of this name.
_REFERENCE = ("gunzip", "gzip", "histogram", "loopback", "scale", "sha3", "trng")

_lock = threading.Lock()
_definitions: dict[str, Definition] = {}


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # takes longer to import than all of apyfal

    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP)}


def register(definition: Definition, *, replace: bool = False) -> Definition:
    """Let `definition` be found by its name.

    Parameters
    ----------
    definition
        Returned, for use as an expression.
    replace
        Replace another accelerator of this name.

    Raises
    ------
    ConfigurationError
        The name is taken. That of a reference accelerator cannot be replaced.
    """
    name = definition.name
    with _lock:
        if name in _REFERENCE or (name in _definitions and not replace):
            raise ConfigurationError(f"accelerator {name!r} is already there; choose another name")
        _definitions[name] = definition
    return definition


def names() -> list[str]:
    """Return the sorted names of all accelerators, without those of the configuration."""
    return sorted({*_REFERENCE, *_definitions, *_plugins()})


def find(name: str) -> Definition | None:
    """Return the accelerator `name`; ``None``: there is none. Raises `ConfigurationError` if its plugin is broken."""
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
        There is no such accelerator, or its plugin is broken.
    """
    definition = find(name)
    if definition is None:
        raise ConfigurationError(f"unknown accelerator {name!r}{did_you_mean(name, names())}")
    return definition


def _load(entry: EntryPoint) -> Definition:
    origin = f"accelerator {entry.name!r}: plugin {entry.value!r}"
    try:
        found = entry.load()
    except Exception as error:  # a plugin's import can raise anything
        raise ConfigurationError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Definition):
        raise ConfigurationError(f"{origin} is a {type(found).__name__}, not a Definition")
    return found
