"""The class of the package `apyfal.accelerators`, which can be called to list all accelerators.

The public interface has a function and a package of the same name. Importing the package binds it to that name, at a
time that depends on other imports; so the package itself is made callable.
"""

from __future__ import annotations

from types import ModuleType

from apyfal.config.configuration import ConfigSource
from apyfal.definition.definition import Definition
from apyfal.definition.models import model
from apyfal.definition.registry import get, names, register
from apyfal.definition.resolve import available, resolve
from apyfal.units import html_table

__all__ = ["Catalogue"]


class DefinitionListing(list[Definition]):
    """A list of definitions, shown as a table in notebooks."""

    def _repr_html_(self) -> str:
        rows = [
            (one.name, one.driver, ", ".join(str(parameter) for parameter in one.parameters.values()), one.summary)
            for one in self
        ]
        return html_table(("name", "driver", "parameters", "what it does"), rows)


class Catalogue(ModuleType):
    """The package `apyfal.accelerators`: all accelerators by name."""

    model = staticmethod(model)
    register = staticmethod(register)
    get = staticmethod(get)
    names = staticmethod(names)
    resolve = staticmethod(resolve)

    def __call__(self, config: ConfigSource = None) -> list[Definition]:
        """Return all accelerators, sorted by name; see `apyfal.definition.resolve.available`."""
        return DefinitionListing(available(config))
