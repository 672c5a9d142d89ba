"""What can be said about an open file that a caller hands in."""

from __future__ import annotations

import io
from typing import Any

from apyfal.exceptions import ParameterError

__all__ = ["name_of", "require"]


def name_of(file: object) -> str:
    """Return the name that a file has, or one made of its type."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"<{type(file).__name__}>"


def require(file: Any, method: str) -> None:
    """Raise `ParameterError` unless `file` is an open binary file that has `method`, ``read`` or ``write``."""
    name = name_of(file)
    if getattr(file, "closed", False):
        raise ParameterError(f"the file {name} is closed")
    if not callable(getattr(file, method, None)):
        raise ParameterError(f"the file {name} has no method {method!r}; expected an open binary file")
    able = getattr(file, {"read": "readable", "write": "writable"}[method], None)
    if callable(able) and not able():
        raise ParameterError(f"the file {name} was not opened to {method}")
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise ParameterError(f"the file {name} is open in text mode; expected binary mode ('b')")
