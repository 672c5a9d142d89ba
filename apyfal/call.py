"""One job of an accelerator: its definition with parameters and element types, ready to be run chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.exceptions import ParameterError

if TYPE_CHECKING:
    from apyfal.definition import Definition

__all__ = ["BoundArgument", "Call"]


class BoundArgument(NamedTuple):
    """One kernel argument in a `Call`.

    ``dtype is None``: the buffer `name`. Otherwise a scalar: `value`, or the chunk's own number `name` where `value` is
    ``None``.
    """

    name: str
    dtype: np.dtype | None
    value: int | float | None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A definition with one job's parameters and element types.

    Attributes
    ----------
    arguments
        For the kernel, in its order.
    parameters
        As the user sees them, complete.
    in_dtype, out_dtype
        Element types of the job's data.
    granularity
        The input may be cut at multiples of so many bytes; ``None``: nowhere.
    state_bytes
        Device memory that is kept between the chunks; 0: none.
    fixed_output
        Bytes that the job produces whatever its input, or ``None``.
    chunk_limit
        Bytes of input that the kernel's own argument types can count in one run; ``None``: no limit.
    """

    definition: Definition
    arguments: tuple[BoundArgument, ...]
    parameters: Mapping[str, Any]
    in_dtype: np.dtype
    out_dtype: np.dtype
    granularity: int | None
    state_bytes: int
    fixed_output: int | None
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

    def output_bytes(self, nbytes: int) -> int | None:
        """Bytes that `nbytes` of input become; ``None`` where only the kernel can tell.

        Raises
        ------
        ParameterError
            A factor does not give a whole number of output elements.
        """
        output = self.definition.output
        if self.fixed_output is not None:
            return self.fixed_output
        if output.kind == "reported":
            return None
        if output.kind == "same":
            return nbytes // self.in_dtype.itemsize * self.out_dtype.itemsize
        size = nbytes * Fraction(output.amount)
        if size.denominator != 1 or int(size) % self.out_dtype.itemsize:
            raise ParameterError(
                f"accelerator {self.definition.name!r}: {nbytes} bytes of input times {output.amount} are not a whole "
                f"number of {self.out_dtype} elements"
            )
        return int(size)

    def capacity(self, nbytes: int) -> int:
        """Bytes of ``dst`` that one run over `nbytes` of input needs, at most where the kernel reports its output.

        A kernel that takes ``skip`` may be given less, and is then run again.
        """
        if (size := self.output_bytes(nbytes)) is not None:
            return size
        bound = self.definition.capacity
        return bound(nbytes) if bound else max(nbytes, self.out_dtype.itemsize)

    def finish(self, output: np.ndarray) -> np.ndarray | dict[str, object]:
        """Return the job's result from its output: the array itself, or result parameters."""
        finish = self.definition.finish
        return finish(output) if finish else output
