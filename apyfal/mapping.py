"""Many jobs from iterables of any length: submitted a few ahead, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from apyfal.exceptions import ParameterError

__all__ = ["map_jobs"]


def map_jobs(
    submit: Callable[..., Future[Any]],
    srcs: Iterable[object] | None,
    dsts: Iterable[object] | None,
    timeout: float | str | None,
    info_list: list[dict[str, Any]] | None,
    parameters: dict[str, Any],
    *,
    ahead: Callable[[], int],
) -> Iterator[Any]:
    """Submit many jobs, as many ahead of the first result as `ahead` says; see `Accelerator.process_map`."""
    if srcs is None and dsts is None:
        raise ParameterError("process_map needs srcs, dsts or both: their length is the number of jobs")
    return _mapped(submit, _pairs(srcs, dsts), timeout, info_list, parameters, ahead)


def _mapped(
    submit: Callable[..., Future[Any]],
    pairs: Iterator[tuple[object, object]],
    timeout: float | str | None,
    info_list: list[dict[str, Any]] | None,
    parameters: dict[str, Any],
    ahead: Callable[[], int],
) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    try:
        for src, dst in pairs:
            info: dict[str, Any] | None = None
            if info_list is not None:
                info_list.append(info := {})
            pending.append(submit(src, dst, timeout=timeout, info_dict=info, **parameters))
            while len(pending) >= ahead():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _pairs(srcs: Iterable[object] | None, dsts: Iterable[object] | None) -> Iterator[tuple[object, object]]:
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
