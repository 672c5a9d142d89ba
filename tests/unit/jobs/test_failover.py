"""A pool that loses a card: which jobs run again, what is waited for, and that every future comes to an end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ClosedError, DeviceLost, DriverError, ParameterError
from apyfal.jobs.failover.attempts import PooledTask
from apyfal.jobs.failover.device_group import DeviceGroup
from apyfal.jobs.queue import TaskQueue

#: Seconds that are only waited for if something is wrong.
PATIENCE = 30.0


@pytest.fixture
def pool() -> Iterator[apyfal.AcceleratorPoolExecutor]:
    """Two software cards with the accelerator ``scale``."""
    made = apyfal.AcceleratorPoolExecutor("scale", emulator={"devices": 2})
    yield made
    made.stop()


def replace_process(
    pool: apyfal.AcceleratorPoolExecutor, index: int, process: Callable[..., Any]
) -> Callable[..., Any]:
    """Let one card run its jobs by `process`; return what ran them before."""
    card = pool._accelerators[index]
    before = card.process
    card.process = process  # type: ignore[method-assign]
    return before


def test_a_card_that_is_lost_while_the_pool_is_left_takes_no_job_along(
    pool: apyfal.AcceleratorPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, leaving = threading.Event(), threading.Event()
    join = DeviceGroup.join

    def joining(group: DeviceGroup) -> None:
        assert began.wait(PATIENCE)
        leaving.set()
        join(group)

    def lost(*_: Any, **__: Any) -> None:
        began.set()
        assert leaving.wait(PATIENCE)
        raise DeviceLost("the first card was lost")

    def waiting(*arguments: Any, **keywords: Any) -> Any:
        assert leaving.wait(PATIENCE)
        return real(*arguments, **keywords)

    monkeypatch.setattr(DeviceGroup, "join", joining)
    replace_process(pool, 0, lost)
    real = replace_process(pool, 1, waiting)
    with pool:
        futures = [pool.process_submit(np.full(100_000, number, "f4"), a=2) for number in range(20)]
    assert [future.result(PATIENCE)[0] for future in futures] == [2 * number for number in range(20)]
    assert [card.error is None for card in pool.statistics] == [False, True]


def _in_place(_: Path) -> tuple[Any, Any]:
    array = np.arange(1000, dtype="f4")
    return array, array


def _over_the_same_memory(_: Path) -> tuple[Any, Any]:
    memory = bytearray(4000)
    return memory, np.frombuffer(memory, "f4")


def _one_file(folder: Path) -> tuple[Any, Any]:
    (folder / "data").write_bytes(bytes(4000))
    (folder / "link").symlink_to(folder / "data")
    return str(folder / "data"), folder / "link"


def _one_object(_: Path) -> tuple[Any, Any]:
    return "s3://bucket/key", "s3://bucket/key"


def _two_arrays(_: Path) -> tuple[Any, Any]:
    return np.arange(1000, dtype="f4"), np.zeros(1000, "f4")


def _a_new_array(_: Path) -> tuple[Any, Any]:
    return np.arange(1000, dtype="f4"), None


def _two_files(folder: Path) -> tuple[Any, Any]:
    return str(folder / "one"), folder / "two"


def _a_file_into_an_array(folder: Path) -> tuple[Any, Any]:
    return str(folder / "one"), np.zeros(1000, "f4")


@pytest.mark.parametrize(
    ("make", "runs"),
    [
        (_in_place, 1),
        (_over_the_same_memory, 1),
        (_one_file, 1),
        (_one_object, 1),
        (_two_arrays, 2),
        (_a_new_array, 2),
        (_two_files, 2),
        (_a_file_into_an_array, 2),
    ],
)
def test_a_job_whose_source_may_be_changed_already_does_not_run_again(
    pool: apyfal.AcceleratorPoolExecutor, tmp_path: Path, make: Callable[[Path], tuple[Any, Any]], runs: int
) -> None:
    """A lost card may have replaced a part of the source by its result, which another run would take for data."""
    ran = []

    def lost(*arguments: Any, **_: Any) -> None:
        ran.append(arguments)
        raise DeviceLost("a card was lost")

    for index in range(2):
        replace_process(pool, index, lost)
    with pytest.raises(DeviceLost, match="a card was lost"):
        pool.process_submit(*make(tmp_path), a=2).result(PATIENCE)
    assert len(ran) == runs


def test_a_card_that_is_lost_in_the_middle_of_a_job_in_place_leaves_no_wrong_result(
    pool: apyfal.AcceleratorPoolExecutor,
) -> None:
    array = apyfal.empty(1 << 23, "f4")
    array[...] = 1
    pool._accelerators[0]._context.device.control("lose_device", 10)  # some chunks have been written by then
    future: Future[Any] = Future()
    group = pool._jobs
    assert isinstance(group, DeviceGroup)
    group._run(0, [PooledTask(future, array, array, {"a": 2}, None)])
    assert pool.statistics[0].error is not None
    with pytest.raises(DeviceLost):
        future.result(PATIENCE)


def test_submitted_runs_of_a_prepared_job_are_waited_for_and_never_run_at_once(
    pool: apyfal.AcceleratorPoolExecutor,
) -> None:
    src, dst = np.arange(1000, dtype="f4"), np.zeros(1000, "f4")
    running, most = [], []

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def process(*arguments: Any, **keywords: Any) -> Any:
            running.append(None)
            most.append(len(running))
            try:
                return real(*arguments, **keywords)[5]
            finally:
                running.pop()

        return process

    for index in range(2):
        real = pool._accelerators[index].process
        replace_process(pool, index, counting(real))
    with pool:
        job = pool.prepare(src, dst, a=2)
        futures = [job.submit(a=number) for number in range(20)]
    assert [future.result(PATIENCE) for future in futures] == [5 * number for number in range(20)]
    assert max(most) == 1
    with pytest.raises(ClosedError):
        job.submit()


def test_a_run_of_a_prepared_job_goes_to_another_card(pool: apyfal.AcceleratorPoolExecutor) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise DeviceLost("the first card was lost")

    replace_process(pool, 0, lost)
    src, dst = np.arange(1000, dtype="f4"), np.zeros(1000, "f4")
    job = pool.prepare(src, dst, a=2)
    while pool.statistics[0].error is None:
        report = job.submit(report=True, b=1).result(PATIENCE)
        assert report.result is dst
        np.testing.assert_array_equal(dst, src * 2 + 1)


def test_a_function_of_the_pool_cannot_wait_for_itself(pool: apyfal.AcceleratorPoolExecutor) -> None:
    with pytest.raises(ParameterError, match="wait=False"):
        pool.submit(pool.shutdown).result(PATIENCE)


def test_a_function_that_hangs_does_not_keep_the_interpreter() -> None:
    script = (
        "import threading, apyfal\n"
        "pool = apyfal.AcceleratorPoolExecutor('loopback', 1)\n"
        "began = threading.Event()\n"
        "pool.submit(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
        "pool.stop()\n"
        "print('left')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.stdout.splitlines()[-1:] == ["left"], done.stderr


def test_a_job_that_is_put_again_while_the_pool_stops_comes_to_its_end(
    pool: apyfal.AcceleratorPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    task = PooledTask(future, b"data", None, {}, None)
    task.retried = True
    stop = TaskQueue.stop

    def stopping(queue: TaskQueue) -> Any:
        if queue is pool._jobs._queue:  # type: ignore[union-attr]
            queue._waiting.append(task)  # as a thread whose card was lost
        return stop(queue)

    monkeypatch.setattr(TaskQueue, "stop", stopping)
    pool.stop()
    with pytest.raises(ClosedError):
        future.result(PATIENCE)


@pytest.mark.parametrize("broken", [MemoryError("no memory"), OSError("no device")])
def test_an_error_while_the_card_is_asked_ends_the_job(pool: apyfal.AcceleratorPoolExecutor, broken: Exception) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise DriverError("it may be the job, or the card")

    def empty(*_: Any, **__: Any) -> None:
        raise broken

    for index in range(2):
        replace_process(pool, index, fails)
        pool._accelerators[index].empty = empty  # type: ignore[method-assign, assignment]
    with pytest.raises(DriverError, match="it may be"):
        pool.process_submit(b"data").result(PATIENCE)
    assert any(card.error is not None for card in pool.statistics) == isinstance(broken, OSError)


def test_an_error_of_a_batch_as_a_whole_ends_its_jobs(pool: apyfal.AcceleratorPoolExecutor) -> None:
    group = pool._jobs
    assert isinstance(group, DeviceGroup)
    futures: list[Future[Any]] = [Future() for _ in range(3)]

    def refuse(_: Any) -> None:
        raise RuntimeError("the batch")

    pool._accelerators[0]._submitter.run = refuse  # type: ignore[method-assign]
    group._run(0, [PooledTask(future, b"data", None, {}, None) for future in futures])
    for future in futures:
        with pytest.raises(RuntimeError, match="the batch"):
            future.result(0)
