"""Runs one job in a worker thread: prepares the arguments, calls the accelerator, and stores the result."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from apyfal.exceptions import AcceleratorException, ParameterError, RunCancelled, TransferCancelled
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.messages import BodyPart
from apyfal.host.protocol.shared_memory import Region
from apyfal.host.protocol.values import describe_value, require_short
from apyfal.host.server.jobs.batch_run import RunCalls, run_batch
from apyfal.host.server.jobs.job import KEPT_IN_JOURNAL, Job
from apyfal.host.server.jobs.sessions import LocalAccelerator, NotFound, OpenAccelerator
from apyfal.host.server.jobs.short_runs import PreparedRun, ShortRun
from apyfal.host.server.policy.quotas import Quota, Share
from apyfal.host.server.policy.url_policy import UrlPolicy
from apyfal.host.server.transport.bodies import Data
from apyfal.host.server.transport.spool import SpoolFile
from apyfal.memory import charge, metered
from apyfal.pipeline.chunking import DEFAULT_MEMORY_LIMIT
from apyfal.units import parse_size

__all__ = ["Executor", "PrepareRun", "prepare_none", "run_short"]

#: bytes of an array up to which a job runs in one piece
_SHORT: Final = 64 << 10
_INTO_SHARED = "dst: a new array, put into memory that is shared with the client"


#: (accelerator, source, destination, keywords of `process`) -> a job whose start does not wait; ``None``: it may wait
PrepareRun = Callable[[LocalAccelerator, object, object, dict[str, Any]], PreparedRun | None]


def prepare_none(
    accelerator: LocalAccelerator, src: object, dst: object, keywords: dict[str, Any]
) -> PreparedRun | None:
    """Prepare no job: the `PrepareRun` for accelerators whose start may wait."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs jobs, each as one call of the accelerator.

    Attributes
    ----------
    url_policy
        Decides which URLs a job may name.
    open_accelerator
        Opens an accelerator.
    allocate
        Allocates pinned memory of the given number of bytes.
    memory
        Quota that the arrays of a job count against from their allocation on.
    spool
        Creates a temporary file for a user's output that the client wants as bytes of a file.
    run_calls
        Runs the jobs of a batch on an accelerator.
    prepare_run
        Prepares a short job for the event loop.
    ring_limit
        Largest number of bytes for the ring buffers of one streaming job, whatever the client asks for.
    """

    url_policy: UrlPolicy
    open_accelerator: OpenAccelerator
    allocate: Callable[[int], np.ndarray[Any, Any]]
    memory: Quota
    spool: Callable[[str], SpoolFile]
    ring_limit: int
    run_calls: RunCalls
    prepare_run: PrepareRun = prepare_none

    def run(self, job: Job) -> None:
        """Run a job, or what is left of it. An exception from here is the job's error."""
        rest, job.rest = job.rest, None
        if rest is not None:
            rest()
            return
        share = self.memory.share(job.user)
        try:
            with metered(share):
                self._run(job)
            output = job.output
            # The ring buffers and other memory of the job are free again. The output counts until the client has
            # fetched it.
            share.settle(0 if output is None else output.memory)
        except BaseException:
            output, job.output = job.output, None
            if output is not None:
                output.close()
            share.close()
            raise
        if job.output is not None and job.output.memory:
            job.output.own(share)
            if _is_short(job) and not job.wants_info and job.session.short_runs.is_wanted(job.spec.text):
                job.session.keep_short_run(job.spec.text, self._short_run(job))

    def _short_run(self, job: Job) -> ShortRun | None:
        """Prepare a job like this one, which has run, for the event loop; ``None``: that is not possible."""
        kind, spec, data = job.output_type, job.spec, job.data
        if (
            kind is None
            or kind.nbytes > KEPT_IN_JOURNAL
            or job.output_region is not None
            or job.output_parts is not None
            or job.result is not None
        ):
            return None
        if not spec.copy or data is None or data.array is None:
            return None  # its data is copied, which copy=False forbids
        source_type = ArrayType.of(data.array)
        if spec.src is None or spec.src.array != source_type or spec.src.raw:
            return None  # bytes of a file, whose number is not in its text, or that have no element type
        share: Share | None = None
        try:
            accelerator = job.session.accelerator(self.open_accelerator)
            if accelerator.reports_size:
                return None  # it may write less than the array
            share = self.memory.share(job.user, source_type.nbytes + kind.nbytes)
            source, target = (
                self.allocate(one.nbytes).view(one.dtype).reshape(one.shape) for one in (source_type, kind)
            )
            options = {
                "copy": spec.copy,
                "timeout": spec.timeout,
                "memory_limit": self._limit_of_rings(spec.memory_limit),
            }
            prepared = self.prepare_run(accelerator, source, target, {**options, **spec.own_parameters()})
            if prepared is not None:
                return ShortRun(prepared, source, target, share)
        except AcceleratorException:
            pass  # no memory is left, or the session was closed: the job itself has run
        if share is not None:
            share.close()
        return None

    def _run(self, job: Job) -> None:
        info: dict[str, Any] = {}
        try:
            self._process(job, info)
        except BaseException:
            with contextlib.suppress(ParameterError):  # the job's own error comes before one of its report
                _keep_report(job, info)
            raise
        _keep_report(job, info)

    def _process(self, job: Job, info: dict[str, Any]) -> None:
        accelerator = job.session.accelerator(self.open_accelerator)
        spec = job.spec
        if spec.kind == "start":
            accelerator.start(self._source(job), info_dict=info, **spec.own_parameters())
            return
        if spec.batch is not None:
            options = {"timeout": spec.timeout, "memory_limit": self._limit_of_rings(spec.memory_limit)}
            run_batch(job, accelerator, self._empty, self.run_calls, {**options, **spec.own_parameters()}, info)
            return
        dst, target = self._destination(job)
        short = _is_short(job)
        if short and job.cancelled:
            raise RunCancelled("the job was cancelled")
        # An array that the kernel does not fill ends with what the host's memory had before: data of another user.
        measured = accelerator.reports_size
        told = info if job.wants_info else {} if measured else None
        try:
            with _received_early(job, None if measured else dst), _interruptible(job):
                result = accelerator.process(
                    self._source(job),
                    dst,
                    copy=spec.copy,
                    info_dict=told,
                    timeout=spec.timeout,
                    # without it, a small job can take the accelerator's fast path
                    progress=None if short else lambda done, total: _progress(job, done, total),
                    memory_limit=self._limit_of_rings(spec.memory_limit),
                    **spec.own_parameters(),
                )
        except BaseException:
            if target is not None:
                target.close()
            raise
        if short and job.data is not None:
            _progress(job, job.data.nbytes, job.data.nbytes)
        if len(accelerator.outputs) > 1:
            _take_results(job, result)
        else:
            if isinstance(dst, dict) and result is not None and not isinstance(result, np.ndarray):
                target = _filled_array(dst)  # of an accelerator with result parameters
            _take_result(job, result, target, info)
            if told is not None and measured:
                _trim_output(job, result, told["bytes_out"])

    def _admit(self, job: Job, url: str, *, write: bool = False) -> str:
        return self.url_policy.admit(url, job.session.mounts, job.grant, write=write, user=job.user)

    def _limit_of_rings(self, asked: int | str | None) -> int | None:
        """Return the limit for a job's ring buffers; ``None``: the default is small enough. Memory that grows with the
        data is charged to the quota.
        """
        if asked is None and self.ring_limit >= DEFAULT_MEMORY_LIMIT:
            return None
        return min(DEFAULT_MEMORY_LIMIT if asked is None else parse_size(asked), self.ring_limit)

    def _source(self, job: Job) -> object:
        src = job.spec.src
        if src is None:
            return None
        if src.url is not None:
            return self._admit(job, src.url)
        if src.parts is not None:
            return {name: self._input(job, part) for name, part in src.parts.items()}
        if src.shared is not None:
            shared = _region_of(job, src.shared.region).array(src.shared)
            return _untyped(shared) if src.raw else shared
        if job.data is None:
            raise ParameterError("src: the request had no body")
        if job.data.array is None:
            return job.data.file
        return job.data.array if src.array is not None and not src.raw else _untyped(job.data.array)

    def _input(self, job: Job, part: BodyPart) -> object:
        """Return one of several inputs: a URL, an array in the body, or bytes of a file in the body."""
        if part.url is not None:
            return self._admit(job, part.url)
        nbytes = part.nbytes if part.array is None else part.array.nbytes
        body = None if job.data is None else job.data.array
        if body is None or part.offset + nbytes > body.nbytes:
            raise ParameterError(f"src: {nbytes} bytes from {part.offset} on are not in the body")
        piece = body.reshape(-1).view(np.uint8)[part.offset : part.offset + nbytes]
        if part.array is None:
            return piece.data
        return piece.view(part.array.dtype).reshape(part.array.shape)

    def _output(self, job: Job, part: BodyPart) -> object:
        """Return the destination of one of several outputs: a URL, memory for the client's array, or a new array."""
        if part.url is not None:
            return self._admit(job, part.url, write=True)
        if part.array is None:
            return None
        return self._empty(part.array)

    def _empty(self, array: ArrayType) -> np.ndarray[Any, Any]:
        charge(array.nbytes)
        return self.allocate(array.nbytes).view(array.dtype).reshape(array.shape)

    def _destination(self, job: Job) -> tuple[object, Data | None]:
        """Return the `dst` argument for `process`, and the output object that was created for it (or ``None``)."""
        dst = job.spec.dst
        if dst is None or dst.memory is not None:
            return None, None
        if dst.url is not None:
            return self._admit(job, dst.url, write=True), None
        if dst.parts is not None:
            return {name: self._output(job, part) for name, part in dst.parts.items()}, None
        if dst.shared is not None:
            return _region_of(job, dst.shared.region).array(dst.shared), None
        if dst.array is not None:
            memory = self._empty(dst.array)
            return memory, Data(array=memory)
        file = self.spool(job.user)
        return file, Data(file=file)


def run_short(job: Job, run: ShortRun, seconds: float) -> bool:
    """Run a job on the event loop, which waits up to `seconds` for its end.

    Returns
    -------
    bool
        Whether it has ended. Otherwise `Executor.run` waits for its end.

    Raises
    ------
    Exception
        The job's error.
    """
    if job.data is None or job.data.array is None:
        raise ParameterError("src: the request had no body")
    try:
        rest = run.begin(job.data.array, seconds)
    except BaseException:
        job.session.short_runs.drop(job.spec.text)
        raise
    if rest is None:
        _take_short(job, run)
        return True

    def finish() -> None:
        try:
            rest()
        except BaseException:
            job.session.short_runs.drop(job.spec.text)
            raise
        _take_short(job, run)
        run.is_busy = False

    run.is_busy = True
    job.rest = finish
    return False


def _take_short(job: Job, run: ShortRun) -> None:
    nbytes = 0 if job.data is None else job.data.nbytes
    job.progress = (nbytes, nbytes)
    job.output, job.output_type = Data.of_bytes(run.result()), run.kind


def _keep_report(job: Job, info: dict[str, Any]) -> None:
    """Set the report that the client sees. Raises `ParameterError` if the driver reports what cannot be sent."""
    if not info:
        return
    info.pop("timeline", None)
    # a path is a driver library of the operator: do not show it to the client
    if os.sep in str(info.get("driver")):
        info["driver"] = os.path.basename(info["driver"])
    job.info, exact = describe_value(info, "info_dict")
    if exact is not None:
        job.exact["info"] = exact


def _is_short(job: Job) -> bool:
    """Return whether a job has one small array as input and one as output: it ends before anybody asks for progress."""
    src, dst, data = job.spec.src, job.spec.dst, job.data
    if src is None or src.parts is not None or data is None or data.array is None or data.nbytes > _SHORT:
        return False
    return dst is None or dst.array is not None


def _received_early(job: Job, dst: object) -> contextlib.AbstractContextManager[None]:
    """Make the output available to the client while the job runs, if it asked for that."""
    early, job.early = job.early, None  # an ended job must not keep the memory
    if early is None or not isinstance(dst, np.ndarray):
        return contextlib.nullcontext()
    return early.made_in(dst)


@contextlib.contextmanager
def _interruptible(job: Job) -> Iterator[None]:
    """Let who cancels the job end what it waits for in storage."""
    try:
        with job.token.scope():
            yield
    except TransferCancelled:
        if job.cancelled:
            raise RunCancelled("the job was cancelled") from None
        raise


def _progress(job: Job, done: int, total: int | None) -> None:
    job.progress = (int(done), None if total is None else int(total))
    if job.cancelled:
        raise RunCancelled("the job was cancelled")


def _take_result(job: Job, result: object, target: Data | None, info: dict[str, Any]) -> None:
    dst = job.spec.dst
    if target is not None:
        if target.file is not None:
            target = Data(file=target.file)
        job.output = target
        job.output_type = None if target.array is None else ArrayType.of(target.array)
    elif isinstance(result, np.ndarray) and (dst is None or dst.shared is None):
        job.output_type = ArrayType.of(result)
        region = None if dst is None or dst.memory is None else _region_of(job, dst.memory)
        if region is not None and result.nbytes <= region.nbytes:
            np.copyto(region.array(SharedArray(region.name, 0, job.output_type)), result)
            job.output_region = region.name
            info["bytes_copied"] = info.get("bytes_copied", 0) + result.nbytes
            info["copy_reasons"] = [*info.get("copy_reasons", ()), _INTO_SHARED]
        else:
            job.output = Data(array=result)
    if not isinstance(result, np.ndarray):
        job.result, exact = describe_value(result, "the result")
        if exact is not None:
            job.exact["result"] = exact
        if job.output is not None and result is not None:
            require_short([job.result, exact], "the result")


def _filled_array(dst: dict[str, object]) -> Data | None:
    """Return the client's array, which was filled besides result parameters; ``None``: there is none."""
    array = next((one for one in dst.values() if isinstance(one, np.ndarray)), None)
    return None if array is None else Data(array=array)


def _trim_output(job: Job, result: object, nbytes: int) -> None:
    """Send only the first `nbytes` of the destination array, those that the kernel has written."""
    if not isinstance(result, np.ndarray) or result.nbytes <= nbytes:
        return
    job.written = nbytes
    if job.output is not None:
        job.output = Data(array=np.ascontiguousarray(result).reshape(-1).view(np.uint8)[:nbytes])


def _take_results(job: Job, result: object) -> None:
    """Keep those of several outputs that are arrays. They are sent back one after the other."""
    arrays = result if isinstance(result, dict) else {}
    if not arrays:
        return
    offset = 0
    job.output_parts = {}
    for name, array in arrays.items():
        job.output_parts[name] = {"offset": offset, "nbytes": array.nbytes, **ArrayType.of(array).document()}
        offset += array.nbytes
    first, *more = arrays.values()
    job.output = Data(array=first, more=more)


def _untyped(array: np.ndarray[Any, Any]) -> memoryview:
    """Return memory without an element type: bytes, as those of a file."""
    return array.reshape(-1).view(np.uint8).data


def _region_of(job: Job, name: str) -> Region:
    region = job.session.regions.get(name)
    if region is None:
        raise NotFound("no such shared memory in this session")
    return region
