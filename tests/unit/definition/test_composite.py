from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.definition import registry
from apyfal.definition.resolve import resolve
from apyfal.definition.types.composite import (
    element_name,
    element_type,
    pack,
    parse_struct,
    parse_vector,
    struct_text,
    value_of,
)
from apyfal.exceptions import ConfigurationError, ParameterError


@pytest.mark.parametrize(
    ("text", "base", "length"),
    [
        ("float4", "float32", 4),
        ("float32x16", "float32", 16),
        ("uchar2", "uint8", 2),
        ("long8", "int64", 8),
        ("half4", "float16", 4),
        ("int3", "int32", 4),  # OpenCL pads a vector of three
        ("double2", "float64", 2),
        ("int8x8", "int8", 8),
    ],
)
def test_vectors(text: str, base: str, length: int) -> None:
    assert parse_vector(text) == np.dtype((base, (length,)))


@pytest.mark.parametrize("text", ["int8", "uint16", "float16", "float5", "bool4", "floatx4", "float32x", "4", ""])
def test_no_vectors(text: str) -> None:
    assert parse_vector(text) is None


def _ctypes(name: str, fields: list[tuple[str, Any]], pack: int = 0) -> Any:
    members: dict[str, Any] = {"_fields_": fields}
    if pack:
        members = {"_pack_": pack, "_layout_": "ms", **members}
    return type(name, (ctypes.Structure,), members)


_INNER = _ctypes("inner", [("a", ctypes.c_int8), ("b", ctypes.c_double)])
_LAYOUTS: list[tuple[str, Any]] = [
    ("a: int8, b: int32", _ctypes("s", [("a", ctypes.c_int8), ("b", ctypes.c_int32)])),
    (
        "a: int8, b: float64, c: int16",
        _ctypes("s", [("a", ctypes.c_int8), ("b", ctypes.c_double), ("c", ctypes.c_int16)]),
    ),
    ("a: uint16[3], b: uint8", _ctypes("s", [("a", ctypes.c_uint16 * 3), ("b", ctypes.c_uint8)])),
    ("packed, a: int8, b: int32", _ctypes("s", [("a", ctypes.c_int8), ("b", ctypes.c_int32)], pack=1)),
    ("x: int8, i: inner, y: int8", _ctypes("s", [("x", ctypes.c_int8), ("i", _INNER), ("y", ctypes.c_int8)])),
    ("flag: bool, n: size_t", _ctypes("s", [("flag", ctypes.c_bool), ("n", ctypes.c_size_t)])),
]


@pytest.mark.parametrize(("text", "layout"), _LAYOUTS, ids=[text for text, _ in _LAYOUTS])
def test_structs_have_the_layout_of_c(text: str, layout: Any) -> None:
    inner = parse_struct(["a: int8", "b: float64"], {}, "inner")
    dtype = parse_struct([part.strip() for part in text.split(",")], {"inner": inner}, "s")
    assert dtype.itemsize == ctypes.sizeof(layout)
    assert dtype.fields is not None
    for name, _ in layout._fields_:
        assert dtype.fields[name][1] == getattr(layout, name).offset, name


def test_vectors_in_structs_are_aligned_to_their_size() -> None:
    dtype = parse_struct(["a: float32", "v: float4", "w: float3", "b: int8"], {}, "s")
    assert dtype.fields is not None
    assert [dtype.fields[name][1] for name in "avwb"] == [0, 16, 32, 48]
    assert dtype.itemsize == 64


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["a"], "'a' is not a member; expected"),
        (["a: int"], r"member 'a' has the unknown type 'int'; did you mean"),
        (["a: int32", "a: int8"], "member 'a' is there twice"),
        (["a: int32", "b: int8 @ 2"], "member 'b' at byte 2 overlaps; expected 4 or more"),
        (["a: int32", "2 bytes"], "2 bytes are too few; its members take 4"),
        (["packed"], "has 0 members; expected 1 to 64"),
        ([f"a{i}: int8" for i in range(65)], "has 65 members; expected 1 to 64"),
        (["a: int8[0]"], r"has no elements; expected \[1\] or more"),
        (["a: object"], "unknown type 'object'"),
        (["a: int8; b: int8"], "is not a member"),
    ],
)
def test_wrong_structs(parts: list[str], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        parse_struct(parts, {}, "s")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
        np.dtype([("a", "i1"), ("b", "f8")]),
        np.dtype([("a", "f4", (3,)), ("b", "?")]),
        np.dtype({"names": ["b", "a"], "formats": ["f4", "u2"], "offsets": [8, 0], "itemsize": 24}),
    ],
)
def test_numpys_structs_survive_as_text(dtype: np.dtype) -> None:
    definition = resolve("k", driver="opencl", program="k.cl", arguments="p", inout="p: s", struct={"s": dtype})
    found = definition.inputs[0].dtype
    assert found is not None
    assert found.fields is not None
    assert dtype.fields is not None
    assert {name: field[:2] for name, field in found.fields.items()} == {
        name: field[:2] for name, field in dtype.fields.items()
    }
    assert found.itemsize == dtype.itemsize


_PAIR = parse_struct(["k: float32", "i: int8"], {}, "pair")
_VALUES: list[tuple[object, str, bytes]] = [
    ([1, 2, 3, 4], "float4", np.array([1, 2, 3, 4], "f4").tobytes()),
    ("1 2 3 4", "uint32x4", np.array([1, 2, 3, 4], "u4").tobytes()),
    ("(1, 2)", "uint32x2", np.array([1, 2], "u4").tobytes()),
    (np.arange(3), "float3", np.array([0, 1, 2, 0], "f4").tobytes()),
    ((1, 2), "pair", np.float32(1).tobytes() + b"\x02\0\0\0"),
    ({"i": -1, "k": 0.5}, "pair", np.float32(0.5).tobytes() + b"\xff\0\0\0"),
    (np.array([(2, 3)], _PAIR)[0], "pair", np.float32(2).tobytes() + b"\x03\0\0\0"),
    (np.array((2, 3), _PAIR), "pair", np.float32(2).tobytes() + b"\x03\0\0\0"),
    ([0.5, 65504], "half2", np.array([0.5, 65504], "f2").tobytes()),
]


def _kind(name: str) -> np.dtype:
    found = parse_vector(name, as_value=True)
    return _PAIR if found is None else found


@pytest.mark.parametrize(("value", "name", "expected"), _VALUES)
def test_values(value: object, name: str, expected: bytes) -> None:
    dtype = _kind(name)
    assert pack(value_of(value, dtype, "x"), dtype) == expected


@pytest.mark.parametrize(
    ("value", "name", "message"),
    [
        (1, "float4", r"x: expected 4 numbers \(float32x4\), not 1"),
        ([1, 2, 3], "float4", r"expected 4 numbers \(float32x4\), not 3"),
        (b"abcd", "uchar4", "expected 4 numbers"),
        ([1, 2, 3, 256], "uchar4", r"x\[3\]: 256 is out of the range of uint8, 0 to 255"),
        ([1, 2, 3, -1], "uint4", r"x\[3\]: -1 is out of the range"),
        ([1, 2, 3, 1.5], "int4", r"x\[3\]: expected a whole number"),
        ([70000, 0], "half2", r"x\[0\]: 70000.0 is out of the range of float16"),
        ({"k": 1}, "pair", "member 'i' is missing; expected k, i"),
        ({"k": 1, "i": 1, "j": 1}, "pair", "no member 'j'; expected one of"),
        ((1,), "pair", r"expected 2 values \(k, i\), not 1"),
        ({"k": 1, "i": 300}, "pair", r"x.i: 300 is out of the range of int8"),
        (None, "pair", "expected 2 values"),
        ([[1, 2], 3], "int2", r"x\[0\]: expected a whole number"),
    ],
)
def test_wrong_values(value: object, name: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        value_of(value, _kind(name), "x")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"struct.int8": "a: int8", "inputs": "src: int8"}, "'int8' cannot be the name of a struct"),
        ({"struct.float4": "a: int8", "inputs": "src: int8"}, "'float4' cannot be the name of a struct"),
        ({"struct.a": "x: b", "struct.b": "x: a", "inputs": "src: a"}, "has the unknown type"),
        ({"inputs": "src: nothing"}, "unknown element type 'nothing'"),
        ({"struct.big": "x: float64[200]", "arguments": "src, dst, b: big"}, r"'big' has 1600 bytes; expected 1024 at"),
        ({"arguments": "src, dst, b: float4 = count"}, "is computed; expected an integer type, not float4"),
        ({"struct.a": "x: int8", "outputs": "dst: a", "initial": "1"}, "expected an output of numbers, not of structs"),
    ],
)
def test_wrong_definitions(keys: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, ParameterError), match=message):
        resolve("k", **{"driver": "opencl", "program": "k.cl", "arguments": "src, dst", **keys}).bind()


def test_structs_may_have_others_as_members_in_any_order() -> None:
    structs = {"struct.a": "x: b", "struct.b": "x: int8"}
    definition = resolve("k", driver="opencl", program="k.cl", arguments="p", inout="p: a", **structs)
    assert definition.inputs[0].dtype == np.dtype([("x", [("x", "i1")])])


def test_the_software_cards_own_kernels_take_numbers() -> None:
    definition = resolve("k", driver="opencl", program="k.cl", arguments="src, dst, w: float4")
    with pytest.raises(ConfigurationError, match="the software card's own kernels take numbers only, no vectors"):
        replace(definition, driver="emulator")


def test_names_for_messages() -> None:
    assert element_name(np.dtype("int8")) == "int8"
    assert element_name(element_type("float4", {})) == "float32x4"
    assert "k: float32 @ 0" in element_name(_PAIR)
    assert struct_text(_PAIR) == "k: float32 @ 0, i: int8 @ 4, 8 bytes"


def test_vectors_as_elements_on_the_software_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})

    @apyfal.accelerators.model("composite_model", inputs=("p: float4",), outputs=("q: float4",), chunking="elements")
    def _double(p: np.ndarray, q: np.ndarray) -> None:
        assert p.shape[1:] == (4,)
        np.multiply(p, 2, out=q)

    with apyfal.Accelerator("composite_model") as card:
        points = np.arange(24, dtype="float32").reshape(2, 3, 4)
        pinned = apyfal.empty(points.shape, "float32")
        pinned[...] = points
        for source in (points, pinned, pinned, pinned):  # the later ones go the short way
            result = card.process(source)
            np.testing.assert_array_equal(result, 2 * points)
            assert result.shape == (2, 3, 4)
        names = np.dtype({"names": ["x", "y", "z"], "formats": ["f4"] * 3, "offsets": [0, 4, 8], "itemsize": 16})
        np.testing.assert_array_equal(card.process(points.view(names)[..., 0]), 2 * points)
        np.testing.assert_array_equal(card.process(points.tobytes()), 2 * points.reshape(-1, 4))
        target = np.zeros((6, 4), "float32")
        assert card.process(points, target) is target
        np.testing.assert_array_equal(target, 2 * points.reshape(-1, 4))
        futures = [card.process_submit(points[:, :1].copy()) for _ in range(5)]
        for future in futures:
            np.testing.assert_array_equal(future.result(), 2 * points[:, :1])
        for wrong in (points.astype("float64"), points.reshape(-1), points[..., :3].copy()):
            with pytest.raises(ParameterError, match="whose last axis has 4"):
                card.process(wrong)
        with pytest.raises(ParameterError, match="an array of float32; accelerator 'composite_model' writes float32x4"):
            card.process(points, np.zeros(24, "float32"))


def test_structs_as_arguments_of_python_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})
    step = np.dtype([("pull", "f4", (2,)), ("times", "u2")], align=True)

    @apyfal.accelerators.model("composite_step", dtype="float32", chunking="elements", step=step, third="float3")
    def _move(src: np.ndarray, dst: np.ndarray, *, step: np.void, third: np.void, scale: float = 1.0) -> None:
        assert (third["x"], third["y"], third["z"]) == (1, 2, 3)
        dst[:] = (src + step["pull"][0] - step["pull"][1]) * step["times"] * scale

    @apyfal.accelerators.model("composite_dot", dtype="float32", chunking="elements", w="float4")
    def _dot(src: np.ndarray, dst: np.ndarray, w: np.ndarray) -> None:
        assert w.shape == (4,)
        dst[:] = src * w.sum()

    values = np.arange(5, dtype="float32")
    with apyfal.Accelerator("composite_step") as card:
        for times in (2, 3):  # the second one is another value for the same kernel
            result = card.process(values, step={"pull": (3, 1), "times": times}, third=(1, 2, 3))
            np.testing.assert_array_equal(result, (values + 2) * times)
        job = card.prepare(values, apyfal.empty(5, "float32"), step=((3, 1), 2), third="1 2 3")
        np.testing.assert_array_equal(job(), (values + 2) * 2)
        np.testing.assert_array_equal(job(step=((4, 1), 5)), (values + 3) * 5)
        np.testing.assert_array_equal(job(), (values + 2) * 2)
        for given, message in ((((1, 2), 1 << 16), "65536"), (((1,), 1), "expected 2 numbers"), ((1,), "2 values")):
            with pytest.raises(ParameterError, match=message):
                card.process(values, step=given, third=(1, 2, 3))
    with apyfal.Accelerator("composite_dot") as card:
        np.testing.assert_array_equal(card.process(values, w=[1, 2, 3, 4]), values * 10)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (np.dtype([("a", "O")]), "without Python objects"),
        (np.dtype([("a", "f8", (200,))]), "1024 bytes at most"),
        ("float5", "float5"),
    ],
)
def test_arguments_that_no_model_can_have(monkeypatch: pytest.MonkeyPatch, kind: Any, message: str) -> None:
    monkeypatch.setattr(registry, "_definitions", {})
    with pytest.raises(ConfigurationError, match=message):

        @apyfal.accelerators.model("composite_wrong", dtype="float32", s=kind)
        def _wrong(src: np.ndarray, dst: np.ndarray, s: np.void) -> None: ...


def test_a_struct_with_a_struct_in_it_has_a_name() -> None:
    inner = np.dtype([("x", "f4"), ("y", "f4")])
    assert element_name(np.dtype([("at", inner), ("n", "i4")])) == "struct of 12 bytes (at, n)"
