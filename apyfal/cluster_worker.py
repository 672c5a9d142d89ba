"""What runs in the workers of a cluster: jobs, with the mounts of the process that submitted them."""

from __future__ import annotations

import os
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, NamedTuple

from apyfal.accelerator import Accelerator
from apyfal.config.configuration import ConfigSource
from apyfal.exceptions import KernelError, MountError
from apyfal.storage.mounting import table

__all__ = ["Ended", "Mounts", "call_function", "run_job", "run_jobs"]

#: With the process id, tells whether a task runs in the process that submitted it, and so has its mounts already.
_TOKEN = secrets.token_hex(8)

_open: dict[object, Accelerator] = {}
_lock = threading.Lock()


class Mounts(NamedTuple):
    """The mounts of the process that submits a job; they travel with it. Pickled, they hold the mounts' secrets."""

    process: tuple[int, str]
    snapshot: Any

    @classmethod
    def here(cls) -> Mounts:
        """Return the mounts of this process, as they are now."""
        return cls((os.getpid(), _TOKEN), table.snapshot())

    def __repr__(self) -> str:
        return f"<mounts of process {self.process[0]}>"


class _MountGate:
    """Lets jobs with equal mounts run at the same time, and others after them: a process has one table of mounts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current: Any = None
        self._running = 0

    @contextmanager
    def hold(self, mounts: Mounts) -> Iterator[None]:
        """Have `mounts` in place while the block runs."""
        if mounts.process == (os.getpid(), _TOKEN):
            yield
            return
        with self._changed:
            while self._running and self._current != mounts:
                self._changed.wait()
            if self._current != mounts:
                old = () if self._current is None else self._current.snapshot.definitions
                self._current = None  # if restoring fails
                kept = {definition.name for definition in mounts.snapshot.definitions}
                mounts.snapshot.restore()
                for definition in old:
                    if definition.name not in kept:
                        with suppress(MountError):  # unmounted by somebody else
                            table.unmount(definition.name)
                self._current = mounts
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()


_gate = _MountGate()


class Ended(NamedTuple):
    """What a job in a worker ended with."""

    result: Any
    error: BaseException | None
    info: dict[str, Any] | None


def run_job(
    accelerator: str | None,
    config: ConfigSource,
    definition: Mapping[str, Any],
    mounts: Mounts,
    src: Any,
    dst: Any,
    keywords: Mapping[str, Any],
    with_info: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Run one job in a worker process; called by the cluster.

    Parameters
    ----------
    accelerator, config, definition
        As for `apyfal.Accelerator`; it is opened by the first job and kept by the process.
    mounts
        Of the submitting process.
    src, dst, keywords
        As for `apyfal.Accelerator.process`.
    with_info
        Whether to return an ``info_dict``.

    Returns
    -------
    result, info
        Result of `process`, and its ``info_dict`` (empty unless `with_info`).
    """
    info: dict[str, Any] = {}
    every = {**keywords, "info_dict": info} if with_info else keywords
    with _gate.hold(mounts):
        try:
            return _accelerator(accelerator, config, definition).process(src, dst, **every), info
        except Exception as error:
            _add_cause_as_note(error)
            raise


def run_jobs(
    accelerator: str | None,
    config: ConfigSource,
    definition: Mapping[str, Any],
    mounts: Mounts,
    pairs: Sequence[tuple[Any, Any]],
    keywords: Mapping[str, Any],
    with_info: bool = False,
) -> tuple[list[Ended], float]:
    """Run several jobs in a worker process, small ones in batches; called by the cluster.

    Parameters
    ----------
    accelerator, config, definition, mounts, keywords, with_info
        As for `run_job`, for all jobs.
    pairs
        Source and destination of each job.

    Returns
    -------
    list
        Result, error and ``info_dict`` of each job.
    float
        Seconds that they took.
    """
    start = perf_counter()
    with _gate.hold(mounts):
        opened = _accelerator(accelerator, config, definition)
        infos: list[dict[str, Any] | None] = [{} if with_info else None for _ in pairs]
        futures = [
            opened.process_submit(src, dst, **(keywords if info is None else {**keywords, "info_dict": info}))
            for (src, dst), info in zip(pairs, infos, strict=True)
        ]
        errors = [future.exception() for future in futures]  # waits
    for error in errors:
        _add_cause_as_note(error)
    ended = [
        Ended(future.result() if error is None else None, error, info)
        for future, error, info in zip(futures, errors, infos, strict=True)
    ]
    return ended, perf_counter() - start


def _add_cause_as_note(error: BaseException | None) -> None:
    """Add what a software model raised to an error, as a note: pickling drops causes and tracebacks."""
    if isinstance(error, KernelError) and (cause := error.__cause__) is not None:
        text = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__)).rstrip()
        notes = [*getattr(error, "__notes__", ()), f"caused in a worker of the cluster by:\n{text}"]
        error.__notes__ = notes  # type: ignore[attr-defined]  # as add_note, on 3.10 too


def _accelerator(accelerator: str | None, config: ConfigSource, definition: Mapping[str, Any]) -> Accelerator:
    """Return this process's accelerator; open it if it is not open."""
    key = (os.getpid(), accelerator, repr(config), repr(sorted(definition.items())))
    with _lock:
        found = _open.get(key)
        if found is None:
            found = _open[key] = Accelerator(accelerator, config, **definition)
        return found


def call_function(function: Callable[[], Any]) -> Any:
    """Call a function without arguments; called by the cluster."""
    return function()
