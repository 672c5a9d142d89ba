"""The statements of a definition, unchecked: `apyfal.definition.definition` checks and binds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apyfal.definition.expressions import Expression
from apyfal.definition.grammar import SAME, WHOLE, Argument, Chunking, OutputSize, Parameter, Port
from apyfal.definition.sizes import IndexSpace
from apyfal.exceptions import ConfigurationError

__all__ = ["Declaration"]


@dataclass(frozen=True, eq=False, repr=False)
class Declaration:
    """The statements that describe an accelerator.

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

    def error(self, message: str) -> ConfigurationError:
        """Return the error that says what does not fit together."""
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

    def halo_of(self, port: Port) -> int | None:
        """Return the rows of an input that a run needs before and behind its chunk; ``None``: all of them."""
        return self.halo.get(port.name, self.halo.get("", 0))

    def dtype_of(self, port: Port) -> np.dtype | None:
        """Return the element type that is declared for an input; ``None``: that of the source."""
        return port.dtype or self.in_dtype

    @property
    def first_dtype(self) -> np.dtype | None:
        """The element type that is declared for the first input; ``None``: there is no input, or that of the source."""
        return self.dtype_of(self.inputs[0]) if self.inputs else None
