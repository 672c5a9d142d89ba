from __future__ import annotations

import json
from pathlib import Path

import pytest

from apyfal import cli


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    # set, not deleted: --config writes to it, and the test's end puts it back
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    (home / "accelerator.conf").write_text("[host]\nregion = x\n")
    path = here / "accelerator.conf"
    path.write_text("[accelerator]\ndriver = ./x.so\n[host]\nhost_ip = https://127.0.0.1:1\n")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert cli.main(arguments) == status
    output = capsys.readouterr()
    return output.out + output.err


def test_a_refusal_names_a_command_that_lifts_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "process", "-a", "sha3", "--host", "local", str(file), status=2)
    assert text.count("\n") == 1
    assert f"{file}, line 2, [accelerator] driver: " in text
    command = text.rpartition(": apyfal ")[2].split()
    assert command == ["config", "trust", str(file)]
    assert f"trusted: {file}" in run(capsys, *command)
    assert "x.so" in run(capsys, "process", "-a", "sha3", "--host", "local", str(file), status=6)
    assert f"no longer trusted: {file}" in run(capsys, "config", "untrust")
    assert f"was not trusted: {file}" in run(capsys, "config", "untrust", str(file))


def test_show(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "config", "show")
    assert "working directory" in text
    assert "not trusted" in text
    assert "another file comes first" in text
    assert "names native code" in text
    assert "gets no credentials but those of this file" in text
    document = json.loads(run(capsys, "config", "show", "--json"))
    assert [one["state"] for one in document["files"]] == ["not trusted", "not used"]
    assert [one["state"] for one in document["keys"]] == ["refused", "limited"]
    run(capsys, "config", "trust")
    document = json.loads(run(capsys, "config", "show", "--json"))
    assert [one["state"] for one in document["files"]] == ["trusted", "not used"]
    assert document["keys"] == []
    document = json.loads(run(capsys, "config", "show", "--json", "--config", str(file)))
    assert document["files"][0]["place"] == "--config or $APYFAL_CONFIG_FILE"


def test_show_of_a_file_that_is_wrong_or_missing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("nonsense\n")
    assert "expected '[section]'" in run(capsys, "config", "show", status=2)
    assert "No such file" in run(capsys, "config", "show", "--config", "none.conf", status=2)
    run(capsys, "config", "trust", "none.conf", status=2)


def test_show_without_any(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.unlink()
    (Path.home() / "accelerator.conf").unlink()
    assert "no configuration file" in run(capsys, "config", "show")
