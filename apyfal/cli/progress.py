"""A progress bar on the terminal: bytes, rate, time left, what limits it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeAlias

__all__ = ["ProgressCallback", "ProgressSum", "progress_bar"]

#: Called with the bytes done so far and the bytes in all (``None``: not known), from any thread.
ProgressCallback: TypeAlias = Callable[[int, "int | None"], None]


@contextmanager
def progress_bar(
    description: str, *, enabled: bool, remark: Callable[[], str] = lambda: ""
) -> Iterator[ProgressCallback | None]:
    """Show a bar on standard error while the block runs.

    Parameters
    ----------
    description
        What is going on, at the bar's left.
    enabled
        Whether there is a bar at all.
    remark
        Says what is shown at the bar's right, each time that work goes on.

    Yields
    ------
    ProgressCallback or None
        What to call as work goes on; ``None`` where not `enabled`.
    """
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(description), total=None, remark="")

        def update(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total, remark=escape(remark()))

        yield update


class ProgressSum:
    """The total progress of several transfers, which may run at the same time. Usable from any thread.

    Parameters
    ----------
    progress
        Called with the bytes done and the total size; ``None``: nothing is shown.
    sizes
        Size of each transfer in bytes; ``None``: not known before it begins. As long as one size is not known, the
        total is not known.
    """

    def __init__(self, progress: ProgressCallback | None, sizes: Iterable[int | None]) -> None:
        self._progress = progress
        # of a part that has not begun, or has ended, its size is all that is kept (-1: not known)
        known = () if progress is None else (-1 if size is None else size for size in sizes)
        self._sizes = array("q", known)
        self._ended = bytearray(len(self._sizes))
        self._under_way: dict[int, tuple[int, int | None]] = {}
        self._done, self._unknown = 0, sum(size < 0 for size in self._sizes)
        self._total = sum(self._sizes) + self._unknown
        self._lock = Lock()

    def part(self, number: int) -> ProgressCallback | None:
        """Return the callback for the transfer with this number; it takes the bytes moved and the total."""
        if self._progress is None:
            return None

        def update(done: int, total: int | None) -> None:
            with self._lock:
                known = self._part(number)[1] if total is None else total
                self._put(number, done, known if known is None else max(done, known))

        return update

    def finished(self, number: int) -> None:
        """Count a transfer as complete. Some report no bytes: there is nothing to move, or the store moves it."""
        with self._lock:
            if self._progress is not None:
                done, total = self._part(number)
                whole = done if total is None else total
                self._put(number, whole, whole)
                self._end(number, whole)

    def failed(self, number: int) -> None:
        """Take a failed transfer out of the total."""
        with self._lock:
            if self._progress is not None:
                self._put(number, 0, 0)
                self._end(number, 0)

    def _part(self, number: int) -> tuple[int, int | None]:
        """Return the bytes done and the size of one transfer."""
        found = self._under_way.get(number)
        if found is not None:
            return found
        size = self._sizes[number]
        return size if self._ended[number] else 0, None if size < 0 else size

    def _end(self, number: int, size: int) -> None:
        self._sizes[number] = size
        self._ended[number] = True
        self._under_way.pop(number, None)

    def _put(self, number: int, done: int, total: int | None) -> None:
        """Change one transfer, and call `progress` with the totals; the lock is held."""
        before, known = self._part(number)
        self._under_way[number] = done, total
        self._done += done - before
        self._total += (total or 0) - (known or 0)
        self._unknown += (total is None) - (known is None)
        if self._progress is not None:
            self._progress(self._done, None if self._unknown else self._total)
