"""The commands that take trees (`copy -r`, `ls -R`, `rm -r`, `mv`) against every real server, and a local directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from apyfal import cli, storage

pytestmark = pytest.mark.server

STORES = ["file", "s3-moto", "s3-ceph", "swift-v1", "az-azurite", "gs-fake", "oss-moto", "fsspec-memory", "fsspec-sftp"]
#: Names that stores and their listings take for something else, if anybody does.
FILES = {
    "a": b"1",
    "sub/b": b"22",
    "sub/deep/c": b"333",
    "sub/a b+c%20d&e=f": b"4",
    "sub/ü": b"55",
    "sub2/d": b"6",
    ".hidden/e": b"7",
    "nothing": b"",
}


def found(top: str, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Give what `ls -R` says: names and sizes."""
    capsys.readouterr()
    assert cli.main(["ls", "-R", "--json", top]) == 0
    return {one["name"]: one["size"] for one in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("name", STORES)
def test_a_tree_comes_goes_and_ends(
    stores: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    here = tmp_path / "here"
    for key, content in FILES.items():
        (here / key).parent.mkdir(parents=True, exist_ok=True)
        (here / key).write_bytes(content)
    top = f"{stores[name]}/recursive"
    sizes = {key: len(content) for key, content in FILES.items()}

    assert cli.main(["copy", "-r", str(here), top]) == 0, capsys.readouterr().err
    assert found(top, capsys) == sizes
    assert cli.main(["copy", "-r", top, f"{top}-copy"]) == 0, capsys.readouterr().err
    assert found(f"{top}-copy", capsys) == sizes
    back = tmp_path / "back"
    assert cli.main(["copy", "-r", f"{top}-copy/", str(back)]) == 0, capsys.readouterr().err
    assert {os.path.relpath(path, back): path.read_bytes() for path in back.rglob("*") if path.is_file()} == FILES

    if name == "file":  # where `mv` makes no directories
        storage.makedirs(f"{top}/moved")
    assert cli.main(["mv", f"{top}/a", f"{top}/moved/a2"]) == 0
    assert cli.main(["mv", f"{top}/sub/b", f"{top}/sub2/d", f"{top}/moved/"]) == 0
    assert found(f"{top}/moved", capsys) == {"a2": 1, "b": 2, "d": 1}

    for pattern in ("recursive/*/deep", "recursive/sub"):
        assert cli.main(["rm", "-r", "--dry-run", f"{stores[name]}/{pattern}"]) == 0
    assert found(f"{top}/sub", capsys) == {"deep/c": 3, "a b+c%20d&e=f": 1, "ü": 2}
    assert cli.main(["rm", "-r", f"{stores[name]}/recursive/*/deep"]) == 0, capsys.readouterr().err
    assert not storage.exists(f"{top}/sub/deep")
    assert cli.main(["rm", "-r", top]) == 0, capsys.readouterr().err
    assert not storage.exists(top)
    assert found(f"{top}-copy", capsys) == sizes  # of which only the first part of the name is the same
    assert cli.main(["rm", "-r", f"{top}-copy"]) == 0
    assert cli.main(["rm", "-r", top]) == 3
    assert storage.exists(stores[name])
