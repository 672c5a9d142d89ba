"""What an accelerator is: its kernel's arguments, the types and sizes of its data, and where its input may be cut.

``[accelerator.NAME]`` and the keyword arguments of `apyfal.Accelerator` become a `Definition`, which is checked when it
is made. `Definition.bind` adds one job's parameters and element types, and returns the `BoundCall` that a pipeline
runs, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from apyfal.definition.bound_call import BoundArgument, BoundCall, CallInput, CallOutput, aligned_granularity_of
from apyfal.definition.consistency import check, check_elements
from apyfal.definition.declaration import Declaration
from apyfal.definition.grammar import BUFFERS, CHUNK_SCALARS, REQUIRED, Argument, Port
from apyfal.definition.sizes import SizeRules
from apyfal.definition.types.composite import element_name, is_vector, pack, value_of
from apyfal.definition.types.dtypes import DTYPE_CODES, SCALAR_TYPES, parse_scalar_type, scalar, wire_type
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["Definition"]


@dataclass(frozen=True, eq=False, repr=False)
class Definition(Declaration):
    """An accelerator: a `Declaration` whose parts fit together, and that is bound to a job's parameters.

    Raises
    ------
    ConfigurationError
        The parts do not fit together.
    """

    _defaults: Mapping[str, object] = field(init=False, default_factory=dict)
    _sizes: SizeRules = field(init=False)
    _used: set[str] = field(init=False)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        argument_names = {argument.name for argument in self.arguments}
        for side, plain in (("inputs", "src"), ("outputs", "dst")):
            if not getattr(self, side) and plain in argument_names:
                object.__setattr__(self, side, (Port(plain),))
        rules, used = check(self)
        object.__setattr__(self, "_sizes", rules)
        object.__setattr__(self, "_used", used)
        by_element = any(parameter.dtype == "element" for parameter in self.parameters.values())
        if not self.dtypes and ("dtype" in argument_names or by_element):
            object.__setattr__(self, "dtypes", frozenset(DTYPE_CODES))
        if (declared := self.first_dtype or self.in_dtype) is not None:
            check_elements(self, declared, ConfigurationError)
        defaults = {p.name: p.check(p.default) for p in self.parameters.values() if p.default is not REQUIRED}
        object.__setattr__(self, "_defaults", defaults)

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
        if fixed is not None and fixed % dtype.itemsize:
            raise ParameterError(
                f"accelerator {self.name!r}: output {port.name!r} of {fixed} bytes is not a whole number of "
                f"{element_name(dtype)} elements"
            )
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
        check_elements(self, dtype, ParameterError)
        return dtype

    def __repr__(self) -> str:
        several = [port.name for port in self.inputs] if len(self.inputs) > 1 else []
        text = f"{self.name}({', '.join([*several, *map(str, self.parameters.values())])})"
        if len(self.outputs) > 1:
            text += f" -> {', '.join(port.name for port in self.outputs)}"
        if self.driver != "emulator":
            text += f" on {self.driver}"
        return f"{text}: {self.summary}" if self.summary else text
