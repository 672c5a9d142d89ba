"""Vectors and structs, as elements and as scalar arguments: their names, their layout in C, and their values as bytes.

A vector is named as OpenCL names it (``float4``) or by element and length (``float32x4``). Where a name of OpenCL is
numpy's name of a number (``int8``, ``int16``, ``uint8``, ``uint16``, ``float16``), it is that number: sixteen floats
are ``float32x16``. A vector of three has the size of one of four, as in OpenCL.

A struct is ``struct.NAME = member: type, ...``, laid out as C does; ``packed`` among the members leaves out the
padding, ``member: type @ offset`` and ``N bytes`` state what C would not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.definition.types.dtypes import PARAMETER_TYPES, SCALAR_TYPES, parse_element_type, scalar
from apyfal.exceptions import ParameterError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_VALUE_BYTES",
    "Types",
    "element_name",
    "element_type",
    "is_vector",
    "members_of",
    "pack",
    "parse_struct",
    "parse_vector",
    "struct_text",
    "value_of",
    "view_of",
]

#: Structs of a definition, by name.
Types = Mapping[str, np.dtype]

_C_NAMES: dict[str, str] = dict(
    zip(
        ("char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "float", "double", "half"),
        ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "float16"),
        strict=True,
    )
)
_VECTOR = re.compile(r"([a-z]+[0-9]*)x(2|3|4|8|16)|([a-z]+)(2|3|4|8|16)", re.ASCII)
_MEMBER = re.compile(r"([A-Za-z_]\w*)\s*:\s*(\w+)\s*(?:\[\s*([0-9]{1,6})\s*\])?\s*(?:@\s*([0-9]{1,9}))?", re.ASCII)
_BYTES = re.compile(r"([0-9]{1,9})\s+bytes", re.ASCII)
#: Members of a struct, and bytes of one that is passed as a scalar (OpenCL guarantees 1024).
_MAX_MEMBERS = 64
MAX_VALUE_BYTES = 1024


def parse_vector(text: str, *, as_value: bool = False) -> np.dtype | None:
    """Return the dtype of a vector, ``(base, (length,))``; ``None``: `text` does not name one.

    Parameters
    ----------
    text
        Its name.
    as_value
        For a scalar argument: a vector of three takes three numbers. As an element it is four wide.
    """
    match = _VECTOR.fullmatch(text)
    if match is None or text in PARAMETER_TYPES:
        return None
    base = SCALAR_TYPES.get(match[1]) or PARAMETER_TYPES.get(match[1]) if match[1] else None
    if base is None and match[3]:
        base = PARAMETER_TYPES.get(_C_NAMES.get(match[3], ""))
    if base is None or base.kind == "b":
        return None
    length = int(match[2] or match[4])
    if length == 3 and as_value:
        size = base.itemsize
        offsets = [0, size, 2 * size]
        return np.dtype({"names": list("xyz"), "formats": [base] * 3, "offsets": offsets, "itemsize": 4 * size})
    return np.dtype((base, (4 if length == 3 else length,)))


def is_vector(dtype: np.dtype) -> bool:
    """Return whether elements of `dtype` are vectors."""
    return dtype.subdtype is not None


def element_name(dtype: np.dtype) -> str:
    """Return the name of an element type for messages."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{base}x{'x'.join(map(str, shape))}"
    if dtype.names is not None:
        try:
            text = struct_text(dtype)
        except ParameterError:  # a struct in it, which that text cannot state
            text = ", ".join(dtype.names)
        return f"struct of {dtype.itemsize} bytes ({text})"
    return str(dtype)


def parse_struct(parts: Sequence[str], known: Types, name: str) -> np.dtype:
    """Return the dtype of a struct, laid out as in C.

    Parameters
    ----------
    parts
        ``member: type``, ``member: type[count]``, ``member: type @ offset``, ``packed`` or ``N bytes``.
    known
        Structs that its members may have as types.
    name
        Of the struct, for messages.

    Raises
    ------
    ParameterError
        A part is none of these, or members overlap.
    """
    packed = "packed" in parts
    members: list[tuple[str, np.dtype, int]] = []
    stated: int | None = None
    end, widest = 0, 1
    for part in parts:
        if part == "packed":
            continue
        if (total := _BYTES.fullmatch(part)) is not None:
            stated = int(total[1])
            continue
        match = _MEMBER.fullmatch(part)
        if match is None:
            raise ParameterError(
                f"struct {name!r}: {part!r} is not a member; expected '<name>: <type>', '<name>: <type>[<count>]', "
                "'<name>: <type> @ <offset>', 'packed' or '<size> bytes'"
            )
        member, kind = match[1], _member_type(match[2], known, name, match[1])
        alignment = 1 if packed else _alignment(kind)
        if match[3] is not None:
            count = int(match[3])
            if not count:
                raise ParameterError(f"struct {name!r}: member {member!r} has no elements; expected [1] or more")
            kind = np.dtype((kind, (count,)))
        offset = int(match[4]) if match[4] is not None else -(-end // alignment) * alignment
        if offset < end:
            raise ParameterError(
                f"struct {name!r}: member {member!r} at byte {offset} overlaps; expected {end} or more"
            )
        if any(member == other for other, _, _ in members):
            raise ParameterError(f"struct {name!r}: member {member!r} is there twice")
        members.append((member, kind, offset))
        end = offset + kind.itemsize
        widest = max(widest, alignment)
    if not members or len(members) > _MAX_MEMBERS:
        raise ParameterError(f"struct {name!r} has {len(members)} members; expected 1 to {_MAX_MEMBERS}")
    size = -(-end // widest) * widest
    if stated is not None and stated < end:
        raise ParameterError(f"struct {name!r}: {stated} bytes are too few; its members take {end}")
    names, formats, offsets = zip(*members, strict=True)
    itemsize = size if stated is None else stated
    layout: dict[str, Any] = {"names": list(names), "formats": list(formats), "offsets": list(offsets)}
    return np.dtype(layout | {"itemsize": itemsize})  # type: ignore[call-overload,no-any-return]  # numpy's own dict


def _member_type(text: str, known: Types, name: str, member: str) -> np.dtype:
    found = known.get(text) or parse_vector(text) or PARAMETER_TYPES.get(text)
    if found is None:
        choices = did_you_mean(text, {*known, *PARAMETER_TYPES, "float4", "int4"})
        raise ParameterError(f"struct {name!r}: member {member!r} has the unknown type {text!r}{choices}")
    return found


def _alignment(dtype: np.dtype) -> int:
    """Return the alignment in C of a type: that of a vector is its size, that of a struct its widest member's."""
    if dtype.names is not None and dtype.fields is not None:
        return max(_alignment(field[0]) for field in dtype.fields.values())
    if dtype.subdtype is not None:
        base, _ = dtype.subdtype
        return dtype.itemsize if base.names is None and base.subdtype is None else _alignment(base)
    return dtype.itemsize


def struct_text(dtype: np.dtype) -> str:
    """Return what `parse_struct` reads, for a structured dtype; `ParameterError` if it has other members."""
    parts = []
    for name, kind, offset in members_of(dtype):
        base, shape = kind.subdtype or (kind, ())
        if base.names is not None or base.kind not in "iufb" or base not in PARAMETER_TYPES.values() or len(shape) > 1:
            raise ParameterError(f"member {name!r} of type {kind}: expected numbers, or one-dimensional arrays of them")
        parts.append(f"{name}: {base.name}{f'[{shape[0]}]' if shape else ''} @ {offset}")
    return ", ".join([*parts, f"{dtype.itemsize} bytes"])


def members_of(dtype: np.dtype) -> list[tuple[str, np.dtype, int]]:
    """Return name, type and offset of each member of a struct, in the order of the offsets."""
    fields: Mapping[str, Any] = dtype.fields or {}
    found = [(name, fields[name][0], int(fields[name][1])) for name in dtype.names or ()]
    return sorted(found, key=lambda member: member[2])


def value_of(value: object, dtype: np.dtype, what: str) -> tuple[Any, ...]:
    """Return a vector's or struct's value as numbers, in nested tuples.

    Parameters
    ----------
    value
        A sequence or array of as many numbers, or their text with blanks between them; for a struct also a mapping from
        its members, or an element of an array of it.
    dtype
        Of the argument.
    what
        Name of the value in messages.

    Raises
    ------
    ParameterError
        It has another number of parts, an unknown member, or one that does not fit.
    """
    found = _value_of(value, dtype, what)
    return found if isinstance(found, tuple) else (found,)


def _value_of(value: object, dtype: np.dtype, what: str) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        parts = _parts(value, shape[0], f"{shape[0]} numbers ({element_name(dtype)})", what)
        return tuple([_value_of(part, base, f"{what}[{place}]") for place, part in enumerate(parts)])
    if dtype.names is None or dtype.fields is None:
        return scalar(value, dtype, what)
    names = dtype.names
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.names is not None:
        value = value[()]
    if isinstance(value, np.void) and value.dtype.names is not None:
        value = {name: value[name] for name in value.dtype.names}
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                raise ParameterError(f"{what}: no member {name!r}{did_you_mean(str(name), names)}")
        if missing := [name for name in names if name not in value]:
            raise ParameterError(f"{what}: member {missing[0]!r} is missing; expected {', '.join(names)}")
        parts = [value[name] for name in names]
    else:
        parts = _parts(value, len(names), f"{len(names)} values ({', '.join(names)})", what)
    return tuple(
        [_value_of(part, dtype.fields[name][0], f"{what}.{name}") for name, part in zip(names, parts, strict=True)]
    )


def _parts(value: object, count: int, expected: str, what: str) -> Sequence[Any]:
    parts: Sequence[Any]
    if isinstance(value, str):
        parts = value.strip("() ").replace(",", " ").split()
    elif isinstance(value, np.ndarray) and value.ndim:
        parts = list(value)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        parts = value
    else:
        raise ParameterError(f"{what}: expected {expected}, not {value!r}")
    if len(parts) != count:
        raise ParameterError(f"{what}: expected {expected}, not {len(parts)}")
    return parts


def pack(value: tuple[Any, ...], dtype: np.dtype) -> bytes:
    """Return the bytes of a value of `value_of`, as a kernel reads them; padding is zero."""
    memory = np.zeros(dtype.itemsize, np.uint8)
    if dtype.subdtype is not None:
        memory.view(dtype.subdtype[0])[...] = value
    else:
        memory.view(dtype)[0] = value
    return memory.tobytes()


def view_of(memory: NDArray[Any], dtype: np.dtype) -> NDArray[Any]:
    """Return contiguous bytes as an array of elements; of vectors, with an axis more."""
    view = memory.view(dtype.base)
    return view.reshape(-1, *dtype.shape) if dtype.shape else view


def element_type(text: str, known: Types) -> np.dtype:
    """Return the element type with the name `text`: a struct, a vector, or numpy's; `ParameterError` if unknown."""
    return known.get(text) or parse_vector(text) or parse_element_type(text)
