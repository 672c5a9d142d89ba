"""Whole jobs from the command line, on the software card."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import numpy as np
import pytest

import apyfal
from apyfal.cli import main

SOURCE = b"the quick brown fox " * 10_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "in.txt").write_bytes(SOURCE)
    handler = signal.getsignal(signal.SIGTERM)  # main() sets its own
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def environment_of(folder: Path) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(apyfal.__file__).parents[1]), "HOME": str(folder)}
    environment.pop("APYFAL_CONFIG_FILE", None)
    return environment


def run(
    folder: Path, *arguments: str, stdin: bytes = b"", status: int = 0, code: str = forked.COMMAND
) -> tuple[bytes, str]:
    """Run ``apyfal`` in `folder`; return what it wrote to standard output and error."""
    done = forked.run(arguments, folder, environment_of(folder), stdin=stdin, code=code)
    assert done.status == status, done.error.decode()
    return done.output, done.error.decode()


def test_digest_of_a_file(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "apyfal", "process", "-a", "sha3", "in.txt"],
        cwd=here,
        env=environment_of(here),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == hashlib.sha3_256(SOURCE).hexdigest() + "\n"


PLUGIN = """
import numpy as np
from apyfal.accelerators import model

@model("join", inputs=("x: int32", "y: uint8"), outputs=("total: int32", "low: uint8"), chunking="elements")
def join(x, y, total, low):
    np.add(x, y, out=total)
    low[:] = total & 255
"""


def test_several_inputs_and_outputs(here: Path) -> None:
    """The model is there before the command, as a plugin's would be by its entry point."""
    code = PLUGIN + forked.COMMAND
    np.arange(1000, dtype=np.int32).tofile(here / "x")
    np.full(1000, 7, np.uint8).tofile(here / "y")
    job = ["process", "-a", "join", "-i", "x=x", "-i", "y=-"]
    content = (here / "y").read_bytes()
    assert run(here, *job, "-o", "total=total", "-o", "low=-", stdin=content, code=code)[0][:3] == b"\x07\x08\x09"
    np.testing.assert_array_equal(np.fromfile(here / "total", np.int32), np.arange(7, 1007))
    for wrong in ([], ["-o", "total=new"], ["-o", "new"], ["-o", "total=new", "-o", "lwo=new2"]):
        assert "-o" in run(here, *job, *wrong, status=2, code=code)[1]
    assert "exclude each other" in run(here, *job, "in.txt", "-o", "total=new", status=2, code=code)[1]
    assert not list(here.glob("new*"))


def test_json_tells_everything(here: Path) -> None:
    options = ["-p", "type=sha3-512", "--json", "--trace", "t.json", "--memory-limit", "8MiB"]
    text, _ = run(here, "process", "-a", "sha3", "in.txt", *options)
    document = json.loads(text)
    assert document["result"] == {"digest": hashlib.sha3_512(SOURCE).hexdigest()}
    assert document["info"]["bytes_in"] == len(SOURCE)
    assert document["info"]["driver"] == "emulator"
    events = json.loads((here / "t.json").read_text())["traceEvents"]
    assert "compute" in {event.get("cat") for event in events}


def test_pipes(here: Path) -> None:
    packed, _ = run(here, "process", "-a", "gzip", "-", "-o", "-", stdin=SOURCE)
    assert gzip.decompress(packed) == SOURCE
    plain, _ = run(here, "process", "-a", "gunzip", "-", "-o", "-", stdin=gzip.compress(SOURCE))
    assert plain == SOURCE


def test_elements_of_a_type(here: Path) -> None:
    values = np.arange(-1000, 1000, dtype="int16")
    values.tofile(here / "in.raw")
    run(here, "process", "-a", "scale", "--dtype", "int16", "-p", "a=3", "-p", "b=-1", "in.raw", "-o", "out.raw")
    np.testing.assert_array_equal(np.fromfile(here / "out.raw", "int16"), values * 3 - 1)
    run(here, "process", "-a", "histogram", "-p", "bins=16", "in.txt", "-o", "counts.raw")
    expected = np.histogram(np.frombuffer(SOURCE, np.uint8), 16, (0, 256))[0]
    np.testing.assert_array_equal(np.fromfile(here / "counts.raw", "uint64"), expected)


def test_no_input(here: Path) -> None:
    run(here, "process", "-a", "trng", "-p", "nbytes=10KiB", "-o", "random.bin")
    content = (here / "random.bin").read_bytes()
    assert len(content) == 10240
    assert len(set(content)) == 256


def test_an_accelerator_of_the_configuration(here: Path) -> None:
    (here / "accelerator.conf").write_text(
        "[accelerator.long]\nkernel = sha3\nparameters = type = sha3-384\n\n[process.short]\ntype = sha3-224\n\n"
        "[accelerator.short]\nkernel = sha3\n"
    )
    assert run(here, "process", "-a", "long", "in.txt")[0].strip().decode() == hashlib.sha3_384(SOURCE).hexdigest()
    assert run(here, "process", "-a", "short", "in.txt")[0].strip().decode() == hashlib.sha3_224(SOURCE).hexdigest()
    names = [line.split()[0] for line in run(here, "accelerators")[0].decode().splitlines()]
    assert {"long", "short", "sha3"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-a", "sha3", "none.txt"], 3, "none.txt"),
        (["-a", "gzip", "in.txt", "-o", "none/out.gz"], 3, "none"),
        (["-a", "sha33", "in.txt"], 2, "unknown accelerator 'sha33'; did you mean 'sha3'?"),
        (["-a", "sha3"], 2, "needs src"),
        (["-a", "sha3", "in.txt", "-p", "typ=x"], 2, "accelerator 'sha3' has no parameter 'typ'; did you mean 'type'?"),
        (["-a", "sha3", "in.txt", "-p", "type=md5"], 2, "unknown value 'md5'"),
        (["-a", "sha3", "in.txt", "--driver", "emulater"], 2, "unknown driver 'emulater'; did you mean 'emulator'?"),
        (["-a", "sha3", "in.txt", "--device", "77"], 3, "77"),
        (["-a", "sha3", "s4://bucket/key"], 2, "'s4' is neither mounted nor a storage provider"),
        (["-a", "gunzip", "in.txt", "-o", "out"], 1, "damaged gzip data"),
        (["-a", "scale", "--dtype", "int64", "in3.txt", "-o", "out"], 2, "3 bytes"),
        (["-a", "sha3", "in.txt", "-d", "emulator.hang_run=1", "--timeout", "200ms"], 5, "time"),
        (["-a", "sha3", "in.txt", "--memory-limit", "lots"], 2, "'lots' is not a size"),
        (["-a", "sha3", "in.txt", "-d", "emulator.memory=4KiB"], 1, "256 bytes asked for"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    here: Path,
    arguments: list[str],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    (here / "in3.txt").write_bytes(b"abc")
    before = sorted(here.iterdir())
    assert main(["process", *arguments]) == status
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("apyfal: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(here.iterdir()) == before


def test_devices_lists_the_software_card(here: Path) -> None:
    document = json.loads(run(here, "devices", "--driver", "emulator", "--json")[0])
    assert [device["driver"] for device in document["devices"]] == ["emulator"]
    assert "import" in document["devices"][0]["capabilities"]
    assert run(here, "devices")[0].splitlines()[1].startswith(b"emulator:0")


def test_copy_and_ls(here: Path) -> None:
    (here / "folder").mkdir()
    (here / "empty").mkdir()
    run(here, "copy", "in.txt", "folder/a")
    run(here, "copy", "-", "folder/b", stdin=b"xyz")
    (here / "folder" / "sub").mkdir()
    assert (here / "folder/a").read_bytes() == SOURCE
    assert run(here, "copy", "folder/b", "-")[0] == b"xyz"
    assert run(here, "ls", "folder")[0] == b"a\nb\nsub/\n"
    assert run(here, "ls", "empty") == (b"", "")
    long = [line.split() for line in run(here, "ls", "-l", "folder")[0].decode().splitlines()]
    assert long[0] == ["SIZE", "MODIFIED", "ETAG", "NAME"]
    assert [(line[0], line[-1]) for line in long[1:]] == [(str(len(SOURCE)), "a"), ("3", "b"), ("-", "sub/")]
    document = json.loads(run(here, "ls", "--json", "folder/b")[0])
    assert [(one["name"], one["size"], one["directory"]) for one in document] == [("folder/b", 3, False)]
    assert "none" in run(here, "copy", "none", "x", status=3)[1]
    assert "none" in run(here, "ls", "none", status=3)[1]


def test_copy_and_ls_of_patterns_and_directories(here: Path) -> None:
    for name in ("tree/a.bin", "tree/b.bin", "tree/c.txt", "tree/sub/a.bin", "tree/sub/[x].bin"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)

    def files(folder: str) -> dict[str, str]:
        return {str(p.relative_to(here / folder)): p.read_text() for p in (here / folder).rglob("*") if p.is_file()}

    run(here, "copy", "tree/*", "some/new")  # the directory that matches is not asked for
    assert files("some/new") == {f"{name}": f"tree/{name}" for name in ("a.bin", "b.bin", "c.txt")}
    run(here, "copy", "-r", "tree", "all")
    assert files("all") == {name: f"tree/{name}" for name in files("tree")}
    run(here, "copy", "tree/sub/[x].bin", "literal")  # there is a file of that name
    assert (here / "literal").read_text() == "tree/sub/[x].bin"
    document = json.loads(run(here, "copy", "--json", "tree/a.bin", "tree/c.txt", "two/")[0])
    assert [one["destination"] for one in document] == ["two/a.bin", "two/c.txt"]
    assert files("two") == {"a.bin": "tree/a.bin", "c.txt": "tree/c.txt"}
    names = [line.rpartition("/")[2] for line in run(here, "ls", "tree/**/a.bin")[0].decode().splitlines()]
    assert names == ["a.bin", "a.bin"]
    assert "nothing matches 'tree/*.none'" in run(here, "copy", "tree/*.none", "x", status=3)[1]
    assert "nothing matches" in run(here, "ls", "tree/*.none", status=3)[1]
    assert "would both become 'a.bin'" in run(here, "copy", "tree/a.bin", "tree/sub/a.bin", "both/", status=2)[1]
    assert "missing" in run(here, "copy", "tree/a.bin", "missing", "failed/", status=3)[1]
    assert "missing" not in files("failed")
    run(here, "copy", "tree", "flat", status=1)  # a directory needs -r
    assert "'tre*' matches directories alone" in run(here, "copy", "tre*", "flat", status=2)[1]


def test_mounts_of_the_configuration_hide_their_secrets(here: Path) -> None:
    (here / "accelerator.conf").write_text(
        "[storage.lab]\nprovider = s3\nroot = bucket/x\nclient_id = me\nsecret_id = hunter2\n"
        "endpoint_url = https://someone:hunter2@store.example\n[host.aws]\nregion = eu-west-1\n"
    )
    text = run(here, "mounts")[0].decode()
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("lab://"))
    assert lines[first].split()[:4] == ["lab://", "s3", "bucket/x", "client_id=me"]
    assert lines[first].endswith("accelerator.conf, line 4, [storage.lab] client_id")
    assert lines[first + 1].split()[0] == "secret_id=***"
    assert lines[first + 2].split()[0] == "endpoint_url=https://***@store.example"
    assert lines[first + 3].split()[0] == "region=eu-west-1"
    assert lines[first + 3].endswith("accelerator.conf, line 8, [host.aws] region")
    document = {one["name"]: one for one in json.loads(run(here, "mounts", "--json")[0])}
    assert document["lab"]["parameters"]["region"] == "eu-west-1"
    assert document["lab"]["origins"]["region"].endswith("[host.aws] region")
    assert "hunter2" not in text + str(document)


def test_bench_measures_and_checks(here: Path) -> None:
    document = json.loads(run(here, "bench", "--size", "1MiB", "--repeat", "2", "--json")[0])
    assert document["driver"] == "emulator"
    assert document["large"]["bytes"] == 1 << 20
    assert document["large"]["bytes_copied"] == 0
    for part in ("small", "large"):
        seconds = document[part]["seconds"]
        assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
    lines = run(here, "bench", "--size", "64KiB", "--repeat", "1")[0].decode().splitlines()
    assert lines[0].startswith("software card 0 (emulator) on ")
    assert lines[2].split() == ["WHAT", "MEDIAN", "LEAST", "MOST"]
    error = run(here, "bench", "-a", "scale", "--size", "8KiB", "-q", "--device", "9", status=3)[1]
    assert error.startswith("apyfal: error: ")
