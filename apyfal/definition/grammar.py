"""The parts of a definition: kernel arguments, parameters, sizes of outputs, and where the input may be cut.

Each has a text form, for ``accelerator.conf``::

    arguments  = src, dst, count:uint32, a, b
    parameters = a: float64 = 1, b: float64 = 0
    output     = same                ; or 32, 2x, reported
    chunking   = records:64          ; or whole, elements

and for kernels with several inputs or outputs::

    inputs     = image: uint8, mask: uint8
    outputs    = edges: uint8, angles: float32 = same
    arguments  = image, mask, edges, angles, count
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

import numpy as np

from apyfal.definition.expressions import Expression
from apyfal.definition.types.composite import MAX_VALUE_BYTES, Types, element_type, parse_vector, value_of
from apyfal.definition.types.dtypes import SCALAR_TYPES, number_of, parse_scalar_type, scalar
from apyfal.exceptions import ParameterError, did_you_mean
from apyfal.units import parse_size, whole_number

__all__ = [
    "BUFFERS",
    "CHUNK_SCALARS",
    "ELEMENTS",
    "FILLED_IN",
    "KERNEL_OPTIONS",
    "PROCESS_KEYWORDS",
    "REPORTED",
    "REPORT_WORDS",
    "REQUIRED",
    "SAME",
    "STATUS_DONE",
    "STATUS_FULL",
    "WHOLE",
    "Argument",
    "Chunking",
    "OutputSize",
    "Parameter",
    "Port",
    "parse_halo",
    "value_type",
]

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ARGUMENT = re.compile(r"(count|bytes|capacity)\.[A-Za-z_]\w*|[A-Za-z_]\w*", re.ASCII)
#: Offset of a register in a kernel's control interface; those below 0x10 start the kernel (AMD UG1399).
_REGISTER = re.compile(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,9}", re.ASCII)
_FACTOR = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}|/[1-9][0-9]{0,17})?", re.ASCII)

#: Keywords of `apyfal.Accelerator.process`, besides ``src``, ``dst`` and the accelerator's own parameters.
PROCESS_KEYWORDS = frozenset({"copy", "info_dict", "memory_limit", "progress", "report", "timeout"})

#: Names in ``arguments`` that are always buffers: the chunk's input and output, memory that the device keeps between
#: the chunks of a job, `REPORT_WORDS` uint64 that the kernel writes, and the data that ``start(src=...)`` loaded.
BUFFERS = ("src", "dst", "state", "report", "coefficients")

#: Names in ``arguments`` that are numbers of the chunk, with their default types: elements and bytes in ``src``, bytes
#: that fit into ``dst``, bytes of input before this chunk, bytes of this chunk that earlier runs consumed, and whether
#: it is the job's first and last chunk (1 or 0).
CHUNK_SCALARS: Mapping[str, np.dtype] = MappingProxyType(
    {
        **dict.fromkeys(("count", "bytes", "capacity", "offset", "skip"), SCALAR_TYPES["uint64"]),
        **dict.fromkeys(("first", "last"), SCALAR_TYPES["uint32"]),
    }
)

#: Names in ``arguments`` that cannot be parameters. ``dtype`` is the code of the input's element type (`DTYPE_CODES`).
FILLED_IN = frozenset({*BUFFERS, *CHUNK_SCALARS, "dtype"})

#: Number of uint64 that a kernel with ``output = reported`` writes into ``report``: bytes of ``src`` that this run
#: consumed, bytes of ``dst`` that it produced, `STATUS_DONE` or `STATUS_FULL`, and 0.
REPORT_WORDS = 4
#: The whole chunk is consumed.
STATUS_DONE = 0
#: ``dst`` is full: run the same chunk again with a larger ``skip``. Only for kernels that have the argument ``skip``.
STATUS_FULL = 1


#: Options of drivers that belong to a kernel: accelerators that share a device can differ in them.
KERNEL_OPTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"opencl": frozenset({"build"}), "rtl": frozenset({"registers", "protocol", "parameters", "optimize"})}
)


class _Required:
    """The type of `REQUIRED`."""

    def __repr__(self) -> str:
        return "REQUIRED"

    def __reduce__(self) -> str:
        return "REQUIRED"


#: Marks a parameter without default.
REQUIRED = _Required()

_NONE: Types = MappingProxyType({})


def value_type(text: str, structs: Types) -> np.dtype:
    """Return the type of a scalar argument: a number, a vector or one of `structs`; `ParameterError` if unknown."""
    found = structs.get(text) or parse_vector(text, as_value=True)
    if found is None:
        return parse_scalar_type(text)
    if found.itemsize > MAX_VALUE_BYTES:
        raise ParameterError(f"{text!r} has {found.itemsize} bytes; expected {MAX_VALUE_BYTES} at most as an argument")
    return found


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the kernel.

    Attributes
    ----------
    name
        A buffer, a number of the chunk (with a port after it: ``count.mask``), ``dtype`` (the code of the first
        input's element type) or a parameter.
    dtype
        Type of a scalar. ``None``: it is a buffer, or a parameter of the input's element type.
    value
        Computes the scalar; ``None``: it is a parameter, or one of `FILLED_IN`.
    register
        Offset in the kernel's control registers, in bytes; ``None``: not stated.
    """

    name: str
    dtype: np.dtype | None = None
    value: Expression | None = None
    register: int | None = None

    @classmethod
    def parse(cls, text: str, structs: Types = _NONE) -> Argument:
        """Read ``name``, ``name:type`` or ``name:type = expression``, the name perhaps with a register: ``name@0x10``.

        Raises
        ------
        ParameterError
            It is anything else.
        """
        declared, equals, value = (part.strip() for part in text.partition("="))
        name, colon, dtype = (part.strip() for part in declared.partition(":"))
        name, at, offset = (part.strip() for part in name.partition("@"))
        register = int(offset, 0) if at and _REGISTER.fullmatch(offset) else None
        if at and (register is None or register % 4 or register < 0x10):
            raise ParameterError(f"{name}@{offset}: expected an offset that is a multiple of 4, from 0x10 on")
        if not _ARGUMENT.fullmatch(name):
            raise ParameterError(f"{name!r} is not the name of an argument")
        if colon and name in BUFFERS:
            raise ParameterError(f"argument {name!r} is a buffer and has no scalar type")
        argument = cls(name, value_type(dtype, structs) if colon else None, register=register)
        filled_in = name in FILLED_IN or "." in name
        if equals:
            if filled_in or argument.dtype is None:
                raise ParameterError(
                    f"{text!r}: expected '<name>: <integer type> = <expression>', with a name other than those that "
                    "apyfal fills in"
                )
            if argument.dtype.kind not in "iu":
                raise ParameterError(f"argument {name!r} is computed; expected an integer type, not {dtype}")
            return replace(argument, value=Expression.parse(value))
        if argument.dtype is not None and filled_in and argument.dtype.kind not in "iu":
            raise ParameterError(f"argument {name!r} is a whole number; expected an integer type, not {dtype}")
        return argument


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an accelerator, as a caller of `process` sees it.

    Attributes
    ----------
    name
        The keyword.
    dtype
        Name of a scalar type; ``"element"``: that of the input's elements; ``"object"``: whatever `convert` returns.
        Of a vector or struct, the name for messages.
    default
        The value if the caller gives none; `REQUIRED`: the caller must give one.
    minimum, maximum
        Smallest and largest value.
    choices
        Texts that are valid, and the number that the kernel gets for each.
    convert
        For ``"object"``: returns the value for what the caller gave, or raises `ValueError` with what was expected.
    composite
        Type of a vector or struct; ``None``: it is a number.
    """

    name: str
    dtype: str
    default: object = REQUIRED
    minimum: float | None = None
    maximum: float | None = None
    choices: Mapping[str, int] | None = None
    convert: Callable[[object], object] | None = None
    composite: np.dtype | None = None

    @classmethod
    def parse(cls, text: str, structs: Types = _NONE) -> Parameter:
        """Read ``name: type`` or ``name: type = default``; `ParameterError` for anything else."""
        declared, equals, default = (part.strip() for part in text.partition("="))
        name, _, dtype = (part.strip() for part in declared.partition(":"))
        if not _NAME.fullmatch(name):
            raise ParameterError(f"{name!r} is not the name of a parameter")
        kind = value_type(dtype, structs)
        parameter = cls(name, dtype, composite=kind if kind.kind == "V" else None)
        return replace(parameter, default=parameter.check(default)) if equals else parameter

    def check(self, value: object) -> object:
        """Check a value, and return it in this parameter's type; of type ``"element"``, as a number of any type.

        Raises
        ------
        ParameterError
            The value has a wrong type, is out of range, or is not one of `choices`.
        """
        what = f"parameter {self.name!r}"
        if self.choices is not None:
            if not isinstance(value, str) or str(value) not in self.choices:
                raise ParameterError(f"{what}: unknown value {value!r}{did_you_mean(str(value), self.choices)}")
            return str(value)
        if self.convert is not None:
            try:
                return self.convert(value)
            except (TypeError, ValueError) as error:
                raise ParameterError(f"{what}: {error}, not {value!r}") from None
        if self.composite is not None:
            return value_of(value, self.composite, what)
        if self.dtype == "element":
            return number_of(value, what)
        number = scalar(value, parse_scalar_type(self.dtype), what)
        if (self.minimum is not None and number < self.minimum) or (self.maximum is not None and number > self.maximum):
            bounds = f"{self.minimum} or more" if self.maximum is None else f"{self.minimum} to {self.maximum}"
            raise ParameterError(f"{what}: expected {bounds}, not {number}")
        return number

    def __str__(self) -> str:
        return self.name if self.default is REQUIRED else f"{self.name}={self.default}"


@dataclass(frozen=True, slots=True)
class OutputSize:
    """The size of an output.

    Attributes
    ----------
    kind
        ``same``: as many elements as the first input has (as many bytes, if no element types are declared);
        ``factor``: `amount` times the bytes of the first input; ``bytes``: `amount` bytes for each job, written by the
        run of its last chunk; ``reported``: the kernel reports it after each run; ``elements``: `expression` elements.
    amount
        A factor, or bytes; 0 for the other kinds.
    expression
        Computes the number of elements.
    """

    kind: Literal["same", "factor", "bytes", "reported", "elements"]
    amount: Fraction | int = 0
    expression: Expression | None = None

    @classmethod
    def parse(cls, text: str) -> OutputSize:
        """Read ``same``, ``reported``, a number of bytes, ``<factor>x`` or an expression with a name in it.

        Raises
        ------
        ParameterError
            It is none of these.
        """
        if text == "same":
            return SAME
        if text == "reported":
            return REPORTED
        if text.endswith("x") and _FACTOR.fullmatch(text[:-1].strip()) and Fraction(text[:-1].strip()):
            return cls("factor", Fraction(text[:-1].strip()))
        try:
            return cls("bytes", parse_size(text))
        except ParameterError:
            pass
        try:
            expression = Expression.parse(text)
        except ParameterError:
            expression = None
        if expression is not None and expression.names:
            return cls("elements", expression=expression)
        raise ParameterError(
            f"unknown output {text!r}; expected same, reported, a number of bytes, or a factor like 2x, or elements as "
            "an expression like width * height"
        )

    def __str__(self) -> str:
        texts = {"factor": f"{self.amount}x", "bytes": str(self.amount), "elements": str(self.expression)}
        return texts.get(self.kind, self.kind)


SAME = OutputSize("same")
REPORTED = OutputSize("reported")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an accelerator: a buffer among the kernel's arguments.

    Attributes
    ----------
    name
        The argument's name, and the key in ``src={...}`` or ``dst={...}``.
    dtype
        Type of its elements; ``None``: the definition's ``in_dtype`` or ``out_dtype``.
    output
        Size of an output; ``None``: the definition's ``output``.
    """

    name: str
    dtype: np.dtype | None = None
    output: OutputSize | None = None

    @classmethod
    def parse_input(cls, text: str, structs: Types = _NONE) -> Port:
        """Read ``name`` or ``name: type``; `ParameterError` for anything else."""
        if "=" in text:
            raise ParameterError(f"{text!r} is not an input; expected '<name>' or '<name>: <type>'")
        return cls.parse_output(text, structs)

    @classmethod
    def parse_output(cls, text: str, structs: Types = _NONE) -> Port:
        """Read ``name: type = output``; type and output are optional. `ParameterError` for anything else."""
        declared, equals, output = (part.strip() for part in text.partition("="))
        name, colon, dtype = (part.strip() for part in declared.partition(":"))
        if not _NAME.fullmatch(name):
            raise ParameterError(f"{name!r} is not the name of an input or output")
        return cls(name, element_type(dtype, structs) if colon else None, OutputSize.parse(output) if equals else None)


@dataclass(frozen=True, slots=True)
class Chunking:
    """Where the input may be cut: nowhere, between elements, records of `record` bytes, or rows of the first axis.

    Attributes
    ----------
    kind, record
        Of ``records``, the bytes of one.
    row
        Of ``rows``, the elements of one in the first input; ``None``: the array's shape tells.
    """

    kind: Literal["whole", "elements", "records", "rows"]
    record: int = 0
    row: Expression | None = None

    def __str__(self) -> str:
        if self.row is not None:
            return f"rows:{self.row}"
        return f"records:{self.record}" if self.kind == "records" else self.kind

    @classmethod
    def parse(cls, text: str) -> Chunking:
        """Read ``whole``, ``elements``, ``records:<bytes>``, ``rows`` or ``rows:<elements>``.

        Raises
        ------
        ParameterError
            It is none of these.
        """
        kind, _, size = text.partition(":")
        if text == "rows" or kind == "rows":
            return cls("rows", row=Expression.parse(size) if size.strip() else None)
        if kind == "records" and (record := whole_number(size.strip())):
            return cls("records", record)
        if text == "whole":
            return WHOLE
        if text == "elements":
            return ELEMENTS
        raise ParameterError(f"unknown chunking {text!r}; expected whole, elements, records:<bytes> or rows")


def parse_halo(text: str) -> tuple[str, int | None]:
    """Read ``<rows>`` or ``<input>: <rows>``, or ``whole`` in place of the rows; `ParameterError` for anything else.

    Returns
    -------
    name, rows
        Of an input (empty: of all), and rows before and behind a chunk that a run needs; ``None``: the whole input.
    """
    name, colon, rows = (part.strip() for part in text.rpartition(":"))
    if rows == "whole" and colon:
        return name, None
    if not rows.isascii() or not rows.isdigit() or len(rows) > 9 or (colon and not _NAME.fullmatch(name)):
        raise ParameterError(f"unknown halo {text!r}; expected <rows>, <input>: <rows> or <input>: whole")
    return name, int(rows)


WHOLE = Chunking("whole")
ELEMENTS = Chunking("elements")
