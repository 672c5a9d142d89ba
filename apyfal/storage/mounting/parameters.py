"""What can be said about a mount, checked against its provider, with the place where each value was said."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from apyfal import units
from apyfal.config.ini import Value, is_secret, without_user_info
from apyfal.exceptions import AcceleratorException, MountError, ParameterError, did_you_mean
from apyfal.storage.handler import Handler

__all__ = ["ARGUMENT", "TRUTH", "MountParameter", "accepted", "checked", "shown"]

ARGUMENT = "argument"

#: how a text says yes or no, in lower case
TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _boolean(text: str) -> bool:
    try:
        return TRUTH[text.casefold()]
    except KeyError:
        raise ParameterError(f"expected true or false, not {text!r}") from None


def _number(kind: Callable[[str], object], expected: str) -> Callable[[str], object]:
    def convert(text: str) -> object:
        try:
            return kind(text)
        except ValueError:
            raise ParameterError(f"expected {expected}, not {text!r}") from None

    return convert


#: how the text of a configuration becomes what a handler's annotation asks for
_CONVERTERS: dict[type, Callable[[str], object]] = {
    bool: _boolean,
    int: _number(int, "a whole number"),
    float: _number(float, "a number"),
    str: str,
}


def _positive(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise ParameterError(f"expected a whole number, 1 or more, not {text!r}")
    return count


#: what every mount has, whatever its provider: limits of all its transfers together, attributes of `Handler`
_LIMITS: dict[str, Callable[[str], object]] = {
    "bandwidth": units.parse_size,
    "memory_limit": units.parse_size,
    "max_concurrency": _positive,
}


@dataclass(frozen=True, slots=True)
class MountParameter:
    """One value given for a mount.

    Attributes
    ----------
    value
        As the handler takes it.
    origin
        Where it was said: ``argument``, or file, line, section and key.
    """

    value: object
    origin: str = ARGUMENT


def accepted(handler: type[Handler]) -> dict[str, Callable[[str], object]]:
    """Tell which parameters a provider has, and how each is read from a text.

    They are the keyword-only parameters of the handler's ``__init__``, and the limits that all mounts have.
    """
    hints = typing.get_type_hints(handler.__init__)
    names = [parameter.name for parameter in _parameters(handler) if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: _converter(hints.get(name, str)) for name in names} | _LIMITS


def takes_anything(handler: type[Handler]) -> bool:
    """Whether a provider takes parameters of any name (as fsspec does, for the filesystem below it)."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in _parameters(handler))


def checked(
    mount: str, provider: str, handler: type[Handler], given: Mapping[str, tuple[object, bool]]
) -> dict[str, MountParameter]:
    """Check and convert the parameters of a mount.

    Parameters
    ----------
    mount, provider
        Their names, for errors.
    handler
        The provider's class.
    given
        Names to values, and whether an unknown name is an error (it was meant for this very mount) or nothing (it
        belongs to a section that others fall back to as well). A value is what an argument was, or a
        `~apyfal.config.ini.Value`.

    Raises
    ------
    MountError, ConfigurationError
        For an unknown name or a value that cannot be read; never with the value of a secret.
    """
    known = accepted(handler)
    anything = takes_anything(handler)
    result = {}
    for name, (value, strict) in given.items():
        if name not in known and not anything:
            if strict:
                raise _error(mount, name, value, f"unknown parameter of {provider!r}{did_you_mean(name, known)}")
            continue
        if isinstance(value, str):
            plain = value.text if isinstance(value, Value) else value
            try:
                converted = known.get(name, str)(plain)
            except ParameterError as error:
                reason = "not a valid value" if is_secret(name) else str(error)
                raise _error(mount, name, value, reason) from None
        else:
            converted = value
        result[name] = MountParameter(converted, value.where if isinstance(value, Value) else ARGUMENT)
    return result


def shown(name: str, value: object) -> str:
    """Give the text of a parameter as it may be seen: secrets are masked, those inside addresses too."""
    return "***" if is_secret(name) and value is not None else without_user_info(str(value))


def _parameters(handler: type[Handler]) -> Iterable[inspect.Parameter]:
    if handler.__init__ is object.__init__:
        return ()  # it would say that it takes anything
    return inspect.signature(handler.__init__).parameters.values()


def _error(mount: str, name: str, value: object, reason: str) -> AcceleratorException:
    if isinstance(value, Value) and value.file is not None:
        return value.error(reason)
    return MountError(f"mount {mount!r}, parameter {name!r}: {reason}")


def _converter(hint: object) -> Callable[[str], object]:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for choice in choices:
        if isinstance(choice, type) and choice in _CONVERTERS:
            return _CONVERTERS[choice]
    return str
