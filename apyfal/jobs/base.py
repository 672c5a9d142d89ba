"""What a local and a remote accelerator have in common: jobs in the background, and the ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.jobs.submitter import JobSubmitter

__all__ = ["BaseAccelerator"]

_Self = TypeVar("_Self", bound="BaseAccelerator")


class BaseAccelerator(ABC):
    """An open accelerator, on this machine or another one."""

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
