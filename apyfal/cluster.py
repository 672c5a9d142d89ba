"""Jobs on the workers of a Dask or Ray cluster: each opens the accelerator once and keeps it, with its warm pool.

Jobs travel as names, parameters and URLs, never as data: arrays and file objects are refused, since a cluster's
scheduler is no place for gigabytes. Results that a job returns (digests, counts, arrays where there is no destination)
travel back.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from time import perf_counter
from typing import Any

from apyfal.accelerator import Accelerator
from apyfal.config.configuration import ConfigSource
from apyfal.exceptions import ParameterError
from apyfal.jobs.ordered_map import name_job, pairs_of
from apyfal.pipeline.arrays import each_of
from apyfal.storage.mounting import table

__all__ = ["Cluster", "run_job", "run_jobs"]

#: What is sent to a worker at once should keep it busy for so many seconds: a scheduler takes a millisecond or more for
#: each task. As many jobs as that takes, but no more than `_MOST`, since they are lost together with their worker.
_BUSY = 0.1
_MOST = 64
#: Tasks that are sent ahead for each worker: one at work, one waiting there, and one result on its way back.
_AHEAD = 3

_open: dict[object, Accelerator] = {}
_lock = threading.Lock()


def run_job(
    accelerator: str | None,
    config: ConfigSource,
    definition: Mapping[str, Any],
    mounts: Any,
    src: object,
    dst: object,
    keywords: Mapping[str, Any],
) -> Any:
    """Run one job in a worker process; called by the cluster.

    Parameters
    ----------
    accelerator, config, definition
        What `apyfal.Accelerator` takes; it is opened by the first job and kept by the process.
    mounts
        The submitting process's mounts, from `apyfal.storage.mounting.table.snapshot`.
    src, dst, keywords
        What `apyfal.Accelerator.process` takes.
    """
    return _card(accelerator, config, definition, mounts).process(src, dst, **keywords)


def run_jobs(
    accelerator: str | None,
    config: ConfigSource,
    definition: Mapping[str, Any],
    mounts: Any,
    pairs: Sequence[tuple[object, object]],
    keywords: Mapping[str, Any],
) -> tuple[list[tuple[Any, BaseException | None]], float]:
    """Run several jobs in a worker process, where the small ones travel together; called by the cluster.

    Parameters
    ----------
    accelerator, config, definition, mounts, keywords
        As for `run_job`, for all of them.
    pairs
        Source and destination of each.

    Returns
    -------
    list of (result, error)
        What each of them ended with.
    float
        Seconds that they took.
    """
    start = perf_counter()
    card = _card(accelerator, config, definition, mounts)
    futures = [card.process_submit(src, dst, **keywords) for src, dst in pairs]
    errors = [future.exception() for future in futures]  # waits
    ended = [(future.result() if error is None else None, error) for future, error in zip(futures, errors, strict=True)]
    return ended, perf_counter() - start


def _card(accelerator: str | None, config: ConfigSource, definition: Mapping[str, Any], mounts: Any) -> Accelerator:
    """Return this process's accelerator, opened when it is first needed."""
    key = (os.getpid(), accelerator, repr(config), repr(sorted(definition.items())))
    with _lock:
        card = _open.get(key)
        if card is None:
            mounts.restore()
            card = _open[key] = Accelerator(accelerator, config, **definition)
        return card


class Cluster:
    """Submits jobs to a cluster.

    Parameters
    ----------
    executor
        With ``submit(function, *arguments) -> Future`` as Dask's ``ClientExecutor``; or the module `ray`, initialised,
        whose tasks then ask for the resource ``{"apyfal": 1}`` where the cluster has it.
    accelerator, config, definition
        For `run_job`.
    """

    def __init__(
        self, executor: Any, accelerator: str | None, config: ConfigSource, definition: Mapping[str, Any]
    ) -> None:
        self._submit = _ray_submit(executor) if getattr(executor, "__name__", "") == "ray" else executor.submit
        self._arguments = (accelerator, config, dict(definition))

    def submit(self, src: object, dst: object, keywords: Mapping[str, Any]) -> Future[Any]:
        """Run one job on some worker."""
        _check(src, dst)
        future: Future[Any] = self._submit(run_job, *self._arguments, table.snapshot(), src, dst, _travelling(keywords))
        return future

    def map(
        self,
        srcs: Iterable[object] | None,
        dsts: Iterable[object] | None,
        info_list: list[dict[str, Any]] | None,
        keywords: Mapping[str, Any],
        width: int,
    ) -> Iterator[Any]:
        """Run many jobs on all workers, short ones several at once; see `apyfal.Accelerator.process_map`.

        Parameters
        ----------
        srcs, dsts, info_list
            As there.
        keywords
            Of `process`, for all jobs.
        width
            Workers to keep busy.
        """
        if info_list is not None:
            raise ParameterError("info_list cannot travel to a cluster")
        return self._mapped(pairs_of(srcs, dsts), _travelling(keywords), width)

    def _mapped(self, pairs: Iterator[tuple[object, object]], keywords: dict[str, Any], width: int) -> Iterator[Any]:
        pending: deque[tuple[Future[tuple[list[tuple[Any, BaseException | None]], float]], list[object]]] = deque()
        together, number = 1, 0
        try:
            while (several := list(islice(pairs, together))) or pending:
                if several:
                    for pair in several:
                        _check(*pair)
                    task = self._submit(run_jobs, *self._arguments, table.snapshot(), several, keywords)
                    pending.append((task, [src for src, _ in several]))
                while pending and (not several or len(pending) >= _AHEAD * width):
                    future, srcs = pending.popleft()
                    ended, seconds = future.result()
                    together = _how_many(len(ended), seconds)
                    for (result, error), src in zip(ended, srcs, strict=True):
                        if error is not None:
                            name_job(error, number, src)
                            raise error
                        yield result
                        number += 1
        finally:
            for future, _ in pending:
                future.cancel()

    def stop(self) -> None:
        """Leave the cluster as it is: it is the caller's, and its workers' accelerators serve the next pool."""


def _check(src: object, dst: object) -> None:
    """Raise `ParameterError` where a job is over data that is only here."""
    for side, given in (("src", src), ("dst", dst)):
        for name, value in each_of(given):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise ParameterError(
                    f"{name or side}: {type(value).__name__} cannot travel to a cluster; expected a URL or a path "
                    "that all see"
                )


def _travelling(keywords: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in keywords.items() if value is not None}
    if "info_dict" in given or "progress" in given:
        raise ParameterError("info_dict and progress cannot travel to a cluster")
    return given


def _how_many(jobs: int, seconds: float) -> int:
    """Return how many jobs to send next, when so many took so long."""
    return max(min(int(_BUSY * jobs / max(seconds, 1e-6)), 4 * jobs, _MOST), 1)


def _ray_submit(ray: Any) -> Any:
    resources = {"apyfal": 1} if "apyfal" in ray.cluster_resources() else {}
    # A worker that dies takes its jobs with it; a destination is whole or untouched, so that they can run again.
    options = {"resources": resources, "num_cpus": 0 if resources else 1, "max_retries": 3}
    remote = {function: ray.remote(function).options(**options) for function in (run_job, run_jobs)}

    def submit(function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = remote[function].remote(*arguments).future()
        return future

    return submit
