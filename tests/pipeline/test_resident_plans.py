"""Jobs between device arrays after the first of their kind: nothing is decided again, and nothing is out of date."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.definition import registry
from apyfal.exceptions import ClosedError, KernelError, ParameterError, RunTimeout
from apyfal.pipeline import run


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the accelerators of jobs that were decided, with the models of these tests."""
    made: list[str] = []
    decide = run.decide

    def counted(context: Any, *arguments: Any) -> Any:
        made.append(context.definition.name)
        return decide(context, *arguments)

    monkeypatch.setattr(run, "decide", counted)
    monkeypatch.setattr(registry, "_definitions", {})

    @apyfal.accelerators.model("plan_add", dtype="int32", chunking="elements")
    def _add(src: np.ndarray, dst: np.ndarray, term: int = 1) -> None:
        if src.size and src[0] == -1:
            raise ValueError("minus one")
        np.add(src, term, out=dst)

    @apyfal.accelerators.model("plan_twice", dtype="int32", chunking="elements")
    def _twice(src: np.ndarray, dst: np.ndarray) -> None:
        np.multiply(src, 2, out=dst)

    @apyfal.accelerators.model("plan_both", inputs=("a: int32", "b: int32"), outputs=("s: int32", "d: int32"))
    def _both(a: np.ndarray, b: np.ndarray, s: np.ndarray, d: np.ndarray) -> None:
        np.add(a, b, out=s)
        np.subtract(a, b, out=d)

    return made


def _open(name: str, **keys: Any) -> apyfal.Accelerator:
    return apyfal.Accelerator(name, clear_outputs="no", **keys)


def _chain() -> apyfal.Accelerator:
    sections = {f"accelerator.{name}": {"kernel": name, "clear_outputs": "no"} for name in ("plan_add", "plan_twice")}
    return apyfal.Accelerator("chain", {**sections, "accelerator.chain": {"stages": "plan_add, plan_twice, plan_add"}})


def test_other_arrays_of_the_same_kind(decisions: list[str]) -> None:
    values = np.arange(100, dtype=np.int32)
    with _open("plan_add") as card:
        for offset in range(5):
            source, target = card.put(values + offset), card.device_empty(100, "int32")
            assert card.process(source, target) is target
            np.testing.assert_array_equal(target.get(), values + offset + 1)
            np.testing.assert_array_equal(source.get(), values + offset)
        assert card.process(target, target) is target
        np.testing.assert_array_equal(target.get(), values + 6)
        assert decisions == ["plan_add"]
        for term in (5, 5, 6, 6, 5):  # a value is part of the kind
            card.process(source, target, term=term)
            np.testing.assert_array_equal(target.get(), values + 4 + term)
        assert len(decisions) == 3
        for source in (card.put(values[:50]), card.put(values.reshape(10, 10))):  # and so are shapes
            for _ in range(2):
                target = card.device_empty(source.shape, "int32")
                np.testing.assert_array_equal(card.process(source, target).get(), source.get() + 1)
        assert len(decisions) == 5


def test_chains(decisions: list[str]) -> None:
    values = np.arange(1000, dtype=np.int32)
    with _chain() as chain:
        for offset in range(4):
            source, target = chain.put(values + offset), chain.device_empty(1000, "int32")
            chain.process(source, target)
            np.testing.assert_array_equal(target.get(), (values + offset + 1) * 2 + 1)
        assert len(decisions) == 1
        longer = chain.put(np.arange(5000, dtype=np.int32))  # its memory between the stages is other memory
        for source in (longer, chain.put(values), longer, chain.put(values)):
            target = chain.device_empty(source.shape, "int32")
            chain.process(source, target)
            np.testing.assert_array_equal(target.get(), (source.get() + 1) * 2 + 1)
        host = chain.process(values)  # with the same launcher
        np.testing.assert_array_equal(host, (values + 1) * 2 + 1)
        target = chain.device_empty(1000, "int32")
        job = chain.enqueue(chain.put(values), target)
        assert job.result() is target
        np.testing.assert_array_equal(target.get(), host)


def test_several_inputs_and_outputs(decisions: list[str]) -> None:
    a, b = np.arange(10, dtype=np.int32), np.arange(10, dtype=np.int32) ** 2
    with _open("plan_both") as card:
        for _ in range(3):
            ins = {"b": card.put(b), "a": card.put(a)}
            outs = {"d": card.device_empty(10, "int32"), "s": card.device_empty(10, "int32")}
            result = card.process(ins, outs)
            assert result == {"s": outs["s"], "d": outs["d"]}
            np.testing.assert_array_equal(result["s"].get(), a + b)
            np.testing.assert_array_equal(result["d"].get(), a - b)
        assert len(decisions) == 1
        with pytest.raises(ParameterError, match="would have the same place"):
            card.process(ins, {"s": outs["s"], "d": outs["s"]})
        with pytest.raises(ParameterError, match="needs src"):
            card.process({"a": ins["a"]}, outs)


def test_what_is_wrong_is_still_seen(decisions: list[str]) -> None:
    values = np.arange(64, dtype=np.int32)
    with _open("plan_add") as card, _open("plan_add") as other:
        source, target = card.put(values), card.device_empty(64, "int32")
        card.process(source, target)
        with pytest.raises(ParameterError, match="opened by another accelerator"):
            card.process(other.put(values), target)
        with pytest.raises(ParameterError, match="no parameter 'trem'"):
            card.process(source, target, trem=1)
        with pytest.raises(ParameterError):
            card.process(source, card.device_empty(64, "int64"))
        with pytest.raises(RunTimeout):
            card.process(source, target, timeout=0)
        closed = card.device_empty(64, "int32")
        closed.close()
        with pytest.raises(ClosedError):
            card.process(source, closed)
        failing = card.put(np.full(64, -1, np.int32))
        for again in range(2):
            with pytest.raises(KernelError, match="minus one") as caught:
                card.process(failing, target)
            assert isinstance(caught.value.__cause__, ValueError), again
        queued = card.enqueue(failing, target)
        with pytest.raises(KernelError, match="minus one"):
            card.process(target, card.device_empty(64, "int32"))  # its source is the result of a job that failed
        with pytest.raises(KernelError, match="minus one"):
            queued.result()
        np.testing.assert_array_equal(card.process(source, target).get(), values + 1)


def test_no_array_is_kept(decisions: list[str]) -> None:
    values = np.arange(64, dtype=np.int32)
    for opened in (_open("plan_add"), _chain()):
        with opened as card:
            for how in ("process", "enqueue"):
                arrays = card.put(values), card.device_empty(64, "int32")
                for _ in range(2):
                    if how == "process":
                        card.process(*arrays)
                    else:
                        card.enqueue(*arrays).result()
                used = card._context.device.counters()["memory_used"]
                alive = [weakref.ref(array) for array in arrays]
                del arrays
                gc.collect()
                assert [ref() for ref in alive] == [None, None], how
                assert card._context.device.counters()["memory_used"] <= used - 2 * values.nbytes, how


def test_info_is_complete_for_later_jobs(decisions: list[str]) -> None:
    values = np.arange(64, dtype=np.int32)
    with _chain() as chain:
        source, target = chain.put(values), chain.device_empty(64, "int32")
        for _ in range(3):
            info: dict[str, Any] = {}
            chain.process(source, target)
            chain.process(source, target, info_dict=info)
            assert (info["bytes_in"], info["bytes_out"], info["chunks"]) == (256, 256, 1)
            assert info["bytes_moved"] == {"to_device": 0, "from_device": 0}
