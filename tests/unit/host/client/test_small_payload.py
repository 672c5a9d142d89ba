"""A small job is described as any other, and received as any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from apyfal.exceptions import HostError, ParameterError
from apyfal.host.client.payload import CopyCounter, InputPayload, OutputPayload
from apyfal.host.client.small_payload import small_payload
from apyfal.host.protocol.messages import JobSpec


class Answer:
    """An output of these bytes."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def readinto(self, out: memoryview) -> None:
        out[:], self._left = self._left[: len(out)], self._left[len(out) :]


ARRAYS = [
    np.arange(10, dtype="<i4"), np.zeros((2, 3), np.complex64), np.ones(5, bool), np.array(3.0),
    np.arange(6, dtype=">u2").reshape(1, 6), np.zeros(65536, np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("src", ARRAYS, ids=lambda one: f"{one.dtype}{one.shape}")
@pytest.mark.parametrize("given", [False, True], ids=["new", "array"])
@pytest.mark.parametrize(("copy", "timeout"), [(True, None), (False, 2.5)])
def test_it_is_described_as_any_other(
    src: np.ndarray[Any, Any], given: bool, copy: bool, timeout: float | None
) -> None:
    dst = np.zeros_like(src) if given else None
    small = small_payload(src, dst, None, copy, timeout, {})
    assert small is not None
    copies = CopyCounter(copy)
    with InputPayload(src, None, copies) as source, OutputPayload(dst, None, source.nbytes, copies) as target:
        spec = JobSpec(src=source.origin, dst=target.destination, copy=copy, timeout=timeout)
        assert (small.spec.text, small.spec, small.length) == (spec.text, spec, source.length)
        assert b"".join(small.pieces()) == b"".join(source.pieces())
    described = {"nbytes": src.nbytes, "region": None, "dtype": src.dtype.str, "shape": list(src.shape)}
    result = small.receive(Answer(src.tobytes()), {"output": described})
    assert (result is dst) == given
    np.testing.assert_array_equal(result, src)
    assert (result.dtype, result.shape) == (src.dtype, src.shape)


READ_ONLY = np.zeros(4, np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("src", "dst", "parameters"),
    [
        (np.zeros(4, np.uint8)[::2], None, {}), (np.zeros(0), None, {}), (np.zeros(65537, np.uint8), None, {}),
        (b"bytes", None, {}), (None, None, {}), ({"x": np.zeros(4)}, None, {}), (np.ma.zeros(4), None, {}),
        (np.zeros(4), "host://x", {}), (np.zeros(4), np.zeros(8)[::2], {}), (np.zeros(4, np.uint8), READ_ONLY, {}),
        (np.zeros(4), None, {"a": 1}),
    ],
)  # fmt: skip
def test_all_else_goes_the_long_way(src: object, dst: object, parameters: dict[str, object]) -> None:
    assert small_payload(src, dst, None, True, None, parameters) is None


@pytest.mark.parametrize("dtype", [object, "M8[s]", [("a", "<i4")], "U3"])
def test_types_that_cannot_be_sent_are_refused(dtype: Any) -> None:
    with pytest.raises(ParameterError, match="cannot be sent to a host"):
        small_payload(np.zeros(2, dtype), None, None, True, None, {})


def test_what_does_not_fit_is_said() -> None:
    small = small_payload(np.zeros(4, np.uint8), np.zeros(4, np.uint8), None, True, None, {})
    assert small is not None
    described = {"nbytes": 5, "region": None, "dtype": "|u1", "shape": [5]}
    with pytest.raises(HostError, match="5 bytes for an array of 4"):
        small.receive(Answer(bytes(5)), {"output": described})
    with pytest.raises(HostError, match="does not have its output"):
        small.receive(None, {"output": described})
    other = small_payload(np.zeros(4, np.uint8), None, None, True, None, {})
    assert other is not None
    assert other.receive(None, {"result": {"sum": 1}}) == {"sum": 1}
    parts = {"a": {"nbytes": 2, "dtype": "|u1", "shape": [2]}, "b": {"nbytes": 1, "dtype": "|u1", "shape": [1]}}
    both = other.receive(Answer(b"abc"), {"output": {"nbytes": 3, "parts": parts}})
    assert {name: bytes(one) for name, one in both.items()} == {"a": b"ab", "b": b"c"}


@pytest.mark.parametrize(
    "described",
    [
        {"dtype": "|u1", "shape": 4}, {"dtype": "|u1", "shape": [[4]]}, {"dtype": "|u1", "shape": [4.0]},
        {"dtype": "|u1", "shape": [True]}, {"dtype": "|u1", "shape": ["4"]}, {"dtype": "|u1", "shape": [-4]},
        {"dtype": ["|u1"], "shape": [4]}, {"dtype": "O", "shape": [4]}, {"dtype": "|u1", "shape": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_new_array_of_no_type_or_shape_is_refused(described: dict[str, Any]) -> None:
    small = small_payload(np.zeros(4, np.uint8), None, None, True, None, {})
    assert small is not None
    good = {"nbytes": 4, "region": None, "dtype": "|u1", "shape": [4]}
    small.receive(Answer(bytes(4)), {"output": good})
    with pytest.raises(ParameterError, match="the response"):
        small.receive(Answer(bytes(4)), {"output": {**good, **described}})
