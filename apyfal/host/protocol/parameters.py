"""Values of an accelerator's parameters, as JSON that means the same on the host."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apyfal.exceptions import ParameterError

__all__ = ["encode_parameters"]


def encode_parameters(parameters: Mapping[str, object]) -> dict[str, Any]:
    """Return the JSON form of parameters.

    Numbers of numpy become Python's, arrays lists, structs objects. Infinities and NaN, which JSON does not have,
    become text, which definitions take for numbers.

    Raises
    ------
    ParameterError
        A value has no such form.
    """
    return {name: _encode(value, f"parameter {name!r}") for name, value in parameters.items()}


def _encode(value: object, what: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.ndarray):
        return [_encode(part, what) for part in value] if value.ndim else _encode(value[()], what)
    if isinstance(value, np.void) and value.dtype.names is not None:
        return {name: _encode(value[name], what) for name in value.dtype.names}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) or hasattr(value, "as_integer_ratio"):  # Decimal registers as neither
        return _encode_real(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _encode(part, what) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_encode(part, what) for part in value]
    raise ParameterError(
        f"{what}: {value!r} cannot be sent to a host; expected a number, text, or a sequence or mapping of such"
    )


def _encode_real(value: Any) -> float | str:
    try:
        number = float(value)
    except OverflowError:
        return str(value)
    return number if math.isfinite(number) else str(number)
