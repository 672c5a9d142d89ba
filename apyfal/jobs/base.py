"""What a local and a remote accelerator have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, overload

from apyfal.exceptions import ParameterError
from apyfal.jobs.prepared import Direct, PreparedJob
from apyfal.jobs.runner import JobRunner
from apyfal.pipeline.reports.job_report import JobReport, reported

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.device.chaining.queued_job import QueuedJob
    from apyfal.device.sharing.device_array import DeviceArray
    from apyfal.jobs.data_types import JobData, Parameter
    from apyfal.jobs.submitter import JobSubmitter

__all__ = ["BaseAccelerator"]

_ON_HOST = "expected arrays of the host, or a chain of stages that the host defines"


class BaseAccelerator(JobRunner):
    """An open accelerator, on this machine or another one."""

    #: How often `start` was called.
    _starts = 0

    @property
    @abstractmethod
    def _submitter(self) -> JobSubmitter:
        """Return what runs its jobs in the background."""

    @abstractmethod
    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: object) -> None:
        """Configure the accelerator."""

    @overload
    def process(
        self,
        src: JobData = None,
        dst: JobData = None,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        report: Literal[True],
        **parameters: Parameter,
    ) -> JobReport: ...

    @overload
    def process(
        self,
        src: JobData = None,
        dst: JobData = None,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        report: bool = False,
        **parameters: Parameter,
    ) -> Any: ...

    def process(
        self,
        src: object = None,
        dst: object = None,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        report: bool = False,
        **parameters: object,
    ) -> Any:
        """Run one job.

        Parameters
        ----------
        src
            The input: a storage URL, path, file object, numpy array, any object with the buffer protocol, or an array
            of `put` or `device_empty`, which is used where it is. For an accelerator with several inputs: a mapping
            from their names to these.
        dst
            Where the output goes: one of the same kinds; ``None``: a new array of the host. For an accelerator with
            several outputs: a mapping from their names; outputs that it leaves out become new arrays. An array's
            content is not defined if the job fails.
        copy
            ``False``: raise `CopyRefused` instead of copying what cannot be used in place.
        info_dict
            Receives ``bytes_in``, ``bytes_out``, ``bytes_copied``, ``copy_reasons``, ``bytes_moved`` (``to_device`` and
            ``from_device``: what was transferred between host and card), ``seconds`` by stage, ``chunks``,
            ``device``, ``driver``, ``timeline`` and ``limit`` (what limited the job: ``fetch 97 %, card idle 38 %``);
            also if the job fails. ``limit`` is already set when `progress` is called.
        report
            ``True``: return a `JobReport` instead of the result: the result, and what `info_dict` would receive.
        timeout
            Seconds for the whole job, or text (``"2min"``).
        progress
            Called with the bytes of input that are done, and all of them (``None``: not known).
        memory_limit
            As for the accelerator, for this job.
        **parameters
            The accelerator's own.

        Returns
        -------
        ndarray, dict or None
            Without `dst`, a new array in pinned memory, which belongs to the caller; with an array as `dst`, that
            array; result parameters, if the accelerator computes these; otherwise ``None``. Of several outputs, a
            mapping from their names to those that are arrays.
        JobReport
            With ``report=True``.

        Raises
        ------
        ParameterError
            A parameter, type or size does not fit the accelerator.
        CopyRefused, RunTimeout, RunCancelled, KernelError, DeviceLost, StorageError
            The job failed, or `copy` is ``False`` and data cannot be used in place.
        HostError, JobRejected, ConnectionError
            The accelerator is on another machine. Its host failed, or stopped while the job ran, so that it is not
            known what was written; it was too busy for a minute; or it could not be reached for a minute.

        Notes
        -----
        A destination in a store or file is written completely, or stays as it was. Several destinations are replaced
        one after the other, after all of the job's work is done. The contents of an array given as `dst` are undefined
        if the job fails.
        """
        if report:
            return reported(
                self._process,
                report,
                info_dict,
                src,
                dst,
                copy=copy,
                timeout=timeout,
                progress=progress,
                memory_limit=memory_limit,
                **parameters,
            )
        return self._process(
            src,
            dst,
            copy=copy,
            info_dict=info_dict,
            timeout=timeout,
            progress=progress,
            memory_limit=memory_limit,
            **parameters,
        )

    @abstractmethod
    def _process(
        self,
        src: object,
        dst: object,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        **parameters: object,
    ) -> Any:
        """Run one job; see `process`."""

    @abstractmethod
    def empty(self, shape: Any, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return a new array that jobs can use without a copy."""

    def put(self, array: object, *, port: str | None = None) -> DeviceArray:
        """Bring an array to the device, where it stays."""
        raise ParameterError(f"{self!r} is on another machine, and device arrays stay on theirs; {_ON_HOST}")

    def device_empty(
        self, shape: int | Sequence[int], dtype: DTypeLike = float, *, port: str | None = None
    ) -> DeviceArray:
        """Return a new array on the device."""
        raise ParameterError(f"{self!r} is on another machine, and device arrays stay on theirs; {_ON_HOST}")

    def enqueue(
        self,
        src: DeviceArray | Mapping[str, DeviceArray] | None = None,
        dst: DeviceArray | Mapping[str, DeviceArray] | None = None,
        *,
        info_dict: dict[str, Any] | None = None,
        **parameters: object,
    ) -> QueuedJob:
        """Put a job between arrays on the device into the device's queue."""
        raise ParameterError(f"{self!r} is on another machine, and device arrays stay on theirs; {_ON_HOST}")

    def _wait(self) -> None:
        """Wait until the submitted jobs have ended; refuse new ones."""
        self._submitter.join()

    def prepare(
        self,
        src: object = None,
        dst: object = None,
        *,
        copy: bool = True,
        timeout: float | str | None = None,
        memory_limit: int | str | None = None,
        **parameters: object,
    ) -> PreparedJob:
        """Check a job, and decide once what does not change from run to run. Call the result to run the job.

        A job of one run over arrays that the device uses in place then costs little more than the run itself. Any
        other job (URLs, files, arrays that are copied, a new array as result, a remote accelerator) runs as `process`
        runs it.

        Parameters
        ----------
        src, dst, copy, timeout, memory_limit, **parameters
            As for `process`; `timeout` for each run. File objects are refused.

        Returns
        -------
        PreparedJob
            ``job()`` runs it, ``job(a=3)`` with another value, ``job.submit()`` in the background. It keeps the arrays
            alive; see `PreparedJob`.

        Raises
        ------
        ParameterError, CopyRefused
            What `process` would raise, as far as it can be known before a run.
        """
        self._check_open()
        for name in sorted(parameters.keys() & {"info_dict", "progress", "report"}):
            raise ParameterError(f"{name}: expected in the call of a prepared job, or of process, not in prepare")
        keywords: dict[str, Any] = {**parameters}
        stated = (("copy", copy, True), ("timeout", timeout, None), ("memory_limit", memory_limit, None))
        keywords.update({name: value for name, value, default in stated if value is not default})
        direct = self._direct(src, dst, **keywords)
        return PreparedJob(self, self.process, self._submit_call, src, dst, keywords, direct)

    def _direct(self, src: object, dst: object, **keywords: Any) -> Direct | None:
        """Return the fast path of a prepared job; ``None``: it has none."""
        del src, dst, keywords
        return None

    def _submit_call(self, function: Callable[..., Any], keywords: dict[str, Any]) -> Future[Any]:
        self._check_open()
        return self._submitter.call(function, keywords)
