"""Accept jobs, from requests and from channels: parse the description, check key, session and accelerator."""

from __future__ import annotations

import copy
import dataclasses
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

__all__ = ["KEY", "Admission", "DescribedJob", "checked_key", "described_job", "document_of", "text_of"]

#: idempotency keys
KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def checked_key(key: str) -> str:
    """Return an idempotency key. Raises `ParameterError` if it is malformed."""
    if not KEY.fullmatch(key):
        raise ParameterError("the idempotency key: expected 1 to 128 letters, digits and _.:-")
    return key


@dataclass(frozen=True, slots=True)
class DescribedJob:
    """A job as its client describes it, parsed and in canonical form."""

    spec: JobSpec
    text: str


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> DescribedJob:
    spec = JobSpec.parse(parse_json(text))
    return DescribedJob(spec, spec.text())


def described_job(text: str) -> DescribedJob:
    """Parse a job's JSON. It is parsed once for many small jobs that differ only in their data."""
    described = _parsed(text)
    if described.spec.parameters:  # parameters belong to one job: the accelerator may change them
        own = copy.deepcopy(described.spec.parameters)
        return DescribedJob(dataclasses.replace(described.spec, parameters=own), described.text)
    return described


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
        described: DescribedJob,
        key: str,
        data: Data | None,
        *,
        wants_info: bool = True,
        early: EarlyOutput | None = None,
    ) -> Job | JournalEntry:
        """Submit a job; see `JobManager.submit`. Takes ownership of `data`, also if an error is raised."""
        try:
            mark = fingerprint(described.text, session.options_text, data)
            job = Job(
                user.name,
                session,
                described.spec,
                key,
                data,
                user.grant,
                wants_info=wants_info,
                description=described.text,
                early=early,
            )
            known = self.manager.submit(job, mark)
            if known is job:
                data = None  # owned by the job from now on
        finally:
            if data is not None:
                data.close()
        return known
