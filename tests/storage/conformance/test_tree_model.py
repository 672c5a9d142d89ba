"""One model of the tree: every function that says what is there says the same, and a recursive one moves all or tells.

Odd keys (markers, an object and a directory of one name, ``//``, slashes in front, hidden names) on an S3 server, and
odd files (links to directories, broken links, loops, pipes, names that are not UTF-8) on the local disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers.stores.moto import Moto

from apyfal import cli, storage
from apyfal.exceptions import InvalidURL

#: Keys of the bucket, each with its content. A mark is empty.
KEYS = {
    "a": "1",
    "d/": "",
    "d/x": "2",
    "d//y": "3",
    "d/c//z": "4",
    "//lead": "5",
    "/lead": "6",
    ".hidden": "7",
    ".h/in": "8",
    "both": "9",
    "both/in": "10",
    "empty/": "",
    "deep/.h/v": "11",
}


@pytest.fixture(scope="module")
def bucket(moto_server: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = {
        "provider": "s3",
        "endpoint_url": moto_server.endpoint_url,
        "client_id": moto_server.access_key,
        "secret_id": moto_server.secret_key,
        "region": moto_server.region,
    }
    storage.mount("tree", config={}, **given)
    for name in ("odd", "odd-copy"):
        storage.makedirs(f"tree://{name}", exist_ok=True)
    for key, content in KEYS.items():
        with storage.open(f"tree://odd/{key}", "wb") as file:
            file.write(content.encode())
    yield "tree://odd"
    storage.unmount("tree")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(list(arguments))
    return status, capsys.readouterr().err


def content(url: str) -> str:
    return bytes(storage.load(url)).decode()


pytestmark = pytest.mark.server

# -- what is there ----------------------------------------------------------------------------------------------------
LISTED = {
    "": [".h", ".hidden", "//lead", "/lead", "a", "both", "both", "d", "deep", "empty"],
    "/d": ["/y", "c", "x"],
    "/d/": ["/y", "c", "x"],
    "/d/c": ["/z"],
    "/both": ["in"],
    "/empty": [],
    "/deep": [".h"],
}


@pytest.mark.parametrize("path", list(LISTED))
def test_listdir_and_fsspec_ls(bucket: str, path: str) -> None:
    assert storage.listdir(bucket + path) == LISTED[path]
    files = storage.filesystem()
    top = (bucket + path).rstrip("/")
    if path != "/both":  # fsspec has one entry for a name: the object
        assert sorted(files.ls(top, detail=False)) == [f"{top}/{name}" for name in LISTED[path]]


def test_walk_find_and_the_stores_keys_agree(bucket: str) -> None:
    real = {key for key in KEYS if not key.endswith("/")}
    walked = {f"{folder.rstrip('/')}/{name}" for folder, _, names in storage.walk(bucket) for name in names}
    assert walked == {f"{bucket}/{key}" for key in real}
    assert set(storage.filesystem().find(bucket)) == walked
    assert {content(url) for url in walked} == {KEYS[key] for key in real}
    for url in walked:
        assert storage.exists(url)
        assert not storage.stat(url).is_directory


@pytest.mark.parametrize("name", ["d", "d/", "d/c", "empty", "empty/", ".h", "deep", "deep/.h", "both/"])
def test_directories(bucket: str, name: str) -> None:
    url = f"{bucket}/{name}"
    assert storage.exists(url)
    assert storage.stat(url).is_directory
    assert storage.filesystem().isdir(url) == (name != "both/")  # fsspec drops the slash, which makes it the object


@pytest.mark.parametrize("name", ["none", "none/", "d/none", "a/", "emp", "d/x/"])
def test_what_is_not_there(bucket: str, name: str) -> None:
    assert not storage.exists(f"{bucket}/{name}")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["//lead", "/lead", "a", "both", "d", "deep", "empty"]),
        (".*", [".h", ".hidden"]),
        ("?", ["a", "d"]),
        ("[a-b]*", ["a", "both"]),
        ("d/*", ["d//y", "d/c", "d/x"]),
        ("d/c/*", ["d/c//z"]),
        ("*/x", ["d/x"]),
        ("**/x", ["d/x"]),
        ("**/z", []),
        ("deep/**/v", []),
        ("deep/.h/*", ["deep/.h/v"]),
        (".h/*", [".h/in"]),
        ("d//*", ["d//y"]),
    ],
)
def test_patterns(bucket: str, pattern: str, found: list[str]) -> None:
    assert storage.glob(f"{bucket}/{pattern}") == sorted(f"{bucket}/{name}" for name in found)


@pytest.mark.parametrize("pattern", ["*", ".*", "*/*", "**", "**/v", ".h/*", "d/.*", "?", "[.v]*", "**/.h", "d/**"])
def test_patterns_match_in_a_store_what_they_match_on_a_disk(bucket: str, tmp_path: Path, pattern: str) -> None:
    names = ["v", ".h/v", "d/.v", "d/v", "d/e/v"]
    storage.makedirs("tree://odd2", exist_ok=True)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        storage.save(f"tree://odd2/{name}", np.zeros(1, np.uint8))
    here = {os.path.relpath(found, tmp_path) for found in storage.glob(f"{tmp_path}/{pattern}")} - {"."}
    there = {found.removeprefix("tree://odd2/").rstrip("/") for found in storage.glob(f"tree://odd2/{pattern}")} - {""}
    assert there - {"tree://odd2"} == here - {pattern.removesuffix("/**")}


# -- copy -r ----------------------------------------------------------------------------------------------------------
def test_a_store_takes_every_object_of_another(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "copy", "-r", bucket, "tree://odd-copy/to") == (0, "")
    for key, text in KEYS.items():
        if not key.endswith("/"):
            assert content(f"tree://odd-copy/to/{key}") == text


def test_a_disk_takes_what_it_can_name_or_nothing(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status, text = run(capsys, "copy", "-r", bucket, str(out))
    assert status == 2
    assert text.count("\n") == 1
    assert not out.exists()
    status, text = run(capsys, "copy", "-r", "-k", bucket, str(out))
    assert status == 1
    for name in ("//lead", "/lead", "d//y", "d/c//z", "both"):
        assert f"{bucket}/{name}'" in text
    assert "5 of 11 could not be copied" in text
    kept = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert kept == {key: KEYS[key] for key in ("a", "d/x", ".hidden", ".h/in", "both/in", "deep/.h/v")}
    assert (out / "empty").is_dir()


def test_an_object_that_is_a_directory_too_has_to_be_named(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run(capsys, "copy", "-r", f"{bucket}/both", str(tmp_path / "out"))
    assert status == 2
    assert f"'{bucket}/both/'" in text
    assert run(capsys, "copy", f"{bucket}/both", str(tmp_path / "one"))[0] == 0
    assert (tmp_path / "one").read_text() == "9"
    assert run(capsys, "copy", "-r", f"{bucket}/both/", str(tmp_path / "two"))[0] == 0
    assert (tmp_path / "two/in").read_text() == "10"


def test_two_sources_never_become_one(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text(name)
    status, text = run(capsys, "copy", str(tmp_path / "p/same"), str(tmp_path / "q/same"), "tree://odd-copy/twice/")
    assert (status, "would both become 'same'" in text) == (2, True)
    assert not storage.exists("tree://odd-copy/twice")


# -- the local disk ---------------------------------------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x").write_text("X")
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "a").write_text("A")
    (top / "sub/b").write_text("B")
    (top / "linked").symlink_to(tmp_path / "real")
    (top / "file").symlink_to("a")
    return top


def test_links_are_followed_or_named(bucket: str, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "copy", "-r", str(disk), "tree://odd-copy/links") == (0, "")
    assert sorted(storage.filesystem().find("tree://odd-copy/links")) == [
        f"tree://odd-copy/links/{name}" for name in ("a", "file", "linked/x", "sub/b")
    ]
    status, text = run(capsys, "copy", "-r", "--no-follow-links", str(disk), "tree://odd-copy/nolinks")
    assert status == 1
    assert f"{str(disk / 'linked')!r} is a link to a directory" in text
    assert not storage.exists("tree://odd-copy/nolinks/linked")
    assert content("tree://odd-copy/nolinks/sub/b") == "B"


@pytest.mark.parametrize("kind", ["broken", "loop", "self", "pipe"])
def test_what_is_no_file_is_named(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    odd = disk / "sub" / "odd"
    {
        "broken": lambda: odd.symlink_to("nowhere"),
        "loop": lambda: odd.symlink_to(".."),
        "self": lambda: odd.symlink_to("odd"),
        "pipe": lambda: os.mkfifo(odd),
    }[kind]()
    assert "odd" in storage.listdir(str(odd.parent))
    status, text = run(capsys, "copy", "-r", str(disk), str(tmp_path / "out"))
    assert status == 1
    assert str(odd) in text
    assert "1 of 5 could not be copied" in text
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == ["a", "b", "file", "x"]


def test_names_that_are_no_utf8(bucket: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.fsencode(disk) + b"/bad\xff", "wb") as file:
        file.write(b"B")
    status, text = run(capsys, "copy", "-r", str(disk), "tree://odd-copy/bytes")
    assert (status, "lone surrogate" in text, "bad\\udcff" in text) == (2, True, True)
    assert not storage.exists("tree://odd-copy/bytes")
    assert run(capsys, "copy", "-r", "-k", str(disk), "tree://odd-copy/bytes")[0] == 1
    assert content("tree://odd-copy/bytes/a") == "A"
    assert run(capsys, "copy", "-r", str(disk), str(tmp_path / "out"))[0] == 0
    assert os.listdir(os.fsencode(tmp_path / "out")).count(b"bad\xff") == 1
    listed = subprocess.run([sys.executable, "-m", "apyfal", "ls", disk], capture_output=True, check=True)
    assert b"bad\xff\n" in listed.stdout


@pytest.mark.parametrize(
    "function",
    [storage.exists, storage.stat, storage.open, storage.listdir, storage.remove, storage.glob, storage.load],
)
def test_a_lone_surrogate_is_no_name_in_a_store(bucket: str, function: object) -> None:
    with pytest.raises(InvalidURL, match="lone surrogate"):
        function(f"{bucket}/\udce9*")  # type: ignore[operator]


# -- options ----------------------------------------------------------------------------------------------------------
def test_preserve_keeps_times(bucket: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(disk / "a", (1, 12345.5))
    assert run(capsys, "copy", "-p", "-r", str(disk), str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out/a").stat().st_mtime == 12345.5
    assert run(capsys, "copy", "-p", f"{bucket}/a", str(tmp_path / "one"))[0] == 0
    assert (tmp_path / "one").stat().st_mtime == pytest.approx(storage.stat(f"{bucket}/a").mtime or 0, abs=1e-3)
    assert run(capsys, "copy", "-p", str(disk / "a"), f"{bucket}/never")[0] == 2


def test_keep_going_sums_up(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").mkdir()
    (tmp_path / "out/sub/b").mkdir()  # where a file should go
    (tmp_path / "out/sub/b/b").mkdir()
    status = cli.main(["copy", "-r", "-k", "--json", str(disk), str(tmp_path / "out")])
    output = capsys.readouterr()
    assert status == 1
    assert "1 of 4 could not be copied" in output.err
    assert len(json.loads(output.out)) == 3


# -- fsspec -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", ["", "file://", "apyfal://file://", "apyfal://"])
def test_fsspec_on_local_paths(disk: Path, tmp_path: Path, scheme: str) -> None:
    files = storage.filesystem()
    top, out = f"{scheme}{disk}", f"{scheme}{tmp_path}/copied"
    (disk / "linked").unlink()
    assert len(files.glob(f"{top}/*")) == 3
    assert sorted(files.find(top)) == [f"{disk}/{name}" for name in ("a", "file", "sub/b")]
    files.cp(top, out, recursive=True)
    assert sorted(files.find(out)) == [f"{tmp_path}/copied/{name}" for name in ("a", "file", "sub/b")]
    files.get(top, str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got/sub/b").read_text() == "B"
    files.rm(out, recursive=True)
    assert not (tmp_path / "copied").exists()


def test_fsspec_removes_real_directories() -> None:
    storage.mount("real", provider="fsspec", protocol="memory", config={})
    try:
        files = storage.filesystem()
        files.makedirs("real://b/d/e")
        files.pipe_file("real://b/d/e/f", b"1")
        with pytest.raises(OSError, match="not empty"):
            files.rmdir("real://b/d")
        files.rm("real://b/d", recursive=True)
        assert not files.exists("real://b/d")
        assert files.ls("real://b", detail=False) == []
        with pytest.raises(FileNotFoundError):
            files.rmdir("real://b/none")
    finally:
        storage.unmount("real")


def test_fsspec_rm_leaves_nothing_below(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage.makedirs("tree://odd-rm", exist_ok=True)
    for key in KEYS:
        with storage.open(f"tree://odd-rm/{key}", "wb") as file:
            file.write(KEYS[key].encode())
    storage.filesystem().rm("tree://odd-rm/d", recursive=True)
    assert storage.glob("tree://odd-rm/d*") == ["tree://odd-rm/deep"]
    storage.filesystem().rm("tree://odd-rm/both", recursive=True)
    assert storage.glob("tree://odd-rm/both*") == []
    assert content("tree://odd-rm/a") == "1"


@pytest.mark.parametrize("name", ["tree:/odd/x", "TREE:/odd/x", "s3:/b/k"])
def test_a_squeezed_mount_is_no_local_file(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = storage.filesystem()
    for function in (
        lambda: storage.makedirs(name),
        lambda: storage.save(name, np.zeros(1)),
        lambda: files.pipe_file(name, b"1"),
        lambda: files.makedirs(f"apyfal://{name}"),
        lambda: storage.copy(__file__, name),
    ):
        with pytest.raises(InvalidURL, match="did you mean"):
            function()
    assert os.listdir(tmp_path) == []
