"""Accelerators by name: reference accelerators, software models, plugins, and those of the configuration.

A plugin is a distribution with an entry point in the group ``apyfal.accelerators``, whose name is the accelerator's and
whose object is its `Definition`.
"""

from __future__ import annotations

import sys

from apyfal.accelerators.catalogue import Catalogue
from apyfal.definition.models import model
from apyfal.definition.registry import get, names, register
from apyfal.definition.resolve import available, resolve

__all__ = ["available", "get", "model", "names", "register", "resolve"]

sys.modules[__name__].__class__ = Catalogue
