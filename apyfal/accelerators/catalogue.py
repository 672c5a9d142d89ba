"""What `apyfal.accelerators` is: called, it lists what can be run; its attributes add to that and look things up.

It is a package and, by the public contract, a function. Python binds a package to its parent's attribute when it is
first imported, in whatever order that happens, so the package itself is made callable.
"""

from __future__ import annotations

from types import ModuleType

from apyfal.config.configuration import ConfigSource
from apyfal.definition.definition import Definition
from apyfal.definition.models import model
from apyfal.definition.registry import get, names, register
from apyfal.definition.resolve import available, resolve

__all__ = ["Catalogue"]


class Catalogue(ModuleType):
    """The package `apyfal.accelerators`: all accelerators by name."""

    model = staticmethod(model)
    register = staticmethod(register)
    get = staticmethod(get)
    names = staticmethod(names)
    resolve = staticmethod(resolve)

    def __call__(self, config: ConfigSource = None) -> list[Definition]:
        """Return what can be run, one line each when printed: see `apyfal.definition.resolve.available`."""
        return available(config)
