"""What an accelerator is: its kernel's arguments, the types and sizes of its data, and where its input may be cut.

``[accelerator.NAME]`` and the keyword arguments of `apyfal.Accelerator` become a `Definition`, which is checked when it
is made. `Definition.bind` adds one job's parameters and element types, and returns the `BoundCall` that a pipeline
runs, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from apyfal.definition.bound_call import BoundArgument, BoundCall, CallInput, CallOutput, aligned_granularity_of
from apyfal.definition.composite import element_name, is_vector, pack, value_of
from apyfal.definition.dtypes import DTYPE_CODES, SCALAR_TYPES, parse_scalar_type, scalar, wire_type
from apyfal.definition.expressions import Expression
from apyfal.definition.grammar import (
    BUFFERS,
    CHUNK_SCALARS,
    FILLED_IN,
    PROCESS_KEYWORDS,
    REQUIRED,
    SAME,
    WHOLE,
    Argument,
    Chunking,
    OutputSize,
    Parameter,
    Port,
)
from apyfal.definition.sizes import IndexSpace, SizeRules
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["Definition"]

#: Names that a parameter cannot have: those of the arguments of `process` and `process_map`.
_RESERVED = PROCESS_KEYWORDS | {"info_list", "self"}


@dataclass(frozen=True, eq=False, repr=False)
class Definition:
    """An accelerator.

    Attributes
    ----------
    name
        The accelerator's name.
    kernel
        The kernel's name in the program, or the name of one of the emulator's kernels.
    arguments
        The kernel's arguments, in its order.
    inputs, outputs
        The arguments that are data. Empty: ``src`` and ``dst``, if they are among the arguments.
    driver, device
        The driver's name, and the index or a part of the name of the device; ``None``: the first that fits.
    program
        Storage URL of the program; ``None``: the driver needs none.
    parameters
        What callers can set, by name.
    in_dtype, out_dtype
        Element types of inputs and outputs. ``in_dtype=None``: that of the source's array, or ``uint8`` for files.
        ``out_dtype=None``: that of the first input.
    dtypes
        Element types that the kernel supports if `in_dtype` is ``None``; empty: it reads bytes, whatever the type.
    output
        The size of outputs that do not state their own.
    chunking
        Where the input may be cut.
    clear_outputs
        Outputs begin at zero: what the kernel does not write is zero, and a kernel that adds to its output starts from
        zero. This is done for outputs that are not cut along with the input (``chunking = whole``, or a fixed size) and
        whose size the kernel does not report. The kernel writes every element of all others.
    state
        Bytes of device memory that are kept between the chunks of a job, or a function of the parameters.
    space
        The index space of each run; ``None``: as the driver starts the kernel.
    shapes
        Shapes of new arrays for outputs, by the output's name; they are also the sizes of outputs without one.
    initial
        What an output's elements are before the kernel's first run, by the output's name.
    inout
        Names of inputs that the kernel changes in place. Each is an output too: its data is copied to the destination,
        which the kernel then works on, unless source and destination are the same array.
    halo
        Of ``chunking = rows``: rows of an input before and behind a chunk that its run needs too, by the input's name
        (empty: of all); ``None``: all of them, so that this input is not cut.
    options
        Options of the driver, without its name: ``{"memory": "4GiB"}``.
    summary
        What it does, in one line.
    model
        A Python function that does the kernel's work on the emulator.
    prepare
        Computes the kernel's scalars, by argument, from the parameters and the first input's element type. ``None``:
        the parameters are the scalars.
    size
        Computes the output's size in bytes from the parameters; for ``output = bytes``.
    capacity
        Returns the largest size in bytes of the output of the given bytes of input; for ``output = reported``.
    finish
        Computes result parameters from the output, for accelerators that return no data.

    Raises
    ------
    ConfigurationError
        The parts do not fit together.
    """

    name: str
    kernel: str
    arguments: tuple[Argument, ...]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    driver: str = "emulator"
    device: str | None = None
    program: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    in_dtype: np.dtype | None = None
    out_dtype: np.dtype | None = None
    dtypes: frozenset[np.dtype] = frozenset()
    output: OutputSize = SAME
    chunking: Chunking = WHOLE
    clear_outputs: bool = True
    state: int | Callable[[Mapping[str, Any]], int] = 0
    space: IndexSpace | None = None
    shapes: Mapping[str, tuple[Expression, ...]] = field(default_factory=dict)
    initial: Mapping[str, float] = field(default_factory=dict)
    inout: frozenset[str] = frozenset()
    halo: Mapping[str, int | None] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    model: Callable[..., object] | None = None
    prepare: Callable[[Mapping[str, Any], np.dtype], Mapping[str, Any]] | None = None
    size: Callable[[Mapping[str, Any]], int] | None = None
    capacity: Callable[[int], int] | None = None
    finish: Callable[[np.ndarray], dict[str, object]] | None = None
    _defaults: Mapping[str, object] = field(init=False, default_factory=dict)
    _sizes: SizeRules = field(init=False)
    _used: set[str] = field(init=False)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        names = [argument.name for argument in self.arguments]
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"argument {name!r} is there twice")
        argument_names = set(names)
        for side, plain in (("inputs", "src"), ("outputs", "dst")):
            if not getattr(self, side) and plain in argument_names:
                object.__setattr__(self, side, (Port(plain),))
        self._check_ports(argument_names)
        self._check_sizes()
        self._check_outputs(argument_names)
        if bool(self.state) != ("state" in argument_names):
            raise self._error("state = <bytes> and 'state' among the arguments need each other")
        first = self.dtype_of(self.inputs[0]) if self.inputs else None
        if first is not None and self.chunking.record % first.itemsize:
            raise self._error(f"chunking = {self.chunking} cuts through {element_name(first)} elements")
        self._check_scalars(argument_names)
        if self.driver == "emulator" and any(one.composite is not None for one in self.parameters.values()):
            raise self._error(
                "the software card passes numbers only, no vectors or structs; expected a driver with these"
            )
        if self.model is not None and self.driver != "emulator":
            raise self._error(f"a Python model runs on driver 'emulator' only, not on {self.driver!r}")
        if not self.dtypes and (
            "dtype" in argument_names or any(p.dtype == "element" for p in self.parameters.values())
        ):
            object.__setattr__(self, "dtypes", frozenset(DTYPE_CODES))
        if (declared := first or self.in_dtype) is not None:
            self._check_elements(declared, ConfigurationError)
        defaults = {p.name: p.check(p.default) for p in self.parameters.values() if p.default is not REQUIRED}
        object.__setattr__(self, "_defaults", defaults)

    def _check_ports(self, argument_names: set[str]) -> None:
        if not self.inputs and not self.outputs:
            raise self._error(
                "arguments: expected 'src', 'dst' or both among them, or inputs or outputs by their names"
            )
        names = [port.name for port in (*self.inputs, *self.outputs)]
        for argument in self.arguments:
            if argument.dtype is not None and argument.name in names:
                raise self._error(f"argument {argument.name!r} is a buffer and has no scalar type")
        for name in names:
            if names.count(name) > 1 + (name in self.inout):
                raise self._error(f"input or output {name!r} is there twice")
            if name not in argument_names:
                raise self._error(
                    f"input or output {name!r} is not among the arguments{did_you_mean(name, argument_names)}"
                )
            if name in FILLED_IN - {"src", "dst"}:
                raise self._error(f"an input or output cannot be called {name!r}: apyfal fills it in")
            if name in self.parameters:
                raise self._error(f"{name!r} is an input or output; a parameter cannot have its name")
        for plain, side in (("src", "inputs"), ("dst", "outputs")):
            if plain in argument_names and plain not in names:
                raise self._error(f"{plain!r} among the arguments, but {side} are given by name; expected it there too")

    def _check_sizes(self) -> None:
        """Collect the expressions, and check that they fit the rest."""
        outputs = {port.name: port for port in self.outputs}
        for key, names in (("shape", self.shapes), ("initial", self.initial)):
            for name in names:
                if name not in outputs:
                    raise self._error(f"{key}: no output {name!r}{did_you_mean(name, outputs)}")
                if (key == "initial" or (outputs[name].output or self.output).kind != "same") and name in self.inout:
                    raise self._error(f"{key}: {name!r} has that of its input, since the kernel changes it in place")
        rules = {name: port.output or self.output for name, port in outputs.items()}
        computed = {name: rule.expression for name, rule in rules.items() if rule.expression is not None}
        for name in self.shapes:
            if rules[name].kind in ("factor", "reported"):
                raise self._error(f"shape: output {name!r} is {rules[name]}; expected same, or its elements")
        for name in self.initial:
            if rules[name].kind == "reported":
                raise self._error(
                    f"initial: the kernel reports the size of output {name!r}; expected one that is known"
                )
        for name in self.inout:
            if rules[name].kind != "same":
                raise self._error(f"inout: {name!r} has the size of its input; expected no other")
        values = {argument.name: argument.value for argument in self.arguments if argument.value is not None}
        for name in values.keys() & {*outputs, *(port.name for port in self.inputs)}:
            raise self._error(f"argument {name!r} is an input or output and cannot be computed")
        for name in values.keys() & self.parameters.keys():
            raise self._error(f"argument {name!r} is computed; a parameter cannot have its name")
        sizes = SizeRules(self.space, values, computed, self.shapes)
        object.__setattr__(self, "_sizes", sizes)
        kinds = {name: parameter.dtype for name, parameter in self.parameters.items()}
        try:
            if self.chunking.row is not None:
                row_names = self.chunking.row.names & self.parameters.keys()
            else:
                row_names = frozenset()
            used = row_names | sizes.check(
                kinds, [port.name for port in self.inputs], whole=self.chunking.kind in ("whole", "rows")
            )
        except ConfigurationError as error:
            raise self._error(str(error)) from None
        object.__setattr__(self, "_used", used)

    def _check_outputs(self, argument_names: set[str]) -> None:
        rules = [port.output or self.output for port in self.outputs] or [self.output]
        if self.chunking.kind == "rows":
            self._check_rows(rules)
        elif self.halo:
            raise self._error(f"halo: rows around a chunk need chunking = rows, not {self.chunking}")
        for rule in rules:
            fixed = rule.kind in ("bytes", "elements")
            if rule.kind == "same" and not self.inputs and self.shapes:
                continue
            if not self.inputs and not fixed:
                raise self._error(f"output = {rule} needs 'src' among the arguments; expected a number of bytes")
            if not self.outputs and (not fixed or rule.amount or rule.expression or self.size):
                raise self._error(f"output = {rule} needs 'dst' among the arguments; without it expected 0")
            begun = all(port.name in self.initial for port in self.outputs)
            if fixed and self.inputs and self.chunking.kind not in ("whole", "rows") and not (self.state or begun):
                raise self._error(
                    f"a fixed output over an input in chunks needs a state, or an 'initial' value that the kernel adds "
                    f"to; expected chunking = whole, not {self.chunking}"
                )
            if rule.kind == "reported" and len(rules) > 1:
                raise self._error("output = reported is for kernels with one output; expected sizes that are known")
        if any(rule.kind == "reported" for rule in rules) != ("report" in argument_names):
            raise self._error("output = reported and 'report' among the arguments need each other")
        if len(rules) > 1 and (self.finish or self.size):
            raise self._error("results and sizes made by functions are for accelerators with one output")

    def _check_rows(self, rules: Sequence[OutputSize]) -> None:
        names = [port.name for port in self.inputs]
        for name in self.halo:
            if name and name not in names:
                raise self._error(f"halo: no input {name!r}{did_you_mean(name, names)}")
        if not names or not self.outputs:
            raise self._error("chunking = rows needs an input and an output; expected whole")
        if self.halo.get(names[0], 0) is None:
            raise self._error(f"halo: the first input, {names[0]!r}, is the one that is cut; expected a number of rows")
        for rule in rules:
            if rule.kind in ("bytes", "reported"):
                raise self._error(f"chunking = rows gives an output as many rows as its input has, not {rule}")
        if self.state:
            raise self._error("chunking = rows and a state do not go together: rows around a chunk are read twice")
        row = self.chunking.row
        for name in () if row is None else row.names:
            parameter = self.parameters.get(name)
            if (
                parameter is None
                or parameter.dtype not in SCALAR_TYPES
                or SCALAR_TYPES[parameter.dtype].kind not in "iu"
            ):
                known = [one for one, kind in self.parameters.items() if kind.dtype in SCALAR_TYPES]
                raise self._error(f"chunking = {self.chunking}: {name!r} is no whole number{did_you_mean(name, known)}")

    def halo_of(self, port: Port) -> int | None:
        """Return the rows of an input that a run needs before and behind its chunk; ``None``: all of them."""
        return self.halo.get(port.name, self.halo.get("", 0))

    def _check_scalars(self, argument_names: set[str]) -> None:
        ins, outs = ({port.name for port in side} for side in (self.inputs, self.outputs))
        for argument in self.arguments:
            if argument.name in FILLED_IN or argument.name in self.parameters or self.prepare or argument.value:
                continue
            if argument.name in ins | outs:
                continue
            number, dot, port = argument.name.partition(".")
            if dot:
                of = outs if number == "capacity" else ins
                if port in of:
                    continue
                raise self._error(f"argument {argument.name!r}: unknown port {port!r}{did_you_mean(port, of)}")
            raise self._error(
                f"argument {argument.name!r} is neither a parameter ('{argument.name}: <type>') nor one of the names "
                f"that apyfal fills in{did_you_mean(argument.name, FILLED_IN)}"
            )
        for name, parameter in self.parameters.items():
            if name in FILLED_IN:
                raise self._error(f"a parameter cannot be called {name!r}: apyfal fills it in")
            if name in _RESERVED:
                raise self._error(f"a parameter cannot be called {name!r}: `process` has an argument of that name")
            if name not in argument_names | self._used and not self.prepare and parameter.dtype != "object":
                raise self._error(f"parameter {name!r} is not among the arguments")

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"accelerator {self.name!r}: {message}")

    @property
    def takes_input(self) -> bool:
        """Whether jobs have a source."""
        return bool(self.inputs)

    @property
    def gives_data(self) -> bool:
        """Whether jobs have output data. Result parameters are none."""
        return self.finish is None and bool(self.outputs)

    @property
    def continues(self) -> bool:
        """Whether a run may end with `STATUS_FULL`, and is then run again over the rest of its chunk."""
        return any(argument.name == "skip" for argument in self.arguments)

    def validate_parameters(self, /, **values: object) -> dict[str, object]:
        """Check values of parameters, and return all parameters: these, and the defaults of the others.

        Raises
        ------
        ParameterError
            There is no such parameter, its value is wrong, or a parameter without default is missing.
        """
        parameters: dict[str, object] = dict(self._defaults)
        for name, value in values.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                known = did_you_mean(name, self.parameters) or ", it takes none"
                raise ParameterError(f"accelerator {self.name!r} has no parameter {name!r}{known}")
            parameters[name] = parameter.check(value)
        if len(parameters) < len(self.parameters):
            missing = ", ".join(repr(name) for name in self.parameters if name not in parameters)
            raise ParameterError(f"accelerator {self.name!r} needs {missing}")
        return parameters

    def bind(self, *dtypes: np.dtype | None, **values: object) -> BoundCall:
        """Return the bound call for one job.

        Parameters
        ----------
        *dtypes
            Element type of each input's array; ``None``, or left out: bytes, as from files and URLs.
        **values
            Parameters.

        Raises
        ------
        ParameterError
            The kernel cannot take elements of such a type, or a parameter is wrong.
        """
        parameters = self.validate_parameters(**values)
        types = [self._element_type(port, dtype) for port, dtype in zip_longest(self.inputs, dtypes)]
        in_dtype = types[0] if types else self.in_dtype or SCALAR_TYPES["uint8"]
        places = {argument.name: index for index, argument in enumerate(self.arguments)}
        inputs = tuple(
            CallInput(port.name, dtype, places[port.name], in_dtype, port.name in self.inout)
            for port, dtype in zip(self.inputs, types, strict=True)
        )
        of_inputs = {port.name: port.dtype for port in inputs if port.changed}
        outputs = tuple(
            self._bind_output(port, places[port.name], of_inputs.get(port.name), in_dtype, parameters)
            for port in self.outputs
        )
        scalars = self.prepare(parameters, in_dtype) if self.prepare else parameters
        units = {f".{port.name}": port.dtype.itemsize for port in inputs} | {"": in_dtype.itemsize}
        buffers = {port.name for port in (*self.inputs, *self.outputs)}.union(BUFFERS)
        bound = []
        limit = None
        for argument in self.arguments:
            name, kind = argument.name, argument.dtype
            number = name.partition(".")[0]
            if name in buffers:
                bound.append(BoundArgument(name, None, None))
            elif number in CHUNK_SCALARS:
                kind = kind or CHUNK_SCALARS[number]
                if kind.itemsize < 8 and number in ("count", "bytes"):
                    unit = units[name.removeprefix(number)]  # what is counted in so few bits limits the first input
                    most = int(np.iinfo(kind).max) // (1 if number == "count" else unit) * in_dtype.itemsize
                    limit = most if limit is None else min(limit, most)
                bound.append(BoundArgument(name, kind, None))
            elif argument.value is not None:
                bound.append(BoundArgument(name, kind, None))
            elif name == "dtype":
                bound.append(BoundArgument(name, kind or SCALAR_TYPES["uint32"], DTYPE_CODES[in_dtype]))
            else:
                bound.append(self._bind_parameter(argument, scalars[name], in_dtype))
        cut = {"whole": None, "rows": None, "elements": in_dtype.itemsize, "records": self.chunking.record}[
            self.chunking.kind
        ]
        return BoundCall(
            name=self.name,
            kernel=self.kernel,
            arguments=tuple(bound),
            parameters=parameters,
            inputs=inputs,
            outputs=outputs,
            size_reported=any(output.rule.kind == "reported" for output in outputs),
            in_dtype=in_dtype,
            granularity=cut,
            aligned_granularity=aligned_granularity_of(cut, inputs, outputs),
            record=self.chunking.record,
            state_bytes=self.state(parameters) if callable(self.state) else self.state,
            chunk_limit=limit,
            make_result=self.finish,
            clears_outputs=self._clears_outputs,
            is_model=self.model is not None,
            sizes=self._sizes,
            values={name: value for name, value in parameters.items() if type(value) is int},
        )

    def scalars_of(self, in_dtype: np.dtype, **values: object) -> list[tuple[int, BoundArgument]] | None:
        """Return the kernel's arguments that these parameters become, with their positions.

        Parameters
        ----------
        in_dtype
            `BoundCall.in_dtype` of the job.
        **values
            Parameters.

        Returns
        -------
        list or None
            ``None``: one of them changes more than an argument (sizes, a state, an index space), or several arguments.

        Raises
        ------
        ParameterError
            As `bind` does.
        """
        checked = {}
        for name, value in values.items():
            if name not in self.parameters:
                self.validate_parameters(**{name: value})  # it is unknown, which this says
            checked[name] = self.parameters[name].check(value)
        if self.prepare or self.size or callable(self.state) or not self._used.isdisjoint(values):
            return None
        places = {argument.name: (index, argument) for index, argument in enumerate(self.arguments)}
        if not values.keys() <= places.keys():
            return None
        return [
            (places[name][0], self._bind_parameter(places[name][1], value, in_dtype)) for name, value in checked.items()
        ]

    @property
    def _clears_outputs(self) -> bool:
        # the emulator's own kernels write all of their output
        return self.clear_outputs and (self.driver != "emulator" or self.model is not None)

    def _bind_output(
        self, port: Port, place: int, dtype: np.dtype | None, in_dtype: np.dtype, parameters: Mapping[str, Any]
    ) -> CallOutput:
        rule = port.output or self.output
        fixed = None
        if rule.kind == "bytes":
            fixed = self.size(parameters) if self.size else int(rule.amount)
        dtype = dtype or port.dtype or self.out_dtype or in_dtype
        initial = self.initial.get(port.name)
        if initial is not None:
            initial = scalar(initial, self._number_type(dtype), f"initial value of {port.name!r}")
        return CallOutput(
            port.name, dtype, place, in_dtype, self.name, rule, fixed, self.capacity, initial, port.name in self.inout
        )

    def _number_type(self, dtype: np.dtype) -> np.dtype:
        """Return the type of the numbers in an element, for an initial value."""
        if dtype.names is not None:
            raise ParameterError(f"accelerator {self.name!r}: initial: expected an output of numbers, not of structs")
        return dtype.base

    def _bind_parameter(self, argument: Argument, value: object, in_dtype: np.dtype) -> BoundArgument:
        parameter = self.parameters.get(argument.name)
        if parameter is not None and parameter.choices is not None:
            value = parameter.choices[str(value)]
        dtype = argument.dtype
        if dtype is None:
            name = parameter.dtype if parameter is not None else "element"
            composite = None if parameter is None else parameter.composite
            dtype = composite or (in_dtype if name == "element" else parse_scalar_type(name))
        what = f"parameter {argument.name!r}"
        if dtype.kind == "V":
            return BoundArgument(argument.name, dtype, pack(value_of(value, dtype, what), dtype))
        return BoundArgument(argument.name, wire_type(dtype), scalar(value, dtype, what))

    def dtype_of(self, port: Port) -> np.dtype | None:
        """Return the element type that is declared for an input; ``None``: that of the source."""
        return port.dtype or self.in_dtype

    def _element_type(self, port: Port | None, dtype: np.dtype | None) -> np.dtype:
        if port is None:
            raise ParameterError(
                f"accelerator {self.name!r} takes {len(self.inputs)} inputs; one of {dtype} is too many"
            )
        declared = self.dtype_of(port)
        if declared is not None:
            if dtype is not None and dtype != declared:
                what = "" if len(self.inputs) == 1 else f" as {port.name!r}"
                hint = ""
                if is_vector(declared):
                    hint = f"; expected an array of {declared.base} whose last axis has {declared.shape[0]}"
                raise ParameterError(
                    f"accelerator {self.name!r} takes {element_name(declared)} elements{what}, "
                    f"not {element_name(dtype)}{hint}"
                )
            return declared
        if dtype is None:
            return SCALAR_TYPES["uint8"]
        self._check_elements(dtype, ParameterError)
        return dtype

    def _check_elements(self, dtype: np.dtype, error: type[ConfigurationError | ParameterError]) -> None:
        if dtype.hasobject:
            raise error(f"accelerator {self.name!r} cannot take elements of type {dtype}: they are Python objects")
        if self.dtypes and dtype not in self.dtypes:
            names = ", ".join(sorted(str(known) for known in self.dtypes))
            given = element_name(dtype)
            raise error(f"accelerator {self.name!r} cannot take elements of type {given}; expected one of {names}")

    def __repr__(self) -> str:
        several = [port.name for port in self.inputs] if len(self.inputs) > 1 else []
        text = f"{self.name}({', '.join([*several, *map(str, self.parameters.values())])})"
        if len(self.outputs) > 1:
            text += f" -> {', '.join(port.name for port in self.outputs)}"
        if self.driver != "emulator":
            text += f" on {self.driver}"
        return f"{text}: {self.summary}" if self.summary else text
