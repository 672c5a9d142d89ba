"""Signals that end a command: it undoes what it was writing, and the process ends, whatever it waits for."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

__all__ = ["handle_signals"]

#: Seconds for what an interrupted command undoes, such as an upload that its store must forget.
GRACE = 30


def handle_signals(*, ends_the_process: bool) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into exceptions of the main thread, which undo what is being written.

    A signal that the process was started to ignore stays ignored: SIGHUP below `nohup`, SIGINT of a background job.

    Parameters
    ----------
    ends_the_process
        Whether the process ends with the command. A second signal, whichever it is, then ends it at once, and so does
        the kernel `GRACE` seconds after the first one: an exception that a signal raises can leave any lock of the
        interpreter's or of a library's taken, and what needs that lock at exit would wait for ever.

    Raises
    ------
    ValueError
        This is not the main thread.
    """

    def interrupted(number: int, _: FrameType | None) -> NoReturn:
        if ends_the_process:
            for each in (*taken, signal.SIGALRM):
                signal.signal(each, signal.SIG_DFL)
            signal.alarm(GRACE)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    if ends_the_process and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        taken.append(signal.SIGINT)
    for number in taken:
        signal.signal(number, interrupted)
