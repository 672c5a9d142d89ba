"""A progress bar on the terminal: bytes, rate, time left, what limits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["ProgressCallback", "progress_bar"]

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
