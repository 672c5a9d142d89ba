"""Jobs as the daemon keeps them: what was asked, how far it is, and what clients are told of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apyfal.exceptions import HostError
from apyfal.host.protocol.messages import ArrayType, JobSpec
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.policy.tokens import NOTHING, Grant
from apyfal.host.server.transport.bodies import Data

__all__ = ["Conflict", "Job", "KeyReused", "fingerprint"]


class Conflict(HostError):
    """Not possible in this state (HTTP 409).

    Attributes
    ----------
    job_id
        The job that is in the way, where it is one.
    """

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class KeyReused(HostError):
    """The idempotency key belongs to another request (HTTP 422)."""


def fingerprint(text: str, options: object, data: Data | None) -> str:
    """Identify what a job asks for, the whole of its body included.

    Parameters
    ----------
    text
        What is asked, in its canonical form.
    options
        What the accelerator is opened with.
    data
        The body; one that is too large to be hashed here has a digest already.
    """
    digest = hashlib.blake2b(f"{options}\n{text}\n{0 if data is None else data.nbytes}\n".encode(), digest_size=16)
    if data is not None and data.digest is not None:
        digest.update(data.digest.encode())
    elif data is not None and data.array is not None and data.nbytes:
        digest.update(data.array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclass(eq=False)
class Job:
    """One job of this daemon's life. The event loop owns it.

    Attributes
    ----------
    grant
        What the token that asked for it may do.
    id
        Given by the journal.
    state
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    data, output
        What came in with the request; what goes out with the answer.
    output_parts
        Of several outputs: where each lies in that, and what it is.
    output_region
        The shared memory that the output is in instead.
    progress
        Bytes through and bytes in all, set by the worker.
    began, ended
        Whether it was started, and has come to its end; with ``_at``: when, by the monotonic clock.
    answer
        The job as JSON, once it is known.
    """

    user: str
    session: Session
    spec: JobSpec
    key: str
    data: Data | None = None
    grant: Grant = NOTHING
    id: str = ""
    state: str = "queued"
    info: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: dict[str, Any] | None = None
    output: Data | None = None
    output_type: ArrayType | None = None
    output_parts: dict[str, Any] | None = None
    output_region: str | None = None
    progress: tuple[int, int | None] | None = None
    began: bool = False
    began_at: float = 0.0
    ended: bool = False
    ended_at: float = 0.0
    answer: str = ""
    cancelled: bool = False
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As clients see it."""
        output: dict[str, Any] | None = None
        if self.output is not None or self.output_region is not None:
            output = {"nbytes": 0 if self.output is None else self.output.nbytes, "region": self.output_region}
            if self.output_type is not None:
                output.update(self.output_type.document())
            if self.output_parts is not None:
                output["parts"] = self.output_parts
        done, total = self.progress or (0, None)
        return {
            "id": self.id,
            "state": self.state,
            "ran": self.began,
            "info": self.info,
            "result": self.result,
            "output": output,
            "progress": {"done": done, "total": total},
            "error": self.error,
        }

    def text(self) -> str:
        """As JSON: what it ended with, or how it is now."""
        return self.answer if self.ended else json.dumps(self.document())

    def describe(self) -> None:
        """Fix the answer, for the journal. The job has not ended for anybody before `end`."""
        self.answer = json.dumps(self.document())

    def end(self) -> None:
        """Say that the job has ended, and wake those who wait for it."""
        self.ended = True
        self.ended_at = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _wake(future)

    async def wait(self, seconds: float) -> bool:
        """Wait for the end, but not longer; whether it has come."""
        if self.ended or seconds <= 0:
            return self.ended
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        timer = loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
            if not self.ended:
                self._waiting.remove(future)
        return self.ended


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
