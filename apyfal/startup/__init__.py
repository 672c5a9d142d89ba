"""Ctrl-C while the command line is being imported ends the process by the signal, without a traceback."""

from __future__ import annotations

import sys

__all__ = ["end_by_signal", "is_ended_by_signal"]

_begun = False


def end_by_signal() -> None:
    """Let SIGINT end this process if it is the command ``apyfal``, until the command handles signals itself.

    It costs a few system calls in a process of another name, and imports nothing.
    """
    global _begun
    if _begun or not _is_command():
        return
    signals = __import__("_signal")  # `signal` itself takes as long as all of this
    try:
        if signals.getsignal(signals.SIGINT) is signals.default_int_handler:
            signals.signal(signals.SIGINT, signals.SIG_DFL)
            _begun = True
    except ValueError:
        pass  # another thread than the main one


def is_ended_by_signal() -> bool:
    """Return whether SIGINT ends this process because of `end_by_signal`, and not because it was started so."""
    return _begun


def _is_command() -> bool:
    """Return whether this process was started as ``apyfal`` or ``python -m apyfal``."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # as long as the package is imported
        given = sys.orig_argv
        return "-m" in given and given[given.index("-m") + 1 :][:1] == ["apyfal"]
    if name.rpartition("/")[2] != "apyfal":
        return False
    try:
        with open(name, "rb") as script:  # a program of the same name is not ours
            return b"from apyfal.cli import main" in script.read(1024)
    except OSError:
        return False
