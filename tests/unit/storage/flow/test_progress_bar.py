"""`ProgressBar` on a terminal, in a pipe and as HTML; `process_map` tells how many jobs have ended."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ParameterError

ROOT = Path(apyfal.__file__).parents[1]


# -- process_map ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["accelerator", "pool"])
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("stored", [True, False])
def test_process_map_tells_how_many_jobs_have_ended(kind: str, sized: bool, stored: bool) -> None:
    arrays = [np.full(10, number, np.uint8) for number in range(20)]
    outputs = [np.empty(10, np.uint8) for _ in arrays] if stored else None
    sources = arrays if sized else iter(arrays)
    seen: list[tuple[int, int | None]] = []
    with opened(kind) as card:
        results = card.process_map(sources, outputs, progress=lambda *told: seen.append(told))  # type: ignore[attr-defined]
        found = list(results)
    assert seen == [(number, 20 if sized else None) for number in range(1, 21)]
    assert [int(result[3]) for result in (outputs or found)] == list(range(20))


def opened(kind: str) -> object:
    made = {
        "accelerator": lambda: apyfal.Accelerator("loopback"),
        "pool": lambda: apyfal.AcceleratorPoolExecutor("loopback", workers_count=1),
    }
    return made[kind]()


def test_small_jobs_still_travel_together() -> None:
    with apyfal.Accelerator("loopback") as card:
        jobs = [bytes([number]) for number in range(200)]
        alone = []
        process = card._submitter._process
        card._submitter._process = lambda *data, **keywords: alone.append(1) or process(*data, **keywords)  # type: ignore[func-returns-value]
        assert len(list(card.process_map(jobs, progress=lambda done, total: None))) == 200
        assert len(alone) < 150


def test_progress_that_raises_ends_the_iteration() -> None:
    def fails(done: int, total: int | None) -> None:
        if done == 3:
            raise RuntimeError("enough")

    with apyfal.Accelerator("loopback") as card:
        results = card.process_map([b"x"] * 10, progress=fails)
        with pytest.raises(RuntimeError, match="enough"):
            list(results)
        assert list(results) == []


def test_a_job_that_fails_is_not_counted() -> None:
    seen: list[int] = []
    with apyfal.Accelerator("gunzip") as card:
        results = card.process_map([b"no gzip"] * 3, progress=lambda done, total: seen.append(done))
        with pytest.raises(apyfal.exceptions.AcceleratorException):
            next(iter(results))
        results.close()  # type: ignore[attr-defined]
    assert seen == []


def test_progress_is_a_function() -> None:
    with apyfal.Accelerator("loopback") as card, pytest.raises(ParameterError, match="progress"):
        card.process_map([b"x"], progress=True)  # type: ignore[call-overload]


# -- the bar ----------------------------------------------------------------------------------------------------------
def test_in_words_and_as_html() -> None:
    bar = apyfal.ProgressBar("copy <x>")
    assert re.fullmatch(r"<ProgressBar copy <x>: 0 B, .*s>", repr(bar))
    bar(1 << 20, 4 << 20)
    assert str(bar).startswith("copy <x>: 1.0 MiB of 4.0 MiB, ")
    assert "copy &lt;x&gt;" in bar._repr_html_()
    assert f'value="{1 << 20}" max="{4 << 20}"' in bar._repr_html_()
    bar(5 << 20, 4 << 20)
    assert f'value="{4 << 20}"' in bar._repr_html_()  # more than announced is full
    jobs = apyfal.ProgressBar(unit="jobs")
    jobs(1234)
    assert str(jobs).startswith("1,234 jobs, ")
    assert " value=" not in jobs._repr_html_()
    jobs.close()
    said = str(jobs)
    jobs.close()
    assert str(jobs) == said
    assert ' value="1" max="1"' in jobs._repr_html_()


@pytest.mark.parametrize("wrong", [{"description": 3}, {"unit": None}])
def test_wrong_arguments(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="text"):
        apyfal.ProgressBar(**wrong)  # type: ignore[arg-type]


def test_nothing_is_shown_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with apyfal.ProgressBar("x") as bar, apyfal.Accelerator("sha3") as card:
            card.process(b"abc", progress=bar)
        assert (bar.done, bar.total) == (3, 3)
        assert stream is None or stream.getvalue() == ""


def test_a_bar_on_a_terminal() -> None:
    code = "import apyfal, time\nwith apyfal.ProgressBar('hash') as bar:\n"
    code += "    bar(1, 4)\n    time.sleep(0.3)\n    bar(3, 4)\nprint('end')"
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=follower, stderr=follower) as process:
        os.close(follower)
        text = b"".join(received(leader)).decode()
    assert process.returncode == 0
    assert "hash: 1 B of 4 B" in text
    assert text.rstrip().endswith("end")


def received(leader: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # its other end is closed
            return
        if not data:
            return
        yield data
