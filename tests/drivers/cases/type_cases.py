"""Types of arguments against what kernels declare. Each function is a case for a `Worker` with a vendor's OpenCL."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal._core.device import Device
from apyfal._core.run import SYNC_FROM, Arguments
from apyfal.exceptions import AcceleratorException, ParameterError, ProgramError

#: Scalar types of OpenCL, and numpy's.
_SCALARS = {
    "char": "int8",
    "uchar": "uint8",
    "short": "int16",
    "ushort": "uint16",
    "int": "int32",
    "uint": "uint32",
    "long": "int64",
    "ulong": "uint64",
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "typed": "int32",  # a typedef
}
_WIRE = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def _values(own: np.dtype) -> list[tuple[str, Any]]:
    """Declared type and value: right, narrow, wide, a float for an integer, negative, out of range."""
    wire = "float32" if own == np.float16 else own.name
    if own.kind == "f":
        most = float(np.finfo(own).max)
        rows: list[tuple[str, Any]] = [
            (wire, most),
            (wire, -0.5),
            ("float64", 0.25),
            ("float64", 1e39),
            ("float32", 70000.0),
        ]
        rows += [(wire, float("inf")), (wire, float("nan"))]
    else:
        info = np.iinfo(own)
        rows = [(wire, int(info.max)), (wire, int(info.min))]
    rows += [(kind, 1) for kind in _WIRE]
    rows += [("int64", -1), ("int8", -1), ("uint64", 2**64 - 1), ("int64", 2**31), ("int64", 256), ("int64", 2**53 + 1)]
    rows += [("float32", 1.5), ("float64", 1.5), ("float64", -3.0), ("float32", -3.0)]
    return rows


def _expected(own: np.dtype, kind: str, value: Any) -> Any:
    """What the kernel gets; ``None``: it is refused."""
    given = np.dtype(kind)
    if (given.kind == "f") != (own.kind == "f") and given.itemsize != own.itemsize:
        return None
    if own.kind != "f":
        whole = int(value) if value == value // 1 else None
        info = np.iinfo(own)
        return whole if whole is not None and info.min <= whole <= info.max else None
    with np.errstate(over="ignore"):
        number = own.type(given.type(value))
    if np.isinf(number) and not np.isinf(float(value)):
        return None
    if given.kind != "f" and int(number) != value:
        return None
    return float(number)


def every_scalar_type_takes_what_fits_and_refuses_the_rest() -> None:
    device = Device("opencl")
    tried = 0
    for name, dtype in _SCALARS.items():
        out = "long" if dtype[0] in "iu" else "double"
        source = (
            f"{'#pragma OPENCL EXTENSION cl_khr_fp16 : enable' if name == 'half' else ''}\n"
            f"typedef int typed;\nkernel void take({name} x, global {out} *o) {{ *o = x; }}"
        )
        try:
            kernel = device.load("take", source.encode())
        except ProgramError:
            assert name == "half"  # the one type that a device may not have, nor pass as an argument
            continue
        own = np.dtype(dtype)
        result = apyfal.empty(1, "int64" if dtype[0] in "iu" else "float64")
        bo, offset = device.import_memory(result)
        for kind, value in _values(own):
            arguments = Arguments(2)
            arguments.set_scalar(0, kind, value)
            arguments.set_buffer(1, bo, offset, 8, SYNC_FROM)
            expected = _expected(own, kind, value)
            tried += 1
            if expected is None:
                with pytest.raises(ParameterError, match=rf"argument 0 \(x\) of kernel 'take' is {name}") as caught:
                    arguments.start(kernel)
                assert f"declared {kind}" in str(caught.value)
                continue
            arguments.start(kernel).wait()
            if dtype == "uint64":
                assert int(result.view("uint64")[0]) == expected, (name, kind, value)
            else:
                np.testing.assert_equal(result[0], expected, err_msg=f"{name}, {kind}, {value}")
        arguments = Arguments(2)
        arguments.set_bytes(0, bytes(16))
        arguments.set_buffer(1, bo, offset, 8, SYNC_FROM)
        with pytest.raises(ParameterError, match="got a struct or vector of 16 bytes"):
            arguments.start(kernel)
    assert tried > 200


def structs_and_vectors_are_compared_with_the_source() -> None:
    source = (
        "typedef struct { float a; char b; float4 v; float3 w; } pair;\n"
        "typedef struct { float k; int i; } small;\ntypedef float4 vec; typedef small tiny; typedef float real;\n"
        "kernel void k(global const pair *p, global float4 *o, float4 w, tiny s, vec u, float3 t, global const real *r,"
        " local float *part) { int i = get_global_id(0);"
        " o[i] = p[i].v * w + s.k * p[i].a + s.i * p[i].b + u + (float4)(t, 0) + r[i] + (float4)(p[i].w, 0); }\n"
    )
    pair, small = "a: float32, b: int8, v: float4, w: float3", np.dtype([("k", "f4"), ("i", "i4")])
    base: dict[str, Any] = {
        "struct": {"pair": pair, "small": small},
        "inputs": "p: pair, r: float32",
        "outputs": "o: float4",
        "arguments": "p, o, w: float4, s: small, u: float32x4, t: float3, r, part: uint64 = 64",
        "global": "count",
    }
    values: dict[str, Any] = {"w": [1, 2, 3, 4.5], "s": {"k": 2, "i": 3}, "u": np.ones(4), "t": (1, 2, 3)}
    rows: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"struct": {"pair": "a: float32, b: int8, v: float4", "small": small}}, "is pair*, a struct of 48 bytes; the"),
        (
            {"struct": {"pair": f"packed, {pair}", "small": small}},
            "its member 'v' has 16 bytes at byte 16; the definition has",
        ),
        ({"struct": {"pair": pair.replace("w:", "foo:"), "small": small}}, "which has no member 'foo'"),
        (
            {"struct": {"pair": pair.replace("float32", "int32"), "small": small}},
            "its member 'a' is float32; the defin",
        ),
        (
            {"struct": {"pair": pair.replace("float4", "int4"), "small": small}},
            "its member 'v' is float32x4; the defin",
        ),
        (
            {"struct": {"pair": pair, "small": "k: int32, i: int32"}},
            "argument 3 (s) of kernel 'k' is tiny: its member 'k'",
        ),
        ({"struct": {"pair": pair, "small": "k: float32"}}, "is tiny, a struct of 8 bytes; the definition has"),
        ({"outputs": "o: int4"}, "argument 1 (o) of kernel 'k' is float4*; the definition has int32x4"),
        ({"outputs": "o: float64"}, "is float4*; the definition has float64"),
        ({"inputs": "p: pair, r: int32"}, "argument 6 (r) of kernel 'k' is real*; the definition has int32"),
        ({"inputs": "p: pair, r: float64"}, "is real*; the definition has float64"),
        (
            {"arguments": base["arguments"].replace("w: float4", "w: int4")},
            "argument 2 (w) of kernel 'k' is float4; the",
        ),
        ({"arguments": base["arguments"].replace("float32x4", "float32")}, "argument 4 (u) of kernel 'k' is vec; the"),
        (
            {"arguments": base["arguments"].replace("t: float3", "t: small")},
            "argument 5 (t) of kernel 'k' is float3; the",
        ),
        ({"arguments": base["arguments"].replace("s: small", "s: float2")}, ""),  # as many bytes: not told apart
    ]
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "k.cl"
        program.write_text(source)
        for keys, message in rows:
            settings = {**base, **keys}
            given = dict(values)
            if "w: int4" in settings["arguments"]:
                given["w"] = [1, 2, 3, 4]
            if "u: float32," in settings["arguments"]:
                given["u"] = 1.0
            if "t: small" in settings["arguments"]:
                given["t"] = (1, 2)
            if "s: float2" in settings["arguments"] or len(settings["struct"]["small"]) < 2:
                given["s"] = (1, 2)
            if settings["struct"]["small"] == "k: float32":
                given["s"] = (1,)
            with apyfal.Accelerator("k", driver="opencl", program=program, **settings) as card:
                elements = [port.dtype for port in card._definition.inputs]
                data = np.zeros(20, elements[0])
                if not message:
                    data["a"], data["b"], data["v"] = rng.random(20), rng.integers(-9, 9, 20), rng.random((20, 4))
                    data["w"][:, :3] = rng.random((20, 3))
                r = rng.random(20).astype(elements[1])
                if message:
                    with pytest.raises(AcceleratorException) as caught:
                        card.process({"p": data, "r": r}, **given)
                    assert message in str(caught.value), (message, str(caught.value))
                    assert "\n" not in str(caught.value)
                    continue
                result = card.process({"p": data, "r": r}, **given)
                if keys:
                    continue
                third = np.array([1, 2, 3, 0]) + 1
                expected = data["v"] * np.float32(given["w"]) + 2 * data["a"][:, None] + 3 * data["b"][:, None] + third
                expected[:, :3] += data["w"][:, :3]
                np.testing.assert_allclose(result, expected + r[:, None], rtol=1e-5)
