"""What a local and a remote accelerator have in common: jobs in the background, and the ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from apyfal.exceptions import ParameterError
from apyfal.jobs.prepared import Direct, PreparedJob

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.device.sharing.device_array import DeviceArray
    from apyfal.jobs.submitter import JobSubmitter

__all__ = ["BaseAccelerator"]

_ON_HOST = "expected arrays of the host, or a chain of stages that the host defines"

_Self = TypeVar("_Self", bound="BaseAccelerator")


class BaseAccelerator(ABC):
    """An open accelerator, on this machine or another one."""

    #: How often `start` was called.
    _starts = 0

    @property
    @abstractmethod
    def _submitter(self) -> JobSubmitter:
        """What runs its jobs in the background."""

    @abstractmethod
    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: object) -> None:
        """Configure the accelerator."""

    @abstractmethod
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
        **parameters: object,
    ) -> Any:
        """Run one job."""

    @abstractmethod
    def stop(self) -> None:
        """Cancel jobs, and close the accelerator. It can be called again."""

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

    @abstractmethod
    def _check_open(self) -> None:
        """Raise `ClosedError` if the accelerator was stopped."""

    def _wait(self) -> None:
        """Wait until the submitted jobs have ended; refuse new ones."""
        self._submitter.join()

    def process_submit(self, src: object = None, dst: object = None, **keywords: Any) -> Future[Any]:
        """Run one job in the background; the arguments are those of `process`.

        Returns
        -------
        concurrent.futures.Future
            Of the result of `process`. Cancelling it before the job has started drops the job.
        """
        self._check_open()
        return self._submitter.submit(src, dst, keywords)

    def process_map(
        self,
        srcs: Iterable[object] | None = None,
        dsts: Iterable[object] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        **parameters: object,
    ) -> Iterator[Any]:
        """Run many jobs, several at once; return an iterator over their results, in order.

        The jobs start now: all of them, if each has a destination and both lengths are known; otherwise the first ones,
        and more while the results are read. Leaving the iteration early cancels the jobs that have not started.

        Parameters
        ----------
        srcs, dsts
            What `process` takes, one for each job, of any length; ``None``: none for any job.
        timeout
            Seconds for each job.
        info_list
            Receives one ``info_dict`` for each job, in order.
        **parameters
            The accelerator's own, and keywords of `process`, for all jobs.

        Raises
        ------
        ParameterError
            `srcs` and `dsts` differ in length. If they do not state their lengths, the iterator raises it.
        """
        self._check_open()
        keywords = parameters if timeout is None else {**parameters, "timeout": timeout}
        return self._submitter.map(srcs, dsts, info_list, keywords)

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
            alive; see there.

        Raises
        ------
        ParameterError, CopyRefused
            What `process` would raise, as far as it can be known before a run.
        """
        self._check_open()
        for name in sorted(parameters.keys() & {"info_dict", "progress"}):
            raise ParameterError(f"{name}: expected in the call of a prepared job, or of process, not in prepare")
        keywords: dict[str, Any] = {**parameters}
        stated = (("copy", copy, True), ("timeout", timeout, None), ("memory_limit", memory_limit, None))
        keywords.update({name: value for name, value, default in stated if value is not default})
        direct = self._direct(src, dst, **keywords)
        return PreparedJob(self, self.process, self._submit_call, src, dst, keywords, direct)

    def _direct(self, src: object, dst: object, **keywords: Any) -> Direct | None:
        """Return the short way of a prepared job; ``None``: it has none."""
        del src, dst, keywords
        return None

    def _submit_call(self, function: Callable[..., Any], keywords: dict[str, Any]) -> Future[Any]:
        self._check_open()
        return self._submitter.call(function, keywords)

    def __enter__(self: _Self) -> _Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the submitted jobs, or cancel them if the block raised; then close the accelerator."""
        try:
            if kind is None:
                self._wait()
        finally:
            self.stop()
