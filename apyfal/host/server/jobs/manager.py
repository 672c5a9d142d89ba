"""Accepts jobs, once for each idempotency key, queues them fairly, runs them, and records them in the journal."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import itertools
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from apyfal.exceptions import HostError, RunCancelled
from apyfal.host.protocol.messages import error_document
from apyfal.host.server.jobs.execution import Executor, run_short
from apyfal.host.server.jobs.fair_queue import FairQueue
from apyfal.host.server.jobs.job import KEPT_IN_JOURNAL, BatchResult, Conflict, Job, KeyReused
from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.jobs.sessions import NotFound
from apyfal.host.server.jobs.short_runs import ShortRun
from apyfal.host.server.policy.limits import KEPT_IN_MEMORY, OUTPUTS_OF_USER, RESERVED_WORKERS
from apyfal.host.server.policy.refusals import TooMany
from apyfal.host.server.records.group_commit import GroupCommit
from apyfal.host.server.records.journal import NOT_RUN, Journal, JournalEntry
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.threads import Threads
from apyfal.log import get_logger

__all__ = ["KEPT_IN_JOURNAL", "JobManager"]

_REMEMBERED = 4096
#: longest duration of a brief job in seconds; number of consecutive brief jobs of a session after which the event loop
#: waits for the end of the next one, if nothing else runs or waits; longest such wait in seconds
_BRIEF = 0.001
_BRIEF_JOBS = 4
_PATIENCE = 0.0005
_NOT_KEPT = "the host cannot write its journal: the job did not run"


class JobManager:
    """Accepts and runs jobs. All methods are called on the event loop.

    Parameters
    ----------
    journal
        Records all jobs.
    saved
        Keeps outputs that are too large for the journal when the daemon ends.
    executor
        Runs jobs, in worker threads.
    workers
        Number of jobs that run at once. A user without a running job does not wait for one of these: see
        `limits.RESERVED_WORKERS`.
    limit, limit_of_user
        Largest number of waiting jobs, in total and of one user.
    describe_error
        Returns the document that describes a job's error to its client.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        saved: SavedOutputs,
        executor: Executor,
        workers: int,
        limit: int,
        limit_of_user: int,
        describe_error: Callable[[Job, BaseException], dict[str, str]] = lambda _, error: error_document(error),
    ) -> None:
        self._describe_error = describe_error
        self._journal = journal
        self._commits = GroupCommit(journal.database)
        self._saved = saved
        self._queue: FairQueue[Job] = FairQueue(limit, limit_of_user)
        self._threads: Threads[Job] = Threads(executor.run, self._ended)
        self._workers = workers
        self._running: set[Job] = set()
        self._here: Job | None = None  # the job that the event loop runs itself once it is in the journal
        self._jobs: dict[str, Job] = {}
        self._trim_at = _REMEMBERED
        self._kept = 0  # bytes of small outputs kept in memory as well as in the journal
        self._unfetched: collections.Counter[str] = collections.Counter()  # outputs that only this process has, by user
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.finished: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0, "interrupted": 0}
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    # -- accepting -----------------------------------------------------------------------------------------------------
    def submit(self, job: Job, digest: str) -> Job | JournalEntry:
        """Accept a job, once for each key. It starts at once if a worker is free.

        Parameters
        ----------
        job
            The job. If it is new, the manager owns its data from now on.
        digest
            The job's fingerprint.

        Returns
        -------
        Job or JournalEntry
            `job`, or the ended job to which its user gave the same key, possibly before a restart of the daemon.

        Raises
        ------
        Conflict
            The job with this key has not ended.
        KeyReused
            The job with this key asked for something else.
        TooBusy, TooMany
            The queue is full. Nothing of the job is kept.
        """
        if self._stopping:
            raise Conflict("the host is stopping")
        if self._unfetched[job.user] >= OUTPUTS_OF_USER and self._journal.find(job.user, job.key) is None:
            raise TooMany(
                f"{self._unfetched[job.user]} outputs of yours wait, as many as a user may have; fetch or free some"
            )
        at_once = self._may_run(job.user) and not (
            self._queue.has(job.user) if self._all_workers_busy else len(self._queue)
        )
        alone = at_once and not self._running
        brief = at_once and job.session.brief >= _BRIEF_JOBS
        short = job.session.short_runs.find(job.spec.text) if brief and not job.wants_info else None
        self._here = None if short is None else job
        self._commits.open(alone=alone)
        try:
            entered = self._enter(job, digest, at_once)
        finally:
            try:
                self._commits.settle(alone=alone)
            finally:
                is_here = short is not None and self._here is None  # `_begin` leaves this job to the event loop
                self._here = None
                if short is not None and is_here:
                    self._run_on_loop(job, short, _PATIENCE if alone else 0.0)
        if alone and brief and short is None and entered is job and not job.ended:
            self._threads.await_end(_PATIENCE)
        return entered

    def _run_on_loop(self, job: Job, run: ShortRun, patience: float) -> None:
        """Run a job that the journal has recorded, or begin it and let a thread wait for its end."""
        failure: BaseException | None = None
        try:
            has_ended = run_short(job, run, patience)
        except BaseException as error:
            failure, has_ended = error, True
        if has_ended:
            self._ended(job, failure)
        else:
            self._threads.begin(job)

    def _enter(self, job: Job, digest: str, at_once: bool) -> Job | JournalEntry:
        """Enter a job in the journal, and start or queue it."""
        try:
            job.id = self._journal.enter(job.user, job.key, digest, running=at_once)
        except sqlite3.IntegrityError:
            return self._known(job.user, job.key, digest)
        if at_once:
            self._claim(job)
        else:
            try:
                self._queue.put(job.user, job)
            except BaseException:
                self._journal.strike(job.id)
                raise
            self._commits.add_callback(lambda kept: None if kept else self._give_up(job))
        self._jobs[job.id] = job
        job.session.active += 1
        self._trim()
        return job

    def commit(self) -> None:
        """Write all records to the journal now, before a client gets a response."""
        self._commits.commit()

    def _known(self, user: str, key: str, digest: str) -> Job | JournalEntry:
        self.commit()
        found = self.find(user, key)
        if found is None:
            raise Conflict("the job with this key was just forgotten; use another key")
        entry = self._journal.find(user, key)
        if entry is not None and entry.fingerprint != digest:
            raise KeyReused(f"idempotency key {key!r} was used for another job")
        if isinstance(found, Job) and not found.ended:
            raise Conflict("the same job is running already", found.id)
        return found

    def find(self, user: str, key: str) -> Job | JournalEntry | None:
        """Return the job of `user` with this key: waiting, running, ended, or from before a restart of the daemon."""
        entry = self._journal.find(user, key)
        return None if entry is None else self._jobs.get(entry.id, entry)

    def get(self, user: str | None, job_id: str) -> Job | JournalEntry:
        """Return a job of `user` (``None``: of any user). Raises `NotFound`."""
        found: Job | JournalEntry | None = self._jobs.get(job_id) or self._journal.get(job_id)
        if found is None or (user is not None and found.user != user):
            raise NotFound("no such job")
        return found

    def of(self, user: str | None) -> list[Job]:
        """List the jobs since the daemon's start that are still remembered; `user` as for `get`."""
        return [job for job in self._jobs.values() if user is None or job.user == user]

    def cancel(self, job: Job) -> None:
        """Cancel a job: at once if it waits, also for storage, or else at its next chunk. Raises `Conflict` if it has
        ended.
        """
        if job.ended:
            raise Conflict(f"the job is {job.state} already")
        job.cancelled = True
        job.token.set()
        if self._queue.remove(job.user, job):
            job.state = "cancelled"
            self._end(job)
            self._commits.settle()

    # -- running -------------------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Number of waiting jobs."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Number of running jobs."""
        return len(self._running)

    def _claim(self, job: Job) -> None:
        """Reserve a worker for the job, and start it there once the journal has recorded that it runs."""
        job.state = "running"
        job.began = True
        self._running.add(job)
        self._idle.clear()
        self._commits.add_callback(functools.partial(self._begin, job))

    def _begin(self, job: Job, kept: bool) -> None:
        if not kept:
            self._give_up(job)
            return
        job.began_at = time.monotonic()
        if job is self._here:
            self._here = None  # `submit` runs it
        else:
            self._threads.begin(job)

    def _give_up(self, job: Job) -> None:
        """End a job that could not be recorded in the journal, and has therefore not run."""
        if job.ended:
            return
        self._queue.remove(job.user, job)
        self._running.discard(job)
        job.began = False
        job.state = "failed"
        job.error = {"type": HostError.__name__, "message": _NOT_KEPT}
        job.describe()
        self._publish(job)
        if not self._running:
            self._idle.set()

    @property
    def _all_workers_busy(self) -> bool:
        """Return whether every worker has a job."""
        return len(self._running) >= self._workers

    def _may_run(self, user: str) -> bool:
        """Return whether a job of `user` may start now: on a free worker, or as the user's only one on a reserved
        worker.
        """
        if not self._all_workers_busy:
            return True
        if len(self._running) >= self._workers + RESERVED_WORKERS:
            return False
        return all(job.user != user for job in self._running)

    def _ended(self, job: Job, failure: BaseException | None) -> None:
        self._running.discard(job)
        seconds = time.monotonic() - job.began_at
        self.seconds += seconds
        brief = job.session.brief
        job.session.brief = min(brief + 1, _BRIEF_JOBS) if seconds < _BRIEF else -_BRIEF_JOBS
        alone = not self._running and not len(self._queue)
        self._commits.open(alone=alone)
        try:
            self._conclude(job, failure)
            while not self._stopping:
                following = self._queue.take(self._may_run)
                if following is None:
                    break
                self._journal.mark_running(following.id)
                self._claim(following)
        finally:
            try:
                self._commits.settle(alone=alone)
            finally:
                if not self._running:
                    self._idle.set()

    def _conclude(self, job: Job, failure: BaseException | None) -> None:
        """Set the final state of a job that has run, and store its result."""
        if failure is None:
            job.state = "done"
            if job.batch is not None:
                job.batch = [self._described(job, result) for result in job.batch]
        else:
            job.state = "cancelled" if job.cancelled and isinstance(failure, RunCancelled) else "failed"
            job.error = self._describe_error(job, failure)
            if job.error["type"] == "HostError" and not isinstance(failure, HostError):
                get_logger().error("job %s failed", job.id, exc_info=failure)
        self._end(job)

    def _described(self, job: Job, result: BatchResult) -> BatchResult:
        """Return a result of a batch with its error as a document."""
        if not isinstance(result.error, BaseException):
            return result
        return dataclasses.replace(result, error=self._describe_error(job, result.error))

    def _end(self, job: Job) -> None:
        """Store the result in the journal, then publish it."""
        output = job.output
        kept = None if output is None or not job.is_kept else output.tobytes()
        if output is not None and kept is not None:
            if not output.is_bytes:  # it needs no pinned memory
                output.close()
                output = job.output = Data.of_bytes(kept)
            self._kept += len(kept)
        elif output is not None:
            self._unfetched[job.user] += 1
        job.describe()
        self._commits.open()
        held = output is not None and kept is None
        self._journal.finish(job.id, job.state, job.answer, kept, held=held, user=job.user)
        # if the journal could not store it, at least the clients that are waiting get it
        self._commits.add_callback(lambda _: self._publish(job))

    def _publish(self, job: Job) -> None:
        """Publish the result."""
        self.finished[job.state] += 1
        if job.data is not None:
            self.bytes_in += job.data.nbytes
            job.data.close()
        job.session.active -= 1
        job.end()
        job.session.used = job.ended_at
        if job.output is not None:
            self.bytes_out += job.output.nbytes

    # -- outputs -------------------------------------------------------------------------------------------------------
    def output(self, job: Job | JournalEntry) -> AbstractContextManager[Data | None]:
        """Provide the output of an ended job for the duration of the block; ``None`` if it is no longer kept."""
        if isinstance(job, Job):
            return contextlib.nullcontext(job.output)
        if job.output is not None:
            return contextlib.nullcontext(Data.of_bytes(job.output))
        saved = self._saved.open(job.id)
        return contextlib.nullcontext() if saved is None else contextlib.closing(saved)

    def release_output(self, job: Job | JournalEntry) -> None:
        """Free an output that its client has received. Small outputs stay in the journal."""
        if isinstance(job, JournalEntry):
            self._saved.remove(job.id)
            self._commits.open()
            self._journal.release(job.id)
            return
        kept = job.is_kept
        output, job.output = job.output, None
        if output is None:
            return
        if not kept:
            self._commits.open()
            self._journal.release(job.id)
            self._unfetched[job.user] -= 1
            if not self._unfetched[job.user]:
                del self._unfetched[job.user]
        else:
            self._kept -= output.nbytes
        output.close()

    def save_outputs(self, timeout: float) -> list[Job]:
        """Save the outputs that only this process has, within `timeout` seconds; return the jobs whose outputs are
        lost. Called last, when no client fetches outputs any more.
        """
        until = time.monotonic() + timeout
        held = [job for job in self._jobs.values() if job.output is not None and not job.is_kept]
        return [job for job in held if job.output is not None and not self._saved.save(job.id, job.output, until)]

    def lost_outputs(self) -> list[JournalEntry]:
        """List the jobs whose outputs were lost with an earlier daemon. Called once, at startup."""
        lost = []
        for entry in self._journal.held():
            with self.output(entry) as output:
                if output is None:
                    self._journal.release(entry.id)
                    lost.append(entry)
        return lost

    def expire_outputs(self, age: float) -> None:
        """Free outputs that have not been fetched for `age` seconds."""
        before = time.monotonic() - age
        for job in self._jobs.values():
            if job.output is not None and job.ended and job.ended_at < before:
                self.release_output(job)
        for job_id in self._saved.expire(age):
            self._journal.release(job_id)

    def forget(self, outputs_before: float, jobs_before: float) -> bool:
        """Do one step of `Journal.forget`; return whether more remains."""
        self._commits.open()
        return self._journal.forget(outputs_before, jobs_before)

    # -- ending --------------------------------------------------------------------------------------------------------
    def _trim(self) -> None:
        """Forget the oldest ended jobs in memory. The journal still has them."""
        if len(self._jobs) <= self._trim_at and self._kept <= KEPT_IN_MEMORY:
            return
        for job in list(itertools.islice(self._jobs.values(), _REMEMBERED // 8)):
            if job.ended and (job.output is None or job.is_kept):
                self.release_output(job)
                del self._jobs[job.id]
        # if only jobs with unfetched outputs are left, do not try again for every job
        self._trim_at = max(_REMEMBERED, len(self._jobs) + _REMEMBERED // 8)

    async def stop(self, timeout: float) -> list[Job]:
        """Start no more jobs, mark waiting jobs as not run, and let running jobs end; return those that did not end
        within `timeout`.
        """
        self._stopping = True
        while (waiting := self._queue.take()) is not None:
            waiting.state = "interrupted"
            waiting.error = {"type": HostError.__name__, "message": NOT_RUN}
            self._end(waiting)
        self.commit()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        self.commit()
        self._threads.stop()
        return list(self._running)

    def close(self) -> None:
        """Commit the remaining records. Called last, when no client is served any more."""
        self._commits.close()
