"""A bar for work that is under way, in a notebook or on a terminal: `ProgressBar`."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from types import TracebackType
from typing import Any, Protocol

from apyfal.exceptions import ParameterError
from apyfal.units import format_duration, format_size

__all__ = ["ProgressBar"]

#: Seconds between two changes of what is shown: a notebook keeps each message.
_PAUSE = 0.1


class _Display(Protocol):
    """Where a bar is shown."""

    def show(self, bar: ProgressBar) -> None: ...

    def close(self, bar: ProgressBar) -> None: ...


class ProgressBar:
    """Shows what is done: call it with what is done so far and what there is in all.

    It is what `progress` of `process`, `process_map`, `storage.copy` and `storage.sync` takes. In a notebook it is a
    bar below the cell, which stays with its final state; on a terminal, a bar on standard error; elsewhere it shows
    nothing. Usable from any thread.

    Parameters
    ----------
    description
        What is going on, in front of the bar.
    unit
        What is counted: ``"bytes"``, or a word such as ``"jobs"``, as `process_map` counts.

    Attributes
    ----------
    done, total
        As last told; `total` is ``None`` if it is not known.

    Examples
    --------
    >>> with apyfal.ProgressBar("compress") as bar, apyfal.Accelerator("gzip") as card:  # doctest: +SKIP
    ...     card.process("s3://lab/in.raw", "s3://lab/out.gz", progress=bar)
    """

    def __init__(self, description: str = "", *, unit: str = "bytes") -> None:
        if not isinstance(description, str) or not isinstance(unit, str):
            raise ParameterError("ProgressBar: expected a description and a unit as text, such as unit='jobs'")
        self.done = 0
        self.total: int | None = None
        self._description = description
        self._unit = unit
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._shown = 0.0
        self._ended: float | None = None
        self._display = _display_here()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Note what is done, and what there is in all (``None``: not known); show it if that is due."""
        with self._lock:
            self.done, self.total = done, total
            now = time.monotonic()
            if now - self._shown >= _PAUSE and self._ended is None and self._display is not None:
                self._shown = now
                self._display.show(self)

    def close(self) -> None:
        """Show the last state; on a terminal the bar goes away. It can be called again."""
        with self._lock:
            if self._ended is None:
                self._ended = time.monotonic()
                if self._display is not None:
                    self._display.close(self)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        """Say it in words: ``compress: 12 MiB of 20 MiB, 3.1 s``."""
        counts = [self.done] if self.total is None else [self.done, self.total]
        if self._unit == "bytes":
            said = " of ".join(format_size(count) for count in counts)
        else:
            said = f"{' of '.join(f'{count:,}' for count in counts)} {self._unit}"
        seconds = (self._ended or time.monotonic()) - self._began
        return f"{f'{self._description}: ' if self._description else ''}{said}, {format_duration(seconds)}"

    def __repr__(self) -> str:
        return f"<ProgressBar {self}>"

    def _repr_html_(self) -> str:
        """Return the bar for a notebook."""
        state = f' value="{min(self.done, self.total)}" max="{self.total}"' if self.total else ""
        if not state and self._ended is not None:
            state = ' value="1" max="1"'  # without a value it would move for ever
        return f'<div><progress{state} style="width: 20em"></progress> {escape(str(self))}</div>'


class _Notebook:
    """The output of a cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, bar: ProgressBar) -> None:
        from IPython.display import display  # pyright: ignore[reportMissingImports]  # there, as a notebook runs

        if self._handle is None:
            self._handle = display(bar, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bar)

    def close(self, bar: ProgressBar) -> None:
        self.show(bar)


class _Terminal:
    """A line on standard error."""

    def __init__(self) -> None:
        self._progress: Any = None

    def show(self, bar: ProgressBar) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        self._progress.update(self._task, description=str(bar), completed=bar.done, total=bar.total)

    def close(self, bar: ProgressBar) -> None:
        if self._progress is not None:
            self._progress.stop()


def _display_here() -> _Display | None:
    """Return what shows bars in this process; ``None``: nothing does."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return _Notebook()
    stream = sys.stderr
    return _Terminal() if stream is not None and stream.isatty() else None
