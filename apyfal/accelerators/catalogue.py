"""What `apyfal.accelerators` is: called, it lists what can be run; its attributes add to that and look things up.

It is a package and, by the public contract, a function. Python binds a package to its parent's attribute when it is
first imported, in whatever order that happens, so the package itself is made callable.
"""

from __future__ import annotations

from types import ModuleType

from apyfal.accelerators.models import model
from apyfal.accelerators.registry import get, names, register
from apyfal.accelerators.resolve import available, resolve
from apyfal.configuration import ConfigSource
from apyfal.definition import Definition

__all__ = ["Catalogue"]


class Catalogue(ModuleType):
    """The package `apyfal.accelerators`: all accelerators by name."""

    model = staticmethod(model)
    register = staticmethod(register)
    get = staticmethod(get)
    names = staticmethod(names)
    resolve = staticmethod(resolve)

    def __call__(self, config: ConfigSource = None) -> list[Definition]:
        """Return what can be run, one line each when printed: see `apyfal.accelerators.resolve.available`."""
        return available(config)
