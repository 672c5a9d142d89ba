"""Accelerators whose kernel is a Python function, for the emulator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import FILLED_IN, REQUIRED, Argument, Chunking, OutputSize, Parameter, Port, value_type
from apyfal.definition.registry import register
from apyfal.definition.types.composite import MAX_VALUE_BYTES, element_name
from apyfal.exceptions import ConfigurationError, ParameterError

__all__ = ["model"]

_Function = TypeVar("_Function", bound=Callable[..., object])


def model(
    name: str,
    *,
    dtype: DTypeLike | None = None,
    in_dtype: DTypeLike | None = None,
    out_dtype: DTypeLike | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    output: str | int = "same",
    chunking: str = "whole",
    state: int = 0,
    summary: str = "",
    replace: bool = False,
    **parameters: str | np.dtype[Any],
) -> Callable[[_Function], _Function]:
    """Decorate a Python function that does an accelerator's work on the emulator.

    The names of the function's arguments say what they are: ``src``, ``dst`` (one-dimensional arrays over the device's
    memory, valid until the function returns), ``state`` (a uint8 array that is kept between the chunks of a job),
    ``report`` (four uint64 for the function to fill in), numbers of the chunk (``count``, ``bytes``, ``capacity``,
    ``offset``, ``skip``, ``first``, ``last``) and ``dtype`` (the code of the element type). Any other argument is a
    parameter of the accelerator, of its default's type. The function writes its result into ``dst``: one that returns
    another array fails its job.

    Parameters
    ----------
    name
        Name of the accelerator.
    dtype, in_dtype, out_dtype
        Element types of inputs and outputs; `dtype` is for both. ``None``: that of the source.
    inputs, outputs
        Names of the function's arguments that are inputs and outputs, if these are not ``src`` and ``dst``; with types,
        and sizes of outputs, as in the configuration: ``inputs=("image: uint8", "mask: uint8")``.
    output, chunking, state
        As in the configuration, see `apyfal.definition.grammar`. By default (``chunking="whole"``) the function is
        called once, with the whole input; with ``"elements"`` it is called for each chunk of an input of any size.
    summary
        One line for listings; by default the first line of the function's docstring.
    replace
        Replace another accelerator of this name.
    **parameters
        Scalar types of parameters that have no default, or a default of another type: ``mask="uint8"``. The function
        gets a vector (``pull="float4"``) as an array, and a struct (a structured dtype) as an element of such an array.

    Returns
    -------
    Callable
        The decorator. It returns the function unchanged.

    Raises
    ------
    ConfigurationError
        The name is taken, the function has an argument that a kernel cannot have, or it is ``async`` or a generator.

    Examples
    --------
    >>> @model("invert", dtype="uint8", chunking="elements")
    ... def invert(src, dst, *, mask=255):
    ...     np.bitwise_xor(src, mask, out=dst)
    """

    def decorate(function: _Function) -> _Function:
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"accelerator {name!r}: a model is a plain function; it cannot yield or await")
        documentation = (inspect.getdoc(function) or "").partition("\n")[0]
        try:
            ins = tuple(Port.parse_input(text) for text in inputs)
            outs = tuple(Port.parse_output(text) for text in outputs)
            buffers = {port.name for port in (*ins, *outs)}
            arguments, accepted = _signature(name, function, parameters, buffers)
            register(
                Definition(
                    name=name,
                    kernel=name,
                    summary=summary or documentation,
                    arguments=arguments,
                    inputs=ins,
                    outputs=outs,
                    parameters=accepted,
                    in_dtype=_element(in_dtype, dtype),
                    out_dtype=_element(out_dtype, dtype),
                    output=OutputSize.parse(str(output)),
                    chunking=Chunking.parse(chunking),
                    state=state,
                    model=function,
                ),
                replace=replace,
            )
        except ParameterError as error:
            raise ConfigurationError(f"accelerator {name!r}: {error}") from None
        return function

    return decorate


def _element(own: DTypeLike | None, both: DTypeLike | None) -> np.dtype | None:
    given = own if own is not None else both
    try:
        return None if given is None else np.dtype(given)
    except TypeError:
        raise ParameterError(f"unknown element type {given!r}") from None


def _signature(
    name: str, function: Callable[..., object], types: dict[str, str | np.dtype[Any]], buffers: set[str]
) -> tuple[tuple[Argument, ...], dict[str, Parameter]]:
    """Return the kernel arguments and the parameters that a function's signature describes."""
    arguments = []
    accepted = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(f"accelerator {name!r}: a model cannot take '*{parameter.name}'")
        if parameter.name not in FILLED_IN and parameter.name not in buffers:
            try:
                accepted[parameter.name] = _parameter(parameter, types.pop(parameter.name, None))
            except ParameterError as error:
                raise ConfigurationError(f"accelerator {name!r}: parameter {parameter.name!r}: {error}") from None
        arguments.append(Argument(parameter.name))
    if types:
        raise ConfigurationError(f"accelerator {name!r}: the function has no parameter {next(iter(types))!r}")
    return tuple(arguments), accepted


def _parameter(parameter: inspect.Parameter, declared: str | np.dtype[Any] | None) -> Parameter:
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    if declared is None:
        if default is REQUIRED:
            raise ParameterError("without a default it needs a type, given to the decorator by its name")
        if not isinstance(default, (int, float, np.number)):
            raise ParameterError(f"expected a number as its default, not {default!r}")
        declared = "uint8" if isinstance(default, bool) else np.asarray(default).dtype.name
    kind = value_type(declared, {}) if isinstance(declared, str) else declared
    if kind.kind != "V":
        return Parameter(parameter.name, str(declared), default)
    if kind.hasobject or kind.itemsize > MAX_VALUE_BYTES:
        raise ParameterError(
            f"expected a struct of {MAX_VALUE_BYTES} bytes at most, without Python objects, not {kind}"
        )
    found = Parameter(parameter.name, element_name(kind), composite=kind)
    return found if default is REQUIRED else replace(found, default=found.check(default))
