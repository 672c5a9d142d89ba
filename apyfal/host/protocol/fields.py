"""Checks of the values in a message's JSON. Each error names the field and what was expected."""

from __future__ import annotations

import re
from typing import Any

from apyfal.exceptions import ParameterError, did_you_mean

__all__ = ["MAX_TIMEOUT", "parse_count", "parse_object", "parse_region", "parse_seconds", "parse_text"]

#: largest timeout of a job in seconds: longer than any job takes, and within the range of every system's timers
MAX_TIMEOUT = 30 * 86400
_REGION = re.compile(r"[0-9a-f]{32}")


def parse_object(value: object, what: str, known: set[str]) -> dict[str, Any]:
    """Return `value` if it is a JSON object without unknown keys. Raises `ParameterError` otherwise."""
    if not isinstance(value, dict):
        raise ParameterError(f"{what}: expected an object")
    for key in value:
        if key not in known:
            raise ParameterError(f"{what}: unknown key {key!r}{did_you_mean(key, known)}")
    return value


def parse_seconds(value: object, what: str) -> float | None:
    """Return `value` if it is a time in seconds, or ``None``. Raises `ParameterError` otherwise."""
    if value is None:
        return None
    # NaN fails the comparison too
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIMEOUT:
        raise ParameterError(f"{what}: expected a number of seconds from 0 to {MAX_TIMEOUT} (30 days)")
    return float(value)


def parse_count(value: object, what: str) -> int:
    """Return `value` if it is a whole number, 0 or more. Raises `ParameterError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ParameterError(f"{what}: expected a whole number, 0 or more")
    return value


def parse_region(value: object, what: str) -> str:
    """Return `value` if it is a name of shared memory. Raises `ParameterError` otherwise."""
    if not isinstance(value, str) or not _REGION.fullmatch(value):
        raise ParameterError(f"{what}: {value!r} is not a name of shared memory")
    return value


def parse_text(value: object, what: str) -> str:
    """Return `value` if it is a text that is not empty and not too long. Raises `ParameterError` otherwise."""
    if not isinstance(value, str) or not value or len(value) > 8192:
        raise ParameterError(f"{what}: expected a text of 1 to 8192 characters")
    return value
