"""Signals that end a command: it undoes what it was writing, and the process ends, whatever it waits for."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["ended_by_signals", "interruptible"]

#: Seconds for what an interrupted command undoes, such as an upload that its store must forget.
GRACE = 30

#: what handles the signals of a command that its process ends with; ``None``: there is none
_handler: Callable[[int, FrameType | None], None] | None = None


@contextlib.contextmanager
def interruptible(*, ends_the_process: bool) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into exceptions of the main thread, which undo what is being written.

    A signal that the process was started to ignore stays ignored: SIGHUP below `nohup`, SIGINT of a background job. In
    another thread than the main one, nothing changes: whoever runs a command there handles signals.

    Parameters
    ----------
    ends_the_process
        Whether the process ends with the command. A second signal, whichever it is, then ends it at once, and so does
        the kernel `GRACE` seconds after the first one: an exception that a signal raises can leave any lock of the
        interpreter's or of a library's taken, and what needs that lock at exit would wait for ever. Otherwise SIGINT
        is the program's own affair, and the former handlers are back when the command has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    global _handler
    over = False

    def interrupted(number: int, _: FrameType | None) -> None:
        if ends_the_process:
            for each in (*former, signal.SIGALRM):
                signal.signal(each, signal.SIG_DFL)
            signal.alarm(GRACE)
        if over:
            return  # the process ends already: an exception would only be printed
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    former = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    if ends_the_process and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        former[signal.SIGINT] = signal.default_int_handler
    if ends_the_process:
        _handler = interrupted
    for number in former:
        signal.signal(number, interrupted)
    try:
        yield
    finally:
        over = True
        if not ends_the_process:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals end the process at once while a command is imported: it has nothing to undo.

    Python prints an exception of a signal that comes while a module is freed or a lock of the imports is dropped, and
    then goes on.
    """
    if threading.current_thread() is not threading.main_thread() or _handler is None:
        yield
        return
    ours = [each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is _handler]
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _handler)
