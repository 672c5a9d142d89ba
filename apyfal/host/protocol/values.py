"""Values as JSON that mean the same on the other machine: a job's parameters, and its results.

JSON has neither NaN and infinities nor bytes, tuples and numbers of numpy. A result therefore has two forms. Any client
can read the plain form. If that form loses something, the exact form is sent with it. There, values that JSON has stand
for themselves, and every other value is a list of the name of its type and its content.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from apyfal.exceptions import HostError, ParameterError

__all__ = [
    "LONGEST_BESIDE_OUTPUT",
    "decode_value",
    "describe_value",
    "encode_parameters",
    "plain",
    "require_short",
    "value_of",
]

_PLAIN: Final = (bool, int, str)
#: bits of a number up to which any Python can write and read its digits: `sys.set_int_max_str_digits` permits limits of
#: 640 digits and more
_DIGITS_BITS: Final = 2048
#: how deep a result may be nested: far below the recursion limits of `json` and of this module
_DEEPEST: Final = 64
_COLLECTIONS: Final[Mapping[str, type]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
#: bytes of results as JSON beside an output, which travel in the head of a response
LONGEST_BESIDE_OUTPUT: Final = 64 << 10
_MALFORMED: Final = "the host's result is malformed"
_EXPECTED: Final = "expected numbers, text, bytes, arrays, and lists, tuples, sets and mappings of such"


# -- parameters --------------------------------------------------------------------------------------------------------
def encode_parameters(parameters: Mapping[str, object]) -> dict[str, Any]:
    """Return the JSON form of parameters.

    Numbers of numpy become Python's, arrays lists, structs objects. Infinities, NaN, and numbers of hundreds of digits
    become text, which definitions accept as numbers.

    Raises
    ------
    ParameterError
        A value has no such form.
    """
    return {name: _encode(value, f"parameter {name!r}") for name, value in parameters.items()}


def _encode(value: object, what: str, levels: int = _DEEPEST) -> Any:
    if not levels:
        raise ParameterError(f"{what}: it is nested deeper than the {_DEEPEST} levels that can be sent to a host")
    if value is None or isinstance(value, _PLAIN):
        return _number(value) if type(value) is int else value
    if isinstance(value, np.ndarray):
        return _encode(list(value) if value.ndim else value[()], what, levels)
    if isinstance(value, np.void) and value.dtype.names is not None:
        return {name: _encode(value[name], what, levels - 1) for name in value.dtype.names}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return _number(int(value))
    if isinstance(value, numbers.Real) or hasattr(value, "as_integer_ratio"):  # Decimal registers as neither
        return _encode_real(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _encode(part, what, levels - 1) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_encode(part, what, levels - 1) for part in value]
    raise ParameterError(
        f"{what}: {value!r} cannot be sent to a host; expected a number, text, or a sequence or mapping of such"
    )


def _number(value: int) -> int | str:
    """Return `value`, or its hexadecimal digits if it is too long for JSON."""
    return value if value.bit_length() <= _DIGITS_BITS else hex(value)


def _encode_real(value: Any) -> float | str:
    try:
        number = float(value)
    except OverflowError:
        return str(value)
    return number if math.isfinite(number) else str(number)


# -- the plain form ----------------------------------------------------------------------------------------------------
def plain(value: object) -> Any:
    """Return `value` in a form that every reader of JSON understands.

    Numbers of numpy become Python's, arrays, tuples and sets lists, bytes hexadecimal text. NaN and infinities become
    the texts that the JSON mapping of Protocol Buffers has for them: ``NaN``, ``Infinity``, ``-Infinity``.
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, np.generic):
        return plain(_of_python(value))
    if isinstance(value, _PLAIN):
        return _number(value) if isinstance(value, int) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    if type(value) is dict or isinstance(value, Mapping):  # the check of the abstract class is slow
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _is_plain(value: object, levels: int) -> bool:
    """Return whether `plain` and JSON leave `value` unchanged; false above `levels` levels."""
    kind = type(value)
    if not levels:
        return False
    if value is None or kind is bool or kind is str:
        return True
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    if isinstance(value, int):
        return kind is int and value.bit_length() <= _DIGITS_BITS
    if isinstance(value, dict):
        return kind is dict and all(type(key) is str and _is_plain(item, levels - 1) for key, item in value.items())
    return isinstance(value, list) and kind is list and all(_is_plain(item, levels - 1) for item in value)


def _of_python(value: np.generic) -> object:
    """Return a number of numpy as one of Python's, or its text: that of a `numpy.longdouble` is itself."""
    number: object = value.item()
    return number if not isinstance(number, np.generic) else str(number)


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# -- the exact form ----------------------------------------------------------------------------------------------------
def describe_value(value: object, what: str) -> tuple[Any, Any]:
    """Return the two JSON forms of `value`: the plain one and the exact one, for `decode_value`.

    The exact one is ``None`` if the plain one is the value itself.

    Raises
    ------
    ParameterError
        A value in `what` has no exact form.
    """
    exact = None if _is_plain(value, _DEEPEST) else _exact(value, what, _DEEPEST)
    return plain(value), exact


def require_short(forms: object, what: str) -> None:
    """Refuse forms of results that are too long for the head of a response whose body is an output.

    Raises
    ------
    ParameterError
        They are more than `LONGEST_BESIDE_OUTPUT` bytes.
    """
    if (nbytes := len(json.dumps(forms))) > LONGEST_BESIDE_OUTPUT:
        raise ParameterError(
            f"{what}: {nbytes} bytes as JSON; expected {LONGEST_BESIDE_OUTPUT} at most beside an output, or no dst"
        )


def _exact(value: object, what: str, levels: int) -> Any:
    if not levels:
        raise ParameterError(f"{what}: it is nested deeper than the {_DEEPEST} levels that can be sent to a client")
    if isinstance(value, np.ndarray | np.generic):
        return _exact_array(value, what)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _DIGITS_BITS else ["int", hex(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else ["float", _name_of(value)]
    if isinstance(value, complex):
        return ["complex", *(_exact(part, what, levels - 1) for part in (value.real, value.imag))]
    if isinstance(value, bytes | bytearray):
        return ["bytearray" if isinstance(value, bytearray) else "bytes", base64.b64encode(value).decode()]
    if isinstance(value, Mapping):
        return ["dict", *([_exact(part, what, levels - 1) for part in item] for item in value.items())]
    if isinstance(value, list | tuple | set | frozenset):
        name = next(name for name, kind in _COLLECTIONS.items() if isinstance(value, kind))
        return [name, *(_exact(item, what, levels - 1) for item in value)]
    raise ParameterError(f"{what}: a {type(value).__qualname__} cannot be sent to a client; {_EXPECTED}")


def _exact_array(value: np.ndarray[Any, Any] | np.generic, what: str) -> list[str]:
    """Encode an array or a number of numpy in the .npy format, which states its type, shape and order."""
    content = io.BytesIO()
    try:
        np.lib.format.write_array(content, np.asarray(value), allow_pickle=False)
    except ValueError:
        raise ParameterError(
            f"{what}: elements of type {value.dtype} cannot be sent to a client; {_EXPECTED}"
        ) from None
    return ["array" if isinstance(value, np.ndarray) else "scalar", base64.b64encode(content.getvalue()).decode()]


def decode_value(document: object) -> Any:
    """Return the value of an exact form that another machine has sent.

    Raises
    ------
    HostError
        `document` is not the exact form of a value.
    """
    try:
        return _decoded(document, _DEEPEST)
    except HostError:
        raise
    except Exception as error:  # numpy parses the head of an array as Python, and raises what Python's parser does
        raise HostError(f"{_MALFORMED}: {str(error).partition(chr(10))[0]}") from None


def value_of(document: Mapping[str, Any], name: str) -> Any:
    """Return a value of a job's document, which another machine has sent: ``result`` or ``info``.

    Raises
    ------
    HostError
        Its exact form is malformed.
    """
    exact = document.get("exact")
    if exact is not None and not isinstance(exact, Mapping):
        raise HostError(_MALFORMED)
    if exact is not None and name in exact:
        return decode_value(exact[name])
    return copy.deepcopy(document.get(name))  # in a batch, other jobs have the same document


def _decoded(document: object, levels: int) -> Any:
    if document is None or isinstance(document, bool | int | float | str):
        return document
    if not levels or not isinstance(document, list) or not document or not isinstance(document[0], str):
        raise HostError(_MALFORMED)
    name, *content = document
    if name in _COLLECTIONS:
        return _COLLECTIONS[name](_decoded(item, levels - 1) for item in content)
    if name == "dict":
        return {_decoded(key, levels - 1): _decoded(item, levels - 1) for key, item in content}
    if name == "complex":
        real, imaginary = (_decoded(part, levels - 1) for part in content)
        return complex(real, imaginary)
    (text,) = content
    if name == "float":
        return float(text)
    if name == "int":
        return int(text, 16)
    if name == "bytes":
        return base64.b64decode(text, validate=True)
    if name == "bytearray":
        return bytearray(base64.b64decode(text, validate=True))
    if name == "array":
        return _decoded_array(text)
    if name == "scalar":
        return _decoded_array(text)[()]
    raise HostError(f"the host's result has a value of type {name!r}, which this version does not know")


def _decoded_array(text: str) -> np.ndarray[Any, Any]:
    content = io.BytesIO(base64.b64decode(text, validate=True))
    array: np.ndarray[Any, Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array
