from __future__ import annotations

import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import apyfal
from apyfal import cli
from apyfal.cli.common import exit_status
from apyfal.definition import registry
from apyfal.exceptions import (
    AccessDenied,
    ConfigurationError,
    DeviceNotFound,
    DriverUnavailable,
    InvalidURL,
    KernelError,
    MountError,
    ObjectNotFound,
    ParameterError,
    RunTimeout,
    StoreUnavailable,
    TransferTimeout,
)


class FakeAccelerator:
    """Stands in for a card: remembers what it was asked for."""

    opened: dict[str, Any]
    asked: dict[str, Any]
    answer: ClassVar[Any] = {"digest": "c0ffee"}
    failure: BaseException | None = None

    def __init__(self, accelerator: str | None = None, **keywords: Any) -> None:
        type(self).opened = {"accelerator": accelerator, **{k: v for k, v in keywords.items() if v is not None}}

    def __enter__(self) -> FakeAccelerator:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def process(self, src: object, dst: object, *, info_dict: dict[str, Any], **keywords: Any) -> Any:
        type(self).asked = {"src": src, "dst": dst, **keywords}
        if self.failure is not None:
            raise self.failure
        info_dict.update(
            bytes_in=2048,
            bytes_out=0,
            bytes_copied=2048,
            copy_reasons=["src: not contiguous"],
            seconds={"fetch": 0.25, "compute": 0.5, "total": 1.0},
            chunks=2,
            device="card 0",
            driver="emulator",
            timeline=[("fetch", 0, 0.0, 0.25), ("compute", 0, 0.25, 0.75)],
        )
        return self.answer


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("APYFAL_TOKEN", raising=False)
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[FakeAccelerator]:
    class Card(FakeAccelerator):
        pass

    monkeypatch.setattr(apyfal, "Accelerator", Card, raising=False)
    return Card


def python(code: str, **keywords: Any) -> subprocess.Popen[str]:
    """Run `code` in an interpreter of its own, with this apyfal."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **keywords)


# -- the group --------------------------------------------------------------------------------------------------------
def test_help_imports_no_command() -> None:
    code = "import sys; from apyfal.cli import main; main(['--help']); print([m for m in sys.modules if 'mands.' in m])"
    with python(code, stdout=subprocess.PIPE) as child:
        text, _ = child.communicate(timeout=30)
    assert text.splitlines()[-1] == "[]"
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"  {name} " in text
        assert summary in text


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(cli.COMMANDS[name][0]).command.name == name
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: apyfal {name} ")
    for option in ("--json", "--debug", "--quiet", "--config"):
        assert option in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("apyfal ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["proces"], "unknown command 'proces'; did you mean 'process'?"),
        (["process", "--acelerator", "x"], "--acelerator"),
        (["process", "-p", "level", "-a", "sha3"], "-p 'level': expected KEY=VALUE (see 'apyfal process' --help)"),
        (["process", "-p", "=1", "-a", "sha3"], "-p '=1': expected KEY=VALUE"),
        (["process", "-a", "gzip", "x"], "the output is data: expected -o URL, or -o - for standard output"),
        (["process", "-a", "sha33", "x"], "unknown accelerator 'sha33'; did you mean 'sha3'?"),
        (["process", "-a", "sha3", "--timeout", "soon", "x"], "'soon' is not a duration"),
        (["copy", "a"], "DESTINATION"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.startswith("apyfal: error: ")
    assert output.err.count("\n") == 1


# -- exit status ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KernelError("x"), 1),
        (ValueError("x"), 1),
        (ParameterError("x"), 2),
        (ConfigurationError("x"), 2),
        (InvalidURL("x"), 2),
        (MountError("x"), 2),
        (ObjectNotFound("x"), 3),
        (FileNotFoundError("x"), 3),
        (DeviceNotFound("x"), 3),
        (AccessDenied("x"), 4),
        (RunTimeout("x"), 5),
        (TransferTimeout("x"), 5),
        (StoreUnavailable("x"), 6),
        (DriverUnavailable("x"), 6),
    ],
)
def test_exit_status_tells_the_kind(
    error: Exception, status: int, card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(error) == status
    card.failure = error
    assert cli.main(["process", "-a", "sha3", "x"]) == status
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_is_one_line(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    card.failure = KernelError("card 0: the run ended\nin an error")
    assert cli.main(["process", "-a", "sha3", "x"]) == 1
    assert capsys.readouterr().err == "apyfal: error: card 0: the run ended in an error\n"
    assert cli.main(["process", "-a", "sha3", "x", "--json"]) == 1
    document = json.loads(capsys.readouterr().err)
    assert document == {"error": {"type": "KernelError", "message": "card 0: the run ended in an error", "status": 1}}


def test_json_has_what_json_cannot_say_as_text(
    card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"a": math.nan, "b": [-math.inf, np.float32("inf")], "c": b"\xff", 1: (10**5000, (1 << 53) + 1)}
    monkeypatch.setattr(card, "process", lambda *_, **__: values)
    assert cli.main(["process", "-a", "sha3", "in.bin", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["result"]
    assert found == {"a": "NaN", "b": ["-Infinity", "Infinity"], "c": "ff", "1": [hex(10**5000), (1 << 53) + 1]}


def test_a_defect_says_so(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    card.failure = KeyError("oops")
    assert cli.main(["process", "-a", "sha3", "x"]) == 1
    assert (
        capsys.readouterr().err == "apyfal: error: KeyError: 'oops' (this is a defect of apyfal; --debug shows where)\n"
    )


def test_debug_shows_the_traceback(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    card.failure = ObjectNotFound("no such object")
    assert cli.main(["process", "-a", "sha3", "x", "--debug"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupt(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    card.failure = KeyboardInterrupt()
    assert cli.main(["process", "-a", "sha3", "x"]) == 130
    assert capsys.readouterr().err.strip() == "apyfal: interrupted"


def test_terminating_unwinds() -> None:
    code = (
        "import sys, time\n"
        "import apyfal\n"
        "from apyfal import cli\n"
        "class Card:\n"
        "    def __init__(self, *a, **k): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *e): print('aborted', flush=True)\n"
        "    def process(self, *a, **k):\n"
        "        print('running', flush=True)\n"
        "        time.sleep(60)\n"
        "apyfal.Accelerator = Card\n"
        "sys.exit(cli.main(['process', '-a', 'sha3', 'x']))\n"
    )
    with python(code, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.terminate()
        assert child.stdout.readline() == "aborted\n"
        assert child.wait(20) == 128 + signal.SIGTERM


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from apyfal.cli import main; sys.exit(main(['accelerators']))"
    with python(code, stdout=write, stderr=subprocess.PIPE) as child:
        os.close(write)
        _, text = child.communicate(timeout=30)
    assert text == ""
    assert child.returncode == 128 + signal.SIGPIPE


# -- process ----------------------------------------------------------------------------------------------------------
def test_process_passes_everything_on(card: type[FakeAccelerator], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APYFAL_TOKEN", "hunter2")
    arguments = [
        "process",
        "-a",
        "scale",
        "s3://lab/in",
        "-o",
        "out.raw",
        "-p",
        "a=3",
        "-p",
        "b=x=y",
        "-d",
        "kernel=scale",
    ]
    options = [
        "--dtype",
        "int16",
        "--driver",
        "opencl",
        "--device",
        "1",
        "--memory-limit",
        "64MiB",
        "--timeout",
        "2min",
    ]
    assert cli.main([*arguments, *options, "--no-copy", "--host", "https://card:4443"]) == 0
    assert card.opened == {
        "accelerator": "scale",
        "kernel": "scale",
        "dtype": "int16",
        "driver": "opencl",
        "device": "1",
        "host_ip": "https://card:4443",
        "token": "hunter2",
    }
    assert card.asked == {
        "src": "s3://lab/in",
        "dst": "out.raw",
        "copy": False,
        "memory_limit": "64MiB",
        "timeout": 120.0,
        "progress": None,
        "a": "3",
        "b": "x=y",
    }


def test_a_single_result_is_printed_alone(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["process", "-a", "sha3", "x"]) == 0
    assert capsys.readouterr().out == "c0ffee\n"
    card.answer = {"count": 3, "digest": "c0ffee"}
    assert cli.main(["process", "-a", "sha3", "x"]) == 0
    assert capsys.readouterr().out == "count: 3\ndigest: c0ffee\n"


def test_json_has_result_and_info(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["process", "-a", "sha3", "x", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == {"digest": "c0ffee"}
    assert document["info"]["bytes_copied"] == 2048
    assert "timeline" not in document["info"]


def test_dash_is_standard_input_and_output(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["process", "-a", "sha3", "-", "-o", "-"]) == 0
    assert card.asked["src"] is sys.stdin.buffer
    assert card.asked["dst"] is sys.stdout.buffer
    assert capsys.readouterr() == ("", "c0ffee\n")


def test_verbose_says_what_was_done(card: type[FakeAccelerator], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["process", "-a", "sha3", "x", "-v"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "2.0 KiB in, 0 B out, 2 chunks, 1.0 s, 2.0 KiB/s, on card 0 (emulator)",
        "stages: fetch 250.0 ms, compute 500.0 ms",
        "copied in memory: 2.0 KiB: src: not contiguous",
    ]


def test_trace(card: type[FakeAccelerator], tmp_path: Path) -> None:
    assert cli.main(["process", "-a", "sha3", "x", "--trace", "trace.json"]) == 0
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == ["fetch", "compute"]
    spans = [(event["name"], event["ts"], event["dur"]) for event in events if event["ph"] == "X"]
    assert spans == [("fetch 0", 0.0, 250000.0), ("compute 0", 250000.0, 500000.0)]


def test_the_configuration_is_used_by_mounts_too(
    card: type[FakeAccelerator], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.conf").write_text("[accelerator.mine]\nkernel = sha3\n")
    assert cli.main(["process", "-a", "mine", "x", "--config", "my.conf"]) == 0
    assert os.environ["APYFAL_CONFIG_FILE"] == "my.conf"
    assert cli.main(["process", "-a", "mine", "x", "--config", "none.conf"]) == 2
    assert "cannot read configuration 'none.conf'" in capsys.readouterr().err


# -- lists ------------------------------------------------------------------------------------------------------------
def test_accelerators(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})  # what other tests, and modules of tests, have registered
    assert cli.main(["accelerators"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "DRIVER", "PARAMETERS", "WHAT", "IT", "DOES"]
    assert [line.split()[0] for line in lines[1:8]] == [
        "gunzip",
        "gzip",
        "histogram",
        "loopback",
        "scale",
        "sha3",
        "trng",
    ]
    assert cli.main(["accelerators", "--json"]) == 0
    document = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert document["histogram"]["parameters"] == {"bins": 256, "range": None}
    assert document["trng"]["parameters"] == {"nbytes": None}


class FakeListing(list[Any]):
    """What `apyfal.devices` returns."""

    unavailable: ClassVar[dict[str, str]] = {"xrt": "libxrt_coreutil.so.2: not found"}


def test_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"import_align": 4096, "size_align": 1, "offset_align": 64, "compute_units": 2}
    names = {"driver": "emulator", "index": 0, "name": "software card", "vendor": "apyfal", "version": ""}
    card = {**names, **numbers, "memory": 8 << 30, "capabilities": frozenset({"import", "cancel"})}
    bare = {**card, "index": 1, "memory": 0, "capabilities": frozenset({"import"})}
    monkeypatch.setattr(apyfal, "devices", lambda driver: FakeListing([card, bare]), raising=False)
    assert cli.main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r" {2,}", line) for line in lines if line.startswith("emulator")] == [
        ["emulator:0", "software card", "apyfal", "8.0 GiB", "-"],
        ["emulator:1", "software card", "apyfal", "-", "-"],
        ["emulator:0", "yes", "yes", "4096", "1", "64", "2"],
        ["emulator:1", "-", "yes", "4096", "1", "64", "2"],
    ]
    assert cli.main(["devices"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "xrt cannot be used here: libxrt_coreutil.so.2: not found"
    assert cli.main(["devices", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["devices"][0]["capabilities"] == ["cancel", "import"]
    assert document["unavailable"] == FakeListing.unavailable
