"""Inputs that the kernel changes, initial values, sizes and shapes by expression, on the software card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.definition import registry
from apyfal.definition.definition import Definition
from apyfal.definition.expressions import Expression, parse_expressions
from apyfal.definition.grammar import ELEMENTS, WHOLE, Argument, OutputSize, Parameter, Port
from apyfal.definition.sizes import IndexSpace
from apyfal.exceptions import ConfigurationError, CopyRefused, ParameterError

MIB = 1 << 20


def _define(function: Callable[..., object], **settings: Any) -> str:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    typed = settings.pop("arguments", {})
    arguments = tuple(typed.get(name, Argument(name)) for name in names)
    definition = Definition(name="t", kernel="t", arguments=arguments, model=function, **settings)
    registry.register(definition, replace=True)
    return "t"


@pytest.fixture(autouse=True)
def _own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})


def _triple(grid: np.ndarray) -> None:
    grid *= 3


IN_PLACE: dict[str, Any] = {
    "inputs": (Port("grid", np.dtype("int32")),),
    "outputs": (Port("grid", np.dtype("int32")),),
    "inout": frozenset({"grid"}),
}


@pytest.mark.parametrize("chunking", [WHOLE, ELEMENTS], ids=str)
@pytest.mark.parametrize("count", [1000, 3 * MIB])
@pytest.mark.parametrize("memory", ["pinned", "plain", "read-only", "file"])
def test_the_source_stays_unless_it_is_the_destination(memory: str, count: int, chunking: Any, tmp_path: Path) -> None:
    data = apyfal.empty(count, "int32") if memory == "pinned" else np.empty(count + 1, "int32")[1:]
    data[:] = np.arange(count)
    expected = data * 3
    info: dict[str, Any] = {}
    with apyfal.Accelerator(_define(_triple, chunking=chunking, **IN_PLACE)) as accelerator:
        if memory == "file":
            data.tofile(tmp_path / "in")
            accelerator.process(tmp_path / "in", tmp_path / "out")
            np.testing.assert_array_equal(np.fromfile(tmp_path / "out", "int32"), expected)
            np.testing.assert_array_equal(np.fromfile(tmp_path / "in", "int32"), data)
            return
        data.flags.writeable = memory != "read-only"
        np.testing.assert_array_equal(accelerator.process(data, info_dict=info), expected)
        assert accelerator.process(data.reshape(-1, 4)).shape == (count // 4, 4)
        np.testing.assert_array_equal(data, np.arange(count))
        assert "grid: the kernel changes it in place" in str(info["copy_reasons"])
        with pytest.raises(CopyRefused, match="grid: "):
            accelerator.process(data, copy=False)
        other = np.empty(count, "int32")
        assert accelerator.process(data, other) is other
        np.testing.assert_array_equal(other, expected)
        if memory != "read-only":
            assert accelerator.process(data, data) is data
            np.testing.assert_array_equal(data, expected)


def test_an_accumulator_begins_with_the_callers_data() -> None:
    def add(src: np.ndarray, bins: np.ndarray) -> None:
        np.add.at(bins, src, 1)

    name = _define(
        add,
        inputs=(Port("src", np.dtype("uint8")), Port("bins", np.dtype("uint32"))),
        outputs=(Port("bins", np.dtype("uint32")),),
        inout=frozenset({"bins"}),
    )
    data = np.arange(1000).astype("uint8")
    before = np.arange(256, dtype="uint32")
    expected = before + np.bincount(data, minlength=256).astype("uint32")
    with apyfal.Accelerator(name) as accelerator:
        for _ in range(2):
            np.testing.assert_array_equal(accelerator.process({"src": data, "bins": before}), expected)
        both = {"src": data, "bins": before.reshape(16, 16)}  # in the shape of its own array, not of the first input
        np.testing.assert_array_equal(accelerator.process(both), expected.reshape(16, 16))
        for result in accelerator.process_map([{"src": data, "bins": before}] * 3):
            np.testing.assert_array_equal(result, expected)
        with pytest.raises(ParameterError, match="bins: an array of 1020 bytes; this job's output has 1024"):
            accelerator.process({"src": data, "bins": before}, {"bins": np.empty(255, "uint32")})


@pytest.mark.parametrize("count", [1000, 20 * MIB])
@pytest.mark.parametrize("chunking", [WHOLE, ELEMENTS], ids=str)
def test_initial_values(chunking: Any, count: int) -> None:
    def smallest(src: np.ndarray, low: np.ndarray, sums: np.ndarray) -> None:
        low[0] = min(low[0], int(src.min()))
        sums += np.bincount(src % 4, minlength=4).astype("uint64")

    name = _define(
        smallest,
        inputs=(Port("src", np.dtype("uint8")),),
        outputs=(
            Port("low", np.dtype("uint8"), OutputSize("bytes", 1)),
            Port("sums", np.dtype("uint64"), OutputSize("bytes", 32)),
        ),
        initial={"low": 255, "sums": 5},
        chunking=chunking,
    )
    data = np.full(count, 7, "uint8")
    data[count // 2] = 3
    with apyfal.Accelerator(name) as accelerator:
        for _ in range(2):
            result = accelerator.process(data, memory_limit=None if chunking is WHOLE else "64MiB")
            assert result["low"].tolist() == [3]
            np.testing.assert_array_equal(result["sums"], np.bincount(data % 4, minlength=4) + 5)


def _matmul(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    m: int,
    n: int,
) -> None:
    c[:] = (a.reshape(m, -1) @ b.reshape(-1, n)).reshape(-1)


def _product(**changes: Any) -> str:
    settings: dict[str, Any] = {
        "inputs": (Port("a", np.dtype("float32")), Port("b", np.dtype("float32"))),
        "outputs": (Port("c", np.dtype("float32")),),
        "arguments": {
            "m": Argument("m", np.dtype("int32"), Expression.parse("height.a")),
            "n": Argument("n", np.dtype("int32"), Expression.parse("width.b")),
        },
        "shapes": {"c": parse_expressions("height.a, width.b")},
    }
    return _define(_matmul, **{**settings, **changes})


def test_shapes_and_computed_arguments() -> None:
    source = np.random.default_rng(0)
    with apyfal.Accelerator(_product()) as accelerator:
        for m, k, n in ((3, 4, 5), (8, 1, 2), (3, 4, 5), (1, 1, 1), (64, 32, 16)):
            a, b = source.random((m, k), "float32"), source.random((k, n), "float32")
            result = accelerator.process({"a": a, "b": b})
            assert result.shape == (m, n)
            np.testing.assert_allclose(result, a @ b, rtol=1e-5)
        target = np.empty((64, 16), "float32")
        accelerator.process({"a": a, "b": b}, target)
        np.testing.assert_allclose(target, a @ b, rtol=1e-5)
        with pytest.raises(ParameterError, match="an array of 60 bytes; this job's output has 4096"):
            accelerator.process({"a": a, "b": b}, np.empty(15, "float32"))
        with pytest.raises(ParameterError, match=r"shape of 'c': 'height.a': 'height.a' has no value here"):
            accelerator.process({"a": a.reshape(-1), "b": b})


def test_results_of_many_jobs_keep_their_shapes() -> None:
    """Small jobs that wait together are batched, but not those that depend on their arrays' shapes."""
    arrays = [np.full((height, 4), height, "float32") for height in range(1, 20)]
    with apyfal.Accelerator(_product()) as accelerator:
        eye = np.eye(4, dtype="float32")
        for array, result in zip(
            arrays, accelerator.process_map([{"a": one, "b": eye} for one in arrays]), strict=True
        ):
            np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"global": "cout"}, "global = cout: unknown name 'cout'; did you mean 'count'"),
        ({"global": "1, 2, 3, 4"}, "global = 1, 2, 3, 4 has 4 dimensions; expected 1 to 3"),
        ({"global": "8, 8", "local": "4"}, "local = 4 has 1 dimensions; expected 2, as many as global = 8, 8"),
        ({"global": "8", "global_offset": "1,1"}, "global_offset = 1, 1 has 2 dimensions; expected 1"),
        ({"local": "4"}, "local belongs to an index space; expected 'global' too"),
        ({"round_up": "yes"}, "round_up belongs to an index space; expected 'global' too"),
        ({"global": "8", "round_up": "maybe"}, "maybe"),
        ({"global": "f"}, "global = f: parameter 'f' is float32; expected an integer type"),
        ({"global": "height", "chunking": "elements"}, "an input in chunks has no 'height'; expected chunking = whole"),
        ({"output": "count // 2", "chunking": "elements"}, "an input in chunks has no 'count'"),
        ({"output": "widht * 2"}, "unknown output 'widht * 2'; did you mean 'width'"),
        ({"output": "width *"}, "unknown output 'width *'; expected same, reported, a number of bytes"),
        ({"shape": "n,"}, "'n,': the end; expected a number"),
        ({"shape.z": "n"}, "shape: no output 'z'"),
        ({"shape": "n", "output": "2x"}, "output 'y' is 2x; expected same, or its elements"),
        ({"initial": "z: 1"}, "initial: no output 'z'"),
        ({"initial": "much"}, "initial value: expected a number"),
        ({"arguments": "x, y, n: float32 = 1", "parameters": ""}, "argument 'n' is computed; expected an integer type"),
        ({"arguments": "x, y, count: uint32 = n"}, "expected '<name>: <integer type> = <expression>'"),
        ({"arguments": "x, y, n: uint32 = 4"}, "argument 'n' is computed; a parameter cannot have its name"),
        ({"arguments": "x, y, g", "inout": "h"}, "input or output 'h' is not among the arguments"),
        ({"arguments": "x, y, h, n, f", "inout": "h", "initial": "h: 1"}, "'h' has that of its input"),
    ],
)
def test_wrong_definitions(keys: dict[str, str], message: str) -> None:
    section = {
        "driver": "opencl",
        "program": "x.cl",
        "arguments": "x, y, n, f",
        "parameters": "n: uint32, f: float32",
        "inputs": "x: float32",
        "outputs": "y: float32",
    }
    with pytest.raises(ConfigurationError) as caught:
        apyfal.Accelerator("t", {"accelerator.t": {**section, **keys}})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_without_index_spaces_says_so() -> None:
    _define(_triple, space=IndexSpace(parse_expressions("count")), **IN_PLACE)
    with (
        apyfal.Accelerator("t") as accelerator,
        pytest.raises(Exception, match="driver 'emulator' has no index spaces") as caught,
    ):
        accelerator.process(np.ones(4, "int32"))
    assert isinstance(caught.value, apyfal.exceptions.AcceleratorException)


def test_parameters_in_expressions_alone() -> None:
    def fill(dst: np.ndarray) -> None:
        dst[:] = 9

    name = _define(
        fill,
        parameters={"rows": Parameter("rows", "uint32"), "width": Parameter("width", "uint32", 4)},
        outputs=(Port("dst", np.dtype("uint16")),),
        shapes={"dst": parse_expressions("rows, width * 2")},
    )
    with apyfal.Accelerator(name) as accelerator:
        assert accelerator.process(rows=3).tolist() == [[9] * 8] * 3
        assert accelerator.process(rows=0, width=1).shape == (0, 2)
        with pytest.raises(ParameterError, match="needs 'rows'"):
            accelerator.process()


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 256), ("uint16", 65_536)])
def test_a_count_that_does_not_fit_its_argument_is_an_error(dtype: str, count: int) -> None:
    """Not the low bits of it: the kernel would do a part of the work, and nobody would know."""
    counted = []

    def counts(src: np.ndarray, dst: np.ndarray, count: int) -> None:
        counted.append(count)
        dst[:] = src

    arguments = {"count": Argument("count", np.dtype(dtype))}
    with apyfal.Accelerator(_define(counts, arguments=arguments, in_dtype=np.dtype("int32"))) as card:
        assert card.process(np.zeros(count - 1, np.int32)).size == count - 1
        for source in (np.zeros(count, np.int32), card.put(np.zeros(count, np.int32))):
            with pytest.raises(ParameterError, match=rf"a run over {count} elements, .* count {count - 1} at most"):
                card.process(source)
    assert counted == [count - 1]


def test_a_chunk_of_a_page_that_an_argument_cannot_count() -> None:
    """Chunks begin at pages: eight bits cannot count the bytes in one."""

    def counts(src: np.ndarray, dst: np.ndarray, count: int) -> None:
        raise AssertionError

    name = _define(counts, arguments={"count": Argument("count", np.dtype("uint8"))}, chunking=ELEMENTS)
    with apyfal.Accelerator(name) as card, pytest.raises(ParameterError, match="count 255 at most; expected a wider"):
        card.process(np.zeros(9000, np.uint8))
