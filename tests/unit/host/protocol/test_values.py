"""Parameters in a message to a host mean what they mean here, and so do the results that it sends back."""

from __future__ import annotations

import base64
import contextlib
import enum
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Parameter
from apyfal.definition.types.composite import parse_struct, parse_vector
from apyfal.exceptions import HostError, ParameterError
from apyfal.host.protocol.values import decode_value, describe_value, encode_parameters, plain, value_of

POINT = parse_struct(["x: int32", "y: float32x2"], {}, "point")
SWAPPED = np.zeros((), [("y", "2f4"), ("x", "i4")])
SWAPPED["x"], SWAPPED["y"] = 3, (1, 2)


class Number(enum.IntEnum):
    TWO = 2


def define(**parameters: Any) -> Definition:
    arguments = tuple(Argument(name, value) for name, value in parameters.items())
    accepted = {
        name: Parameter(name, value.name, composite=value if value.kind == "V" else None)
        for name, value in parameters.items()
    }
    return Definition(
        name="t",
        kernel="t",
        driver="xrt",
        program="t",
        arguments=(Argument("src"), Argument("dst"), *arguments),
        parameters=accepted,
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("float64", value) for value in (2, 2.5, -0.0, np.float32(0.1), np.longdouble(2), Decimal("2.5"), True)),
        *(("float64", value) for value in (Fraction(1, 3), np.array(2.5), "0.5", float("nan"), float("inf"), -np.inf)),
        *(("float64", value) for value in (np.float32("nan"), Decimal("Infinity"), 1 << 64)),
        *(("int64", value) for value in (2, -(1 << 63), np.int8(3), Number.TWO, "0x10", np.array(7), np.uint64(9))),
        *(("vector", value) for value in ((1, 2, 3, 4), np.arange(4), range(4), [0.5, np.inf, -np.inf, 1], "1 2 3 4")),
        *(("struct", value) for value in ({"x": 1, "y": (2, np.inf)}, (1, [2, 3]), SWAPPED, SWAPPED[()])),
    ],
)
def test_the_same_bytes_reach_the_kernel(kind: str, value: object) -> None:
    dtype = {"vector": parse_vector("float4"), "struct": POINT}.get(kind) or np.dtype(kind)
    definition = define(a=dtype)
    sent = json.loads(json.dumps(encode_parameters({"a": value}), allow_nan=False))
    here, there = (definition.bind(None, a=one).arguments[-1].value for one in (value, sent["a"]))
    np.testing.assert_equal(there, here)


@pytest.mark.parametrize(
    "value",
    [b"2", b"\x02", bytearray(b"2"), memoryview(b"2"), 2j, np.complex64(2), {2}, {1: 2}, Path("2"), object(), [b"2"]],
)
def test_what_json_cannot_say_is_an_error(value: object) -> None:
    with pytest.raises(ParameterError, match=r"parameter 'a': .* cannot be sent to a host; expected a number"):
        encode_parameters({"a": value})


def test_a_number_of_any_length_and_a_list_of_itself() -> None:
    assert json.dumps(encode_parameters({"a": 10**5000})) == json.dumps({"a": hex(10**5000)})
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(ParameterError, match="parameter 'a': it is nested deeper than the 64 levels"):
        encode_parameters({"a": itself})
    with pytest.raises(ParameterError, match="the result: it is nested deeper than the 64 levels"):
        describe_value(itself, "the result")


def test_the_plain_form() -> None:
    value = {
        "a": np.float32(1.5), "b": np.arange(2), "c": b"\xff", "d": float("nan"), "e": (1, {2}), "f": None, 1: -np.inf,
        "g": np.array([np.inf]), "h": 1 << 2047, "i": 1 << 2048, "j": True, "k": (1 << 53) + 1, "l": np.longdouble(2),
        "m": POINT,
    }  # fmt: skip
    form = plain(value)
    assert form == {
        "a": 1.5, "b": [0, 1], "c": "ff", "d": "NaN", "e": [1, [2]], "f": None, "1": "-Infinity",
        "g": ["Infinity"], "h": 1 << 2047, "i": hex(1 << 2048), "j": True, "k": (1 << 53) + 1, "l": "2.0",
        "m": str(POINT),
    }  # fmt: skip
    assert json.loads(json.dumps(form, allow_nan=False)) == form


@pytest.mark.parametrize("value", [None, True, 1, 0.5, "x", [1, {"a": [None]}], {"a": 1}, 1 << 2047, "\ud800"])
def test_what_json_has_needs_no_exact_form(value: object) -> None:
    assert describe_value(value, "x") == (value, None)


def test_a_result_of_an_older_host_is_its_plain_form() -> None:
    run = {"result": {"a": 1}}
    first, second = value_of(run, "result"), value_of(run, "result")
    assert first == second == {"a": 1}
    assert first is not second
    assert value_of({}, "result") is None
    assert value_of({"exact": None, "result": 1}, "result") == 1
    assert value_of({"exact": {"info": ["tuple"]}, "result": 1}, "result") == 1
    with pytest.raises(HostError, match="malformed"):
        value_of({"exact": ["list"], "result": 1}, "result")


def npy(head: str, content: bytes = b"12345678") -> str:
    text = head.encode() + b"\n"
    return base64.b64encode(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content).decode()


@pytest.mark.parametrize(
    "document",
    [
        {}, {"a": 1}, [], [1], [None], [[]], ["unknown", 1], ["float"], ["float", 1, 2], ["float", "x"], ["float", []],
        ["int", "zz"], ["int", 5], ["bytes", "?"], ["bytes", 1], ["bytes"], ["dict", 1], ["dict", [1]],
        ["dict", [1, 2, 3]], ["dict", [["list"], 1]], ["set", ["list"]], ["complex", 1], ["complex", "a", "b"],
        ["array", ""], ["array", None], ["array", npy("[[[")], ["array", npy("(" * 9000)],
        ["scalar", npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}")],
        ["array", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1125899906842624,)}")],
        ["array", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 16)}")],
        ["array", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}")],
        ["array", npy("{'descr': 'zz', 'fortran_order': False, 'shape': ()}")],
        ["array", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}")],
    ],
    ids=lambda document: str(document)[:40],
)  # fmt: skip
def test_a_malformed_result_is_one_error(document: object) -> None:
    with pytest.raises(HostError, match="the host's result") as raised:
        decode_value(document)
    assert "\n" not in str(raised.value)


def test_a_deep_result_is_one_error() -> None:
    document: list[object] = ["list"]
    for _ in range(5000):
        document = ["list", document]
    with pytest.raises(HostError, match="malformed"):
        decode_value(document)


@pytest.mark.parametrize("seed", range(20))
def test_changed_results_never_end_in_another_error(seed: int) -> None:
    random = Random(seed)
    value = {"a": (1.5, float("nan")), 2: np.arange(3), "b": [b"xy", {3}, np.float32(1), 1j, 1 << 3000]}
    text = json.dumps(describe_value(value, "x")[1])
    for _ in range(500):
        place = random.randrange(len(text))
        changed = text[:place] + random.choice('[]{}",0aN\\') + text[place + random.randrange(3) :]
        try:
            document = json.loads(changed)
        except ValueError:
            continue
        with contextlib.suppress(HostError):
            decode_value(document)
