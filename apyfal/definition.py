"""What an accelerator is: its kernel's arguments, its data's types and sizes, and how its input may be cut.

A `Definition` is what ``[accelerator.NAME]`` and the keyword arguments of `apyfal.Accelerator` become. It is checked
when it is made. `Definition.bind` adds one job's parameters and element type, and gives the `Call` that a pipeline
runs, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apyfal.call import BoundArgument, Call
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean
from apyfal.scalars import DTYPE_CODES, SCALAR_TYPES, scalar, wire_type
from apyfal.signature import CHUNK_SCALARS, FILLED_IN, REQUIRED, SAME, WHOLE, Argument, Chunking, Output, Parameter

__all__ = ["Definition"]

#: Keywords of `apyfal.Accelerator.process` itself, besides ``src`` and ``dst``.
_TAKEN = frozenset({"copy", "info_dict", "info_list", "memory_limit", "progress", "self", "timeout"})


@dataclass(frozen=True, eq=False, repr=False)
class Definition:
    """An accelerator, checked.

    Attributes
    ----------
    name, summary
        What it is called, and what it does, in a line.
    kernel
        The kernel's name in the program (or among the emulator's).
    arguments
        The kernel's, in its order.
    driver, device, program
        What runs it: a driver's name; an index or part of a device's name, ``None``: the first that fits; the storage
        URL of the program, ``None`` where the driver needs none.
    parameters
        What callers may set, by name.
    in_dtype, out_dtype
        Element types. ``in_dtype=None``: whatever the source's array has (bytes, for anything else).
        ``out_dtype=None``: the input's.
    dtypes
        Element types that the kernel can do where `in_dtype` is ``None``; empty: it sees bytes only.
    output, chunking
        See there.
    state
        Bytes of device memory kept between the chunks of a job, or how many for these parameters.
    options
        The driver's own, without its name: ``{"memory": "4GiB"}``.
    model
        A Python function that does the kernel's work on the emulator.
    prepare
        Makes the kernel's scalars from the parameters and the element type, where they are not the parameters.
    size
        For ``output = bytes`` that depend on the parameters: makes the number of bytes from them.
    capacity
        For ``output = reported``: an upper bound of the output of so many bytes of input.
    finish
        Makes the result from the output, for accelerators that return no data.
    """

    name: str
    kernel: str
    arguments: tuple[Argument, ...]
    driver: str = "emulator"
    device: str | None = None
    program: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    in_dtype: np.dtype | None = None
    out_dtype: np.dtype | None = None
    dtypes: frozenset[np.dtype] = frozenset()
    output: Output = SAME
    chunking: Chunking = WHOLE
    state: int | Callable[[Mapping[str, Any]], int] = 0
    options: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    model: Callable[..., object] | None = None
    prepare: Callable[[Mapping[str, Any], np.dtype], Mapping[str, Any]] | None = None
    size: Callable[[Mapping[str, Any]], int] | None = None
    capacity: Callable[[int], int] | None = None
    finish: Callable[[np.ndarray], dict[str, object]] | None = None
    _defaults: Mapping[str, object] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together; `ConfigurationError` otherwise."""
        names = [argument.name for argument in self.arguments]
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"argument {name!r} is there twice")
        given = set(names)
        if not given & {"src", "dst"}:
            raise self._error("arguments: expected 'src', 'dst' or both among them")
        fixed = self.output.kind == "bytes"
        if "src" not in given and not fixed:
            raise self._error(f"output = {self.output} needs 'src' among the arguments; expected a number of bytes")
        if "dst" not in given and (not fixed or self.output.amount or self.size):
            raise self._error(f"output = {self.output} needs 'dst' among the arguments; without it expected 0")
        if (self.output.kind == "reported") != ("report" in given):
            raise self._error("output = reported and 'report' among the arguments need each other")
        if bool(self.state) != ("state" in given):
            raise self._error("state = <bytes> and 'state' among the arguments need each other")
        if fixed and "src" in given and self.chunking.kind != "whole" and not self.state:
            raise self._error(
                f"a fixed output over an input in chunks needs a state; expected chunking = whole, not {self.chunking}"
            )
        if self.in_dtype is not None and self.chunking.record % self.in_dtype.itemsize:
            raise self._error(f"chunking = {self.chunking} cuts through {self.in_dtype} elements")
        self._check_scalars(given)
        if self.model is not None and self.driver != "emulator":
            raise self._error(f"a Python model runs on driver 'emulator' only, not on {self.driver!r}")
        if not self.dtypes and ("dtype" in given or any(p.dtype == "element" for p in self.parameters.values())):
            object.__setattr__(self, "dtypes", frozenset(DTYPE_CODES))
        if self.in_dtype is not None:
            self._check_elements(self.in_dtype, ConfigurationError)
        defaults = {p.name: p.check(p.default) for p in self.parameters.values() if p.default is not REQUIRED}
        object.__setattr__(self, "_defaults", defaults)

    def _check_scalars(self, given: set[str]) -> None:
        for argument in self.arguments:
            if argument.name in FILLED_IN or argument.name in self.parameters or self.prepare:
                continue
            raise self._error(
                f"argument {argument.name!r} is neither a parameter ('{argument.name}: <type>') nor one of the names "
                f"that apyfal fills in{did_you_mean(argument.name, FILLED_IN)}"
            )
        for name, parameter in self.parameters.items():
            if name in FILLED_IN:
                raise self._error(f"a parameter cannot be called {name!r}: apyfal fills it in")
            if name in _TAKEN:
                raise self._error(f"a parameter cannot be called {name!r}: `process` has an argument of that name")
            if name not in given and not self.prepare and parameter.dtype != "object":
                raise self._error(f"parameter {name!r} is not among the arguments")

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"accelerator {self.name!r}: {message}")

    @property
    def takes_input(self) -> bool:
        """Whether a job has a source."""
        return any(argument.name == "src" for argument in self.arguments)

    @property
    def gives_data(self) -> bool:
        """Whether a job has an output that can be stored (result parameters are none)."""
        return self.finish is None and any(argument.name == "dst" for argument in self.arguments)

    @property
    def continues(self) -> bool:
        """Whether a run may end with `STATUS_FULL`, to be run again over the rest of its chunk."""
        return any(argument.name == "skip" for argument in self.arguments)

    def validate_parameters(self, /, **given: object) -> dict[str, object]:
        """Return all parameters: those `given`, checked, and the defaults of the others.

        Raises
        ------
        ParameterError
            There is no such parameter, it has a wrong value, or one without default is missing.
        """
        values: dict[str, object] = dict(self._defaults)
        for name, value in given.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                known = did_you_mean(name, self.parameters) or ", it takes none"
                raise ParameterError(f"accelerator {self.name!r} has no parameter {name!r}{known}")
            values[name] = parameter.check(value)
        if len(values) < len(self.parameters):
            missing = ", ".join(repr(name) for name in self.parameters if name not in values)
            raise ParameterError(f"accelerator {self.name!r} needs {missing}")
        return values

    def bind(self, dtype: np.dtype | None = None, /, **given: object) -> Call:
        """Return the call of one job.

        Parameters
        ----------
        dtype
            Element type of the source array; ``None`` for bytes (files, URLs).
        **given
            Parameters.

        Raises
        ------
        ParameterError
            The kernel cannot take elements of this type, or a parameter is wrong.
        """
        parameters = self.validate_parameters(**given)
        in_dtype = self._element_type(dtype)
        out_dtype = self.out_dtype or in_dtype
        scalars = self.prepare(parameters, in_dtype) if self.prepare else parameters
        bound = []
        limit = None
        for argument in self.arguments:
            name, kind = argument.name, argument.dtype
            if argument.is_buffer:
                bound.append(BoundArgument(name, None, None))
            elif name in CHUNK_SCALARS:
                kind = kind or CHUNK_SCALARS[name]
                if kind.itemsize < 8 and name in ("count", "bytes"):
                    most = int(np.iinfo(kind).max) * (in_dtype.itemsize if name == "count" else 1)
                    limit = most if limit is None else min(limit, most)
                bound.append(BoundArgument(name, kind, None))
            elif name == "dtype":
                bound.append(BoundArgument(name, kind or SCALAR_TYPES["uint32"], DTYPE_CODES[in_dtype]))
            else:
                bound.append(self._bind_parameter(argument, scalars[name], in_dtype))
        cut = {"whole": None, "elements": in_dtype.itemsize, "records": self.chunking.record}[self.chunking.kind]
        fixed = None
        if self.output.kind == "bytes":
            fixed = self.size(parameters) if self.size else int(self.output.amount)
        return Call(
            definition=self,
            arguments=tuple(bound),
            parameters=parameters,
            in_dtype=in_dtype,
            out_dtype=out_dtype,
            granularity=cut,
            state_bytes=self.state(parameters) if callable(self.state) else self.state,
            fixed_output=fixed,
            chunk_limit=limit,
        )

    def _bind_parameter(self, argument: Argument, value: object, in_dtype: np.dtype) -> BoundArgument:
        parameter = self.parameters.get(argument.name)
        if parameter is not None and parameter.choices is not None:
            value = parameter.choices[str(value)]
        dtype = argument.dtype
        if dtype is None:
            name = parameter.dtype if parameter is not None else "element"
            dtype = in_dtype if name == "element" else SCALAR_TYPES[name]
        return BoundArgument(argument.name, wire_type(dtype), scalar(value, dtype, f"parameter {argument.name!r}"))

    def _element_type(self, dtype: np.dtype | None) -> np.dtype:
        if self.in_dtype is not None:
            if dtype is not None and dtype != self.in_dtype:
                raise ParameterError(f"accelerator {self.name!r} takes {self.in_dtype} elements, not {dtype}")
            return self.in_dtype
        if dtype is None:
            return SCALAR_TYPES["uint8"]
        self._check_elements(dtype, ParameterError)
        return dtype

    def _check_elements(self, dtype: np.dtype, error: type[ConfigurationError | ParameterError]) -> None:
        if dtype.hasobject:
            raise error(f"accelerator {self.name!r} cannot take elements of type {dtype}: they are Python objects")
        if self.dtypes and dtype not in self.dtypes:
            names = ", ".join(sorted(str(known) for known in self.dtypes))
            raise error(f"accelerator {self.name!r} cannot take elements of type {dtype}; expected one of {names}")

    def __repr__(self) -> str:
        keywords = ", ".join(str(parameter) for parameter in self.parameters.values())
        text = f"{self.name}({keywords})"
        if self.driver != "emulator":
            text += f" on {self.driver}"
        return f"{text}: {self.summary}" if self.summary else text
