"""Many jobs from iterables of any length: submitted ahead of the reader, and their results in order."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from os import PathLike
from typing import Any, Protocol

from apyfal.exceptions import ParameterError
from apyfal.storage.url import is_file_object, redact

__all__ = [
    "CountedResults",
    "LightFuture",
    "Pairs",
    "ResultIterator",
    "ResultOrder",
    "Submitted",
    "map_jobs",
    "name_job",
    "warn_unread",
]


class Submitted(Protocol):
    """The future of a submitted job: a `concurrent.futures.Future`, or a `LightFuture`."""

    def result(self) -> Any: ...
    def cancel(self) -> bool: ...


class ResultOrder:
    """The state that the futures of one `map_jobs` share: a lock, and the future that the reader waits for."""

    __slots__ = ("awaited", "changed", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.awaited: LightFuture | None = None


class LightFuture:
    """A future for a single reader that takes results in order.

    It costs a tenth of a `concurrent.futures.Future`, because all futures of a `ResultOrder` share a lock. The methods
    work like those of the same names there.
    """

    __slots__ = ("_cancelled", "_done", "_error", "_order", "_result", "_started")

    def __init__(self, order: ResultOrder) -> None:
        self._order = order
        self._started = self._cancelled = self._done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the job as started; return ``False`` if it was cancelled before."""
        with self._order.lock:
            self._started = not self._cancelled
        return self._started

    def cancel(self) -> bool:
        """Cancel the job if it has not started; return whether it is cancelled."""
        with self._order.lock:
            self._cancelled = not self._started
            self._order.changed.notify_all()
        return self._cancelled

    def done(self) -> bool:
        """Return whether the job has ended or was cancelled."""
        return self._done or self._cancelled

    def set_result(self, result: Any) -> None:
        """End the job with a result."""
        self._result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """End the job with an error."""
        self._error = error
        self._end()

    def _end(self) -> None:
        order = self._order
        with order.lock:  # nothing else orders `_done` and `awaited`: the reader could miss the end
            self._done = True
            if order.awaited is self:
                order.changed.notify_all()

    def result(self) -> Any:
        """Wait for the end of the job; return its result or raise its error. Called once."""
        if not self.done():
            order = self._order
            with order.lock:
                order.awaited = self
                while not self.done():
                    order.changed.wait()
                order.awaited = None
        if self._cancelled:
            raise CancelledError
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # if kept, its traceback would keep the local variables of its frames alive
        return self._result


class Pairs:
    """Source and destination of each job of a `process_map`, as an iterator.

    Parameters
    ----------
    srcs, dsts
        As for `apyfal.Accelerator.process_map`.

    Attributes
    ----------
    count
        How many there are; ``None``: one of the iterables does not state its length.
    stored
        Whether each job has a destination, so that its result takes no new memory.

    Raises
    ------
    ParameterError
        Both are ``None``, one is not an iterable of sources or destinations, or their lengths differ. Lengths that are
        not stated are compared while iterating.
    """

    def __init__(self, srcs: Iterable[object] | None, dsts: Iterable[object] | None) -> None:
        if srcs is None and dsts is None:
            raise ParameterError("process_map needs srcs, dsts or both: their length is the number of jobs")
        counts = [
            _checked_length(name, values) for name, values in (("srcs", srcs), ("dsts", dsts)) if values is not None
        ]
        if len(counts) == 2 and None not in counts and counts[0] != counts[1]:
            raise _lengths_differ(counts[0] or 0, counts[1] or 0)
        self.count: int | None = None if None in counts else counts[0]
        self.stored = dsts is not None
        self._srcs = None if srcs is None else iter(srcs)
        self._dsts = None if dsts is None else iter(dsts)
        self._done = 0

    def __iter__(self) -> Pairs:
        return self

    def __next__(self) -> tuple[object, object]:
        if self._dsts is None:
            return next(self._srcs or iter(())), None
        if self._srcs is None:
            return None, next(self._dsts)
        src, dst = next(self._srcs, _MISSING), next(self._dsts, _MISSING)
        if src is _MISSING and dst is _MISSING:
            raise StopIteration
        if src is _MISSING or dst is _MISSING:
            longer = self._done + 1
            raise _lengths_differ(*((self._done, longer) if src is _MISSING else (longer, self._done)))
        self._done += 1
        return src, dst


_MISSING = object()


def _lengths_differ(srcs: int, dsts: int) -> ParameterError:
    longer, shorter, count = ("dsts", "srcs", srcs) if srcs < dsts else ("srcs", "dsts", dsts)
    return ParameterError(f"{longer} is longer than {shorter}, which has {count}")


def _checked_length(name: str, values: object) -> int | None:
    """Return the length of an iterable; ``None``: it states none."""
    kind = type(values).__name__
    expected = f"expected an iterable with one for each job, such as [{name[:-1]}]"
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)) or is_file_object(values):
        raise ParameterError(f"{name}: a {kind} is one {'source' if name == 'srcs' else 'destination'}; {expected}")
    if not isinstance(values, Iterable):
        raise ParameterError(f"{name}: {kind} is not iterable; {expected}")
    try:
        return len(values)  # type: ignore[arg-type]  # TypeError
    except TypeError:
        return None


class ResultIterator(Iterator[Any]):
    """The results of many jobs, in order. The first jobs are submitted when it is made.

    If iteration is left early, or `close` is called, jobs that have not started are cancelled. If it is dropped before
    it was used, the submitted jobs run all the same: a caller may only want what they store.

    Parameters
    ----------
    results
        Yields the results; closing it cancels jobs that have not started.
    abandon
        Called if it is dropped before it was used.
    cancel
        Cancels jobs that have not started.
    """

    def __init__(
        self, results: Generator[Any, None, None], abandon: Callable[[], None], cancel: Callable[[], None]
    ) -> None:
        self._results = results
        self._abandon: Callable[[], None] | None = abandon
        self._cancel = cancel

    def __iter__(self) -> ResultIterator:
        self._abandon = None
        return self

    def __next__(self) -> Any:
        self._abandon = None
        return next(self._results)

    def close(self) -> None:
        """Cancel jobs that have not started. No more results are yielded."""
        self._abandon = None
        self._cancel()
        with contextlib.suppress(ValueError):  # another thread is in it, and finds its job cancelled
            self._results.close()

    def __del__(self) -> None:
        if (abandon := self._abandon) is not None:
            abandon()


class CountedResults(Iterator[Any]):
    """An iterator over the results of many jobs that reports how many have been read.

    Parameters
    ----------
    results
        What `map_jobs` returned; owned, and closed with this.
    count
        Number of jobs; ``None``: not known.
    progress
        Called after each result, with the number of results read and `count`. If it raises, jobs that have not started
        are cancelled.
    """

    def __init__(
        self,
        results: Iterator[Any],
        count: int | None,
        progress: Callable[[int, int | None], None],
    ) -> None:
        if not callable(progress):
            raise ParameterError(f"progress: expected a function, not {type(progress).__name__}")
        self._count = count
        self._results = results
        self._progress = progress
        self._done = 0

    def __next__(self) -> Any:
        result = next(self._results)
        self._done += 1
        try:
            self._progress(self._done, self._count)
        except BaseException:
            self.close()
            raise
        return result

    def close(self) -> None:
        """Cancel jobs that have not started. No more results are yielded."""
        close = getattr(self._results, "close", None)
        if close is not None:
            close()


def warn_unread(submitted: int) -> None:
    """Warn that the results of `process_map` were never read, and so only the first jobs were started."""
    warnings.warn(
        f"process_map: its results were never read, so only the first {submitted} jobs were started; iterate over it, "
        "or give srcs and dsts as sequences",
        RuntimeWarning,
        stacklevel=3,
    )


def map_jobs(
    put: Callable[[LightFuture, object, object, dict[str, Any]], None],
    pairs: Pairs,
    info_list: list[dict[str, Any]] | None,
    keywords: dict[str, Any],
    *,
    ahead: Callable[[], int],
) -> Iterator[Any]:
    """Submit many jobs, and return an iterator over their results; see `apyfal.Accelerator.process_map`.

    All jobs are submitted now if their number is known and their results take no new memory; otherwise as many as
    `ahead` says, and more while the results are read.

    Parameters
    ----------
    put
        Submits a job, given its future, source, destination and keywords of `process`.
    pairs
        Source and destination of each job.
    info_list
        Receives an ``info_dict`` for each job, in order.
    keywords
        Of `process`, for all jobs.
    ahead
        Returns how many submitted jobs may be unread at the moment.
    """
    order = ResultOrder()
    pending: deque[tuple[LightFuture, object]] = deque()
    submitted = ended = 0

    def submit() -> bool:
        """Submit the next job; return ``False`` if there is none."""
        nonlocal submitted
        src, dst = next(pairs, (_MISSING, None))
        if src is _MISSING:
            return False
        own = keywords
        if info_list is not None:
            info: dict[str, Any] = {}
            info_list.append(info)
            own = {**keywords, "info_dict": info}
        future = LightFuture(order)
        put(future, src, dst, own)
        submitted += 1
        # Of the source only its name is kept: what it holds may be large.
        pending.append((future, src if isinstance(src, (str, PathLike)) else None))
        return True

    def take() -> Any:
        nonlocal ended
        future, name = pending.popleft()
        ended += 1
        try:
            return future.result()
        except BaseException as error:
            name_job(error, ended - 1, name)
            raise
        finally:
            del future

    def cancel() -> None:
        for future, _ in pending.copy():  # also while another thread takes from it
            future.cancel()

    def results() -> Generator[Any, None, None]:
        try:
            left = more
            while left:
                while len(pending) >= ahead():
                    yield take()
                left = submit()
            while pending:
                yield take()
        finally:
            cancel()

    def abandon() -> None:
        if more and submitted != pairs.count:
            warn_unread(submitted)

    everything = pairs.stored and pairs.count is not None
    more = True
    try:
        while more and (everything or len(pending) < ahead()):
            more = submit()
    except BaseException:
        cancel()
        raise
    return ResultIterator(results(), abandon, cancel)


def name_job(error: BaseException, number: int, src: object) -> None:
    """Add a note to an error that names its job: its number from 0 on, and its source if that has a name.

    Tracebacks show such notes from Python 3.11 on; ``error.__notes__`` has them in any version.
    """
    note = f"in job {number} of process_map"
    if isinstance(src, (str, PathLike)):
        note += f", over {redact(str(src))}"
    error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]  # as add_note, on 3.10 too
