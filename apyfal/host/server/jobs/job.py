"""The daemon's record of a job: the request, its state, and the document that clients see."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apyfal.exceptions import HostError
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import JobSpec
from apyfal.host.server.jobs.early_output import EarlyOutput
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.policy.tokens import NOTHING, Grant
from apyfal.host.server.transport.bodies import Data
from apyfal.storage.flow.cancel import CancelToken

__all__ = ["KEPT_IN_JOURNAL", "BatchResult", "Conflict", "Job", "KeyReused", "fingerprint"]

#: outputs up to this size are kept in the journal, so that they survive any end of the daemon
KEPT_IN_JOURNAL = 64 << 10
#: the same for all outputs of a batch together
_KEPT_OF_BATCH = 2 << 20


class Conflict(HostError):
    """The job's state does not allow this (HTTP 409).

    Attributes
    ----------
    job_id
        The job that is the obstacle, if it is a job.
    """

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class KeyReused(HostError):
    """The idempotency key belongs to another request (HTTP 422)."""


def fingerprint(text: str, options: object, data: Data | None) -> str:
    """Return a digest of everything that a job asks for, including its whole body.

    Parameters
    ----------
    text
        The request in its canonical form.
    options
        The options that the accelerator is opened with.
    data
        The body. If it is too large to be hashed here, its digest has already been computed.
    """
    digest = hashlib.blake2b(f"{options}\n{text}\n{0 if data is None else data.nbytes}\n".encode(), digest_size=16)
    if data is not None and data.digest is not None:
        digest.update(data.digest.encode())
    elif data is not None and data.array is not None and data.nbytes:
        digest.update(data.array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of one job of a batch.

    Attributes
    ----------
    state
        ``done``, ``failed``, or ``alone``: it has not run, and has to be submitted alone.
    output
        Type of its output.
    result, exact
        Its result, if that is not an array, and its exact form; see `Job`.
    error
        The document of its error; before `JobManager` has described it, the error itself.
    """

    state: str
    output: ArrayType | None = None
    result: Any = None
    exact: dict[str, Any] | None = None
    error: Any = None

    def document(self) -> dict[str, Any]:
        """Return the JSON form, without fields that are ``None``."""
        document: dict[str, Any] = {"state": self.state}
        if self.output is not None:
            document["output"] = self.output.document()
        return document | {
            name: value
            for name, value in (("result", self.result), ("exact", self.exact), ("error", self.error))
            if value is not None
        }


@dataclass(eq=False)
class Job:
    """One job since the daemon was started. Owned by the event loop.

    Attributes
    ----------
    grant
        Permissions of the token that submitted it.
    id
        Assigned by the journal.
    state
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    result, exact
        The result in its plain form; of the result and of `info`, by name, the exact forms of those that need one: see
        `apyfal.host.protocol.values`.
    data, output
        The data of the request, and the data of the response.
    output_parts
        For several outputs: offset and type of each within `output`.
    output_region
        The shared memory that holds the output instead.
    written
        Bytes that the kernel wrote at the beginning of the destination array; ``None``: it filled the array.
    batch
        For a batch: the outcome of each of its jobs, in order.
    progress
        Bytes processed and total bytes, set by the worker.
    began, ended
        Whether the job has started, and has ended. ``began_at``, ``ended_at``: when, in seconds of the monotonic clock.
    answer
        The job as JSON, once it has ended.
    wants_info
        Whether its client needs `info`.
    rest
        The rest of a job that was begun on the event loop: waits for its end, in a worker thread.
    early
        The output while the job runs, for its client; ``None``: the client does not take it early.
    token
        Set when the job is cancelled: ends what it waits for in storage.
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
    exact: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    output: Data | None = None
    output_type: ArrayType | None = None
    output_parts: dict[str, Any] | None = None
    output_region: str | None = None
    written: int | None = None
    batch: list[BatchResult] | None = None
    progress: tuple[int, int | None] | None = None
    began: bool = False
    began_at: float = 0.0
    ended: bool = False
    ended_at: float = 0.0
    answer: str = ""
    cancelled: bool = False
    wants_info: bool = True
    rest: Callable[[], None] | None = None
    early: EarlyOutput | None = None
    token: CancelToken = field(default_factory=CancelToken)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _following: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        """Return whether the output is small enough for the journal."""
        if self.output is None:
            return False
        jobs = 1 if self.batch is None else len(self.batch)
        return self.output.nbytes <= max(KEPT_IN_JOURNAL, min(jobs * KEPT_IN_JOURNAL, _KEPT_OF_BATCH))

    def document(self) -> dict[str, Any]:
        """Return the job as the JSON object that clients see."""
        output: dict[str, Any] | None = None
        if self.output is not None or self.output_region is not None or self.written is not None:
            nbytes = self.output.nbytes if self.output is not None else self.written or 0
            output = {"nbytes": nbytes, "region": self.output_region}
            if self.written is not None:
                output["part"] = True
            if self.output_type is not None:
                output.update(self.output_type.document())
            if self.output_parts is not None:
                output["parts"] = self.output_parts
        done, total = self.progress or (0, None)
        document: dict[str, Any] = {} if self.batch is None else {"batch": _groups(self.batch)}
        if self.exact:
            document["exact"] = self.exact
        return {
            **document,
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
        """Return the job as JSON text: the final answer, or the current state."""
        return self.answer if self.ended else json.dumps(self.document())

    def describe(self) -> None:
        """Set `answer`, for the journal. Clients see the end of the job only after `end`."""
        output, kind = self.output, self.output_type
        more = (self.result, self.error, self.batch, self.output_parts, self.output_region, self.written)
        if self.state != "done" or self.info or output is None or kind is None or more != _NOTHING_MORE:
            self.answer = json.dumps(self.document())
        else:  # most answers of small jobs differ in the id only
            self.answer = f'{{"id": "{self.id}", {_like(self.began, output.nbytes, kind, self.progress)}'

    def end(self) -> None:
        """Mark the job as ended, and wake everything that waits for it."""
        self.ended = True
        self.ended_at = time.monotonic()
        self.early = None
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _wake(future)
        following, self._following = self._following, []
        for call in following:
            call()

    def add_done_callback(self, call: Callable[[], None]) -> None:
        """Call `call` when the job, which has not ended, ends."""
        self._following.append(call)

    async def wait(self, seconds: float) -> bool:
        """Wait until the job has ended, at most for `seconds`; return whether it has."""
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


_NOTHING_MORE = (None,) * 6


@functools.lru_cache(maxsize=256)
def _like(began: bool, nbytes: int, kind: ArrayType, progress: tuple[int, int | None] | None) -> str:
    """Return the answer of a job whose only result is an array, from the key ``state`` on."""
    done, total = progress or (0, None)
    document = {
        "state": "done",
        "ran": began,
        "info": {},
        "result": None,
        "output": {"nbytes": nbytes, "region": None, **kind.document()},
        "progress": {"done": done, "total": total},
        "error": None,
    }
    return json.dumps(document)[1:]


def _groups(results: list[BatchResult]) -> list[dict[str, Any]]:
    """Return the JSON form of a batch's results: adjacent equal ones once, with their count."""
    groups: list[dict[str, Any]] = []
    last: BatchResult | None = None
    for result in results:
        if last is not None and _are_alike(last, result):
            groups[-1]["count"] += 1
        else:
            groups.append({"count": 1, **result.document()})
        last = result
    return groups


def _are_alike(one: BatchResult, other: BatchResult) -> bool:
    """Return whether two results are the same as JSON: 1, 1.0 and true are equal in Python, as are 0.0 and -0.0."""
    if one != other:
        return False
    return one.result is None or json.dumps([one.result, one.exact]) == json.dumps([other.result, other.exact])


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
