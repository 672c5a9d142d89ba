"""An interrupted command ends, though an exception of a signal has left a lock taken that its end needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from apyfal import cli
from apyfal.cli import interruption

PROGRAM = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from apyfal import cli
from apyfal.cli import interruption

interruption.GRACE = {grace}

def command(**_):
    left = threading.Lock()
    left.acquire()
    pool = ThreadPoolExecutor(1)
    pool.submit(left.acquire)  # the interpreter waits for this thread at exit
    print("ready", flush=True)
    time.sleep(60)

cli.group.main = command
sys.argv[1:] = []
sys.exit(cli.main())
"""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def prepare(ignored: signal.Signals | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ignored is not None:
        signal.signal(ignored, signal.SIG_IGN)


def ended_by(grace: int, signals: list[signal.Signals], ignored: signal.Signals | None = None) -> int:
    """Return the status of a process that hangs at its exit."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(grace=grace)],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(prepare, ignored),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            child.send_signal(signals[0])
            for number in signals[1:]:
                with pytest.raises(subprocess.TimeoutExpired):  # two at once may come as one
                    child.wait(1)
                child.send_signal(number)
            return child.wait(20)
        finally:
            child.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_cannot_end_is_ended(number: signal.Signals) -> None:
    assert ended_by(1, [number]) == -signal.SIGALRM


@pytest.mark.parametrize(("first", "second"), list(product(SIGNALS, repeat=2)))
def test_a_second_signal_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    assert ended_by(60, [first, second]) == -second


@pytest.mark.parametrize("ignored", SIGNALS)
@pytest.mark.parametrize("other", SIGNALS)
def test_what_the_process_was_started_to_ignore_stays_ignored(ignored: signal.Signals, other: signal.Signals) -> None:
    if other is ignored:
        assert ended_by(60, [ignored, signal.SIGKILL], ignored) == -signal.SIGKILL
    else:
        assert ended_by(1, [ignored, other], ignored) == -signal.SIGALRM


def test_a_program_that_calls_it_is_not_ended() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        assert cli.main([]) == 2
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)
        left, _ = signal.getitimer(signal.ITIMER_REAL)  # 0, or what limits this test
        assert not 0 < left <= interruption.GRACE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
