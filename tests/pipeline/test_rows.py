"""Stencils of arrays in chunks of rows, against numpy on the whole; on the software card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apyfal
from apyfal.definition import registry
from apyfal.definition.resolve import resolve
from apyfal.exceptions import ConfigurationError, CopyRefused, ParameterError

REACH = (0, 1, 2, 5)


def _stencil(grid: np.ndarray, reach: int) -> np.ndarray:
    """Sums over rows within `reach`; those beyond the edges are the edge's."""
    padded = np.pad(grid.astype("int64"), ((reach, reach), (0, 0)), mode="edge")
    return np.asarray(sum(padded[k : k + len(grid)] for k in range(2 * reach + 1))).astype(grid.dtype)


@pytest.fixture(autouse=True, scope="module")
def models() -> Iterator[None]:
    before = dict(registry._definitions)

    @apyfal.accelerators.model("rows", inputs=("a: int32", "w: int32"), outputs=("b: int32",), width="uint32")
    def stencil(a: np.ndarray, w: np.ndarray, b: np.ndarray, *, width: int, reach: int = 1) -> None:
        b[...] = (_stencil(a.reshape(-1, width), reach) * w[0] + w[1]).reshape(-1)

    @apyfal.accelerators.model("sparse_rows", inputs=("a: uint8",), outputs=("b: uint8",), width="uint32")
    def sparse(a: np.ndarray, b: np.ndarray, *, width: int) -> None:
        b.reshape(-1, width)[:, 0] = a.reshape(-1, width)[:, 0]  # and nothing else

    yield
    registry._definitions.clear()
    registry._definitions.update(before)


W = np.array([3, 7], "int32")


def _card(halo: str = "a: 1, w: whole", **keys: Any) -> apyfal.Accelerator:
    return apyfal.Accelerator("rows", chunking=keys.pop("chunking", "rows"), halo=halo, **keys)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    width=st.integers(1, 40),
    reach=st.sampled_from(REACH),
    more=st.integers(0, 2),
    chunk=st.integers(1, 30),
    given_dst=st.booleans(),
    contiguous=st.booleans(),
)
def test_chunks_of_rows_give_what_numpy_gives_on_the_whole(
    rows: int, width: int, reach: int, more: int, chunk: int, given_dst: bool, contiguous: bool
) -> None:
    grid = np.random.default_rng(rows * 41 + width).integers(-99, 99, (rows, width), "int32")
    if not contiguous:
        grid = np.repeat(grid, 2, axis=1)[:, ::2]
    expected = _stencil(grid, reach) * 3 + 7
    halo = reach + more
    # room for `chunk` rows with those around them, input and output
    limit = 2 * ((chunk + 2 * halo) * 8 * width + W.nbytes) + 8
    info: dict[str, Any] = {}
    with _card(f"a: {halo}, w: whole") as card:
        dst = np.zeros_like(expected) if given_dst else None
        result = card.process({"a": grid, "w": W}, dst, width=width, reach=reach, memory_limit=limit, info_dict=info)
    np.testing.assert_array_equal(result, expected)
    assert result.shape == expected.shape
    total = 2 * grid.nbytes + W.nbytes
    assert info["chunks"] == (1 if total <= limit else -(-rows // min(chunk, rows)))
    if total > limit:
        assert info["bytes_out"] == expected.nbytes
        assert info["bytes_in"] == grid.nbytes


def test_an_array_that_is_larger_than_the_cards_memory() -> None:
    grid = np.random.default_rng(1).integers(-99, 99, (3000, 256), "int32")  # 3 MB
    pinned = apyfal.empty(grid.shape, grid.dtype)
    pinned[...] = grid
    with _card("a: 2, w: whole", emulator={"memory": "1MiB", "idle_memory": 0}) as card:
        for source in (grid, pinned):
            info: dict[str, Any] = {}
            result = card.process({"a": source, "w": W}, width=256, reach=2, info_dict=info)
            np.testing.assert_array_equal(result, _stencil(grid, 2) * 3 + 7)
            assert info["chunks"] > 5


def test_files_in_rows(tmp_path: Path) -> None:
    grid = np.random.default_rng(1).integers(-99, 99, (300, 64), "int32")
    source, target, weights = tmp_path / "a.raw", tmp_path / "b.raw", tmp_path / "w.raw"
    source.write_bytes(grid.tobytes())
    weights.write_bytes(W.tobytes())
    seen: list[int] = []
    with _card(chunking="rows:width") as card:
        data = {"a": source, "w": weights}
        card.process(data, target, width=64, memory_limit="32KiB", progress=lambda done, total: seen.append(done))
        assert seen == sorted(seen)
        assert len(seen) > 3
        assert seen[-1] == grid.nbytes
        np.testing.assert_array_equal(
            np.frombuffer(target.read_bytes(), "int32").reshape(300, 64), _stencil(grid, 1) * 3 + 7
        )
        source.write_bytes(grid.tobytes()[:-8])
        before = target.read_bytes()
        with pytest.raises(ParameterError, match="76792 bytes are not a whole number of rows of 256 bytes"):
            card.process(data, target, width=64, memory_limit="32KiB")
        assert target.read_bytes() == before
    with _card() as card, pytest.raises(ParameterError, match="a file has no rows; expected chunking = rows:<elem"):
        card.process(data, target, width=64, memory_limit="32KiB")


def test_source_and_destination_may_be_one_array() -> None:
    grid = np.random.default_rng(1).integers(-99, 99, (50, 16), "int32")
    expected = _stencil(grid, 1) * 3 + 7
    with _card() as card:
        assert card.process({"a": grid, "w": W}, grid, width=16, memory_limit="2KiB") is grid
    np.testing.assert_array_equal(grid, expected)


def test_what_a_run_does_not_write_is_zero_in_every_chunk() -> None:
    grid = np.full((200, 16), 9, "uint8")
    expected = np.zeros_like(grid)
    expected[:, 0] = 9
    with apyfal.Accelerator("sparse_rows", chunking="rows", halo=1) as card:
        for _ in range(3):
            np.testing.assert_array_equal(card.process(grid, width=16, memory_limit="1KiB"), expected)


def test_what_cannot_be_done_is_one_line() -> None:
    grid = np.zeros((50, 16), "int32")
    with _card("a: 4, w: whole") as card:
        with pytest.raises(
            ParameterError, match=r"a chunk of one row takes .* with 4 rows on each side; there are 1.0 KiB"
        ):
            card.process({"a": grid, "w": W}, width=16, memory_limit="1KiB")
        with pytest.raises(CopyRefused, match="a: rows around a chunk belong to two chunks, and copy=False was given"):
            card.process({"a": grid, "w": W}, width=16, memory_limit="4KiB", copy=False)
    with (
        _card("1") as card,
        pytest.raises(ParameterError, match=r"w: 8 bytes are no 50 rows, which a has; expected .*'halo = w: whole'"),
    ):
        card.process({"a": grid, "w": W}, width=16, memory_limit="4KiB")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"halo": "-1"}, "unknown halo '-1'; expected <rows>, <input>: <rows> or <input>: whole"),
        ({"halo": "whole"}, "unknown halo 'whole'"),
        ({"halo": "b: 1"}, "halo: no input 'b'"),
        ({"halo": "src: whole"}, "the first input, 'src', is the one that is cut"),
        ({"halo": "1", "chunking": "elements"}, "need chunking = rows, not elements"),
        ({"chunking": "rows:w"}, "'w' is not a whole number"),
        ({"chunking": "rows:2 *"}, "expected a number, a name"),
        ({"output": "32"}, "gives an output as many rows as its input has, not 32"),
        ({"arguments": "src, dst, state", "state": "8"}, "chunking = rows and a state do not go together"),
        ({"arguments": "src", "output": "0"}, "chunking = rows needs an input and an output"),
    ],
)
def test_wrong_definitions(keys: dict[str, str], message: str) -> None:
    base = {"driver": "opencl", "program": "x.cl", "arguments": "src, dst", "chunking": "rows"}
    with pytest.raises(ConfigurationError, match=message):
        resolve("k", **{**base, **keys})
