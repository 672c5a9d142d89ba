"""``apyfal bench`` of a card and of places for data: figures, pictures, and nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from apyfal import storage
from apyfal.cli import main
from apyfal.cli.bars import Bar, svg_bars, text_bars
from apyfal.cli.commands.machine import places
from apyfal.exceptions import ChecksumMismatch, StoreUnavailable

SHORT = ("bench", "--size", "1MiB", "--repeat", "1")


@pytest.mark.parametrize("form", ["{0}", "{0}/", "file://{0}"])
def test_a_place_is_measured_and_left_as_it_was(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    assert main([*SHORT, form.format(tmp_path / "disk"), "--json", "--svg", "rates.svg"]) == 0
    document = json.loads(capsys.readouterr().out)
    (place,) = document["places"]
    assert [row["what"] for row in place["rows"]] == [
        *("write 1.0 MiB", "read 1.0 MiB", "write 64 of 64.0 KiB", "read 64 of 64.0 KiB"),
    ]
    for row in place["rows"]:
        assert row["seconds"] > 0
        assert row["nbytes"] == 1 << (20 if "1.0 MiB" in row["what"] else 22)
        assert row["limited_by"]
    limits = [row["limit"] is not None for row in place["rows"]]
    assert limits == ([False] * 4 if "://" in form else [True, True, False, False])
    assert document["limit"]
    assert os.listdir("disk") == []
    assert ElementTree.parse("rates.svg").getroot().attrib["viewBox"]


def test_the_terminal_shows_a_table_and_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "WHAT                  MEDIAN" in text or "WHAT  " in text
    assert "BARE CALLS" in text
    lines = text.splitlines()
    assert sum(line.startswith("bare system calls") for line in lines) == 2
    assert sum(line.startswith(f"{tmp_path}: ") and line.endswith("/s") for line in lines) == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["/no/such/place"], 3, "/no/such/place"),
        (["--size", "0"], 2, "--size 0"),
        (["--size", "many"], 2, "many"),
        (["nostore://bucket"], 2, "nostore"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SHORT, *arguments]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("apyfal: error: ")
    assert said in line


@pytest.mark.parametrize("broken", ["load", "load_many", "save_many"])
def test_a_place_that_fails_is_left_as_it_was(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("not now")

    monkeypatch.setattr(storage, broken, fail)
    with pytest.raises(StoreUnavailable, match="not now"):
        places.measure_place(str(tmp_path), 1 << 16, 1)
    assert os.listdir(tmp_path) == []


def test_data_that_comes_back_changed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "load", lambda url, out: out.fill(1))
    monkeypatch.setattr(places, "_bare_read", lambda file, into: None)
    with pytest.raises(ChecksumMismatch, match="not what was written"):
        places.measure_place(str(tmp_path), 1 << 16, 1)
    assert os.listdir(tmp_path) == []


def test_a_file_of_somebody_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    places.measure_place(str(tmp_path), 100, 1)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("precious", b"x")]


@pytest.mark.parametrize(("work", "bare", "expected"), [(0.0, 0.02, "the disk"), (0.03, 0.0, "the place")])
def test_what_limits_is_named(work: float, bare: float, expected: str) -> None:
    from time import sleep

    row = places._row("x", 1, 2, lambda: sleep(work), lambda: sleep(bare))
    assert row.limited_by.startswith(expected)


def test_the_processor_is_named() -> None:
    row = places._row("x", 1, 2, lambda: [np.sort(np.arange(300_000) % 977) for _ in range(10)])
    assert row.limited_by in ("the processor", "the place, or the way to it")  # the latter if others use the processor
    assert row.limit is None


def test_bars_have_lengths_like_their_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = [Bar("a & b", 100.0), Bar("limit", 50.0, limit=True)]
    first, second = text_bars(bars)
    assert len(first.split()[3]) == 2 * len(second.split()[1]) == 40
    picture = svg_bars("<rates>", "here", bars)
    tree = ElementTree.fromstring(picture)
    widths = [float(one.attrib["width"]) for one in tree.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == [400.0, 200.0]
    assert "prefers-color-scheme:dark" in picture


def test_secrets_of_a_url_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "http://user:hunter2@127.0.0.1:9/x", "--svg", str(tmp_path / "x.svg")]) != 0
    assert "hunter2" not in capsys.readouterr().err
