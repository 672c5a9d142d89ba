"""Drivers of other packages: shared libraries with the table of ``driver.h``, loaded when they are first named.

A driver is named by the path of its library (``driver = /opt/acme/libacme.so``), or by the name of an entry point in
the group ``apyfal.drivers`` of an installed distribution, whose object is that path.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from apyfal._core.device import drivers, load_driver
from apyfal.exceptions import ConfigurationError, DriverUnavailable, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["PLUGIN_GROUP", "driver_names", "require_driver"]

#: Entry points whose names are drivers' and whose objects are paths of shared libraries.
PLUGIN_GROUP = "apyfal.drivers"


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # takes longer to import than all of apyfal

    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP)}


def driver_names() -> list[str]:
    """Return the names of all drivers: built in, loaded, or installed as plugins."""
    known = list(drivers())
    return known + sorted(set(_plugins()) - set(known))


def require_driver(name: str) -> str:
    """Load a driver if it is not loaded, and return its name.

    Parameters
    ----------
    name
        Its name, or the path of its library.

    Raises
    ------
    ConfigurationError
        There is no driver of this name.
    DriverUnavailable
        Its library cannot be loaded, or its plugin is broken.
    UnsupportedByDriver
        It was built for another version of the driver ABI.
    ParameterError
        Another driver has the same name.
    """
    if name in drivers():
        return name
    if os.sep in name:
        return load_driver(os.path.expanduser(name))
    entry = _plugins().get(name)
    if entry is None:
        raise ConfigurationError(f"unknown driver {name!r}{did_you_mean(name, driver_names())}")
    origin = f"driver {name!r}: plugin {entry.value!r}"
    try:
        path = os.fspath(entry.load())
    except Exception as error:  # a plugin's import can raise anything
        raise DriverUnavailable(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    loaded = load_driver(path)
    if loaded != name:
        raise DriverUnavailable(f"{origin} is a driver named {loaded!r}; expected {name!r}")
    return loaded
