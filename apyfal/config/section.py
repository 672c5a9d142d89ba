"""The values of one section, with typed getters."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from apyfal import units
from apyfal.config.authority import refusal
from apyfal.config.ini import Value, is_secret, shown_path
from apyfal.config.trust import content_of, unsafe
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["Section", "untrusted", "values_of"]

_T = TypeVar("_T")
_Default = TypeVar("_Default")


class Section(Mapping[str, Value]):
    """The values of one section, with fallbacks and overriding arguments. Read-only.

    The typed getters return `default` if the key is missing. They raise `ConfigurationError` with the value's position
    if the text cannot be converted. Every access to a value raises it too if the file is untrusted and may not set the
    value (`apyfal.config.authority`).
    """

    def __init__(self, name: str, values: Mapping[str, Value], file: Path | None = None) -> None:
        self.name = name
        self.file = file
        self._values = dict(values)

    def __getitem__(self, key: str) -> Value:
        value = self._values[key]
        if not value.trusted and (what := refusal(value)) is not None:
            raise untrusted(value, what)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def unchecked(self, key: str) -> Value | None:
        """Return the value of `key` without the check of trust, to be examined or displayed."""
        return self._values.get(key)

    def only(self, keep: Callable[[Value], bool]) -> Section:
        """Return the section reduced to the values that `keep` accepts."""
        return Section(self.name, {key: value for key, value in self._values.items() if keep(value)}, self.file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({self.name!r}, {self._values!r})"

    def check(self, known: Iterable[str]) -> None:
        """Raise `ConfigurationError` for the first key that is not in `known`; the message suggests the nearest one."""
        known = frozenset(known)
        for key, value in self._values.items():
            if key not in known:
                raise value.error(f"unknown key {key!r}{did_you_mean(key, known)}")

    def require(self, key: str) -> Value:
        """Return the value of `key`, or raise `ConfigurationError` naming the section that lacks it."""
        if key not in self._values:
            raise self.missing(key)
        return self[key]

    def missing(self, key: str) -> ConfigurationError:
        """Return the error that reports a missing `key`; the caller raises it."""
        place = f"{shown_path(self.file)}, " if self.file else ""
        return ConfigurationError(f"{place}[{self.name}]: key {key!r} is missing")

    def text(self, key: str, default: _Default) -> str | _Default:
        """Return the text of `key`, which must not be empty."""

        def convert(value: Value) -> str:
            if not value:
                raise ParameterError("expected a value after '='")
            return value.text

        return self._convert(key, default, convert)

    def integer(self, key: str, default: _Default, *, minimum: int | None = None) -> int | _Default:
        """Return the whole number of `key`, at least `minimum`. Hexadecimal (``0x``) is accepted."""

        def convert(value: Value) -> int:
            try:
                number = int(value, 0)
            except ValueError:
                raise ParameterError(f"expected a whole number, not {value!r}") from None
            if minimum is not None and number < minimum:
                raise ParameterError(f"expected {minimum} or more, not {number}")
            return number

        return self._convert(key, default, convert)

    def boolean(self, key: str, default: _Default) -> bool | _Default:
        """Return the truth value of `key`: see `apyfal.units.parse_boolean`."""
        return self._convert(key, default, lambda value: units.parse_boolean(value.text))

    def size(self, key: str, default: _Default) -> int | _Default:
        """Return the size of `key` in bytes: see `apyfal.units.parse_size`."""
        return self._convert(key, default, lambda value: units.parse_size(value.text))

    def duration(self, key: str, default: _Default) -> float | _Default:
        """Return the duration of `key` in seconds: see `apyfal.units.parse_duration`."""
        return self._convert(key, default, lambda value: units.parse_duration(value.text))

    def choice(self, key: str, choices: Iterable[str], default: _Default) -> str | _Default:
        """Return the text of `key`, which must be one of `choices`."""
        choices = list(choices)

        def convert(value: Value) -> str:
            if value.text not in choices:
                raise ParameterError(f"unknown value {value!r}{did_you_mean(value.text, choices)}")
            return value.text

        return self._convert(key, default, convert)

    def parts(self, key: str, separator: str | None = ",") -> list[Value]:
        """Return the parts of `key`: see `Value.parts`. Empty if the key is missing."""
        return self[key].parts(separator) if key in self._values else []

    def paths(self, key: str, default: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
        """Return the paths of `key`, one per line, with ``~`` expanded; `default`, also expanded, if the key is
        missing.
        """
        given: Iterable[str | os.PathLike[str]] = self.parts(key, None) if key in self._values else default
        return [Path(os.path.expanduser(path)) for path in given]

    def _convert(self, key: str, default: _Default, convert: Callable[[Value], _T]) -> _T | _Default:
        if key not in self._values:
            return default
        value = self[key]
        try:
            return convert(value)
        except ParameterError as error:
            # a message about a secret must not contain the value
            raise value.error("not a valid value" if is_secret(key) else str(error)) from None


def untrusted(value: Value, what: str) -> ConfigurationError:
    """Return the error for an untrusted file that names `what`; the caller raises it."""
    file = value.file
    word = "a configuration of the working directory may not name"
    if file is None:
        return value.error(f"{word} {what}")
    try:
        _, status = content_of(file)
        problem = unsafe(file, status)
    except (OSError, ConfigurationError):
        problem = None
    hint = "to trust it" if problem is None else f"the file cannot be trusted: {problem}; once it is yours alone"
    name = f" {shlex.quote(str(file))}" if str(file).isprintable() else ""
    hint += f": apyfal config trust{name}"
    return value.error(f"{word} {what} without your word; {hint}")


def values_of(section: str, given: Mapping[str, object]) -> dict[str, Value]:
    """Convert the values of a mapping that a caller has passed."""
    values = {}
    for key, item in given.items():
        if item is None:
            continue
        items = list(item) if isinstance(item, (list, tuple)) else [item]
        texts = [_text_of(section, key, one) for one in items]
        values[key] = Value(
            "\n".join(texts), lines=(0,) * max(1, sum(t.count("\n") + 1 for t in texts)), section=section, key=key
        )
    return values


def _text_of(section: str, key: str, item: object) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (str, int, float)):
        return str(item)
    if isinstance(item, os.PathLike):
        return os.fsdecode(item)
    place = Value("", section=section, key=key)
    raise place.error(f"expected text, a number, a truth value, a path or a list of these, not {type(item).__name__}")
