"""Jobs for a cluster: what travels, and several short ones at once. Real clusters are in tests/cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal import cluster_worker, exceptions
from apyfal.exceptions import KernelError, ParameterError


class Scheduler:
    """Runs each task when it is submitted, over pickles of everything as a cluster does; counts them."""

    def __init__(self) -> None:
        self.tasks: list[int] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a task."""
        self.tasks.append(len(arguments[4]) if function is cluster_worker.run_jobs else 1)
        future: Future[Any] = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(arguments))))))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A scheduler whose workers' cards are closed in the end."""
    monkeypatch.setattr(cluster_worker, "_open", opened := {})
    yield Scheduler()
    for card in opened.values():
        card.stop()


def files(folder: Path, count: int) -> list[str]:
    """Return the names of small files that differ."""
    for number in range(count):
        np.full(100, number % 251, np.uint8).tofile(folder / str(number))
    return [str(folder / str(number)) for number in range(count)]


def test_short_jobs_are_sent_several_at_once_and_keep_their_order(scheduler: Scheduler, tmp_path: Path) -> None:
    sources = files(tmp_path, 300)
    with apyfal.AcceleratorPoolExecutor("loopback", 1, executor=scheduler) as pool:
        targets = [f"{name}.out" for name in sources]
        assert list(pool.process_map(sources, targets, timeout=30)) == [None] * 300
    assert [Path(target).read_bytes() for target in targets] == [Path(name).read_bytes() for name in sources]
    assert sum(scheduler.tasks) == 300
    assert scheduler.tasks[0] == 1, "nobody knew yet how long they take"
    assert 1 < max(scheduler.tasks) <= 64


def test_an_error_is_raised_where_its_result_would_have_been(scheduler: Scheduler, tmp_path: Path) -> None:
    sources = files(tmp_path, 20)
    with apyfal.AcceleratorPoolExecutor("gunzip", 1, executor=scheduler) as pool, pytest.raises(KernelError):
        next(pool.process_map(sources))
    with apyfal.AcceleratorPoolExecutor("loopback", 1, executor=scheduler) as pool:
        (tmp_path / "15").unlink()
        done = []
        with pytest.raises(FileNotFoundError) as raised:
            done.extend(result[0] for result in pool.process_map(sources))
        assert str(raised.value) == f"[Errno 2] cannot read: No such file or directory: {sources[15]!r}"
        assert raised.value.path == sources[15]
        assert raised.value.__notes__ == [f"in job 15 of process_map, over {sources[15]}"]
        assert done[:1] == [0]


def test_what_cannot_travel_is_refused(scheduler: Scheduler) -> None:
    with apyfal.AcceleratorPoolExecutor("loopback", 1, executor=scheduler) as pool:
        with pytest.raises(ParameterError, match="src: bytes cannot travel"):
            list(pool.process_map([b"data"]))
        with pytest.raises(ParameterError, match="progress cannot travel"):
            pool.process_submit("a", progress=print)
        with pytest.raises(ParameterError, match="process_map needs"):
            pool.process_map()
    assert scheduler.tasks == []


@pytest.mark.parametrize("kind", sorted(exceptions.StorageError.__subclasses__(), key=str))
def test_storage_errors_travel(kind: type[exceptions.StorageError]) -> None:
    arrived = pickle.loads(pickle.dumps(kind("what", path="b/key", code="Code", status=418)))
    assert type(arrived) is kind
    assert (str(arrived), arrived.path, arrived.code, arrived.status) == ("what", "b/key", "Code", 418)
