"""``apyfal process`` over patterns, directories and lists."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal import cli
from apyfal.cli.commands.many_jobs import Named, find_sources, place_outputs
from apyfal.exceptions import AcceleratorException, ParameterError
from apyfal.storage.mounting import table

FILES = {
    "in/1.bin": b"one",
    "in/2.bin": b"two",
    "in/a/1.bin": b"three",
    "in/a/b/x": b"four",
    "in/odd {name}.t.bin": b"5",
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    for name, data in FILES.items():
        handler.store(f"b/{name}", data)
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


def digest(data: bytes) -> str:
    return hashlib.sha3_256(data).hexdigest()


@pytest.mark.parametrize("root", ["", "lab://b/"])
@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["in/*.bin"], ["in/1.bin", "in/2.bin", "in/odd {name}.t.bin"]),
        (["in/**/*.bin"], ["in/1.bin", "in/2.bin", "in/a/1.bin", "in/odd {name}.t.bin"]),
        (["in/a/1.bin", "in/1.bin"], ["in/a/1.bin", "in/1.bin"]),
        (["in/1.bin", "in/*.bin"], ["in/1.bin", "in/2.bin", "in/odd {name}.t.bin"]),
        (["in/2*"], ["in/2.bin"]),
        (["-r", "in/a"], ["in/a/1.bin", "in/a/b/x"]),
        (["-r", "in/a/", "in/2.bin"], ["in/a/1.bin", "in/a/b/x", "in/2.bin"]),
        (["-j1", "in/1.bin", "in/2.bin"], ["in/1.bin", "in/2.bin"]),
    ],
)
def test_results_are_printed_a_line_each(
    directory: Path, store: object, capsys: pytest.CaptureFixture[str], root: str, sources: list[str], names: list[str]
) -> None:
    arguments = [one if one.startswith("-") else root + one for one in sources]
    assert cli.main(["process", "-q", "-a", "sha3", *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{digest(FILES[name])}  {root}{name}" for name in names]


@pytest.mark.parametrize("root", ["", "lab://b/"])
@pytest.mark.parametrize(
    ("template", "outputs"),
    [
        ("out/{stem}.gz", ["out/1.gz", "out/2.gz", "out/odd {name}.t.gz"]),
        ("out/{name}.gz", ["out/1.bin.gz", "out/2.bin.gz", "out/odd {name}.t.bin.gz"]),
        ("out/{index}{suffix}", ["out/0.bin", "out/1.bin", "out/2.bin"]),
        ("out/{{{index}}}", ["out/{0}", "out/{1}", "out/{2}"]),
    ],
)
def test_outputs_have_names_of_their_sources(
    directory: Path, store: MemoryHandler, root: str, template: str, outputs: list[str]
) -> None:
    assert cli.main(["process", "-q", "-a", "gzip", f"{root}in/*.bin", "-o", root + template]) == 0
    for name, output in zip(["in/1.bin", "in/2.bin", "in/odd {name}.t.bin"], outputs, strict=True):
        data = bytes(store.objects[f"b/{output}"][0]) if root else (directory / output).read_bytes()
        assert gzip.decompress(data) == FILES[name]


def test_a_tree_becomes_a_tree(directory: Path, store: MemoryHandler) -> None:
    assert cli.main(["process", "-q", "-a", "loopback", "-r", "lab://b/in", "-o", "out/{path}"]) == 0
    for name, data in FILES.items():
        assert (directory / "out" / name.removeprefix("in/")).read_bytes() == data


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["in/**/*.bin", "-o", "out/{stem}"], "would both be written to 'out/1'"),
        (["in/*.bin", "-o", "out"], "would both be written to 'out'"),
        (["in/*.bin", "-o", "{nmae}"], "unknown field 'nmae'; did you mean 'name'"),
        (["in/*.bin", "-o", "out/{stem}{"], "a single '{'"),
        (["in/*.bin", "-o", "out/{index}}"], "a single '}'"),
        (["in/*.bin", "-o", "out/{stem.__class__}"], "unknown field 'stem.__class__'"),
        (["in/*.bin", "-o", "out/{}"], "unknown field ''"),
        (["in/*.bin", "-o", "in/{name}"], "is a source, too"),
        (["in/*.gone", "-o", "out/{stem}"], "nothing matches"),
        (["in/1.bin", "in/gone", "-o", "out/{stem}"], "gone"),
        (["-r", "in/gone", "-o", "out/{stem}"], "gone"),
        (["in/1.bin", "in/a", "-o", "out/{stem}"], "a"),
        (["in/1.bin", "-", "-o", "out/{stem}"], "take neither '-'"),
        (["in/*.bin", "-o", "-"], "take neither '-'"),
        (["in/*.bin", "-o", "out/{stem}", "--trace", "t"], "--trace"),
        (["in/*.bin"], "the output is data"),
        (["in/1.bin", "--resume", "-o", "x"], "--resume and --keep-going are for several"),
        (["in/*.bin", "-j", "0", "-o", "out/{stem}"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(directory: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    assert cli.main(["process", "-q", "-a", "loopback", *arguments]) != 0
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    for name, data in FILES.items():
        assert (directory / name).read_bytes() == data


def test_names_do_not_lead_out_of_the_destination() -> None:
    with pytest.raises(AcceleratorException, match=r"'\.\.'"):
        place_outputs([Named("lab://b/x/../../y", "x/../../y")], "out/{path}")


def test_names_that_a_disk_takes_for_one_are_refused(store: MemoryHandler, directory: Path) -> None:
    store.store("b/in/a//1.bin", b"other")
    assert cli.main(["process", "-q", "-a", "loopback", "-r", "lab://b/in", "-o", "out/{path}"]) == 2
    assert not (directory / "out").exists()
    assert cli.main(["process", "-q", "-a", "loopback", "-r", "lab://b/in", "-o", "lab://b/out/{path}"]) == 0
    assert bytes(store.objects["b/out/a//1.bin"][0]) == b"other"


def test_no_parent_is_no_empty_part() -> None:
    sources = [Named("in/x", "x"), Named("in/a/x", "a/x")]
    jobs = place_outputs(sources, "lab://b/{parent}/{stem}")
    assert [(job.source, job.destination) for job in jobs] == [("in/x", "lab://b/x"), ("in/a/x", "lab://b/a/x")]


@pytest.mark.parametrize(
    ("names", "template", "part"),
    [
        (["a/x", "b/y", "b/x", "a/y"], "out/{name}", "'in/a/x' and 'in/b/x' would both be written to 'out/x'"),
        (["x", "a/x", "y", "b/y"], "in/{name}", "'in/x' is a source, too"),
        (["a/x", "b/x", "c"], "in/{name}", "'in/a/x' and 'in/b/x' would both be written to 'in/x'"),
        (["a/x", "x", "b/x"], "in/{name}", "'in/x' is a source, too"),
        (["x", "x", "a/x"], "in/{name}", "'in/x' is a source, too"),
    ],
)
def test_the_first_source_without_a_place_is_named(names: list[str], template: str, part: str) -> None:
    with pytest.raises(ParameterError, match=part):
        place_outputs([Named(f"in/{name}", name) for name in names], template)


def test_the_first_failure_ends_it_or_all_others_are_done(
    directory: Path, store: MemoryHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    store.store("b/in/1.bin", gzip.compress(b"right"))
    store.store("b/in/3.bin", gzip.compress(b"right, too"))
    command = ["process", "-q", "-a", "gunzip", "lab://b/in/?.bin", "-o", "out/{name}"]
    assert cli.main(command) == 1
    assert cli.main([*command, "-k"]) == 1
    assert "1 of 3 jobs failed" in capsys.readouterr().err
    assert (directory / "out/1.bin").read_bytes() == b"right"
    assert (directory / "out/3.bin").read_bytes() == b"right, too"
    assert sorted(os.listdir(directory / "out")) == ["1.bin", "3.bin"]


def test_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["process", "--json", "-a", "sha3", "in/1.bin", "in/2.bin"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in found] == ["in/1.bin", "in/2.bin"]
    assert digest(b"two") in str(found[1]["result"])


def test_resumed_jobs_are_not_done_twice(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "out").mkdir()
    (directory / "out/2.bin").write_bytes(b"was there")
    assert cli.main(["process", "-qv", "-a", "loopback", "in/?.bin", "-o", "out/{name}", "--resume"]) == 0
    assert "1 jobs, 1 were there" in capsys.readouterr().err
    assert (directory / "out/2.bin").read_bytes() == b"was there"
    assert (directory / "out/1.bin").read_bytes() == b"one"


def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(300):
        (tmp_path / f"in/{number:03}").write_bytes(random.Random(number).randbytes(20_000))
    command = [
        sys.executable,
        "-m",
        "apyfal",
        "process",
        "-q",
        "-a",
        "loopback",
        "in/*",
        "-o",
        "out/{name}",
        "--resume",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    for _ in range(5):
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as child:
            time.sleep(random.uniform(0.2, 1.0))
            child.kill()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "in"))
    for number in range(300):
        assert (tmp_path / f"out/{number:03}").read_bytes() == random.Random(number).randbytes(20_000)


def test_sources_are_found_once(directory: Path) -> None:
    found = find_sources(["in/1.bin", "in/*.bin", "in"], recursive=True)
    assert len({one.url for one in found}) == len(found) == len(list(found))
