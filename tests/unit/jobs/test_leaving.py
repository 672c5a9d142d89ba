"""Leaving ``with`` waits for submitted jobs, an error cancels them; maps start at once; `stop` can be repeated.

The same for an accelerator, a pool, and a pool over another executor.
"""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal import cluster_worker
from apyfal._core.errors import live
from apyfal.cluster import Cluster
from apyfal.definition import registry
from apyfal.definition.models import model
from apyfal.exceptions import BufferInUse, ClosedError, ParameterError, RunCancelled
from apyfal.jobs.base import BaseAccelerator
from apyfal.jobs.ordered_map import Pairs

#: Seconds that are only waited for if something is wrong.
PATIENCE = 20.0
Open = Callable[..., Any]


@pytest.fixture(params=["accelerator", "pool", "cluster"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open one or the other for a name of an accelerator."""
    monkeypatch.setattr(registry, "_definitions", {})
    monkeypatch.setattr(cluster_worker, "_open", workers := {})
    executor = ThreadPoolExecutor(2)

    def open_(name: str, **keywords: Any) -> Any:
        if request.param == "accelerator":
            return apyfal.Accelerator(name, **keywords)
        if request.param == "pool":
            return apyfal.AcceleratorPoolExecutor(name, 1, **keywords)
        return apyfal.AcceleratorPoolExecutor(name, 2, executor=executor, **keywords)

    yield open_
    executor.shutdown(cancel_futures=True)
    for worker in workers.values():
        worker.stop()


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file that takes a while: 30 ms a job with the model below."""
    (tmp_path / "source").write_bytes(bytes(range(256)) * 8)

    @model("slow", dtype="uint8", replace=True)
    def slow(src: np.ndarray, dst: np.ndarray) -> None:
        time.sleep(0.03)
        dst[:] = src

    @model("slower", dtype="uint8", replace=True)
    def slower(src: np.ndarray, dst: np.ndarray) -> None:
        time.sleep(0.3)
        dst[:] = src

    return str(tmp_path / "source")


def targets(folder: Path, count: int) -> list[str]:
    return [str(folder / f"out{number}") for number in range(count)]


def written(names: list[str]) -> int:
    return sum(Path(name).exists() for name in names)


def test_leaving_waits_for_submitted_jobs(opened: Open, source: str, tmp_path: Path) -> None:
    names = targets(tmp_path, 12)
    with opened("slow") as one:
        futures = [one.process_submit(source, name) for name in names]
    assert [future.exception(0) for future in futures] == [None] * 12
    assert written(names) == 12
    with pytest.raises(ClosedError):
        one.process_submit(source)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_cancels_what_was_submitted(
    opened: Open, source: str, tmp_path: Path, error: type[BaseException]
) -> None:
    names = targets(tmp_path, 40)
    start = time.monotonic()
    futures: list[Future[Any]] = []

    def leave() -> None:
        with opened("slower") as one:
            futures.extend(one.process_submit(source, name) for name in names)
            raise error

    with pytest.raises(error):
        leave()
    concurrent.futures.wait(futures, PATIENCE)
    assert written(names) < 20
    assert time.monotonic() - start < 0.3 * 20
    assert {type(f.exception()) for f in futures if not f.cancelled()} <= {type(None), RunCancelled}
    assert sum(f.cancelled() for f in futures) >= 20


def test_leaving_waits_for_the_jobs_of_a_map_that_nobody_reads(opened: Open, source: str, tmp_path: Path) -> None:
    names = targets(tmp_path, 30)
    with opened("slow") as one:
        one.process_map([source] * 30, names)
        kept = one.process_map([source] * 30, (name + "b" for name in names))  # of unknown length: the first ones
    assert written(names) == 30
    assert 0 < written([name + "b" for name in names]) < 30
    with pytest.warns(RuntimeWarning, match=r"never read, so only the first \d+ jobs were started"):
        del kept


def test_a_map_starts_at_once_and_leaving_it_early_drops_the_rest(opened: Open, source: str, tmp_path: Path) -> None:
    names = targets(tmp_path, 400)  # more than the first batches hold
    with opened("slow") as one:
        results = one.process_map([source] * 400, names)
        deadline = time.monotonic() + PATIENCE
        while not written(names) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert written(names)
        for _ in results:
            del results
            break
        gc.collect()
    assert written(names) < 400


def test_a_map_is_closed_before_it_is_read(opened: Open, source: str, tmp_path: Path) -> None:
    names = targets(tmp_path, 400)
    with opened("slow") as one:
        iter(one.process_map([source] * 400, names)).close()
    assert written(names) < 400


def test_a_map_is_closed_while_another_thread_reads_it(opened: Open, source: str, tmp_path: Path) -> None:
    names = targets(tmp_path, 400)
    ends: list[BaseException] = []
    with opened("slow") as one:
        results = one.process_map([source] * 400, names)

        def read() -> None:
            try:
                while True:
                    next(results)
            except (CancelledError, StopIteration) as end:
                ends.append(end)

        reader = threading.Thread(target=read)
        reader.start()
        deadline = time.monotonic() + PATIENCE
        while not written(names) and time.monotonic() < deadline:
            time.sleep(0.005)
        results.close()
        reader.join(PATIENCE)
    assert len(ends) == 1
    assert written(names) < 400


@pytest.mark.parametrize(
    ("srcs", "dsts", "text"),
    [
        (["a", "b"], ["c"], "srcs is longer than dsts, which has 1"),
        (["a"], ["c", "d"], "dsts is longer than srcs, which has 1"),
        (range(0), ["c"], "dsts is longer than srcs, which has 0"),
        (np.zeros((2, 3)), ["c"], "srcs is longer than dsts, which has 1"),
        ("file", None, "srcs: a str is one source; expected an iterable"),
        (b"data", None, "srcs: a bytes is one source"),
        ({"a": "b"}, None, "srcs: a dict is one source"),
        (memoryview(b"data"), None, "srcs: a memoryview is one source"),
        (["a"], "out", "dsts: a str is one destination"),
        (Path("file"), None, "srcs: PosixPath is not iterable"),
        (3, None, "srcs: int is not iterable"),
        (None, None, "process_map needs srcs, dsts or both"),
    ],
)
def test_a_wrong_map_is_refused_at_once(opened: Open, srcs: Any, dsts: Any, text: str) -> None:
    with opened("loopback") as one, pytest.raises(ParameterError, match=text):
        one.process_map(srcs, dsts)


def test_lengths_that_are_not_stated_are_compared_while_reading(opened: Open, source: str) -> None:
    with opened("slow") as one, pytest.raises(ParameterError, match="srcs is longer than dsts, which has 1"):
        list(one.process_map((source for _ in range(3)), [source + ".out"]))


def test_pairs_tell_which_one_is_longer() -> None:
    assert list(Pairs(iter("ab"), iter("cd"))) == [("a", "c"), ("b", "d")]
    assert list(Pairs(None, ["c"])) == [(None, "c")]
    with pytest.raises(ParameterError, match="dsts is longer than srcs, which has 2"):
        list(Pairs(iter("ab"), iter("cde")))


def test_infos_come_in_order(opened: Open, source: str, tmp_path: Path) -> None:
    infos: list[dict[str, Any]] = []
    sources = []
    for number in range(5):
        (tmp_path / f"in{number}").write_bytes(bytes(100 + number))
        sources.append(str(tmp_path / f"in{number}"))
    with opened("loopback") as one:
        assert [len(result) for result in one.process_map(sources, info_list=infos)] == [100, 101, 102, 103, 104]
        assert [info["bytes_in"] for info in infos] == [100, 101, 102, 103, 104]
        info: dict[str, Any] = {}
        one.process_submit(sources[3], info_dict=info).result(PATIENCE)
        assert info["bytes_in"] == 103
        assert info["timeline"]


# -- the pool as an executor ------------------------------------------------------------------------------------------
@pytest.fixture(params=["pool", "cluster"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, source: str) -> Iterator[Any]:
    monkeypatch.setattr(cluster_worker, "_open", workers := {})
    executor = ThreadPoolExecutor(2)
    with apyfal.AcceleratorPoolExecutor("slow", 1, executor=executor if request.param == "cluster" else None) as made:
        yield made
    executor.shutdown()
    for worker in workers.values():
        worker.stop()


def test_the_pool_is_an_executor(pool: Any, source: str, tmp_path: Path) -> None:
    assert isinstance(pool, Executor)
    names = targets(tmp_path, 5)
    assert list(pool.map(pool.process, [source] * 5, names)) == [None] * 5
    assert written(names) == 5
    future = pool.submit(pool.process, source, timeout=PATIENCE)
    assert isinstance(future, Future)
    assert len(future.result(PATIENCE)) == 2048
    assert pool.submit(pow, 2, 5).result(PATIENCE) == 32
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(PATIENCE)
    assert list(concurrent.futures.as_completed([pool.submit(pool.process, source)], PATIENCE))


def test_functions_may_use_the_pool(pool: Any, source: str) -> None:
    if not isinstance(pool._jobs, Cluster):  # else a thread of the cluster waits for another
        assert list(pool.map(lambda name: len(pool.process(name)), [source] * 8)) == [2048] * 8


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("cancel", [True, False])
def test_shutdown(pool: Any, source: str, tmp_path: Path, wait: bool, cancel: bool) -> None:
    names = targets(tmp_path, 20)
    futures = [pool.submit(pool.process, source, name) for name in names]
    pool.shutdown(wait, cancel_futures=cancel)
    with pytest.raises(RuntimeError):
        pool.submit(pool.process, source)
    with pytest.raises(RuntimeError):
        pool.submit(pow, 2, 5)
    if wait:
        assert all(future.done() for future in futures)
    concurrent.futures.wait(futures, PATIENCE)
    cancelled = sum(future.cancelled() for future in futures)
    assert (cancelled > 0) is cancel
    assert written(names) == 20 - cancelled
    for future in futures:
        if future.cancelled():
            with pytest.raises(CancelledError):
                future.result(0)


# -- a job that hangs -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["accelerator", "pool"])
def test_stop_with_a_job_that_hangs_can_be_repeated(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})
    begun, go = threading.Event(), threading.Event()

    @model("stuck", dtype="uint8")
    def stuck(src: np.ndarray, dst: np.ndarray) -> None:
        begun.set()
        go.wait(PATIENCE)

    before = live()["devices"]
    one: Any = apyfal.Accelerator("stuck") if kind == "accelerator" else apyfal.AcceleratorPoolExecutor("stuck", 1)
    future = one.process_submit(b"abc")
    assert begun.wait(PATIENCE)
    for _ in range(2):
        with pytest.raises(BufferInUse, match="1 runs are in flight; it is closed when they end"):
            one.stop()
    assert isinstance(future.exception(PATIENCE), RunCancelled)
    assert live()["devices"] == before + 1
    go.set()
    deadline = time.monotonic() + PATIENCE
    while live()["devices"] > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert live()["devices"] == before
    one.stop()
    with pytest.raises(ClosedError):
        one.process_submit(b"abc")


def test_a_pool_stops_the_devices_behind_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})
    begun, go = threading.Event(), threading.Event()

    @model("stuck", dtype="uint8")
    def stuck(src: np.ndarray, dst: np.ndarray) -> None:
        begun.set()
        go.wait(PATIENCE)

    pool = apyfal.AcceleratorPoolExecutor("stuck", 3, emulator={"devices": 3})
    before = live()["devices"]
    pool.process_submit(b"abc")
    assert begun.wait(PATIENCE)
    with pytest.raises(BufferInUse):
        pool.stop()
    assert live()["devices"] == before - 2
    go.set()
    deadline = time.monotonic() + PATIENCE
    while live()["devices"] > before - 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    pool.stop()
    assert live()["devices"] == before - 3


def test_accelerators_share_a_base() -> None:
    from apyfal.host.client.accelerator import RemoteAccelerator

    assert issubclass(apyfal.Accelerator, BaseAccelerator)
    assert issubclass(RemoteAccelerator, BaseAccelerator)


def test_a_callback_cannot_wait_for_its_own_job(source: str) -> None:
    """It would wait for ever: the job has not ended before its callbacks have."""
    found: list[object] = []
    done = threading.Event()
    pool = apyfal.AcceleratorPoolExecutor("slow", 1)

    def leave(_: Future[Any]) -> None:
        for wait in (True, False):
            try:
                pool.shutdown(wait=wait)
                found.append(None)
            except ParameterError as error:
                found.append(str(error))
        done.set()

    future = pool.process_submit(source)
    future.add_done_callback(leave)
    assert done.wait(PATIENCE)
    assert "expected wait=False" in str(found[0])
    assert found[1] is None
    pool.shutdown()
    with pytest.raises(ClosedError):
        pool.process_submit(source)


@pytest.mark.parametrize("count", [0, -1, "2", 1.5, [1]])
def test_a_pool_takes_whole_numbers_of_workers(count: Any) -> None:
    with pytest.raises(ParameterError, match=r"workers_count is .*expected 1 or more, as an int"):
        apyfal.AcceleratorPoolExecutor("loopback", count)


@pytest.mark.parametrize("function", [np.ones(3), "s3://b/k", None, 5, b"x"])
def test_only_functions_are_submitted(function: Any) -> None:
    with (
        apyfal.AcceleratorPoolExecutor("loopback", 1) as pool,
        pytest.raises(ParameterError, match=r"expected a function.*process_submit"),
    ):
        pool.submit(function)
