"""Jobs on the workers of a Dask or Ray cluster: each opens the accelerator once and keeps it, with its warm pool.

Jobs travel as names, parameters and URLs, never as data: arrays and file objects are refused, since a cluster's
scheduler is no place for gigabytes. Results that a job returns (digests, counts, arrays where there is no destination)
travel back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from apyfal.accelerator import Accelerator
from apyfal.configuration import ConfigSource
from apyfal.exceptions import ParameterError
from apyfal.pipeline.arrays import each_of
from apyfal.storage import registry

__all__ = ["Cluster", "run_job"]

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
        The submitting process's mounts, from `apyfal.storage.registry.snapshot`.
    src, dst, keywords
        What `apyfal.Accelerator.process` takes.
    """
    key = (os.getpid(), accelerator, repr(config), repr(sorted(definition.items())))
    with _lock:
        card = _open.get(key)
        if card is None:
            mounts.restore()
            card = _open[key] = Accelerator(accelerator, config, **definition)
    return card.process(src, dst, **keywords)


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
        for side, given in (("src", src), ("dst", dst)):
            for name, value in each_of(given):
                if value is not None and not isinstance(value, (str, os.PathLike)):
                    raise ParameterError(
                        f"{name or side}: {type(value).__name__} cannot travel to a cluster; expected a URL or a path "
                        "that all see"
                    )
        keywords = {key: value for key, value in keywords.items() if value is not None}
        if "info_dict" in keywords or "progress" in keywords:
            raise ParameterError("info_dict and progress cannot travel to a cluster")
        future: Future[Any] = self._submit(run_job, *self._arguments, registry.snapshot(), src, dst, keywords)
        return future

    def stop(self) -> None:
        """Leave the cluster as it is: it is the caller's, and its workers' accelerators serve the next pool."""


def _ray_submit(ray: Any) -> Any:
    resources = {"apyfal": 1} if "apyfal" in ray.cluster_resources() else {}
    # A worker that dies takes its job with it; the job's destination is untouched, so that it can run again.
    remote = ray.remote(run_job).options(resources=resources, num_cpus=0 if resources else 1, max_retries=3)

    def submit(_: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = remote.remote(*arguments).future()
        return future

    return submit
