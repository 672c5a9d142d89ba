"""Sizes, durations and booleans as people write them: ``"256MiB"``, ``"1.5min"``, ``"yes"``; and tables of them."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from apyfal.exceptions import ParameterError, did_you_mean

__all__ = [
    "LONGEST",
    "format_duration",
    "format_size",
    "html_table",
    "parse_boolean",
    "parse_duration",
    "parse_size",
    "whole_number",
]

# IEC 80000-13 prefixes are powers of 1024, SI prefixes of 1000; a bare letter means the binary one, as it does in dd.
_SIZE_UNITS = {"B": 1, "byte": 1, "bytes": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[f"{_letter}iB"] = 1024**_power
    _SIZE_UNITS[f"{_letter}B"] = 1000**_power
_SIZE_BY_FOLDED = {unit.casefold(): factor for unit, factor in _SIZE_UNITS.items()}

_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

#: longest duration in seconds, 100 years: within the range of every timer, clock and calendar
LONGEST = 36_500 * 86_400
#: digits of a number in a text, from which on it is not read
_DIGITS = 400

#: how a text says yes or no, in lower case
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_boolean(value: str | bool) -> bool:
    """Truth that `value` states.

    Parameters
    ----------
    value
        A `bool`, or text in any case: ``true``, ``yes``, ``on``, ``1``, ``false``, ``no``, ``off``, ``0``.

    Raises
    ------
    ParameterError
        `value` is anything else. Nothing is true just because it is not empty.
    """
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.strip().casefold()) if isinstance(value, str) else None
    if found is None:
        raise ParameterError(f"expected true or false, not {str(value)!r}")
    return found


def parse_size(value: str | int) -> int:
    """Bytes that `value` stands for.

    Parameters
    ----------
    value
        A number of bytes, or text: a number and ``B``, ``KiB``, ``MiB``, ``GiB``, ``TiB``, ``PiB`` (powers of 1024;
        ``K``, ``M`` ... mean the same), ``KB``, ``MB`` ... (powers of 1000), in any case.

    Returns
    -------
    int
        At least 0.

    Raises
    ------
    ParameterError
        `value` is not a size, is negative, or is not a whole number of bytes.
    """
    if isinstance(value, (int, numbers.Integral)) and not isinstance(value, bool):
        if value < 0:
            raise ParameterError(f"{value} is not a size: expected 0 or more bytes")
        return int(value)
    match = _quantity(value)
    if match is None:
        raise ParameterError(f"{str(value)!r} is not a size: expected bytes, or text like '64KiB', '256MiB', '1.5GB'")
    number, unit = match.groups()
    factor = _SIZE_BY_FOLDED.get(unit.casefold() or "b")
    if factor is None:
        raise ParameterError(f"{str(value)!r} is not a size: unknown unit {unit!r}{did_you_mean(unit, _SIZE_UNITS)}")
    if number.isdecimal():
        return int(number) * factor
    size = float(number) * factor
    if not size.is_integer():
        raise ParameterError(f"{str(value)!r} is not a size: not a whole number of bytes")
    return int(size)


def whole_number(text: str) -> int | None:
    """Return the number that 1 to 18 ASCII digits spell; ``None``: `text` is something else.

    For what other machines send: `str.isdigit` is true of superscripts and of other scripts' digits, and `int` raises
    `ValueError` for those, and for more than 4,300 digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def parse_duration(value: str | float) -> float:
    """Seconds that `value` stands for.

    Parameters
    ----------
    value
        Seconds, or text: a number and ``us``, ``ms``, ``s`` (the default), ``min`` (or ``m``), ``h`` or ``d``.

    Raises
    ------
    ParameterError
        `value` is not a duration, is negative, or is more than `LONGEST`.
    """
    if isinstance(value, (int, float, numbers.Real)) and not isinstance(value, bool):
        return _in_range(value, value)
    match = _quantity(value)
    if match is None:
        raise ParameterError(f"{str(value)!r} is not a duration: expected seconds, or text like '500ms', '30s', '5min'")
    number, unit = match.groups()
    factor = _DURATION_UNITS.get(unit.casefold() or "s")
    if factor is None:
        raise ParameterError(
            f"{str(value)!r} is not a duration: unknown unit {unit!r}{did_you_mean(unit, _DURATION_UNITS)}"
        )
    return _in_range(float(number) * factor, value)


def _quantity(value: object) -> re.Match[str] | None:
    """Return number and unit of a text; ``None``: it is none, or no number of a size that anything has."""
    return _QUANTITY.fullmatch(value) if isinstance(value, str) and len(value) <= _DIGITS else None


def _in_range(seconds: Any, said: object) -> float:
    if 0 <= seconds <= LONGEST:  # NaN is not
        return float(seconds)
    text = str(said) if not isinstance(said, int) or said.bit_length() < 64 else f"a number of {said.bit_length()} bits"
    raise ParameterError(f"{text} is not a duration: expected 0 seconds or more, and 36500d (100 years) at most")


def format_size(size: float) -> str:
    """`size` bytes for people, in powers of 1024: ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def format_duration(seconds: float) -> str:
    """`seconds` for people: ``"2 h 05 min"``, ``"1.2 s"``, ``"340 us"``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML for notebooks, with a header row; all texts are escaped."""
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
