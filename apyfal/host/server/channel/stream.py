"""One job on a channel: its body while it arrives, and its output while it is sent."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from apyfal.host.protocol.frames import FrameError
from apyfal.host.protocol.messages import JobSpec
from apyfal.host.server.jobs.early_output import EarlyOutput
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.sessions import Session
from apyfal.host.server.policy.quotas import Share
from apyfal.host.server.records.journal import JournalEntry
from apyfal.host.server.transport.bodies import HASHED_AT_ONCE, Data, received
from apyfal.host.server.transport.payload_digest import ArrivingDigest
from apyfal.host.server.transport.request import User

__all__ = ["Stream"]


class Stream:
    """One job on a channel. Used on the event loop.

    Parameters
    ----------
    number
        Its number on the channel.
    key, nbytes
        The job's idempotency key, and the size of its body.
    user, session, spec
        Who submits which job, and in which session.

    Attributes
    ----------
    job
        The job, once it was submitted.
    wants_info
        Whether the client needs the report (`info`) of the job.
    early
        The output of the running job, if the client takes it early; ``None``: the output follows the result.
    is_early
        Whether that output was announced, so that the result follows it.
    task
        The asyncio task of this stream: it reserves memory, hashes the body or sends the output.
    is_receiving
        Whether the client may send the body, or the rest of it.
    waits_for_credit_since
        When an output was announced that is sent only with credit; ``None``: there is none, or it is being sent.
    began
        Seconds of the performance counter at which the JOB arrived.
    """

    def __init__(self, number: int, key: str, nbytes: int, user: User, session: Session, spec: JobSpec) -> None:
        self.number = number
        self.key = key
        self.nbytes = nbytes
        self.user = user
        self.session = session
        self.spec = spec
        self.job: Job | JournalEntry | None = None
        self.wants_info = True
        self.early: EarlyOutput | None = None
        self.is_early = False
        self.task: asyncio.Task[None] | None = None
        self.waits_for_credit_since: float | None = None
        self.began = time.perf_counter()
        self._share: Share | None = None
        self._memory: np.ndarray[Any, Any] | None = None
        self._view = memoryview(b"")
        self._placed = self._arrived = 0
        self._digest: ArrivingDigest | None = None
        self._credit = self._granted = self._total = 0
        self._credited: asyncio.Event | None = None

    # -- the body ------------------------------------------------------------------------------------------------------
    def receive(self, share: Share, memory: np.ndarray[Any, Any]) -> None:
        """Accept the body into `memory`. Takes ownership of `share`."""
        self._share, self._memory, self._view = share, memory, memory.data
        if self.nbytes > HASHED_AT_ONCE:
            self._digest = ArrivingDigest(self._view)

    @property
    def is_receiving(self) -> bool:
        """Return whether a part of the body is still to come."""
        return self._memory is not None and self._arrived < self.nbytes

    def place(self, nbytes: int) -> memoryview:
        """Return the memory for the next `nbytes` of the body. Raises `FrameError`."""
        if self._memory is None:
            raise FrameError(f"DATA on stream {self.number}, which has no body under way")
        left = self.nbytes - self._placed
        if nbytes > left:
            raise FrameError(f"DATA of {nbytes} bytes on stream {self.number}: {left} of its body are left")
        start, self._placed = self._placed, self._placed + nbytes
        return self._view[start : self._placed]

    def arrived(self, nbytes: int) -> bool:
        """Count `nbytes` that have arrived; return whether the body is complete."""
        self._arrived += nbytes
        if self._digest is not None:
            self._digest.arrived(self._arrived)
        return self._arrived == self.nbytes

    @property
    def is_hashed_at_once(self) -> bool:
        """Return whether `body` can be called without `finish`."""
        return self._digest is None

    async def finish(self) -> str | None:
        """Return the digest of a complete body; ``None``: it is small."""
        return None if self._digest is None else await self._digest.finish()

    def body(self, digest: str | None) -> Data | None:
        """Return the complete body, which the caller owns from now on; ``None``: the job has none."""
        memory, share = self._memory, self._share
        self._memory, self._share, self._digest, self._view = None, None, None, memoryview(b"")
        if memory is None or share is None:
            return None
        src = self.spec.src
        return received(memory, None if src is None else src.array, share, digest)

    def close(self) -> None:
        """Free an incomplete body, and end the task."""
        self.cancel()
        if self._share is not None:
            self._share.close()
            self._share = None
        self._memory = None
        self.forget_early()

    def cancel(self) -> None:
        """End and forget the task: otherwise its data would stay until the garbage collector finds the cycle."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    # -- the output ----------------------------------------------------------------------------------------------------
    def forget_early(self) -> None:
        """Stop sending the output before the result."""
        if self.early is not None:
            self.early.drop()
        self.early, self.is_early = None, False

    def announce(self, nbytes: int, now: float) -> None:
        """Wait for credit for an output of `nbytes`."""
        self._total, self.waits_for_credit_since = nbytes, now

    def grant(self, nbytes: int) -> None:
        """Permit `nbytes` more of the output to be sent. Raises `FrameError`."""
        if nbytes > self.ungranted:
            raise FrameError(f"CREDIT of {nbytes} bytes on stream {self.number}: it waits for {self.ungranted}")
        self._granted += nbytes
        self._credit += nbytes
        self.waits_for_credit_since = None
        if self._credited is not None:
            self._credited.set()

    @property
    def ungranted(self) -> int:
        """Return the bytes of an announced output for which the client has not granted credit."""
        return self._total - self._granted

    async def credit(self, nbytes: int, clock: asyncio.AbstractEventLoop) -> int:
        """Wait for credit; return how many of `nbytes` may be sent now."""
        while not self._credit:
            self.waits_for_credit_since = clock.time()
            self._credited = asyncio.Event()
            await self._credited.wait()
        count = min(nbytes, self._credit)
        self._credit -= count
        return count
