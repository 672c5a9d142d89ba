"""A batch on a host: what each job came to, and nothing that outlives it."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest

from apyfal.exceptions import KernelError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import BatchGroup, JobSpec
from apyfal.host.server.jobs.batch_run import run_batch
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.transport.bodies import Data

BYTES = ArrayType(np.dtype(np.uint8), (8,))


class _Card:
    outputs = ("dst",)
    reports_size = False


def _run_calls(card: object, sources: list[Any], dsts: list[Any], keywords: dict[str, Any]) -> list[Future[Any]]:
    futures: list[Future[Any]] = []
    for src, dst in zip(sources, dsts, strict=True):
        future: Future[Any] = Future()
        try:
            if src[0] == 1:
                try:
                    raise ZeroDivisionError("src[0] is 1")
                except ZeroDivisionError as cause:
                    raise KernelError("the kernel failed") from cause
            dst[...] = src
            future.set_result(dst)
        except KernelError as error:
            future.set_exception(error)
        futures.append(future)
    return futures


@pytest.mark.parametrize("failing", [None, 1])
def test_a_batch_keeps_nothing_once_its_results_are_dropped(failing: int | None) -> None:
    body = np.zeros(24, np.uint8)
    if failing is not None:
        body[8 * failing] = 1
    spec = JobSpec(batch=(BatchGroup(3, BYTES, BYTES),))
    job = Job("alice", Session("alice", {}), spec, "key", Data(array=body))
    made: list[weakref.ref[Any]] = [weakref.ref(body)]

    def allocate(kind: ArrayType) -> np.ndarray[Any, Any]:
        array = np.empty(kind.shape, kind.dtype)
        made.append(weakref.ref(array))
        return array

    gc.disable()
    try:
        run_batch(job, cast("Any", _Card()), allocate, _run_calls, {}, {})
        assert job.batch is not None
        assert [one.state for one in job.batch] == ["failed" if number == failing else "done" for number in range(3)]
        if failing is not None:
            error = job.batch[failing].error
            assert isinstance(error, KernelError)
            assert isinstance(error.__cause__, ZeroDivisionError)
            del error
        job.data = job.output = None
        del body
        assert [one() for one in made] == [None] * 4  # the errors are still there
    finally:
        gc.enable()
