"""What can be said about a mount, checked against its provider, with the place where each value was said."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from apyfal import units
from apyfal.config.ini import Value, is_secret, without_user_info
from apyfal.exceptions import AcceleratorException, MountError, ParameterError, did_you_mean
from apyfal.storage.handler import Handler

__all__ = [
    "ARGUMENT",
    "MountParameter",
    "accepted",
    "checked",
    "named",
    "parameter_name",
    "separates_ambient",
    "shown",
    "without_ambient",
]

ARGUMENT = "argument"

_INIT = "__init__"  # type checkers refuse `handler.__init__`, which is not a method of an instance here

#: what AWS's tools call the account and its secret, for the providers that have such keys
_KEY_NAMES = {"access_key_id": "client_id", "secret_access_key": "secret_id"}
_WITH_KEYS = ("s3", "oss", "gs")

HandlerFactory = Callable[..., Handler]

#: parameters that name files or the identity of this machine, and what to give instead of them
_OF_THIS_MACHINE = {
    "profile": "client_id and secret_id",
    "credentials_file": "client_id and secret_id",
    "managed_identity": "client_id and secret_id, or sas",
    "tenant_id": "client_id and secret_id, or sas",  # azure-identity opens its own connections, and reads variables
    "authority": "client_id and secret_id, or sas",
}


def _whole_number(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value, re.ASCII):
        return int(value)
    if isinstance(value, int | numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise ParameterError(f"expected a whole number, not {value!r}")


def _number(value: object) -> float:
    if isinstance(value, str | int | float | numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise ParameterError(f"expected a number, not {value!r}")


def _boolean(value: object) -> bool:
    if isinstance(value, bool | str):
        return units.parse_boolean(value)
    raise ParameterError(f"expected true or false, not {value!r}")


def _text(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise ParameterError(f"expected a text, not {type(value).__name__}")


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ParameterError(f"expected bytes, not {type(value).__name__}")


def _fields(value: object) -> Mapping[str, str]:
    if isinstance(value, Mapping) and all(isinstance(text, str) for item in value.items() for text in item):
        return value
    raise ParameterError("expected a mapping of names to texts")


#: how a value becomes what a handler's annotation asks for; of a union, the first that takes it counts
_CONVERTERS: dict[type, Callable[[object], object]] = {
    bool: _boolean,
    int: _whole_number,
    float: _number,
    bytes: _bytes,
    collections.abc.Mapping: _fields,
    str: _text,
}


def _positive(value: object) -> int:
    count = _whole_number(value)
    if count < 1:
        raise ParameterError(f"expected a whole number, 1 or more, not {value!r}")
    return count


def _size(value: object) -> int:
    if isinstance(value, str | int):
        return units.parse_size(value)
    raise ParameterError(f"expected a size such as '64MiB', not {value!r}")


#: what every mount has, whatever its provider: limits of all its transfers together, attributes of `Handler`
_LIMITS: dict[str, Callable[[object], object]] = {
    "bandwidth": _size,
    "memory_limit": _size,
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


def parameter_name(provider: str, name: str) -> str:
    """Return a parameter's own name: ``access_key_id`` is ``client_id``, others stay."""
    return _KEY_NAMES.get(name, name) if provider in _WITH_KEYS else name


def named(mount: str, provider: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return parameters by their own names.

    Raises
    ------
    MountError
        One of them is given under two names.
    """
    result: dict[str, object] = {}
    for alias, value in given.items():
        name = parameter_name(provider, alias)
        if name in result:
            raise MountError(f"mount {mount!r}: {alias!r} and another name of {name!r} are both given")
        result[name] = value
    return result


def accepted(handler: HandlerFactory) -> dict[str, Callable[[object], object]]:
    """Tell which parameters a provider has, and how each is checked, or read from a text.

    They are the keyword-only parameters of the handler's class or function, and the limits that all mounts have.
    """
    hints = typing.get_type_hints(getattr(handler, _INIT) if isinstance(handler, type) else handler)
    names = [parameter.name for parameter in _parameters(handler) if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: _converter(hints.get(name, str)) for name in names} | _LIMITS


def takes_anything(handler: HandlerFactory) -> bool:
    """Whether a provider takes parameters of any name (as fsspec does, for the filesystem below it)."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in _parameters(handler))


def separates_ambient(handler: HandlerFactory) -> bool:
    """Whether a provider can do without what it finds on this machine: it takes `ambient`, by position only.

    By position, so that no parameter of a mount, whoever wrote it, can be taken for it.
    """
    return any(
        parameter.name == "ambient" and parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        for parameter in _parameters(handler)
    )


def without_ambient(mount: str, provider: str, handler: HandlerFactory, parameters: Mapping[str, object]) -> None:
    """Check that a mount can do without this machine's credentials, files and settings.

    Raises
    ------
    MountError
        The provider would look for them all the same, or a parameter names some.
    """
    if not separates_ambient(handler):
        raise MountError(
            f"mount {mount!r}: provider {provider!r} cannot be used with given credentials only: it may use what it "
            "finds on this machine"
        )
    for name, instead in _OF_THIS_MACHINE.items():
        if parameters.get(name) not in (None, False):
            raise MountError(
                f"mount {mount!r}, parameter {name!r}: names credentials of this machine, and only given ones may be "
                f"used here; expected {instead}"
            )
    if not isinstance(parameters.get("verify", True), bool):
        raise MountError(f"mount {mount!r}, parameter 'verify': names a file of this machine; expected true or false")


def checked(
    mount: str, provider: str, handler: HandlerFactory, given: Mapping[str, tuple[object, bool]]
) -> dict[str, MountParameter]:
    """Check and convert the parameters of a mount.

    Parameters
    ----------
    mount, provider
        Their names, for errors.
    handler
        The provider's class or function.
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
        converted: object = value.text if isinstance(value, Value) else value
        if name in known:
            try:
                converted = known[name](converted)
            except ParameterError as error:
                reason = "not a valid value" if is_secret(name) else str(error)
                raise _error(mount, name, value, reason) from None
        result[name] = MountParameter(converted, value.where if isinstance(value, Value) else ARGUMENT)
    return result


def shown(name: str, value: object) -> str:
    """Give the text of a parameter as it may be seen: secrets are masked, those inside addresses too."""
    return "***" if is_secret(name) and value is not None else without_user_info(str(value))


def _parameters(handler: HandlerFactory) -> Iterable[inspect.Parameter]:
    if isinstance(handler, type) and getattr(handler, _INIT) is object.__init__:
        return ()  # it would say that it takes anything
    return inspect.signature(handler).parameters.values()


def _error(mount: str, name: str, value: object, reason: str) -> AcceleratorException:
    if isinstance(value, Value) and value.file is not None:
        return value.error(reason)
    return MountError(f"mount {mount!r}, parameter {name!r}: {reason}")


def _converter(hint: object) -> Callable[[object], object]:
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = {typing.get_origin(choice) or choice for choice in choices}
    converters = [convert for kind, convert in _CONVERTERS.items() if kind in kinds]

    def convert(value: object) -> object:
        for attempt in converters[:-1]:
            with contextlib.suppress(ParameterError):
                return attempt(value)
        return converters[-1](value)

    return convert if converters else lambda value: value
