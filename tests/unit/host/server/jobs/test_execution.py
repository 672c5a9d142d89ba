"""What a job's client is told is what its accelerator said."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from apyfal.exceptions import KernelError, ParameterError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import DestinationSpec, JobSpec
from apyfal.host.server.jobs.execution import Executor
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.policy.quotas import Quota


class Reporting:
    """An accelerator whose driver reports a value that cannot be sent, and whose kernel may fail."""

    outputs = ("dst",)
    reports_size = False

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def process(self, src: object = None, dst: object = None, *, info_dict: dict[str, Any], **options: Any) -> object:
        info_dict["odd"] = object()
        if self._error is not None:
            raise self._error
        return dst


@pytest.mark.parametrize("error", [KernelError("the kernel stopped at row 3"), None])
def test_the_error_of_a_job_comes_before_one_of_its_report(error: Exception | None) -> None:
    executor = Executor(
        cast("Any", None), lambda: cast("Any", Reporting(error)), lambda nbytes: np.empty(nbytes, np.uint8),
        Quota("bytes of memory", 1 << 20), cast("Any", None), 1 << 30, cast("Any", None),
    )  # fmt: skip
    spec = JobSpec(dst=DestinationSpec(array=ArrayType(np.dtype(np.uint8), (8,))))
    job = Job("alice", Session("alice", {}), spec, "key")
    expected: Any = (KernelError, "at row 3") if error is not None else (ParameterError, "info_dict")
    with pytest.raises(expected[0], match=expected[1]):
        executor.run(job)
    assert executor.memory.used == 0
