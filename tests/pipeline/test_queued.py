"""Jobs in the device's queue: order without the host, errors, cancelling, memory, and what each wrong one says."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.accelerators import model
from apyfal.definition import registry
from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Chunking
from apyfal.device.sharing.run_queue import MOST_QUEUED
from apyfal.exceptions import ClosedError, KernelError, ParameterError, RunCancelled, RunTimeout

SLOW = {"run_latency": "100ms"}
#: Longer than any test waits: for runs that are cancelled.
ENDLESS = {"run_latency": "300s"}
#: What the runs of the accelerator ``gated`` wait for.
GATE = threading.Event()


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    @model("sums", in_dtype="int32", out_dtype="int64", inputs=("a", "b"), chunking="elements", replace=True)
    def sums(a: np.ndarray, b: np.ndarray, dst: np.ndarray) -> None:
        np.add(a, b, out=dst)

    @model("breaks", dtype="int32", chunking="elements", replace=True)
    def breaks(src: np.ndarray, dst: np.ndarray) -> None:
        raise ValueError("broken as asked")

    @model("adds", dtype="int32", replace=True)
    def adds(src: np.ndarray, dst: np.ndarray) -> None:
        dst += src  # onto zeros

    @model("gated", dtype="int32", chunking="elements", replace=True)
    def gated(src: np.ndarray, dst: np.ndarray) -> None:
        assert GATE.wait(60)
        dst[:] = src

    def narrow(src: np.ndarray, dst: np.ndarray, count: int) -> None:
        assert count == len(src)
        dst[:] = src + 1

    registry.register(
        Definition(
            name="narrow",
            kernel="narrow",
            arguments=(Argument("src"), Argument("dst"), Argument("count", np.dtype("uint16"))),
            in_dtype=np.dtype("int32"),
            chunking=Chunking("elements"),
            model=narrow,
        ),
        replace=True,
    )


@pytest.fixture
def scale() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("scale", dtype="int32", emulator=SLOW) as card:
        yield card


@pytest.fixture
def gate(scale: apyfal.Accelerator) -> Iterator[apyfal.Accelerator]:
    """Copies on the device of `scale` once `GATE` is set, and is at the latest when the test has ended."""
    GATE.clear()
    with apyfal.Accelerator("gated", device=scale) as card:
        try:
            yield card
        finally:
            GATE.set()


def _values(count: int = 1000) -> np.ndarray:
    return np.arange(count, dtype=np.int32)


def test_calls_return_while_the_first_job_is_at_work(scale: apyfal.Accelerator, gate: apyfal.Accelerator) -> None:
    """Thirteen jobs are queued before the first has ended, which they all depend on."""
    with apyfal.Accelerator("histogram", device=scale) as histogram:
        arrays = [scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(13))]
        counts = scale.device_empty(4, "uint64")
        jobs = [gate.enqueue(arrays[0], arrays[1])]
        jobs += [scale.enqueue(src, dst, b=1) for src, dst in itertools.pairwise(arrays[1:])]
        jobs.append(histogram.enqueue(arrays[-1], counts, bins=4, range=(0, 2000)))
        assert not any(job.done() for job in jobs)
        GATE.set()
        assert jobs[-1].result() is counts
        assert all(job.done() for job in jobs)
        np.testing.assert_array_equal(arrays[-1].get(), _values() + 12)
        assert counts.get().tolist() == np.histogram(_values() + 12, 4, (0, 2000))[0].tolist()


def test_several_inputs(scale: apyfal.Accelerator, gate: apyfal.Accelerator) -> None:
    with apyfal.Accelerator("sums", device=scale) as sums:
        one, two, three = scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(2))
        target = sums.device_empty(1000, "int64")
        gate.enqueue(one, two)
        scale.enqueue(two, three, a=10)
        job = sums.enqueue({"a": one, "b": three}, target)
        assert not job.done()
        GATE.set()
        np.testing.assert_array_equal(target.get(), 11 * _values())
        assert job.done()


def test_an_array_is_used_again_only_when_it_is_free(scale: apyfal.Accelerator) -> None:
    """Two buffers in turn; and new data for the source waits for the job that reads the old."""
    source, target, other = scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(2))
    scale.enqueue(source, target, a=2)
    scale.enqueue(target, other, a=1)
    source.set(_values() + 5)
    scale.enqueue(source, target, a=3)
    np.testing.assert_array_equal(other.get(), 2 * _values())
    np.testing.assert_array_equal(target.get(), 3 * (_values() + 5))


def test_an_output_that_begins_at_zero(scale: apyfal.Accelerator) -> None:
    with apyfal.Accelerator("adds", device=scale) as adds:
        source, middle, target = scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(2))
        jobs = []
        for _ in range(3):
            jobs += [scale.enqueue(source, middle, a=2), adds.enqueue(middle, target)]
        jobs[-1].result()
        np.testing.assert_array_equal(target.get(), 2 * _values())


def test_a_job_of_several_runs() -> None:
    """A count of 16 bits: the array takes several runs, which are all queued."""
    with apyfal.Accelerator("narrow") as narrow:
        source, target = narrow.put(_values(200_000)), narrow.device_empty(200_000, "int32")
        info: dict[str, Any] = {}
        narrow.enqueue(source, target, info_dict=info).result()
        np.testing.assert_array_equal(target.get(), _values(200_000) + 1)
        assert info["chunks"] == 7


def test_a_chain_is_queued_too(scale: apyfal.Accelerator, gate: apyfal.Accelerator) -> None:
    config = {
        "accelerator.chain": {"stages": "double, shift, double"},
        "accelerator.double": {"kernel": "scale", "parameters": "a = 2"},
        "accelerator.shift": {"kernel": "scale", "parameters": "b = 1"},
    }
    with apyfal.Accelerator("chain", config, device=scale) as chain:
        first, source, target = chain.put(_values()), *(chain.device_empty(1000, "int32") for _ in range(2))
        gate.enqueue(first, source)
        jobs = [chain.enqueue(source, target), chain.enqueue(target, source), chain.enqueue(source, target)]
        assert not any(job.done() for job in jobs)
        GATE.set()
        jobs[-1].result()
        expected = _values()
        for _ in range(3):
            expected = 4 * expected + 2
        np.testing.assert_array_equal(target.get(), expected)


def test_an_error_goes_to_all_that_use_the_result(scale: apyfal.Accelerator) -> None:
    with apyfal.Accelerator("breaks", device=scale) as breaks:
        source, *targets = scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(4))
        jobs = [breaks.enqueue(source, targets[0])]
        jobs += [scale.enqueue(src, dst) for src, dst in itertools.pairwise(targets)]
        alone = scale.enqueue(source, scale.device_empty(1000, "int32"))
        for job in reversed(jobs):
            with pytest.raises(KernelError, match="broken as asked") as raised:
                job.result()
            assert isinstance(raised.value.__cause__, ValueError)
        assert alone.result().shape == (1000,)
        for read in (targets[-1].get, lambda: scale.process(targets[1]), lambda: scale.start(src=targets[1])):
            with pytest.raises((KernelError, ParameterError)):
                read()
        with pytest.raises(KernelError, match="broken as asked"):
            scale.enqueue(targets[2], targets[3]).result()
        scale.process(source, targets[2], a=2)  # good again
        np.testing.assert_array_equal(targets[2].get(), 2 * _values())
        scale.enqueue(targets[2], targets[3]).result()
        np.testing.assert_array_equal(targets[3].get(), 2 * _values())


def test_cancelled_jobs() -> None:
    with apyfal.Accelerator("scale", dtype="int32", emulator=ENDLESS) as scale:
        source, *targets = scale.put(_values()), *(scale.device_empty(1000, "int32") for _ in range(3))
        jobs = [scale.enqueue(src, dst) for src, dst in zip([source, *targets], targets, strict=False)]
        with pytest.raises(RunTimeout, match=r"accelerator 'scale' did not end within 0\.01 s; it stays queued"):
            jobs[-1].result("10ms")
        for timeout in (-1, math.nan, math.inf, True, "x", 1e10, 10**400, b"1"):
            with pytest.raises(ParameterError, match="is not a duration"):
                jobs[-1].result(timeout)  # type: ignore[arg-type]  # that is what is tested
        scale._context.device.control("run_latency", 0)  # of the runs behind the first
        jobs[0].cancel()
        for job in jobs:
            with pytest.raises(RunCancelled):
                job.result(20)
        assert "failed" in repr(jobs[0])


def test_a_block_waits_for_its_jobs_and_cancels_them_if_it_raises() -> None:
    with apyfal.Accelerator("scale", dtype="int32", emulator=SLOW) as card:
        arrays = [card.put(_values()), *(card.device_empty(1000, "int32") for _ in range(4))]
        jobs = [card.enqueue(src, dst) for src, dst in itertools.pairwise(arrays)]
    assert jobs[-1].result() is arrays[-1]
    began = time.monotonic()
    jobs = []
    with pytest.raises(LookupError):
        _raise_in_block(jobs)
    assert time.monotonic() - began < 20
    with pytest.raises(RunCancelled):
        jobs[-1].result(20)


def _raise_in_block(jobs: list[Any]) -> None:
    with apyfal.Accelerator("scale", dtype="int32", emulator=ENDLESS) as card:
        arrays = [card.put(_values()), *(card.device_empty(1000, "int32") for _ in range(4))]
        jobs += [card.enqueue(src, dst) for src, dst in itertools.pairwise(arrays)]
        raise LookupError


def test_memory_is_let_go() -> None:
    """A thousand jobs over three arrays keep no more than what is in flight; arrays are freed when nobody has them."""
    with apyfal.Accelerator("scale", dtype="int32") as card:
        arrays = [card.put(_values()) for _ in range(3)]
        for number in range(1000):
            card.enqueue(arrays[number % 3], arrays[(number + 1) % 3], b=1)
        assert len(card._context.shared.queue.of(card._context)) <= MOST_QUEUED
        arrays[1000 % 3].get()
        gc.collect()
        gc.disable()
        try:
            job = card.enqueue(card.put(_values()), card.device_empty(1000, "int32"))
            kept = weakref.ref(job.result())
            del job
            assert kept() is None
        finally:
            gc.enable()


def test_from_several_threads(scale: apyfal.Accelerator) -> None:
    """Each its own arrays, one device."""
    results: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        source, target = scale.put(_values() + seed), scale.device_empty(1000, "int32")
        for _ in range(5):
            scale.enqueue(source, target, b=1)
            scale.enqueue(target, source, b=1)
        results[seed] = source.get()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in range(4):
        np.testing.assert_array_equal(results[seed], _values() + seed + 10)


def test_what_cannot_be_queued(scale: apyfal.Accelerator) -> None:
    array, target = scale.put(_values()), scale.device_empty(1000, "int32")
    wrong: list[tuple[Any, Any, str]] = [
        (_values(), target, "src: ndarray; expected an array of put or device_empty"),
        (array, None, "dst: NoneType; expected an array of put or device_empty"),
        ("s3://bucket/key", target, "src: str; expected an array"),
        (array, scale.device_empty(999, "int32"), "3996 bytes"),
        (array, scale.device_empty(1000, "float32"), "float32"),
    ]
    for src, dst, says in wrong:
        with pytest.raises(ParameterError, match=says):
            scale.enqueue(src, dst)
    with pytest.raises(ParameterError, match=r"no parameter 'c'"):
        scale.enqueue(array, target, c=1)
    with apyfal.Accelerator("gzip", device=scale) as gzip:
        source = gzip.device_empty(1000, "uint8")
        with pytest.raises(ParameterError, match="size of the output is not known"):
            gzip.enqueue(source, gzip.device_empty(1000, "uint8"))
    target.close()
    with pytest.raises(ClosedError):
        scale.enqueue(array, target)


def test_in_place_and_nothing_at_all(scale: apyfal.Accelerator) -> None:
    """An input that the kernel changes, in the array itself; and arrays of no elements."""
    with apyfal.Accelerator("adds", device=scale) as adds:
        array, empty = scale.put(_values()), scale.put(_values(0))
        jobs = [scale.enqueue(array, array, a=2), scale.enqueue(array, array, b=1)]
        jobs.append(scale.enqueue(empty, scale.device_empty(0, "int32")))
        jobs.append(adds.enqueue(empty, adds.device_empty(0, "int32")))
        for job in jobs:
            job.result()
        np.testing.assert_array_equal(array.get(), 2 * _values() + 1)


def test_data_of_the_host_is_behind_the_jobs_that_use_the_array(scale: apyfal.Accelerator) -> None:
    """`process` into an array that queued jobs read, out of one that they write, and of a chain with zeros between."""
    source, target = scale.put(_values()), scale.device_empty(1000, "int32")
    for number in range(3):
        scale.enqueue(source, target, a=2)
        scale.process(_values() + number, source)  # over what the queued job reads
        np.testing.assert_array_equal(target.get(), 2 * (_values() + max(number - 1, 0)))
    config = {
        "accelerator.chain": {"stages": "twice, adds, twice"},
        "accelerator.twice": {"kernel": "scale", "parameters": "a = 2"},
    }
    with apyfal.Accelerator("chain", config, device=scale) as chain:
        for _ in range(4):
            job = chain.enqueue(source, target)
            scale.enqueue(target, source, a=0, b=1)
        job.result()
        np.testing.assert_array_equal(target.get(), np.full(1000, 4))
