"""Accept jobs, from requests and from channels: parse the description, check key, session and accelerator."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.messages import JobSpec
from apyfal.host.server.jobs.early_output import EarlyOutput
from apyfal.host.server.jobs.job import Job, fingerprint
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.jobs.sessions import Session, Sessions
from apyfal.host.server.records.journal import JournalEntry
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.request import User, parse_json

__all__ = ["KEY", "Admission", "checked_key", "document_of", "parse_spec", "text_of"]

#: idempotency keys
KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def checked_key(key: str) -> str:
    """Return an idempotency key. Raises `ParameterError` if it is malformed."""
    if not KEY.fullmatch(key):
        raise ParameterError("the idempotency key: expected 1 to 128 letters, digits and _.:-")
    return key


@functools.lru_cache(maxsize=256)
def parse_spec(text: str) -> JobSpec:
    """Parse a job's JSON: once for many small jobs that differ only in their data, which share what this returns."""
    return JobSpec.parse(parse_json(text))


def document_of(job: Job | JournalEntry) -> dict[str, Any]:
    """Return a job as the JSON object that clients see."""
    if isinstance(job, Job):
        return job.document()
    return job.answer or {"id": job.id, "state": job.state}


def text_of(job: Job | JournalEntry) -> str:
    """Return `document_of` as text, which an ended job has already."""
    return job.text() if isinstance(job, Job) else json.dumps(document_of(job))


@dataclass(frozen=True, slots=True)
class Admission:
    """Accepts jobs for the manager. Used on the event loop.

    Attributes
    ----------
    sessions, manager
        The daemon's sessions, and its job manager.
    """

    sessions: Sessions
    manager: JobManager

    def session(self, user: User, session_id: str) -> Session:
        """Return the session of a job.

        Raises
        ------
        NotFound
            The user has no such session.
        NotAllowed
            The user's token does not allow its accelerator: the session may have been opened with another token.
        """
        session = self.sessions.get(user.name, session_id)
        user.grant.require_accelerator(session.options.get("accelerator"))
        return session

    def submit(
        self,
        user: User,
        session: Session,
        spec: JobSpec,
        key: str,
        data: Data | None,
        *,
        wants_info: bool = True,
        early: EarlyOutput | None = None,
    ) -> Job | JournalEntry:
        """Submit a job; see `JobManager.submit`. Takes ownership of `data`, also if an error is raised."""
        try:
            mark = fingerprint(spec.text, session.options_text, data)
            job = Job(
                user.name,
                session,
                spec,
                key,
                data,
                user.grant,
                wants_info=wants_info,
                early=early,
            )
            known = self.manager.submit(job, mark)
            if known is job:
                data = None  # owned by the job from now on
        finally:
            if data is not None:
                data.close()
        return known
