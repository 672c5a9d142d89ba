"""Faults of the command line that users reported, and their kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import forked
import pytest

from apyfal import cli, storage


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "")


@pytest.mark.parametrize("arguments", [[], ["token"], ["host"], ["config"]])
def test_without_a_command_the_help_is_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("Usage: apyfal")
    assert "error:" not in output.err
    assert not output.err.rstrip().endswith("--help)")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("apyfal process -a sha3 x.", "file,x."),
        ("apyfal copy x.", "file,x."),
        ("apyfal copy a x.", "file,x."),
        ("apyfal ls x.", "file,x."),
        ("apyfal config trust x.", "file,x."),
        ("apyfal process --config x.", "file,x."),
        ("apyfal process -o x.", "file,x."),
        ("apyfal process -a s", "plain,scale\nplain,sha3"),
        ("apyfal process -a scale --driver o", "plain,opencl"),
    ],
)
def test_completion(tmp_path: Path, words: str, expected: str) -> None:
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_APYFAL_COMPLETE": "bash_complete",
    }
    done = forked.run([], tmp_path, environment, code="from apyfal.cli import group; group(prog_name='apyfal')")
    assert done.output.decode().strip() == expected


def test_a_section_that_is_no_accelerator_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "accelerator.conf").write_text("[accelerator.runsum]\ndriver = emulator\n")
    assert cli.main(["accelerators"]) == 2
    output = capsys.readouterr()
    assert "sha3" in output.out
    assert "[accelerator.runsum]: key 'kernel' is missing: unknown accelerator 'runsum'" in output.err
    assert cli.main(["process", "-a", "runsum", "accelerator.conf"]) == 2
    assert "unknown accelerator 'runsum'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "status", "files"),
    [
        ("dst=z.raw", 0, ["z.raw"]),
        ("z.raw", 0, ["z.raw"]),
        ("./q=z.raw", 0, ["q=z.raw"]),
        ("q=z.raw", 2, []),
        ("=z.raw", 0, ["=z.raw"]),
        ("a.b=z.raw", 0, ["a.b=z.raw"]),
    ],
)
def test_one_output_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, status: int, files: list[str]
) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert cli.main(["process", "-q", "-a", "loopback", "x", "-o", output]) == status
    assert sorted(set(os.listdir(tmp_path)) - {"x"}) == files
    if status:
        error = capsys.readouterr().err
        assert f"no output is named 'q'; expected one of dst (a file of this name is './{output}')" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "apyfal", "copy", "-q", "pipe", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with (
        # for reading, too, so that this does not wait for the command, which wants a writer as soon as it looks
        open(os.open(tmp_path / "pipe", os.O_RDWR), "wb", buffering=0) as pipe,
        subprocess.Popen(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        ) as child,
    ):
        pipe.write(b"x" * 1000)
        for _ in range(40):  # until the destination's temporary file is there, if it has a name at all
            if len(os.listdir(tmp_path)) > 1:
                break
            time.sleep(0.05)
        child.send_signal(number)
        _, said = child.communicate(timeout=20)
    assert child.returncode == (130 if number == signal.SIGINT else 128 + number), said
    assert os.listdir(tmp_path) == ["pipe"]


def test_trees_go_to_stores_with_real_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rt/a").mkdir(parents=True)
    (tmp_path / "rt/empty").mkdir()
    (tmp_path / "rt/x").write_text("1")
    (tmp_path / "rt/a/y").write_text("2")
    (tmp_path / "accelerator.conf").write_text("[storage.scope]\nprovider = fsspec\nprotocol = memory\n")
    try:
        assert cli.main(["copy", "-r", "rt", "scope://new/rt"]) == 0
        assert storage.listdir("scope://new/rt") == ["a", "empty", "x"]
        assert cli.main(["copy", "-r", "rt/a", "scope://"]) == 0
        assert bytes(storage.load("scope://y")) == b"2"
    finally:
        storage.filesystem().rm("scope://new", recursive=True)
        storage.remove("scope://y")
