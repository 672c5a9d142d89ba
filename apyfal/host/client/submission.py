"""One job, submitted under one key until the host has answered, however often the connection breaks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from apyfal.exceptions import AcceleratorException, HostError, RunCancelled
from apyfal.host.client.channel import BY_HTTP, ChannelReply
from apyfal.host.client.http import Host, HostResponse, Refused, Retry, SessionLost
from apyfal.host.client.local_files import Readable
from apyfal.host.protocol.frames import NO_INFO
from apyfal.host.protocol.messages import JOB_HEADER, KEY_HEADER, JobSpec

__all__ = ["Receiver", "Sendable", "Submission"]

_WAIT = 30  # seconds that one request waits for the end of its job
_OCTETS = "application/octet-stream"
_RELEASE_FROM = 64 << 10  # outputs of this size and more stay in the host's memory until they are released


class Sendable(Protocol):
    """The input of a job."""

    @property
    def length(self) -> int | None:
        """Size of the body in bytes; ``None``: there is none."""
        ...

    def pieces(self) -> Iterable[memoryview]:
        """Return the pieces of the body, for each attempt."""
        ...


class Receiver(Protocol):
    """The output of a job."""

    def receive(self, response: Readable | None, document: dict[str, Any]) -> Any:
        """Store the output of a job that was successful, and return its result."""


class Submission:
    """One job that a client submits.

    Parameters
    ----------
    host
        The host.
    key
        Idempotency key of the job, so that it runs only once.
    spec
        The job's description.
    retry
        Decides how long and how often to try again.
    progress
        Called with the bytes processed and the total (``None``: not known).
    wants_info
        Whether the host is to report what it did.
    early
        Where the output may be received while the job still runs; see `ClientChannel.submit`.
    """

    def __init__(
        self,
        host: Host,
        key: str,
        spec: JobSpec,
        retry: Retry,
        progress: Callable[[int, int | None], None] | None,
        *,
        wants_info: bool = True,
        early: memoryview | None = None,
    ) -> None:
        self._flags = 0 if wants_info else NO_INFO
        self._host = host
        self._key = key
        self._spec = spec
        self._retry = retry
        self._early = early
        self._progress = progress
        self._cancelled = False

    def run(self, session: str, source: Sendable, output: Receiver) -> tuple[dict[str, Any], Any]:
        """Submit the job, repeatedly if necessary, and wait until it has ended.

        Parameters
        ----------
        session
            Id of the session.
        source, output
            Input and output of the job.

        Returns
        -------
        document, result
            The job as the host describes it, and the result of `process`.

        Raises
        ------
        SessionLost
            The host does not know the session, and therefore not the job.
        """
        job_id: str | None = None
        lost = False
        while True:
            if self._cancelled:
                raise RunCancelled("the accelerator was stopped")
            try:
                if lost:
                    job_id, lost = self._find_by_key(), False
                with self._submit(session, source) if job_id is None else self._wait_for(job_id) as response:
                    document, has_body = response.job()
                    if not all(isinstance(document.get(name), str) for name in ("id", "state")):
                        raise HostError("the host's answer is malformed: expected the job's id and state")
                    if response.status == 202:
                        job_id = document["id"]
                        self._retry.check()
                        continue
                    result = None
                    if document["state"] == "done":
                        result = output.receive(response if has_body else None, document)
            except Refused as refused:
                lost = refused.status == 404 and job_id is None
                if not lost:
                    job_id = self._refused(refused, job_id)
                continue
            except (ConnectionError, TimeoutError) as error:
                if isinstance(error, AcceleratorException):
                    raise
                self._retry.pause(f"{self._host.address} cannot be reached", None, error)
                continue
            if (
                has_body
                and isinstance(response, HostResponse)
                and (document.get("output") or {}).get("nbytes", 0) > _RELEASE_FROM
            ):
                self._release(document["id"])
            return document, result

    def cancel(self) -> None:
        """Ask the host to cancel the job. `run`, in another thread, then returns a cancelled job."""
        self._cancelled = True
        with contextlib.suppress(OSError, AcceleratorException, SessionLost):  # otherwise the job ends with its session
            self._host.json("DELETE", f"/v1/jobs/{self._find_by_key()}")

    def _submit(self, session: str, source: Sendable) -> HostResponse | ChannelReply:
        if self._progress is None:
            nbytes, check = source.length or 0, self._retry.check
            reply = self._host.submit(
                self._key, session, self._spec.text, source.pieces, nbytes, check, self._flags, self._early
            )
            if reply is not None:
                return reply
        target = f"/v1/sessions/{session}/jobs?wait={0 if self._progress else _WAIT}"
        headers = {KEY_HEADER: self._key, "Accept": _OCTETS}
        if source.length is None:
            return self._host.request("POST", target, headers=headers, json_body=self._spec.document())
        headers |= {JOB_HEADER: self._spec.text, "Content-Type": _OCTETS}
        return self._host.request("POST", target, headers=headers, body=source.pieces(), length=source.length)

    def _wait_for(self, job_id: str) -> HostResponse:
        if self._progress is not None:
            self._follow(job_id, self._progress)
        return self._host.request("GET", f"/v1/jobs/{job_id}?wait={_WAIT}", headers={"Accept": _OCTETS})

    def _find_by_key(self) -> str:
        """Find the job by its key on a host that does not know the session: after a restart, the host remembers ended
        jobs.

        Thus a lost response can still be fetched. Its references to shared memory are valid on this side.
        """
        with self._host.request("GET", f"/v1/jobs?key={self._key}") as response:
            jobs = response.json()["jobs"]
        if not jobs:
            raise SessionLost
        return str(jobs[0]["id"])

    def _refused(self, refused: Refused, job_id: str | None) -> str | None:
        """Handle an error response: return the id of a running job to wait for, ``None`` to try again, or raise it."""
        if refused.status in (409, BY_HTTP) and isinstance(refused.document.get("job"), str):
            return str(refused.document["job"])
        if refused.status in (429, 503, 409):
            self._retry.pause(str(refused.error()), refused.retry_after, refused.error())
            return job_id
        raise refused.error() from None

    def _follow(self, job_id: str, progress: Callable[[int, int | None], None]) -> None:
        """Report a job's progress until it has ended."""
        event = ""
        with self._host.request(
            "GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}
        ) as response:
            for line in response.lines():
                name, _, value = line.decode("utf-8").rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "progress":
                    progress(*_progress_of(value))
                elif name == "data" and event == "end":
                    done, total = _progress_of(value, "progress")
                    if done:
                        progress(done, total)

    def _release(self, job_id: str) -> None:
        with contextlib.suppress(OSError, AcceleratorException):  # otherwise the host frees the output after some time
            self._host.json("DELETE", f"/v1/jobs/{job_id}/output")


def _progress_of(text: str, key: str | None = None) -> tuple[int, int | None]:
    """Return bytes and total of a JSON object, or of the object at its `key`, if it has that key."""
    try:
        document = json.loads(text)
        document = document if key is None else document.get(key) or {"done": 0, "total": None}
        return document["done"], document["total"]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise HostError("the host's answer is malformed: expected the progress of a job") from None
