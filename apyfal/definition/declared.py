"""What a kernel's source declares, against the types of a definition: elements, vectors, structs and memory spaces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from apyfal.definition.types.composite import element_name, members_of, parse_vector
from apyfal.exceptions import ParameterError, ProgramError

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundCall

__all__ = ["C_TYPES", "DeclaredArgument", "c_type", "check_declared"]

#: Numpy's types for the numbers of C and OpenCL.
C_TYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for dtype, names in {
        "int8": ("char", "signed char"),
        "uint8": ("uchar", "unsigned char"),
        "int16": ("short", "signed short"),
        "uint16": ("ushort", "unsigned short"),
        "int32": ("int", "signed int", "signed"),
        "uint32": ("uint", "unsigned int", "unsigned"),
        "int64": ("long", "signed long", "long int"),
        "uint64": ("ulong", "unsigned long", "size_t", "unsigned long int"),
        "float16": ("half",),
        "float32": ("float",),
        "float64": ("double",),
        "bool": ("bool", "_Bool"),
    }.items()
    for name in names
}
#: Names that the compiler is asked about; the place in this list is the answer.
_ASKED = ("char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "float", "half", "double")
_LENGTHS = (1, 2, 3, 4, 8, 16)
_PLAIN_NAME = re.compile(r"(?:struct |union |enum )?[A-Za-z_]\w*", re.ASCII)
_NO_MEMBER = re.compile(r"no member named '?(\w+)'?")


class DeclaredArgument(Protocol):
    """One argument as its program declares it; what is not known is empty."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def space(self) -> str: ...
    @property
    def written(self) -> bool: ...


class _Layout(NamedTuple):
    """A type that the program defines: its bytes, and what it is if it is a number or a vector of C."""

    nbytes: int
    dtype: np.dtype | None


class _Wanted(NamedTuple):
    """One argument to check: its place, the dtype of the definition, and the name of the type in the kernel."""

    place: int
    dtype: np.dtype
    type: str


def c_type(text: str) -> str:
    """Return the name of the type of an argument, or of what it points to, without qualifiers."""
    return " ".join(re.sub(r"\b(const|restrict|volatile|__restrict)\b|\*", " ", text).split())


def check_declared(call: BoundCall, declared: Sequence[DeclaredArgument], ask: Callable[[str], str] | None) -> None:
    """Compare a call with what its kernel declares.

    Elements of one byte (``uint8``, ``int8``) fit any pointer, and a pointer to such takes any elements: they are
    bytes. Signed and unsigned integers of one size fit each other.

    Parameters
    ----------
    call
        The types of a definition.
    declared
        The kernel's arguments; empty types are not compared.
    ask
        Takes source that is to follow the program's, and returns the interface of both, as JSON. ``None``: there is no
        compiler, so types that the program defines are not compared.

    Raises
    ------
    ParameterError
        An argument has another type or is in another memory. The message has what the kernel declares.
    """
    if len(declared) != len(call.arguments):
        return  # the driver's own error says how many there are
    ports = {port.index: port for port in (*call.inputs, *call.outputs)}
    written = {port.index for port in call.outputs}
    wanted: list[_Wanted] = []
    for place, (argument, own) in enumerate(zip(call.arguments, declared, strict=True)):
        name = c_type(own.type)
        if place in ports:
            _check_space(call, place, own, written=place in written)
            dtype = ports[place].dtype
            if name and name != "void" and not (dtype.itemsize == 1 and dtype.kind in "iu"):
                wanted.append(_Wanted(place, dtype, name))
        elif argument.dtype is not None and own.space == "private" and name:
            wanted.append(_Wanted(place, argument.dtype, name))
    known = _resolve(call, declared, wanted, ask)
    for one in wanted:
        layout = known.get(one.type)
        if layout is None:
            continue
        problem = _problem(one.dtype, layout, scalar=one.place not in ports)
        if problem is not None:
            raise _error(call, one.place, declared[one.place], problem)


def _error(call: BoundCall, place: int, own: DeclaredArgument, problem: str) -> ParameterError:
    name = call.arguments[place].name
    shown = f"{name}" if own.name in (name, "") else f"{name}, {own.name} in the kernel"
    return ParameterError(
        f"accelerator {call.name!r}: argument {place} ({shown}) of kernel {call.kernel!r} is {own.type}{problem}"
    )


def _check_space(call: BoundCall, place: int, own: DeclaredArgument, *, written: bool) -> None:
    if own.space == "local":
        problem = " in local memory; expected '<name>: uint64 = <its size in bytes>' among the arguments, no port"
    elif own.space == "private":
        problem = ", which is passed by value; expected a parameter, no input or output"
    elif written and own.type and own.space in ("global", "constant") and not own.written:
        problem = ", which the kernel only reads; expected an input"
    else:
        return
    raise _error(call, place, own, problem)


def _problem(dtype: np.dtype, layout: _Layout, *, scalar: bool) -> str | None:
    """Return what is wrong with a type of the definition; ``None``: nothing."""
    own = layout.dtype
    given = element_name(dtype)
    if own is None:  # a struct, whose members `_resolve` has compared
        if dtype.names is not None and dtype.itemsize != layout.nbytes:
            return f", a struct of {layout.nbytes} bytes; the definition has a {given}"
        if scalar and dtype.itemsize != layout.nbytes:
            return f", a struct of {layout.nbytes} bytes; the definition has {given}"
        return None
    if scalar:
        if (dtype.kind == "V") != (own.kind == "V") and not (own.itemsize == 8 and own.base == np.uint8):
            return f"; the definition has {given}"
        if dtype.kind != "V":
            return None  # the driver compares numbers, with their values
    elif own.itemsize == 1 and own.kind in "iu":
        return None
    same = own.itemsize == dtype.itemsize if dtype.subdtype is not None and own.subdtype is not None else True
    if scalar and own.itemsize != dtype.itemsize:
        same = False
    if same and all(_alike(base, own.base) for base in _bases(dtype)):
        return None
    return f"; the definition has {given}"


def _bases(dtype: np.dtype) -> list[np.dtype]:
    """Return the types of the numbers in an element."""
    if dtype.names is not None:
        return [base for _, kind, _ in members_of(dtype) for base in _bases(kind)]
    if dtype.kind == "c":
        return [np.dtype(f"f{dtype.itemsize // 2}")]
    return [dtype.base] if dtype.base is dtype else _bases(dtype.base)


def _alike(given: np.dtype, own: np.dtype) -> bool:
    if given.kind not in "iufb":
        return True  # dates and the like: bytes that the kernel knows
    return given.itemsize == own.itemsize and (given.kind == "f") == (own.kind == "f")


def _number(name: str) -> np.dtype | None:
    known = C_TYPES.get(name)
    # numpy's names are not types of C: 'int8' is a vector of eight there
    match = re.fullmatch(r"([a-z]+)(2|3|4|8|16)", name)
    if known is None and match is not None and match[1] in C_TYPES:
        known = parse_vector(f"{C_TYPES[match[1]].name}x{match[2]}")
    return known


def _resolve(
    call: BoundCall,
    declared: Sequence[DeclaredArgument],
    wanted: Sequence[_Wanted],
    ask: Callable[[str], str] | None,
) -> dict[str, _Layout]:
    """Return what the types are; those that the program defines are looked up by its compiler."""
    known: dict[str, _Layout] = {}
    unknown: dict[str, _Wanted] = {}
    for one in wanted:
        if (dtype := _number(one.type)) is not None:
            known[one.type] = _Layout(dtype.itemsize, dtype)
        elif _PLAIN_NAME.fullmatch(one.type) and (one.type not in unknown or one.dtype.names is not None):
            unknown[one.type] = one
    if not unknown or ask is None:
        return known
    questions: list[tuple[_Wanted, str, int, int]] = []  # of what, which member, and where the definition has it
    for one in unknown.values():
        questions.append((one, "", 0, one.dtype.itemsize))
        if one.dtype.names is not None:
            questions += [(one, name, offset, kind.itemsize) for name, kind, offset in members_of(one.dtype)]
    try:
        answers = _answers(ask(_source([(one.type, member) for one, member, _, _ in questions])))
    except ProgramError as error:
        missing = _NO_MEMBER.search(str(error))
        for one, member, _, _ in questions:
            if missing is not None and member == missing[1]:
                raise _error(call, one.place, declared[one.place], f", which has no member {member!r}") from None
        return known  # a type that cannot be named after the program: nothing to compare with
    members: dict[str, dict[str, np.dtype]] = {
        one.type: {name: kind for name, kind, _ in members_of(one.dtype)} for one in unknown.values()
    }
    for (one, member, offset, nbytes), (found_offset, found_nbytes, dtype) in zip(questions, answers, strict=True):
        if not member:
            known[one.type] = _Layout(found_nbytes, dtype)
            continue
        kind = members[one.type][member]
        if found_offset != offset or found_nbytes != nbytes:
            problem = (
                f": its member {member!r} has {found_nbytes} bytes at byte {found_offset}; the definition has "
                f"{nbytes} at {offset}"
            )
        elif dtype is not None and not all(_alike(base, dtype.base) for base in _bases(kind)):
            problem = f": its member {member!r} is {element_name(dtype)}; the definition has {element_name(kind)}"
        else:
            continue
        raise _error(call, one.place, declared[one.place], problem)
    return known


def _source(questions: Sequence[tuple[str, str]]) -> str:
    """Return source whose kernels have the answers as required work-group sizes, which every platform reports.

    Each question has two kernels, which are never run: the offset by 64 (remainder, quotient), and the size and which
    of `_ASKED` it is. All numbers have 1 added.
    """
    # Of types that the device does not have, the compiler knows no vectors.
    lines = [""]
    for name, condition in (
        ("half", "defined(cl_khr_fp16)"),
        ("double", "defined(cl_khr_fp64) || defined(__opencl_c_fp64)"),
    ):
        lines += [f"#if {condition}", f"#define APYFAL_{name}(t, u) __builtin_types_compatible_p(t, u)"]
        lines += ["#else", f"#define APYFAL_{name}(t, u) 0", "#endif"]
    cases = []
    for place, (name, length) in enumerate([(name, length) for name in _ASKED for length in _LENGTHS], start=1):
        compare = f"APYFAL_{name}" if name in ("half", "double") else "__builtin_types_compatible_p"
        cases.append(f"{place} * {compare}(t, {name if length == 1 else f'{name}{length}'})")
    lines.append(f"#define APYFAL_WHICH(t) ({' + '.join(cases)})")
    kernel = (
        "__kernel __attribute__((reqd_work_group_size({}, {}, {}))) void apyfal_{}(__global int *n) {{ n[0] = 0; }}"
    )
    for place, (kind, member) in enumerate(questions):
        offset = f"__builtin_offsetof({kind}, {member})" if member else "0"
        lines.append(kernel.format(f"1 + {offset} % 64", f"1 + {offset} / 64 % 4096", 1, 2 * place))
        part = f"__typeof__((({kind} *)0)->{member})" if member else kind
        size = f"sizeof({part})"
        lines.append(
            kernel.format(f"1 + {size} % 64", f"1 + {size} / 64 % 4096", f"1 + APYFAL_WHICH({part})", 2 * place + 1)
        )
    return "\n".join(lines) + "\n"


def _answers(interface: str) -> list[tuple[int, int, np.dtype | None]]:
    groups = {one["name"]: one["work_group"] for one in json.loads(interface)}
    numbers = [
        [size - 1 for size in groups[f"apyfal_{place}"]] for place in range(len(groups)) if f"apyfal_{place}" in groups
    ]
    kinds = [(name, length) for name in _ASKED for length in _LENGTHS]
    found: list[tuple[int, int, np.dtype | None]] = []
    for offset, size in zip(numbers[::2], numbers[1::2], strict=True):
        dtype = None
        if size[2]:
            name, length = kinds[size[2] - 1]
            dtype = _number(name if length == 1 else f"{name}{length}")
        found.append((offset[0] + 64 * offset[1], size[0] + 64 * size[1], dtype))
    return found
