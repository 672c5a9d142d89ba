"""Jobs: taken in once for each key, queued fairly, run in worker threads, remembered in the journal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from apyfal.exceptions import HostError, ParameterError, RunCancelled
from apyfal.host.bodies import Data, MemoryBudget
from apyfal.host.journal import NOT_RUN, Entry, Journal
from apyfal.host.references import References
from apyfal.host.scheduling import FairQueue
from apyfal.host.sessions import NotFound, OpenAccelerator, Session
from apyfal.host.shared_memory import Region
from apyfal.host.wire import ArrayType, Destination, JobSpec, Origin, SharedArray, error_document, plain
from apyfal.log import get_logger

__all__ = ["Conflict", "Engine", "Job", "KeyReused", "fingerprint"]

#: outputs up to this size are kept in the journal, so that they survive the daemon
KEPT_IN_JOURNAL = 64 << 10
_REMEMBERED = 4096
_HASHED_WHOLE = 1 << 20
_HASHED_ENDS = 64 << 10


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


def fingerprint(spec: JobSpec, options: object, data: Data | None) -> str:
    """Identify what a job asks for. Of a body over 1 MiB the length and both ends count, not its middle."""
    digest = hashlib.blake2b(
        f"{options}\n{spec.text()}\n{0 if data is None else data.nbytes}\n".encode(), digest_size=16
    )
    if data is not None and data.array is not None and data.nbytes:
        view = data.array.reshape(-1).view(np.uint8).data
        for piece in (view,) if len(view) <= _HASHED_WHOLE else (view[:_HASHED_ENDS], view[-_HASHED_ENDS:]):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(eq=False)
class Job:
    """One job of this daemon's life. The event loop owns it.

    Attributes
    ----------
    state
        ``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``interrupted``.
    data, output
        What came in with the request; what goes out with the answer.
    output_region
        The shared memory that the output is in instead.
    progress
        Bytes through and bytes in all, set by the worker.
    began
        Whether it was started.
    ended
        Set when it has.
    """

    user: str
    session: Session
    spec: JobSpec
    key: str
    data: Data | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    state: str = "queued"
    info: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: dict[str, Any] | None = None
    output: Data | None = None
    output_type: ArrayType | None = None
    output_region: str | None = None
    progress: tuple[int, int | None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    began: bool = False
    ended_at: float = 0.0
    cancelled: bool = False

    def document(self) -> dict[str, Any]:
        """As clients see it."""
        output: dict[str, Any] | None = None
        if self.output is not None or self.output_region is not None:
            output = {"nbytes": 0 if self.output is None else self.output.nbytes, "region": self.output_region}
            if self.output_type is not None:
                output.update(self.output_type.document())
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


class Engine:
    """Takes jobs in and runs them. All methods are called on the event loop.

    Parameters
    ----------
    journal
        Where they are remembered.
    references
        Admits the URLs that they name.
    open_accelerator
        Opens an accelerator; called in worker threads.
    allocate
        Makes pinned memory of so many bytes.
    budget
        What outputs count against.
    workers
        Jobs that run at once.
    limit, limit_of_user
        Jobs that may wait.
    spool_directory
        For outputs that go to a client's file.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        references: References,
        open_accelerator: OpenAccelerator,
        allocate: Callable[[int], np.ndarray[Any, Any]],
        budget: MemoryBudget,
        workers: int,
        limit: int,
        limit_of_user: int,
        spool_directory: Path,
    ) -> None:
        self._journal = journal
        self._references = references
        self._open_accelerator = open_accelerator
        self._allocate = allocate
        self._budget = budget
        self._queue: FairQueue[Job] = FairQueue(limit, limit_of_user)
        self._spool_directory = spool_directory
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="apyfal-host-job")
        self._workers = workers
        self._running: set[Job] = set()
        self._jobs: dict[str, Job] = {}
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.finished: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0, "interrupted": 0}
        self.seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    # -- taking in -----------------------------------------------------------------------------------------------------
    def known(self, user: str, key: str, print_: str | None) -> Job | Entry | None:
        """Return the job of `user` with this key, running, ended or from an earlier life of the daemon.

        Raises
        ------
        KeyReused
            It asked for something else than `print_`, the fingerprint of the new request.
        """
        entry = self._journal.find(user, key)
        if entry is None:
            return None
        if print_ is not None and entry.fingerprint != print_:
            raise KeyReused(f"idempotency key {key!r} was used for another job")
        return self._jobs.get(entry.id, entry)

    def submit(self, job: Job, print_: str) -> None:
        """Take a new job in; it starts at once where a worker is free.

        Raises
        ------
        TooBusy, TooMany
            Nothing of it is kept then.
        """
        if self._stopping:
            raise Conflict("the host is stopping")
        at_once = len(self._running) < self._workers and not len(self._queue)
        if not at_once:
            self._queue.put(job.user, job)
        try:
            self._journal.enter(job.id, job.user, job.key, print_, running=at_once)
        except sqlite3.IntegrityError:  # the same request came twice at once, and the other body was complete first
            self._queue.remove(job.user, job)
            raise Conflict("the same job is running already") from None
        self._jobs[job.id] = job
        job.session.active += 1
        if at_once:
            self._begin(job)
        self._trim()

    def get(self, user: str | None, job_id: str) -> Job | Entry:
        """Return a job of `user` (``None``: of anybody); `NotFound` otherwise."""
        found: Job | Entry | None = self._jobs.get(job_id) or self._journal.get(job_id)
        if found is None or (user is not None and found.user != user):
            raise NotFound("no such job")
        return found

    def of(self, user: str | None) -> list[Job]:
        """List the jobs of this daemon's life that are remembered."""
        return [job for job in self._jobs.values() if user is None or job.user == user]

    def cancel(self, job: Job) -> None:
        """Cancel a job: at once if it waits, at its next chunk if it runs; `Conflict` when it has ended."""
        if job.ended.is_set():
            raise Conflict(f"the job is {job.state} already")
        job.cancelled = True
        if self._queue.remove(job.user, job):
            job.state = "cancelled"
            self._end(job)

    # -- running -------------------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Jobs that run."""
        return len(self._running)

    def _begin(self, job: Job) -> None:
        job.state = "running"
        job.began = True
        self._running.add(job)
        self._idle.clear()
        started = time.perf_counter()
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._run, job)
        future.add_done_callback(lambda done: self._finished(job, done.exception(), time.perf_counter() - started))

    def _finished(self, job: Job, failure: BaseException | None, seconds: float) -> None:
        self._running.discard(job)
        self.seconds += seconds
        if failure is None:
            job.state = "done"
        else:
            job.state = "cancelled" if job.cancelled and isinstance(failure, RunCancelled) else "failed"
            job.error = error_document(failure)
            if job.error["type"] == "HostError" and not isinstance(failure, HostError):
                get_logger().error("job %s failed", job.id, exc_info=failure)
        self._end(job)
        while not self._stopping and len(self._running) < self._workers:
            following = self._queue.take()
            if following is None:
                break
            self._journal.mark_running(following.id)
            self._begin(following)
        if not self._running:
            self._idle.set()

    def _end(self, job: Job) -> None:
        """Keep the answer, then let everybody see it."""
        output = job.output
        kept = None
        if output is not None and output.array is not None and output.nbytes <= KEPT_IN_JOURNAL:
            kept = output.array.tobytes()
        self._journal.finish(job.id, job.state, job.document(), kept)
        self.finished[job.state] += 1
        self.bytes_in += 0 if job.data is None else job.data.nbytes
        self.bytes_out += 0 if output is None else output.nbytes
        if job.data is not None:
            job.data.close()
        job.session.active -= 1
        job.session.used = job.ended_at = time.monotonic()
        job.ended.set()

    def _run(self, job: Job) -> None:
        """Run one job in a worker thread; what it raises is the job's error."""
        accelerator = job.session.accelerator(self._open_accelerator)
        spec = job.spec
        info: dict[str, Any] = {}
        try:
            if spec.kind == "start":
                accelerator.start(self._source(job), info_dict=info, **spec.parameters)
                return
            dst, target = self._destination(job)
            result = accelerator.process(
                self._source(job),
                dst,
                copy=spec.copy,
                info_dict=info,
                timeout=spec.timeout,
                progress=lambda done, total: self._progress(job, done, total),
                memory_limit=spec.memory_limit,
                **spec.parameters,
            )
            self._take_result(job, result, target)
        finally:
            info.pop("timeline", None)
            job.info = plain(info)

    @staticmethod
    def _progress(job: Job, done: int, total: int | None) -> None:
        job.progress = (int(done), None if total is None else int(total))
        if job.cancelled:
            raise RunCancelled("the job was cancelled")

    def _source(self, job: Job) -> object:
        src: Origin | None = job.spec.src
        if src is None:
            return None
        if src.url is not None:
            return self._references.admit(src.url, job.session.mounts)
        if src.shared is not None:
            return _region_of(job, src.shared.region).array(src.shared)
        if job.data is None:
            raise ParameterError("src: the request had no body")
        return job.data.array if job.data.array is not None else job.data.file

    def _destination(self, job: Job) -> tuple[object, Data | None]:
        """Return what `process` gets as its destination, and the output that this makes."""
        dst: Destination | None = job.spec.dst
        if dst is None:
            return None, None
        if dst.url is not None:
            return self._references.admit(dst.url, job.session.mounts), None
        if dst.shared is not None:
            return _region_of(job, dst.shared.region).array(dst.shared), None
        if dst.memory is not None:
            return None, None
        if dst.array is not None:
            memory = self._allocate(dst.array.nbytes).view(dst.array.dtype).reshape(dst.array.shape)
            return memory, Data(array=memory)
        file: IO[bytes] = tempfile.TemporaryFile(dir=self._spool_directory)  # noqa: SIM115 - the output owns it
        return file, Data(file=file)

    def _take_result(self, job: Job, result: object, target: Data | None) -> None:
        spec = job.spec
        if target is not None:
            if target.file is not None:
                target.file.flush()
                target = Data(file=target.file)
            job.output = target
            job.output_type = None if spec.dst is None else spec.dst.array
        elif isinstance(result, np.ndarray) and (spec.dst is None or spec.dst.shared is None):
            job.output_type = ArrayType.of(result)
            region = None if spec.dst is None or spec.dst.memory is None else _region_of(job, spec.dst.memory)
            if region is not None and result.nbytes <= region.nbytes:
                np.copyto(region.array(SharedArray(region.name, 0, job.output_type)), result)
                job.output_region = region.name
            else:
                job.output = Data(array=result)
        if not isinstance(result, np.ndarray):
            job.result = plain(result)

    # -- ending --------------------------------------------------------------------------------------------------------
    def release_output(self, job: Job) -> None:
        """Free an output that its client has; small ones stay in the journal."""
        output, job.output = job.output, None
        if output is not None:
            output.close()

    def expire_outputs(self, age: float) -> None:
        """Free outputs that nobody has fetched for `age` seconds."""
        before = time.monotonic() - age
        for job in self._jobs.values():
            if job.output is not None and job.ended.is_set() and job.ended_at < before:
                self.release_output(job)

    def _trim(self) -> None:
        """Forget the oldest ended jobs; the journal still has them."""
        if len(self._jobs) <= _REMEMBERED:
            return
        for job in list(self._jobs.values())[: _REMEMBERED // 8]:
            if job.ended.is_set() and (job.output is None or job.output.nbytes <= KEPT_IN_JOURNAL):
                self.release_output(job)
                del self._jobs[job.id]

    async def stop(self, timeout: float) -> list[Job]:
        """Start no more jobs, say so of those that wait, and let those that run end; return those that did not."""
        self._stopping = True
        while (waiting := self._queue.take()) is not None:
            waiting.state = "interrupted"
            waiting.error = {"type": HostError.__name__, "message": NOT_RUN}
            self._end(waiting)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return list(self._running)


def _region_of(job: Job, name: str) -> Region:
    region = job.session.regions.get(name)
    if region is None:
        raise NotFound("no such shared memory in this session")
    return region
