"""A running job that is cancelled, and waits for storage: it ends at once, and gives its worker back."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any, cast

import apyfal
from apyfal.host.protocol.messages import JobSpec, SourceSpec
from apyfal.host.server.jobs.execution import Executor
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.policy.quotas import Quota
from apyfal.host.server.records.journal import Journal
from apyfal.memory import empty

#: Seconds, of which a store's own limits are some minutes.
PATIENCE = 5.0


class _Policy:
    """Admits every address."""

    def admit(self, url: str, *_: object, **__: object) -> str:
        return url


def test_a_job_that_waits_for_a_store(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, apyfal.Accelerator("sha3") as card:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        executor = Executor(
            url_policy=cast("Any", _Policy()),
            open_accelerator=lambda *_, **__: cast("Any", card),
            allocate=lambda nbytes: empty(nbytes, "u1"),
            memory=Quota("memory", 1 << 30),
            spool=cast("Any", None),
            ring_limit=1 << 30,
            run_calls=cast("Any", None),
        )
        journal = Journal(tmp_path / "jobs.sqlite")
        session = Session("alice", {})
        session.accelerator = lambda _: cast("Any", card)  # type: ignore[method-assign]

        async def main() -> Job:
            manager = JobManager(
                journal=journal, saved=SavedOutputs(tmp_path / "outputs"), executor=executor, workers=1, limit=10,
                limit_of_user=10,
            )  # fmt: skip
            job = Job("alice", session, JobSpec(src=SourceSpec(url=url)), "key")
            manager.submit(job, "print")
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)  # it waits for a response now
                begin = time.monotonic()
                manager.cancel(job)
                assert await job.wait(PATIENCE)
            assert time.monotonic() - begin < PATIENCE
            assert await manager.stop(PATIENCE) == []
            return job

        job = asyncio.run(main())
        journal.close()
    assert (job.state, (job.error or {})["type"]) == ("cancelled", "RunCancelled")
