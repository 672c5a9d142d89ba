"""Many jobs from iterables of any length: submitted a few ahead, their results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from os import PathLike
from typing import Any, Protocol

from apyfal.exceptions import ParameterError
from apyfal.storage.url import redact

__all__ = ["LightFuture", "ResultOrder", "Submitted", "map_jobs", "map_tickets", "name_job", "pairs_of"]


class Submitted(Protocol):
    """What stands for a job: a `concurrent.futures.Future`, or a `LightFuture`."""

    def result(self) -> Any: ...
    def cancel(self) -> bool: ...


class ResultOrder:
    """What the tickets of one list of jobs share: a lock, and which of them is waited for."""

    __slots__ = ("awaited", "changed", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.awaited: LightFuture | None = None


class LightFuture:
    """A future for somebody who takes results in order: it costs a tenth, since all of a series share one lock.

    The methods are those of `concurrent.futures.Future` of the same names.
    """

    __slots__ = ("_begun", "_cancelled", "_done", "_error", "_result", "_series")

    def __init__(self, series: ResultOrder) -> None:
        self._series = series
        self._begun = self._cancelled = self._done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def set_running_or_notify_cancel(self) -> bool:
        """Begin the job; ``False``: it was cancelled."""
        with self._series.lock:
            self._begun = not self._cancelled
        return self._begun

    def cancel(self) -> bool:
        """Drop the job where it has not begun."""
        with self._series.lock:
            self._cancelled = not self._begun
            self._series.changed.notify_all()
        return self._cancelled

    def done(self) -> bool:
        """Whether the job has ended."""
        return self._done or self._cancelled

    def set_result(self, result: Any) -> None:
        """End the job well."""
        self._result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """End the job with an error."""
        self._error = error
        self._end()

    def _end(self) -> None:
        self._done = True
        # Whoever begins to wait says so before looking: either is seen.
        if self._series.awaited is self:
            with self._series.lock:
                self._series.changed.notify_all()

    def result(self) -> Any:
        """Wait for the job, and return or raise what it ended with; called once."""
        if not self._done:
            series = self._series
            with series.lock:
                series.awaited = self
                while not self.done():
                    series.changed.wait()
                series.awaited = None
        if self._cancelled:
            raise CancelledError
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # kept, it would keep its frames and all that they hold
        return self._result


def map_jobs(
    submit: Callable[[object, object, dict[str, Any] | None], Submitted],
    srcs: Iterable[object] | None,
    dsts: Iterable[object] | None,
    info_list: list[dict[str, Any]] | None,
    *,
    ahead: Callable[[], int],
) -> Iterator[Any]:
    """Submit many jobs, as many ahead of the first result as `ahead` says; see `Accelerator.process_map`.

    Parameters
    ----------
    submit
        Takes a job's source, destination and ``info_dict``.
    srcs, dsts, info_list
        As for `Accelerator.process_map`.
    ahead
        Says how many jobs may be under way, now.
    """
    return _mapped(submit, pairs_of(srcs, dsts), info_list, ahead)


def map_tickets(
    put: Callable[[LightFuture, object, object, dict[str, Any]], None],
    srcs: Iterable[object] | None,
    dsts: Iterable[object] | None,
    info_list: list[dict[str, Any]] | None,
    keywords: dict[str, Any],
    *,
    ahead: Callable[[], int],
) -> Iterator[Any]:
    """Do as `map_jobs`, where `put` takes a job's ticket, source, destination and keywords of `process`."""
    series = ResultOrder()

    def submit(src: object, dst: object, info: dict[str, Any] | None) -> LightFuture:
        ticket = LightFuture(series)
        put(ticket, src, dst, keywords if info is None else {**keywords, "info_dict": info})
        return ticket

    return map_jobs(submit, srcs, dsts, info_list, ahead=ahead)


def _mapped(
    submit: Callable[[object, object, dict[str, Any] | None], Submitted],
    pairs: Iterator[tuple[object, object]],
    info_list: list[dict[str, Any]] | None,
    ahead: Callable[[], int],
) -> Iterator[Any]:
    pending: deque[tuple[Submitted, object]] = deque()
    ended = 0

    def take() -> Any:
        nonlocal ended
        submitted, name = pending.popleft()
        ended += 1
        try:
            return submitted.result()
        except BaseException as error:
            name_job(error, ended - 1, name)
            raise
        finally:
            del submitted

    try:
        for src, dst in pairs:
            info: dict[str, Any] | None = None
            if info_list is not None:
                info_list.append(info := {})
            # Of the source only its name: what it holds may be large.
            pending.append((submit(src, dst, info), src if isinstance(src, (str, PathLike)) else None))
            del src, dst, info
            while len(pending) >= ahead():
                yield take()
        while pending:
            yield take()
    finally:
        for submitted, _ in pending:
            submitted.cancel()


def name_job(error: BaseException, number: int, src: object) -> None:
    """Note on an error which of several jobs it is of: its number from 0 on, and its source where that has a name.

    Tracebacks show such notes from Python 3.11 on; ``error.__notes__`` has them on any.
    """
    note = f"in job {number} of process_map"
    if isinstance(src, (str, PathLike)):
        note += f", over {redact(str(src))}"
    error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]  # as add_note, on 3.10 too


def pairs_of(srcs: Iterable[object] | None, dsts: Iterable[object] | None) -> Iterator[tuple[object, object]]:
    """Return source and destination of each job.

    Raises
    ------
    ParameterError
        There are neither; or, while iterating: one of them is longer than the other.
    """
    if srcs is None and dsts is None:
        raise ParameterError("process_map needs srcs, dsts or both: their length is the number of jobs")
    if srcs is None:
        return ((None, dst) for dst in dsts or ())
    if dsts is None:
        return ((src, None) for src in srcs)
    return _together(iter(srcs), iter(dsts))


def _together(srcs: Iterator[object], dsts: Iterator[object]) -> Iterator[tuple[object, object]]:
    missing = object()
    count = 0
    while True:
        src, dst = next(srcs, missing), next(dsts, missing)
        if src is missing and dst is missing:
            return
        if src is missing or dst is missing:
            longer, shorter = ("dsts", "srcs") if src is missing else ("srcs", "dsts")
            raise ParameterError(f"{longer} is longer than {shorter}, which has {count}")
        yield src, dst
        count += 1
