"""Chains: stages that run as one accelerator, each on what the one before it left on the device.

``[accelerator.NAME]`` with ``stages = blur, threshold, count`` becomes a `ChainDefinition`. `ChainDefinition.bind`
binds every stage to its part of a job's parameters, and returns a `ChainCall`: the bound calls of the stages, and their
sizes seen from the outside as those of one call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from apyfal.definition.bound_call import BoundCall, CallOutput, aligned_granularity_of
from apyfal.definition.definition import Definition
from apyfal.definition.grammar import KERNEL_OPTIONS, SAME, OutputSize, Parameter
from apyfal.definition.sizes import SizeRules, SourceSize
from apyfal.exceptions import ParameterError, did_you_mean

__all__ = ["ChainCall", "ChainDefinition"]

#: Stages of a chain at most.
_MOST = 64


def labels_of(names: Sequence[str]) -> list[str]:
    """Return a name for each stage that no other has: ``plus, plus`` are ``plus`` and ``plus2``."""
    labels: list[str] = []
    for number, name in enumerate(names):
        again = names[:number].count(name) + 1
        label = name if again == 1 else f"{name}{again}"
        while label in labels or (again > 1 and label in names):
            label += "_"
        labels.append(label)
    return labels


@dataclass(frozen=True, eq=False, repr=False)
class ChainDefinition(Definition):
    """An accelerator that is made of others.

    Its inputs are those of the first stage, its outputs those of the last. A parameter has the name that it has in its
    stage if no other stage has one of that name, else the stage's before it: ``blur.radius``, and ``blur2.radius`` in a
    second stage ``blur``.

    Attributes
    ----------
    stages
        The definitions of the stages, in their order.

    Raises
    ------
    ConfigurationError
        The stages do not fit together.
    """

    stages: tuple[Definition, ...] = ()

    @classmethod
    def of(cls, name: str, stages: Sequence[Definition]) -> ChainDefinition:
        """Return the chain `name` of these stages."""
        parameters = {key: replace(parameter, name=key) for _, key, parameter in _parameters_of(stages)}
        options: dict[str, str] = {}  # of the device; where stages differ, the second one cannot join it
        for stage in stages:
            of_kernels = KERNEL_OPTIONS.get(stage.driver, frozenset())
            options = {**{key: value for key, value in stage.options.items() if key not in of_kernels}, **options}
        return cls(
            name=name,
            kernel=", ".join(stage.name for stage in stages),
            arguments=(),
            inputs=stages[0].inputs if stages else (),
            outputs=stages[-1].outputs if stages else (),
            driver=stages[0].driver if stages else "",
            device=stages[0].device if stages else None,
            parameters=parameters,
            options=options,
            summary="chain: " + ", ".join(stage.name for stage in stages),
            finish=stages[-1].finish if stages else None,
            stages=tuple(stages),
        )

    def __post_init__(self) -> None:
        """Check that each stage can take what the one before it gives."""
        if not 1 <= len(self.stages) <= _MOST:
            raise self.error(f"stages: {len(self.stages)} of them; expected 1 to {_MOST}")
        first, last = self.stages[0], self.stages[-1]
        for stage in self.stages:
            if isinstance(stage, ChainDefinition):
                raise self.error(f"stages: {stage.name!r} is a chain itself; expected its stages")
            if stage.driver != first.driver:
                raise self.error(
                    f"stages: {stage.name!r} is for driver {stage.driver!r}, {first.name!r} for {first.driver!r}; "
                    "expected one driver for all"
                )
            if any((port.output or stage.output).kind == "reported" for port in stage.outputs):
                raise self.error(
                    f"stages: the kernel of {stage.name!r} reports its size; expected sizes that are known"
                )
            if stage is not first and len(stage.inputs) != 1:
                raise self.error(
                    f"stages: {stage.name!r} has {len(stage.inputs)} inputs; only the first can have several"
                )
            if stage is not last and len(stage.outputs) != 1:
                raise self.error(
                    f"stages: {stage.name!r} has {len(stage.outputs)} outputs; only the last can have several"
                )
            if any(argument.name == "coefficients" for argument in stage.arguments):
                raise self.error(f"stages: {stage.name!r} takes coefficients, which a chain cannot load")
        if first.inout:
            raise self.error(f"stages: {first.name!r} changes its input in place; a chain cannot begin with it")
        object.__setattr__(self, "_defaults", {})
        object.__setattr__(self, "_sizes", SizeRules(None, {}, {}, {}))
        object.__setattr__(self, "_used", set())

    @property
    def takes_input(self) -> bool:
        """Whether jobs have a source."""
        return self.stages[0].takes_input

    @property
    def gives_data(self) -> bool:
        """Whether jobs have output data."""
        return self.stages[-1].gives_data

    def _split(self, values: Mapping[str, object]) -> list[dict[str, object]]:
        """Return each stage's own part of the values."""
        places = {key: (place, parameter.name) for place, key, parameter in _parameters_of(self.stages)}
        parts: list[dict[str, object]] = [{} for _ in self.stages]
        for key, value in values.items():
            if key not in places:
                known = did_you_mean(key, places) or ", it takes none"
                raise ParameterError(f"accelerator {self.name!r} has no parameter {key!r}{known}")
            place, name = places[key]
            parts[place][name] = value
        return parts

    def validate_parameters(self, /, **values: object) -> dict[str, object]:
        """Check values of parameters, and return all parameters of all stages."""
        parts = self._split(values)
        checked = [stage.validate_parameters(**part) for stage, part in zip(self.stages, parts, strict=True)]
        return {key: checked[place][parameter.name] for place, key, parameter in _parameters_of(self.stages)}

    def bind(self, *dtypes: np.dtype | None, **values: object) -> ChainCall:
        """Return the bound call for one job; see `Definition.bind`."""
        calls: list[BoundCall] = []
        types = dtypes
        for stage, part in zip(self.stages, self._split(values), strict=True):
            calls.append(stage.bind(*types, **part))
            types = tuple(port.dtype for port in calls[-1].outputs)
        return ChainCall.of(self.name, calls)


def _parameters_of(stages: Sequence[Definition]) -> list[tuple[int, str, Parameter]]:
    """Return place of the stage, name in the chain, and parameter, of all parameters of all stages."""
    labels = labels_of([stage.name for stage in stages])
    times = Counter(name for stage in stages for name in stage.parameters)
    return [
        (place, name if times[name] == 1 else f"{labels[place]}.{name}", parameter)
        for place, stage in enumerate(stages)
        for name, parameter in stage.parameters.items()
    ]


@dataclass(frozen=True, slots=True, eq=False)
class ChainCall(BoundCall):
    """A chain with one job's parameters and element types.

    Attributes
    ----------
    stages
        The bound calls of the stages.
    """

    stages: tuple[BoundCall, ...] = ()

    @classmethod
    def of(cls, name: str, calls: Sequence[BoundCall]) -> ChainCall:
        """Return the chain `name` of these calls."""
        first, last = calls[0], calls[-1]
        granularity, limit = _cuts_of(calls)
        outputs = tuple(_seen_from_outside(calls, port) for port in last.outputs)
        return cls(
            name=name,
            kernel=", ".join(call.kernel for call in calls),
            arguments=(),
            parameters={},
            inputs=first.inputs,
            outputs=outputs,
            size_reported=False,
            in_dtype=first.in_dtype,
            granularity=granularity,
            aligned_granularity=aligned_granularity_of(granularity, first.inputs, outputs),
            record=first.record,
            state_bytes=0,
            chunk_limit=limit,
            make_result=last.make_result,
            clears_outputs=False,
            is_model=False,
            sizes=SizeRules(None, {}, {}, {}),
            values={},
            stages=tuple(calls),
        )

    @property
    def needs_sources(self) -> bool:
        """Whether `of_sources` is needed before a job can run."""
        return any(call.needs_sources for call in self.stages)

    def of_sources(self, sources: Sequence[SourceSize]) -> ChainCall:
        """Return the chain with the sizes and shapes of its outputs, for these sources; see `BoundCall.of_sources`."""
        calls = []
        for call in self.stages:
            sized = call.of_sources(sources) if call.needs_sources else call
            calls.append(sized)
            if call is not self.stages[-1]:
                sources = (_size_of(sized.outputs[0], sources),)
        return ChainCall.of(self.name, calls)


def is_reduction(call: BoundCall) -> bool:
    """Return whether a stage gives its output, of a size of its own, in the run of a job's last chunk alone."""
    return any(port.fixed_nbytes is not None for port in call.outputs)


def _size_of(port: CallOutput, sources: Sequence[SourceSize]) -> SourceSize:
    """Return size and shape of a stage's output, whose sources have these."""
    nbytes, shape = sources[0] if sources else SourceSize(0, None)
    if port.fixed_nbytes is None and nbytes is None:
        return SourceSize(None, None)
    size = port.nbytes(nbytes or 0) or 0
    count = size // port.dtype.itemsize
    if port.shape is not None:
        return SourceSize(size, port.shape)
    kept = shape is not None and port.rule.kind == "same" and math.prod(shape) == count
    return SourceSize(size, shape if kept else (count,))


def _ratio_of(port: CallOutput) -> Fraction:
    """Return bytes of output for each byte of input."""
    if port.rule.kind == "factor":
        return Fraction(port.rule.amount)
    return Fraction(port.dtype.itemsize, port.first.itemsize)


def _cuts_of(calls: Sequence[BoundCall]) -> tuple[int | None, int | None]:
    """Return the granularity and the largest chunk of a chain, in bytes of its input."""
    granularity, ratio = calls[0].granularity, Fraction(1)
    limits = []
    for call in calls:
        if granularity is None or call.granularity is None:
            granularity = None
        else:
            granularity = math.lcm(granularity, (ratio / call.granularity).denominator)
        if call.chunk_limit is not None:
            limits.append(int(call.chunk_limit / ratio))
        if is_reduction(call) or not call.outputs:
            break
        ratio *= _ratio_of(call.outputs[0])
    return granularity, min(limits, default=None)


def _seen_from_outside(calls: Sequence[BoundCall], port: CallOutput) -> CallOutput:
    """Return an output of the last stage with its size as a function of the first stage's input."""
    first = calls[0].in_dtype
    ratio = Fraction(1)
    fixed: int | None = None
    same = True
    for call in calls:
        output = port if call is calls[-1] else call.outputs[0]
        if output.fixed_nbytes is not None:
            fixed = output.fixed_nbytes
        elif fixed is not None:
            fixed = output.nbytes(fixed)
        ratio *= _ratio_of(output)
        same = same and output.rule.kind == "same"
    rule = port.rule if len(calls) == 1 else SAME if same else OutputSize("factor", ratio)
    return replace(port, first=first, rule=rule, fixed_nbytes=fixed, changed=False)
