"""An interrupted command ends, though an exception of a signal has left a lock taken that its end needs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
try:
    status = cli.main()
finally:
    print("interrupted", flush=True)
sys.exit(status)
"""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def prepare(ignored: signal.Signals | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ignored is not None:
        signal.signal(ignored, signal.SIG_IGN)


@contextlib.contextmanager
def hanging(grace: int, ignored: signal.Signals | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a signal, and hangs at its exit."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(grace=grace)],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(prepare, ignored),
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def ignored_by(child: subprocess.Popen[str]) -> set[int]:
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)", Path(f"/proc/{child.pid}/status").read_text(), re.MULTILINE)
    return {number for number in SIGNALS if int(mask, 16) >> (number - 1) & 1}


def test_a_command_that_cannot_end_is_ended() -> None:
    with contextlib.ExitStack() as stack:
        children = {number: stack.enter_context(hanging(1)) for number in SIGNALS}
        for number, child in children.items():
            child.send_signal(number)
        ended = {number: child.wait(60) for number, child in children.items()}
    assert ended == dict.fromkeys(SIGNALS, -signal.SIGALRM)


@pytest.mark.parametrize(("first", "second"), list(product(SIGNALS, repeat=2)))
def test_a_second_signal_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with hanging(3600) as child:
        child.send_signal(first)
        assert child.stdout is not None
        assert child.stdout.readline() == "interrupted\n"
        child.send_signal(second)
        assert child.wait(60) == -second


@pytest.mark.parametrize("ignored", SIGNALS)
def test_what_the_process_was_started_to_ignore_stays_ignored(ignored: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        others = [number for number in SIGNALS if number is not ignored]
        children = {number: stack.enter_context(hanging(1, ignored)) for number in others}
        for number, child in children.items():
            assert ignored_by(child) == {ignored}
            child.send_signal(ignored)
            child.send_signal(number)  # the first one: it does not end the process at once
        ended = {number: child.wait(60) for number, child in children.items()}
    assert ended == dict.fromkeys(others, -signal.SIGALRM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_calls_it_is_not_ended(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(**_: object) -> None:
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
        os.kill(os.getpid(), number)

    monkeypatch.setattr(cli.group, "main", command)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with pytest.raises(SystemExit, match=str(128 + number)):
        cli.main([])
    left, _ = signal.getitimer(signal.ITIMER_REAL)  # 0, or what limits this test
    assert not 0 < left <= interruption.GRACE
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


def test_another_thread_changes_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[dict[signal.Signals, object]] = []

    def command(**_: object) -> int:
        during.append({each: signal.getsignal(each) for each in SIGNALS})
        return 7

    monkeypatch.setattr(cli.group, "main", command)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, []).result(60) == 7
    assert during == [before]


SLOW = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"


def interrupted(code: str, folder: Path, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Send a signal to a program that is ready; return its exit status and standard error."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path(cli.__file__).parents[2]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(prepare, None),
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.send_signal(number)
            status = child.wait(20)
        finally:
            child.kill()
        assert child.stderr is not None
        return status, child.stderr.read()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_subcommand_that_is_being_imported_ends_by_the_signal(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    code = (
        "import sys\nfrom apyfal import cli\ncli.COMMANDS['slow'] = ('slow', '')\nsys.argv[1:] = ['slow']\ncli.main()"
    )
    assert interrupted(code, tmp_path, number) == (-number, "")


def test_a_signal_at_the_end_of_the_process_is_not_printed(tmp_path: Path) -> None:
    code = "import atexit, time\nfrom apyfal import cli\n"
    code += "atexit.register(lambda: (print('ready', flush=True), time.sleep(2)))\n"
    code += "cli.group.main = lambda **_: 3\nraise SystemExit(cli.main())"
    assert interrupted(code, tmp_path) == (3, "")
