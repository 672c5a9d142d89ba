"""A progress bar in a notebook or on a terminal: `ProgressBar`."""

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

#: Least seconds between two updates of the display: a notebook keeps each message.
_PAUSE = 0.1


class _Display(Protocol):
    """Where a bar is shown."""

    def show(self, bar: ProgressBar) -> None: ...

    def close(self, bar: ProgressBar) -> None: ...


class ProgressBar:
    """A progress bar. Call it with the amount that is done and the total amount.

    Pass it as `progress` to `process`, `process_map`, `storage.copy` or `storage.sync`. In a notebook, the bar is below
    the cell, and its final state stays there. On a terminal, it is on standard error until it is closed. Elsewhere
    nothing is shown. Usable from any thread; close it, or use it in a ``with`` block.

    Parameters
    ----------
    description
        Text in front of the bar.
    unit
        What is counted: ``"bytes"``, or a word such as ``"jobs"`` for `process_map`.

    Attributes
    ----------
    done, total
        The amounts of the last call, in `unit`; `total` is ``None`` if it is not known.

    Raises
    ------
    ParameterError
        `description` or `unit` is not text.

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
        """Set the amount done and the total (``None``: not known). The display changes at most every 0.1 s."""
        with self._lock:
            self.done, self.total = done, total
            now = time.monotonic()
            if now - self._shown >= _PAUSE and self._ended is None and self._display is not None:
                self._shown = now
                self._display.show(self)

    def close(self) -> None:
        """Show the last state in a notebook; remove the bar from a terminal. It can be called again."""
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
        """Return the state as text: ``compress: 12 MiB of 20 MiB, 3.1 s``."""
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
            state = ' value="1" max="1"'  # without a value, browsers show work in progress
        return f'<div><progress{state} style="width: 20em"></progress> {escape(str(self))}</div>'


class _Notebook:
    """A display in the output of a notebook's cell."""

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
    """A display on standard error."""

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
    """Return the display of this process; ``None``: there is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return _Notebook()
    stream = sys.stderr
    return _Terminal() if stream is not None and stream.isatty() else None
