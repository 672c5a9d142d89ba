"""Chains on the software card: sizes, types, reductions, parameters, and what each wrong one says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.accelerators import model
from apyfal.exceptions import ConfigurationError, KernelError, ParameterError

SECTIONS: dict[str, dict[str, str]] = {
    "accelerator.double": {"kernel": "scale", "parameters": "a = 2"},
    "accelerator.shift": {"kernel": "scale", "parameters": "b = 1"},
    "accelerator.count": {"kernel": "histogram"},
}


def chain(stages: str, **keywords: Any) -> apyfal.Accelerator:
    return apyfal.Accelerator("chain", {**SECTIONS, "accelerator.chain": {"stages": stages, **keywords}})


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    """Stages of every size rule."""

    @model("pairs", in_dtype="int32", out_dtype="int32", output="0.5x", chunking="elements", replace=True)
    def pairs(src: np.ndarray, dst: np.ndarray) -> None:
        np.add(src[::2], src[1::2], out=dst)

    @model("widen", in_dtype="int32", out_dtype="float64", chunking="elements", replace=True)
    def widen(src: np.ndarray, dst: np.ndarray) -> None:
        dst[:] = src / 2

    @model("total", in_dtype="float64", out_dtype="float64", output=8, chunking="elements", state=8, replace=True)
    def total(src: np.ndarray, dst: np.ndarray, state: np.ndarray, first: int, last: int) -> None:
        kept = state.view(np.float64)
        kept[0] = src.sum() + (0 if first else kept[0])
        if last:
            dst[0] = kept[0]

    @model("root", dtype="float64", replace=True)
    def root(src: np.ndarray, dst: np.ndarray) -> None:
        np.sqrt(src, out=dst)

    @model("reverse", dtype="int32", replace=True)
    def reverse(src: np.ndarray, dst: np.ndarray) -> None:
        dst[:] = src[::-1]

    @model("breaks", dtype="int32", chunking="elements", replace=True)
    def breaks(src: np.ndarray, dst: np.ndarray) -> None:
        raise ValueError("broken as asked")


def _numpy(stages: str, values: np.ndarray) -> np.ndarray:
    """The same by numpy."""
    one: dict[str, Any] = {
        "double": lambda x: 2 * x,
        "shift": lambda x: x + 1,
        "pairs": lambda x: x[::2] + x[1::2],
        "widen": lambda x: x / 2,
        "total": lambda x: np.array([x.sum()]),
        "root": np.sqrt,
        "reverse": lambda x: x[::-1],
    }
    for stage in stages.split(", "):
        values = one[stage](values)
    return values


@pytest.mark.parametrize("count", [4, 4096, 100_000, 5 << 20])
@pytest.mark.parametrize(
    "stages",
    [
        "double",
        "double, shift",
        "double, shift, double",
        "pairs, pairs, shift",
        "shift, widen",
        "pairs, widen, total",
        "widen, total, root",
        "double, reverse, shift",
        "reverse, pairs, widen, total, root",
    ],
)
def test_a_chain_is_its_stages_one_after_the_other(stages: str, count: int) -> None:
    values = np.random.default_rng(count).integers(0, 1000, count, np.int32)
    expected = _numpy(stages, values)
    info: dict[str, Any] = {}
    with chain(stages) as card:
        result = card.process(values, info_dict=info)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        assert result.dtype == expected.dtype
        assert info["bytes_moved"] == {"to_device": values.nbytes, "from_device": expected.nbytes}
        assert info["bytes_in"] == values.nbytes
        np.testing.assert_allclose(card.process(values), expected, rtol=1e-12)  # by what the first job left behind
        runs = card._context.device.counters()["runs"]
        whole = "reverse" in stages
        assert info["chunks"] == (1 if whole else -(-values.nbytes // (8 << 20)) or 1)
        assert runs >= len(stages.split(", "))


def test_in_chunks_from_a_file(tmp_path: Path) -> None:
    """Every stage sees each chunk; memory stays bounded."""
    values = np.arange(7 << 20, dtype=np.int32)
    apyfal.storage.save(str(tmp_path / "in"), values)
    info: dict[str, Any] = {}
    sections = {**SECTIONS, "accelerator.shift": {"kernel": "scale", "parameters": "b = 1", "dtype": "int32"}}
    with apyfal.Accelerator("chain", {**sections, "accelerator.chain": {"stages": "shift, pairs, shift"}}) as card:
        card.process(str(tmp_path / "in"), str(tmp_path / "out"), info_dict=info, memory_limit="64MiB")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out", np.int32), (values + 1)[::2] + (values + 1)[1::2] + 1)
    assert info["chunks"] > 2
    assert info["bytes_moved"] == {"to_device": values.nbytes, "from_device": values.nbytes // 2}


def test_parameters_go_to_their_stage() -> None:
    values = np.arange(10, dtype=np.int32)
    with chain("double, shift, count") as card:
        np.testing.assert_array_equal(
            card.process(values, bins=2, range=(0, 70), **{"double.a": 3, "shift.b": 5}),
            np.histogram(3 * values + 5, 2, (0, 70))[0],
        )
        for name, near in (("a", "double.a"), ("shift.c", "shift.b"), ("count.bins", "bins")):
            with pytest.raises(ParameterError, match=f"no parameter '{name}'.*{near}"):
                card.process(values, range=(0, 1), **{name: 1})
        with pytest.raises(ParameterError, match=r"bins.*expected 1 to"):
            card.process(values, bins=0, range=(0, 1))
        card.start(bins=3, **{"shift.b": 2})
        assert card.process(values, range=(0, 30)).tolist() == np.histogram(2 * values + 2, 3, (0, 30))[0].tolist()
    with chain("shift, shift, shift") as card:
        assert (
            card.process(values, **{"shift.b": 1, "shift2.b": 10, "shift3.b": 100}).tolist() == (values + 111).tolist()
        )


@pytest.mark.parametrize(
    ("stages", "more", "message"),
    [
        ("", {}, "0 of them; expected 1 to 64"),
        (", ".join(["double"] * 65), {}, "65 of them; expected 1 to 64"),
        ("double, doubel", {}, "unknown accelerator 'doubel'.*double"),
        ("double, chain", {}, "'chain' is a chain itself"),
        ("gzip, double", {}, "'gzip' reports its size"),
        ("double, trng", {}, "'trng' has 0 inputs"),
        ("join, double", {}, "'join' has 2 outputs"),
        ("double, join", {}, "'join' has 2 inputs"),
        ("weighted, double", {}, "'weighted' takes coefficients"),
        ("double, shift", {"dtype": "int8"}, "dtype: a chain has the definitions of its stages"),
        ("double, shift", {"emulator.memroy": "1GiB"}, "memroy"),
    ],
)
def test_chains_that_cannot_be(stages: str, more: dict[str, str], message: str) -> None:
    import drivers.support.software_models  # noqa: F401 - registers join and weighted

    with pytest.raises((ConfigurationError, ParameterError), match=message) as caught:
        chain(stages, **more)
    assert "\n" not in str(caught.value)


def test_types_that_do_not_fit() -> None:
    with (
        chain("widen, pairs") as card,
        pytest.raises(ParameterError, match="'pairs' takes int32 elements, not float64"),
    ):
        card.process(np.arange(8, dtype=np.int32))
    with chain("pairs, shift") as card, pytest.raises(ParameterError, match="not a whole number"):
        card.process(np.arange(7, dtype=np.int32))


def test_a_stage_that_raises() -> None:
    with chain("shift, breaks, double") as card:
        for _ in range(3):
            with pytest.raises(KernelError, match="broken as asked") as caught:
                card.process(np.arange(8, dtype=np.int32))
            assert isinstance(caught.value.__cause__, ValueError)


def test_options_are_for_all_stages() -> None:
    with chain("double, shift", **{"emulator.memory": "1MiB"}) as card:
        assert card._context.info["memory"] == 1 << 20
    with chain("double, shift") as card, apyfal.Accelerator("scale", device=card) as scale:
        array = scale.put(np.arange(5, dtype=np.int32))
        result = card.process(array, card.device_empty(5, np.int32))
        np.testing.assert_array_equal(scale.process(result, a=2), 2 * (2 * np.arange(5) + 1))


def test_stages_by_keyword_and_in_lists(tmp_path: Path) -> None:
    with apyfal.Accelerator(stages=["scale", "scale"]) as card:
        assert card.process(np.arange(3), **{"scale.a": 2, "scale2.a": 3}).tolist() == [0, 6, 12]
    path = tmp_path / "accelerator.conf"
    path.write_text("[accelerator.twice]\nstages = scale, scale\n[process.twice]\nscale2.a = 5\n")
    assert "twice" in [one.name for one in apyfal.accelerators(str(path))]


def test_many_threads_and_a_stop() -> None:
    """Jobs of four threads, while a fifth one opens and stops accelerators that share the device."""
    failures: list[BaseException] = []
    with chain("double, shift, double") as card:

        def work(seed: int) -> None:
            try:
                for turn in range(30):
                    values = np.random.default_rng(seed).integers(0, 99, 1 + 997 * turn, np.int32)
                    assert (card.process(values) == 4 * values + 2).all()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with apyfal.Accelerator("scale", device=card) as other:
                other.process(other.put(np.arange(100)), other.device_empty(100, int))
        for thread in threads:
            thread.join()
    assert not failures
