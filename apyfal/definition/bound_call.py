"""A definition bound to one job's parameters and element types, ready to be run chunk by chunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from apyfal.definition.grammar import OutputSize
from apyfal.definition.sizes import SizeRules, SourceSize, source_values
from apyfal.definition.types.composite import element_name
from apyfal.exceptions import ParameterError

__all__ = ["BoundArgument", "BoundCall", "CallInput", "CallOutput", "CallPort", "aligned_granularity_of"]

#: Every driver accepts offsets into buffer objects that are multiples of this, in bytes.
_PAGE = 4096


class BoundArgument(NamedTuple):
    """One kernel argument in a `BoundCall`.

    Attributes
    ----------
    name
        The argument's.
    dtype
        Type of a scalar; ``None``: the argument is a buffer.
    value
        The scalar, of a vector or struct its bytes; ``None``: it is set for each run, from the chunk.
    """

    name: str
    dtype: np.dtype | None
    value: int | float | bytes | None


@dataclass(frozen=True, slots=True)
class CallPort(ABC):
    """One input or output of a `BoundCall`. Its size follows from that of the first input, which is cut into chunks.

    Attributes
    ----------
    name
        The argument's.
    dtype
        Type of its elements.
    index
        Position of the argument in the kernel's list.
    first
        Type of the first input's elements.
    """

    name: str
    dtype: np.dtype
    index: int
    first: np.dtype

    @abstractmethod
    def buffer_nbytes(self, nbytes: int) -> int:
        """Return the bytes of memory that a run over `nbytes` of the first input needs for this."""


@dataclass(frozen=True, slots=True)
class CallInput(CallPort):
    """One input of a `BoundCall`.

    Attributes
    ----------
    changed
        The kernel changes it in place: its data is copied to the output of its name, which the kernel works on.
    """

    changed: bool = False

    def companion_nbytes(self, nbytes: int) -> int:
        """Return the bytes of this input that go with `nbytes` of the first one: both have as many elements."""
        return nbytes // self.first.itemsize * self.dtype.itemsize

    def buffer_nbytes(self, nbytes: int) -> int:
        """Return `companion_nbytes`."""
        return self.companion_nbytes(nbytes)


@dataclass(frozen=True, slots=True)
class CallOutput(CallPort):
    """One output of a `BoundCall`.

    Attributes
    ----------
    accelerator
        Name of the accelerator, for messages.
    rule
        How the output's size follows from the input's.
    fixed_nbytes
        Bytes that the job produces whatever the size of its input; ``None``: that depends on the input.
    upper_bound
        For ``reported``: takes bytes of input, returns the largest number of bytes of output.
    initial
        What its elements are before the first run that writes it; ``None``: nothing is stated.
    changed
        It is an input too, see `CallInput.changed`.
    shape
        Of a new array; ``None``: that of the first input, or one dimension.
    """

    accelerator: str
    rule: OutputSize
    fixed_nbytes: int | None
    upper_bound: Callable[[int], int] | None
    initial: int | float | None = None
    changed: bool = False
    shape: tuple[int, ...] | None = None

    @property
    def size_reported(self) -> bool:
        """Whether only the kernel knows how many bytes it writes."""
        return self.fixed_nbytes is None and self.rule.kind == "reported"

    def nbytes(self, nbytes: int) -> int | None:
        """Return the bytes of output for `nbytes` of input; ``None`` if only the kernel knows them.

        Raises
        ------
        ParameterError
            `nbytes` times the factor is not a whole number of output elements.
        """
        if self.fixed_nbytes is not None:
            return self.fixed_nbytes
        if self.rule.kind == "reported":
            return None
        if self.rule.kind == "same":
            return nbytes // self.first.itemsize * self.dtype.itemsize
        size = nbytes * Fraction(self.rule.amount)
        if size.denominator != 1 or int(size) % self.dtype.itemsize:
            raise ParameterError(
                f"accelerator {self.accelerator!r}: {nbytes} bytes of input times {self.rule.amount} are not a whole "
                f"number of {element_name(self.dtype)} elements"
            )
        return int(size)

    def buffer_nbytes(self, nbytes: int) -> int:
        """Return the bytes of memory for the output of `nbytes` of input; an upper bound if the kernel reports it.

        A kernel that takes ``skip`` works with less memory too: it is run again until it has consumed its input.
        """
        if (size := self.nbytes(nbytes)) is not None:
            return size
        return self.upper_bound(nbytes) if self.upper_bound else max(nbytes, self.dtype.itemsize)


def aligned_granularity_of(granularity: int | None, inputs: Sequence[CallInput], outputs: Sequence[CallOutput]) -> int:
    """Return `BoundCall.aligned_granularity`."""
    unit = math.lcm(granularity or 1, _PAGE)
    for output in outputs:
        if output.rule.kind == "factor":  # a whole number of elements
            unit = math.lcm(unit, (Fraction(output.rule.amount) / output.dtype.itemsize).denominator)
    for port in inputs[1:]:
        unit *= _PAGE // math.gcd(port.companion_nbytes(unit), _PAGE)
    for output in outputs:
        if output.rule.kind in ("same", "factor"):
            unit *= _PAGE // math.gcd(output.nbytes(unit) or _PAGE, _PAGE)
    return unit


@dataclass(frozen=True, slots=True, eq=False)
class BoundCall:
    """A definition with one job's parameters and element types.

    Attributes
    ----------
    name, kernel
        Names of the accelerator and of its kernel.
    arguments
        Of the kernel, in its order.
    parameters
        All of the accelerator's parameters with their values, as a user gives them.
    inputs, outputs
        The job's data.
    size_reported
        Whether only the kernel knows how much it consumed and produced.
    in_dtype
        Type of the first input's elements; ``uint8`` without an input.
    granularity
        The input may be cut at multiples of this, in bytes; ``None``: it must not be cut.
    aligned_granularity
        The smallest multiple of `granularity` at which all inputs and outputs begin at a page, in bytes.
    record
        The input must be a multiple of this, in bytes; 0: of its element size only.
    state_bytes
        Device memory that is kept between the chunks; 0: none.
    chunk_limit
        Bytes of input that the kernel's own argument types can count in one run; ``None``: no limit.
    make_result
        Turns the output into result parameters; ``None``: the output itself is the result.
    clears_outputs
        Outputs for which `starts_at_zero` holds are zero before the first run.
    is_model
        A Python function does the kernel's work.
    sizes
        What depends on the sizes of the job's data.
    values
        Values of parameters, for `sizes`.
    shape_values
        Values of other names, which `of_sources` adds.
    """

    name: str
    kernel: str
    arguments: tuple[BoundArgument, ...]
    parameters: Mapping[str, Any]
    inputs: tuple[CallInput, ...]
    outputs: tuple[CallOutput, ...]
    size_reported: bool
    in_dtype: np.dtype
    granularity: int | None
    aligned_granularity: int
    record: int
    state_bytes: int
    chunk_limit: int | None
    make_result: Callable[[np.ndarray], dict[str, object]] | None
    clears_outputs: bool
    is_model: bool
    sizes: SizeRules
    values: Mapping[str, int]
    shape_values: Mapping[str, int] = field(default_factory=dict)

    @property
    def needs_sources(self) -> bool:
        """Whether `of_sources` is needed before a job can run: something depends on more than the parameters."""
        return (
            self.sizes.space is not None
            or bool(self.sizes.arguments)
            or self.sizes.size_outputs
            or any(port.changed for port in self.inputs)
        )

    def of_sources(self, sources: Sequence[SourceSize]) -> BoundCall:
        """Return the call with its outputs' sizes and shapes, for sources of these sizes in the order of `inputs`.

        Raises
        ------
        ParameterError
            An expression has no value for them.
        """
        what = f"accelerator {self.name!r}"
        found = source_values([port.name for port in self.inputs], [port.dtype for port in self.inputs], sources)
        values = {**found, **self.values}  # a parameter's own value wins
        of_inputs = {port.name: size for port, size in zip(self.inputs, sources, strict=True)}
        outputs = []
        for port in self.outputs:
            elements = self.sizes.elements_of(port.name, values, what)
            if elements is not None:
                fixed = port.fixed_nbytes
                if fixed is not None and fixed != elements * port.dtype.itemsize:
                    raise ParameterError(
                        f"{what}: output {port.name!r} has {fixed} bytes, its shape "
                        f"{elements * port.dtype.itemsize}; expected as many"
                    )
                shape = self.sizes.shape_of(port.name, values, what)
                port = replace(port, fixed_nbytes=elements * port.dtype.itemsize, shape=shape)
            elif port.changed:
                fixed = of_inputs[port.name].nbytes if self.granularity is None else None
                port = replace(port, fixed_nbytes=fixed, shape=of_inputs[port.name].shape)
            outputs.append(port)
        return replace(self, outputs=tuple(outputs), shape_values=found)

    def starts_at_zero(self, output: CallOutput) -> bool:
        """Return whether `output` is zero before the kernel's first run."""
        kept_whole = self.granularity is None or output.fixed_nbytes is not None
        filled = output.initial is not None or output.changed
        return self.clears_outputs and kept_whole and not filled and output.rule.kind != "reported"

    def check_size(self, nbytes: int) -> None:
        """Raise `ParameterError` if `nbytes` of input are not a whole number of elements and of records."""
        unit = self.in_dtype.itemsize
        if nbytes % unit:
            raise ParameterError(
                f"accelerator {self.name!r}: {nbytes} bytes of input are not a whole number of "
                f"{element_name(self.in_dtype)} elements ({unit} bytes each)"
            )
        record = self.record
        if record and nbytes % record:
            raise ParameterError(
                f"accelerator {self.name!r}: {nbytes} bytes of input are not a whole number of records "
                f"of {record} bytes"
            )

    def check_sizes(self, sizes: Sequence[int | None]) -> None:
        """Raise `ParameterError` if inputs of these sizes in bytes (``None``: not known) do not fit together."""
        first = sizes[0] if sizes else None
        if first is not None:
            self.check_size(first)
        for port, nbytes in zip(self.inputs[1:], sizes[1:], strict=True):
            if nbytes is None:
                continue
            if nbytes % port.dtype.itemsize:
                raise ParameterError(
                    f"{port.name}: {nbytes} bytes are not a whole number of {element_name(port.dtype)} elements "
                    f"({port.dtype.itemsize} bytes each)"
                )
            if first is not None and self.granularity is not None and nbytes != port.companion_nbytes(first):
                raise ParameterError(
                    f"{port.name}: {nbytes // port.dtype.itemsize} elements; expected as many as in "
                    f"{self.inputs[0].name}, {first // self.in_dtype.itemsize}"
                )

    def result_of(self, output: np.ndarray) -> np.ndarray | dict[str, object]:
        """Return the job's result, given its output: the array itself, or result parameters."""
        return self.make_result(output) if self.make_result else output
