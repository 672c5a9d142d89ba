"""Prepared jobs: the same results and errors as `process`, decided once; who owns what, and what ends them."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pinned import pinned as pinned_as

import apyfal
from apyfal._core.buffer import Buffer
from apyfal._core.run import Arguments
from apyfal.definition.models import model
from apyfal.exceptions import (
    BufferInUse,
    ClosedError,
    CopyRefused,
    ForkedProcess,
    KernelError,
    ParameterError,
    RunCancelled,
    RunTimeout,
)


def pinned(values: Any, dtype: str = "i4") -> np.ndarray:
    """A pinned array with these values."""
    return pinned_as(values, dtype)


def moved(accelerator: apyfal.Accelerator) -> tuple[int, int, int]:
    """Bytes to the card and from it, and runs."""
    counters = accelerator._context.device.counters()
    return counters["to_device"], counters["from_device"], counters["runs"]


# -- results ----------------------------------------------------------------------------------------------------------
def test_a_job_is_run_with_new_data_and_other_scalars(scale: apyfal.Accelerator, direct_runs: list[str]) -> None:
    src, dst = pinned(np.arange(1024)), pinned(np.zeros(1024))
    job = scale.prepare(src, dst, a=2, b=1)
    assert moved(scale) == (0, 0, 0)
    for turn in range(5):
        src[...] = np.arange(1024) + turn
        assert job() is dst
        np.testing.assert_array_equal(dst, src * 2 + 1)
    assert job(a=-3) is dst
    np.testing.assert_array_equal(dst, src * -3 + 1)
    assert job(b="0x10", a=np.int32(1))[3] == src[3] + 16
    job()
    np.testing.assert_array_equal(dst, src * 2 + 1, "the other values were for one run each")
    assert moved(scale) == (8 * 4096, 8 * 4096, 8), "no byte moved that no run needs"
    assert direct_runs == ["run_again"] * 8


def test_one_call_into_the_core_starts_and_waits(scale: apyfal.Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Counted:
        def __init__(self, arguments: Arguments) -> None:
            self._arguments = arguments

        def __getattr__(self, name: str) -> Any:
            def call(*values: Any) -> Any:
                calls.append(name)
                return getattr(self._arguments, name)(*values)

            return call

    job = scale.prepare(pinned([1, 2, 3]), pinned([0, 0, 0]), a=2)
    job()
    runs = job._direct
    launcher = runs._call._ready.launcher
    monkeypatch.setattr(launcher, "_arguments", Counted(launcher._arguments))
    ready = runs._call._ready
    monkeypatch.setattr(runs._call, "_ready", replace(ready, quick=launcher.runner(ready.launch, 1.0)))
    for _ in range(3):
        job()
    assert calls == ["run"] * 3
    del calls[:]
    job(a=5)
    assert calls == ["set_scalar", "run", "set_scalar"]


@pytest.mark.parametrize("wrong", [{"c": 1}, {"a": "x"}, {"a": 1 << 40}, {"a": 1.5}, {"a": None}, {"progress": 1}])
def test_wrong_parameters_raise_what_process_raises(scale: apyfal.Accelerator, wrong: dict[str, Any]) -> None:
    src, dst = pinned([1, 2, 3]), pinned([0, 0, 0])
    job = scale.prepare(src, dst)
    with pytest.raises(ParameterError) as by_process:
        scale.process(src, dst, **({"a": "x"} if "progress" in wrong else wrong))
    with pytest.raises(ParameterError) as by_job:
        job(**wrong)
    if "progress" not in wrong:
        assert str(by_job.value) == str(by_process.value)
        with pytest.raises(ParameterError) as by_prepare:
            scale.prepare(src, dst, **wrong)
        assert str(by_prepare.value) == str(by_process.value)
    assert job() is dst
    assert list(dst) == [1, 2, 3]


def test_wrong_arrays_are_refused_at_once(scale: apyfal.Accelerator) -> None:
    src, dst = pinned(np.arange(4096)), pinned(np.zeros(4096))
    read_only = dst[:]
    read_only.flags.writeable = False
    for target, message in (
        (dst[:100], "an array of 400 bytes; this job's output has 16384"),
        (dst.view("f4"), "an array of float32"),
        (read_only, "read-only"),
        (np.ndarray((4096,), "i4", src.data.cast("B"), 0)[::-1], "overlap"),
    ):
        with pytest.raises(ParameterError, match=message):
            scale.prepare(src, target)
    with pytest.raises(CopyRefused, match="not contiguous"):
        scale.prepare(src[::2], copy=False)
    with pytest.raises(ParameterError, match="needs src"):
        scale.prepare(None, dst)
    for side in ({"src": io.BytesIO(b"abcd"), "dst": dst}, {"src": src, "dst": io.BytesIO()}):
        with pytest.raises(ParameterError, match="a file object is read or written once"):
            scale.prepare(**side)
    for name in ("info_dict", "progress"):
        with pytest.raises(ParameterError, match=f"{name}: expected in the call"):
            scale.prepare(src, dst, **{name: {}})
    assert moved(scale) == (0, 0, 0)


def test_in_place_over_its_own_source(scale: apyfal.Accelerator) -> None:
    data = pinned(np.ones(512))
    job = scale.prepare(data, data, a=2)
    for _ in range(5):
        assert job() is data
    assert set(data) == {32}


def test_result_parameters_and_states_begin_afresh() -> None:
    src = apyfal.empty(5000, "u1")
    with apyfal.Accelerator("sha3") as card:
        job = card.prepare(src)
        for turn in range(3):
            src[...] = turn
            assert job() == card.process(src) == {"digest": hashlib.sha3_256(src).hexdigest()}


# -- jobs that have no shorter way ------------------------------------------------------------------------------------
def test_every_other_job_runs_as_process_runs_it(tmp_path: Path, direct_runs: list[str]) -> None:
    values = np.arange(1000, dtype="i4")
    source, target = tmp_path / "in", tmp_path / "out"
    values.tofile(source)
    with apyfal.Accelerator("scale", dtype="int32") as card:
        to_file = card.prepare(str(source), target, a=2)
        copied = card.prepare(values[::-1], a=2)
        fresh = card.prepare(pinned(values), a=2)
        for a in (2, 5):
            changes = {} if a == 2 else {"a": a}
            assert to_file(**changes) is None
            np.testing.assert_array_equal(np.fromfile(target, "i4"), values * a)
            info: dict[str, Any] = {}
            np.testing.assert_array_equal(copied(info_dict=info, **changes), values[::-1] * a)
            assert info["bytes_copied"] == 4000
            first, second = fresh(**changes), fresh(**changes)
            np.testing.assert_array_equal(first, values * a)
            assert not np.shares_memory(first, second), "each new array belongs to the caller"
    assert set(direct_runs) == {"run_once"}


def test_only_the_kernel_knows_the_size() -> None:
    data = apyfal.empty(50_000, "u1")
    data[...] = 7
    with apyfal.Accelerator("gzip") as card:
        job = card.prepare(data)
        assert bytes(job()) == bytes(job()) == bytes(card.process(data))


def test_a_pool_runs_it_on_any_card(direct_runs: list[str]) -> None:
    src, dst = pinned(np.arange(64)), pinned(np.zeros(64))
    with apyfal.AcceleratorPoolExecutor("scale", emulator={"devices": 2}) as pool:
        with pytest.raises(ParameterError, match="no parameter 'c'"):
            pool.prepare(src, dst, c=1)
        job = pool.prepare(src, dst, a=2)
        for _ in range(4):
            assert job() is dst
        assert job.submit(a=4).result() is dst
        assert dst[5] == 20
        assert sum(card.jobs for card in pool.statistics) == 5


class Growing:
    """Makes another array whenever it is asked for one; `pin`: in pinned memory."""

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._asked = 0

    def _next(self) -> np.ndarray:
        self._asked += 1
        return pinned(np.full(64, self._asked)) if self._pin else np.full(64, self._asked, "i4")


class ByArray(Growing):
    """Asked by numpy's method."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._next()


class ByInterface(Growing):
    """Asked by the array interface, as images of PIL are."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        self._kept = self._next()
        return self._kept.__array_interface__


class ByDlpack(Growing):
    """Asked by DLPack, as tensors are."""

    def __dlpack__(self, **keywords: Any) -> Any:
        return self._next().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("kind", [ByArray, ByInterface, ByDlpack])
def test_an_object_that_makes_arrays_is_asked_each_time(kind: type[Growing], pin: bool) -> None:
    with apyfal.Accelerator("scale") as card:
        dst = pinned(np.zeros(64))
        job = card.prepare(kind(pin), dst)
        seen = [int(job()[0]) for _ in range(4)]
        assert seen == sorted(set(seen)), "each run saw new data"


# -- info_dict and counters -------------------------------------------------------------------------------------------
def test_info_on_demand_is_that_of_process(scale: apyfal.Accelerator) -> None:
    src, dst = pinned(np.arange(1024)), pinned(np.zeros(1024))
    by_process: dict[str, Any] = {}
    by_job: dict[str, Any] = {}
    scale.process(src, dst, info_dict=by_process)
    scale.prepare(src, dst)(info_dict=by_job)
    assert by_job.keys() == by_process.keys()
    same = ("bytes_in", "bytes_out", "bytes_copied", "bytes_moved", "copy_reasons", "chunks", "device", "driver")
    assert {key: by_job[key] for key in same} == {key: by_process[key] for key in same}
    assert by_job["seconds"]["compute"] > 0
    assert by_job["limit"].startswith("compute")


def test_loading_again_replaces_what_direct_jobs_use() -> None:
    """`start` with other defaults: `process` follows it, a prepared job is refused."""
    src, dst = pinned([1, 2, 3]), pinned([0, 0, 0])
    with apyfal.Accelerator("scale") as card:
        card.start(a=2)
        job = card.prepare(src, dst)
        assert list(job()) == [2, 4, 6]
        for a in (3, 4):
            card.start(a=a)
            for _ in range(2):
                assert list(card.process(src, dst)) == [a, 2 * a, 3 * a]
            with pytest.raises(ParameterError, match="started again"):
                job()
        assert list(card.prepare(src, dst)()) == [4, 8, 12]


# -- threads ----------------------------------------------------------------------------------------------------------
def test_two_threads_call_one_job_one_after_the_other() -> None:
    src, dst = pinned([1, 2, 3]), pinned([0, 0, 0])
    with apyfal.Accelerator("scale", emulator={"run_latency": "20ms"}) as card:
        job = card.prepare(src, dst, a=2)
        threads = [threading.Thread(target=job, kwargs={"timeout": 60}) for _ in range(4)]
        for thread in threads:
            thread.start()
        futures = [job.submit(a=7) for _ in range(3)]
        for thread in threads:
            thread.join()
        assert all(future.result() is dst for future in futures)
        assert list(job()) == [2, 4, 6], "a value for one run is for no other"
        assert moved(card)[2] == 8


def test_a_hammer_of_threads_keeps_values_apart(scale: apyfal.Accelerator) -> None:
    src, dst = pinned(np.ones(16)), pinned(np.zeros(16))
    shared = scale.prepare(src, dst, a=2)
    wrong: list[Any] = []

    def work(a: int) -> None:
        target = pinned(np.zeros(16))
        own = scale.prepare(src, target, a=a)
        for turn in range(200):
            shared(a=a)
            if set(own()) != {a} or (turn % 5 == 0 and set(own(a=-a)) != {-a}):
                wrong.append((a, turn, list(target)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(shared()) == {2}


def test_waiting_for_another_call_ends_at_the_timeout() -> None:
    src, dst = pinned([1]), pinned([0])
    with apyfal.Accelerator("scale", emulator={"hang_run": "1"}) as card:
        job = card.prepare(src, dst)
        first = job.submit(timeout=60)
        while not moved(card)[0]:
            pass
        with pytest.raises(RunTimeout, match="other calls of this prepared job"):
            job(timeout=0.05)
        card.stop()
        with pytest.raises(RunCancelled, match="stopped"):
            first.result()


# -- the end ----------------------------------------------------------------------------------------------------------
def test_a_stopped_accelerator() -> None:
    card = apyfal.Accelerator("scale")
    job = card.prepare(pinned([1]), pinned([0]))
    job()
    card.stop()
    for call in (job, lambda: job(a=2), job.submit, lambda: card.prepare(pinned([1]))):
        with pytest.raises(ClosedError, match="was stopped"):
            call()


@pytest.mark.parametrize(
    ("fault", "error"), [("fail_run", KernelError), ("fail_to_device", Exception), ("hang_run", RunTimeout)]
)
def test_after_an_error_the_job_can_be_called_again(fault: str, error: type[Exception]) -> None:
    src, dst = pinned([1, 2]), pinned([0, 0])
    with apyfal.Accelerator("scale", emulator={fault: "2"}) as card:
        job = card.prepare(src, dst, a=2)
        outcomes = []
        for number in range(4):
            try:
                job(timeout=0.2 if fault == "hang_run" else 60, **({"a": 9} if number == 1 else {}))
                outcomes.append(list(dst))
            except error:
                outcomes.append([])
        assert outcomes == [[2, 4], [], [2, 4], [2, 4]]
        info: dict[str, Any] = {}
        assert job(info_dict=info) is dst


def test_the_model_s_exception_is_the_cause() -> None:
    @model("fails at nine", dtype="i4", chunking="elements", replace=True)
    def nine(src: np.ndarray, dst: np.ndarray, count: int) -> None:
        if src[0] == 9:
            raise ZeroDivisionError("nine")
        dst[...] = src

    src, dst = pinned([1, 2]), pinned([0, 0])
    with apyfal.Accelerator("fails at nine") as card:
        job = card.prepare(src, dst)
        job()
        src[0] = 9
        for call in (job, lambda: card.process(src, dst), lambda: card.process(src, dst)):
            with pytest.raises(KernelError, match="nine") as caught:
                call()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_forked_child_is_told() -> None:
    src, dst = pinned([1, 2]), pinned([0, 0])
    with apyfal.Accelerator("scale", emulator={"run_latency": "300ms"}) as card:
        job = card.prepare(src, dst)
        running = job.submit()
        while not moved(card)[0]:
            pass
        child = os.fork()
        if not child:
            try:
                job()
            except ForkedProcess:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert running.result() is dst
        job()
        child = os.fork()
        if not child:
            try:
                job()
            except ForkedProcess:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- ownership --------------------------------------------------------------------------------------------------------
def test_memory_of_a_job_cannot_be_moved_while_it_is_there(scale: apyfal.Accelerator) -> None:
    memory = Buffer(4096)
    job = scale.prepare(memoryview(memory), pinned(np.zeros(4096), "u1"))
    for call in (memory.close, lambda: memory.resize(1 << 20)):
        with pytest.raises(BufferInUse):
            call()
    job()
    del job
    memory.close()


def test_a_resized_array_is_refused(scale: apyfal.Accelerator) -> None:
    owner = np.zeros(3 * 4096, "u1")
    start = -owner.ctypes.data % 4096
    aligned = owner[start : start + 4096].view("i4")
    job = scale.prepare(aligned, pinned(np.zeros(1024)), copy=False)
    job()
    with pytest.raises(ValueError, match="resize"):
        owner.resize(1 << 21)
    owner.resize(1 << 22, refcheck=False)  # the caller's own risk; the card must not use the memory that it was
    with pytest.raises(ParameterError, match="resized after this job was prepared"):
        job()


def test_a_job_keeps_its_accelerator_and_arrays_alive() -> None:
    src, dst = pinned([1, 2, 3]), pinned([0, 0, 0])
    job = apyfal.Accelerator("scale").prepare(src, dst, a=3)
    del src, dst
    assert list(job()) == [3, 6, 9]
    assert (list(job.src), job.parameters) == ([1, 2, 3], {"a": 3})
