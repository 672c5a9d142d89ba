"""One job of an accelerator: its definition with parameters and element types, ready to be run chunk by chunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.definition.grammar import OutputSize
from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from apyfal.definition.definition import Definition

__all__ = ["BoundArgument", "BoundCall", "CallInput", "CallOutput", "CallPort", "unit_of"]


#: Offsets in buffer objects that every driver accepts are multiples of this.
_PAGE = 4096


class BoundArgument(NamedTuple):
    """One kernel argument in a `BoundCall`.

    ``dtype is None``: the buffer `name`. Otherwise a scalar: `value`, or the chunk's own number `name` where `value` is
    ``None``.
    """

    name: str
    dtype: np.dtype | None
    value: int | float | None


@dataclass(frozen=True, slots=True)
class CallPort(ABC):
    """One input or output of a `BoundCall`. All sizes follow from the first input's, by which a job is cut into runs.

    Attributes
    ----------
    name
        The argument's.
    dtype
        Type of its elements.
    index
        The argument's place among the kernel's.
    first
        Type of the first input's elements.
    """

    name: str
    dtype: np.dtype
    index: int
    first: np.dtype

    @abstractmethod
    def room(self, nbytes: int) -> int:
        """Bytes of memory that a run over `nbytes` of the first input needs for this."""


@dataclass(frozen=True, slots=True)
class CallInput(CallPort):
    """One input of a `BoundCall`."""

    def beside(self, nbytes: int) -> int:
        """Bytes of this input that belong to `nbytes` of the first one, where inputs may be cut: as many elements."""
        return nbytes // self.first.itemsize * self.dtype.itemsize

    def room(self, nbytes: int) -> int:
        """See `beside`."""
        return self.beside(nbytes)


@dataclass(frozen=True, slots=True)
class CallOutput(CallPort):
    """One output of a `BoundCall`.

    Attributes
    ----------
    accelerator
        Its name, for messages.
    rule
        How much there is.
    fixed
        Bytes that the job produces whatever its input, or ``None``.
    bound
        For ``reported``: an upper bound of the output of so many bytes of input.
    """

    accelerator: str
    rule: OutputSize
    fixed: int | None
    bound: Callable[[int], int] | None

    def nbytes(self, nbytes: int) -> int | None:
        """Bytes that `nbytes` of input become; ``None`` where only the kernel can tell.

        Raises
        ------
        ParameterError
            A factor does not give a whole number of output elements.
        """
        if self.fixed is not None:
            return self.fixed
        if self.rule.kind == "reported":
            return None
        if self.rule.kind == "same":
            return nbytes // self.first.itemsize * self.dtype.itemsize
        size = nbytes * Fraction(self.rule.amount)
        if size.denominator != 1 or int(size) % self.dtype.itemsize:
            raise ParameterError(
                f"accelerator {self.accelerator!r}: {nbytes} bytes of input times {self.rule.amount} are not a whole "
                f"number of {self.dtype} elements"
            )
        return int(size)

    def room(self, nbytes: int) -> int:
        """As in `CallPort`; where the kernel reports its output, what it needs at most.

        A kernel that takes ``skip`` may be given less, and is then run again.
        """
        if (size := self.nbytes(nbytes)) is not None:
            return size
        return self.bound(nbytes) if self.bound else max(nbytes, self.dtype.itemsize)


def unit_of(granularity: int | None, inputs: Sequence[CallInput], outputs: Sequence[CallOutput]) -> int:
    """Return `BoundCall.unit`."""
    unit = math.lcm(granularity or 1, _PAGE)
    for port in inputs[1:]:
        unit *= _PAGE // math.gcd(port.beside(unit), _PAGE)
    for output in outputs:
        if output.rule.kind in ("same", "factor"):
            unit *= _PAGE // math.gcd(output.nbytes(unit) or _PAGE, _PAGE)
    return unit


@dataclass(frozen=True, slots=True, eq=False)
class BoundCall:
    """A definition with one job's parameters and element types.

    Attributes
    ----------
    arguments
        For the kernel, in its order.
    parameters
        As the user sees them, complete.
    inputs, outputs
        The job's data.
    reports
        Whether only the kernel can tell how much it consumed and produced.
    in_dtype
        Type of the first input's elements (bytes, where there is no input).
    granularity
        The input may be cut at multiples of so many bytes; ``None``: nowhere.
    unit
        The same, with the offsets of all inputs and outputs at pages.
    state_bytes
        Device memory that is kept between the chunks; 0: none.
    chunk_limit
        Bytes of input that the kernel's own argument types can count in one run; ``None``: no limit.
    """

    definition: Definition
    arguments: tuple[BoundArgument, ...]
    parameters: Mapping[str, Any]
    inputs: tuple[CallInput, ...]
    outputs: tuple[CallOutput, ...]
    reports: bool
    in_dtype: np.dtype
    granularity: int | None
    unit: int
    state_bytes: int
    chunk_limit: int | None

    def check_size(self, nbytes: int) -> None:
        """Raise `ParameterError` where `nbytes` of input are not a whole number of elements or records."""
        unit = self.in_dtype.itemsize
        if nbytes % unit:
            raise ParameterError(
                f"accelerator {self.definition.name!r}: {nbytes} bytes of input are not a whole number of "
                f"{self.in_dtype} elements ({unit} bytes each)"
            )
        record = self.definition.chunking.record
        if record and nbytes % record:
            raise ParameterError(
                f"accelerator {self.definition.name!r}: {nbytes} bytes of input are not a whole number of records "
                f"of {record} bytes"
            )

    def check_sizes(self, sizes: Sequence[int | None]) -> None:
        """Raise `ParameterError` where inputs of these sizes (``None``: not known) do not fit together."""
        first = sizes[0] if sizes else None
        if first is not None:
            self.check_size(first)
        for port, nbytes in zip(self.inputs[1:], sizes[1:], strict=True):
            if nbytes is None:
                continue
            if nbytes % port.dtype.itemsize:
                raise ParameterError(
                    f"{port.name}: {nbytes} bytes are not a whole number of {port.dtype} elements "
                    f"({port.dtype.itemsize} bytes each)"
                )
            if first is not None and self.granularity is not None and nbytes != port.beside(first):
                raise ParameterError(
                    f"{port.name}: {nbytes // port.dtype.itemsize} elements; expected as many as in "
                    f"{self.inputs[0].name}, {first // self.in_dtype.itemsize}"
                )

    def finish(self, output: np.ndarray) -> np.ndarray | dict[str, object]:
        """Return the job's result from its output: the array itself, or result parameters."""
        finish = self.definition.finish
        return finish(output) if finish else output
