"""`storage.Path`: as `pathlib` on a disk, by the tree's rules in a store, and accepted wherever a URL is."""

from __future__ import annotations

import copy
import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from memory_store import MemoryHandler

import apyfal
from apyfal import storage
from apyfal.exceptions import InvalidURL, ParameterError, UnsupportedByStore
from apyfal.storage import Path
from apyfal.storage.mounting import table

FILES = {"a.bin": b"1", "d/b.tar.gz": b"22", "d/e/c[1]*?.txt": b"333", "d/.hidden": b"4"}


@pytest.fixture
def store() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


@pytest.fixture(params=["disk", "relative", "store"])
def top(request: pytest.FixtureRequest, store: MemoryHandler, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in[1]").mkdir()
    path = {"disk": Path(tmp_path) / "in[1]", "relative": Path("in[1]"), "store": Path("lab://b/in[1]")}[request.param]
    for name, data in FILES.items():
        if path.is_local:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


# -- as pathlib -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/a",
        "a",
        "a/b.tar.gz",
        "/a/.hidden",
        "/a/b.",
        "/a/..",
        "../a",
        "a/b c%20[x]*?",
        "/a/x.y.z",
        ".",
        "a.",
        "...",
    ],
)
@pytest.mark.parametrize("ask", ["parts", "name", "stem", "suffix", "suffixes", "anchor", "parent", "parents"])
def test_a_local_path_is_cut_as_by_pathlib(text: str, ask: str) -> None:
    mine, theirs = getattr(Path(text), ask), getattr(pathlib.PurePosixPath(text), ask)
    if text.endswith(("b.", "a.", "...")):
        assert Path(text).parts == pathlib.PurePosixPath(text).parts
        return  # of whose suffix the versions of Python differ
    if ask == "parent":
        mine, theirs = os.path.normpath(str(mine)), os.path.normpath(str(theirs))
    elif ask == "parents":
        mine, theirs = [os.path.normpath(str(one)) for one in mine], [os.path.normpath(str(one)) for one in theirs]
    assert mine == theirs


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda path: path / "x", "{}/d/b.tar.gz/x"),
        (lambda path: path.with_name("x.y"), "{}/d/x.y"),
        (lambda path: path.with_suffix(".zip"), "{}/d/b.tar.zip"),
        (lambda path: path.with_suffix(""), "{}/d/b.tar"),
        (lambda path: path.with_stem("x"), "{}/d/x.gz"),
        (lambda path: path.parent, "{}/d"),
        (lambda path: path.parent.parent, "{}"),
        (lambda path: path.joinpath("x", "y/z"), "{}/d/b.tar.gz/x/y/z"),
    ],
)
@pytest.mark.parametrize("base", ["s3://b", "/x", "x", "lab://b/c", "https://h/x"])
def test_made_of_another(base: str, call: Callable[[Path], Path], result: str) -> None:
    assert str(call(Path(base) / "d" / "b.tar.gz")) == result.format(base)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://", ("s3://",)),
        ("s3://b", ("s3://", "b")),
        ("S3://b/k", ("s3://", "b", "k")),
        ("s3://b/d//y", ("s3://", "b", "d", "/y")),
        ("s3://b//lead", ("s3://", "b", "/lead")),
        ("s3://b///lead", ("s3://", "b", "//lead")),
        ("s3://b/d/", ("s3://", "b", "d")),
        ("s3://b/../k", ("s3://", "b", "..", "k")),
        ("s3://b/./k", ("s3://", "b", ".", "k")),
        ("s3://b/a?b#c%20", ("s3://", "b", "a?b#c%20")),
        ("https://h/x/y?z=/w", ("https://", "h", "x", "y")),
        ("file:///x/y", ("/", "x", "y")),
    ],
)
def test_parts_in_a_store(url: str, parts: tuple[str, ...]) -> None:
    path = Path(url)
    assert path.parts == parts
    again = Path(parts[0], *parts[1:])
    assert again.parts == parts
    if "?z" not in url and not url.endswith("/"):
        assert again == path  # nothing is lost
    assert path.parent.parts == (parts[:-1] or parts if len(parts) > 1 else parts)


def test_the_text_is_kept() -> None:
    for text in ("s3://b/d/", "s3://b/d//x", "s3://b/a/../b", "s3://b/%20 x", "https://h/x?y#z", "rel/x", "/a//b/../c"):
        assert str(Path(text)) == text
        assert storage.url.parse(Path(text)) == storage.url.parse(text)  # type: ignore[attr-defined]


def test_compared_hashed_pickled() -> None:
    one, other, third = Path("s3://b/k"), Path("s3://b") / "k", Path("s3://b/k2")
    assert one == other
    assert len({one, other, third}) == 2
    assert sorted([third, one]) == [one, third]
    assert one != "s3://b/k"
    with pytest.raises(TypeError):
        assert one < "s3://b/k"  # type: ignore[operator]
    for path in (one, Path("local/x"), Path("/x"), Path("./s3:x")):
        for again in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path), Path(path)):
            assert again == path
            assert type(again) is Path


def test_a_secret_is_not_shown() -> None:
    path = Path("https://user:password@h/x?X-Amz-Signature=abc")
    assert "password" not in repr(path)
    assert "abc" not in repr(path)
    assert "abc" in str(path)


def test_relative() -> None:
    path = Path("s3://b/d//y/z")
    assert path.relative_to("s3://b/d") == "/y/z"
    assert Path("s3://b/d") / path.relative_to("s3://b/d") == path
    assert path.is_relative_to(Path("s3://b"))
    assert not path.is_relative_to("s3://b/dd")
    assert not path.is_relative_to("az://b")
    with pytest.raises(ParameterError, match="is not below"):
        path.relative_to("s3://c")


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: Path(""), InvalidURL),
        (lambda: Path(3), ParameterError),
        (lambda: Path("s3:/b/k"), InvalidURL),
        (lambda: Path(pathlib.Path("s3://b/k")), InvalidURL),  # whose slashes pathlib folded
        (lambda: Path("s3://b") / "az://c/k", ParameterError),
        (lambda: Path("s3://b") / 3, ParameterError),
        (lambda: Path("s3://b") / "a\0b", InvalidURL),
        (lambda: Path("s3://b").joinpath(None), ParameterError),
        (lambda: Path("https://h/x?y") / "z", ParameterError),
        (lambda: Path("s3://").with_name("x"), ParameterError),
        (lambda: Path("s3://b/k").with_name(""), ParameterError),
        (lambda: Path("s3://b/k").with_name("a/b"), ParameterError),
        (lambda: Path("/x").with_name("/y"), ParameterError),
        (lambda: Path("s3://b/k").with_suffix("bin"), ParameterError),
        (lambda: Path("s3://b/k").with_suffix(".a/b"), ParameterError),
        (lambda: list(Path("s3://b").glob("")), ParameterError),
        (lambda: list(Path("s3://b").glob("/x")), ParameterError),
        (lambda: list(Path("s3://b").glob("s3://c/*")), ParameterError),
        (lambda: os.fspath(Path("s3://b/k")), ParameterError),
        (lambda: open(Path("s3://b/k")), ParameterError),  # noqa: SIM115
        (lambda: pathlib.Path(Path("s3://b/k")), ParameterError),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Callable[[], object], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)


# -- what is there ----------------------------------------------------------------------------------------------------
def test_what_is_there(top: Path) -> None:
    assert [one.name for one in top.iterdir()] == ["a.bin", "d"]
    assert [str(one) for one in top.iterdir()] == [f"{top}/a.bin", f"{top}/d"]
    assert (top / "d").is_dir()
    assert not (top / "d").is_file()
    assert (top / "d/e/c[1]*?.txt").is_file()
    assert not (top / "none").exists()
    assert (top / "a.bin").stat().size == 1
    assert [(one.name, folders, files) for one, folders, files in top.walk()] == [
        ("in[1]", ["d"], ["a.bin"]),
        ("d", ["e"], [".hidden", "b.tar.gz"]),
        ("e", [], ["c[1]*?.txt"]),
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a.bin", "d"]),
        ("*.bin", ["a.bin"]),
        ("d/*", ["d/b.tar.gz", "d/e"]),
        ("d/.*", ["d/.hidden"]),
        ("**/*.txt", ["d/e/c[1]*?.txt"]),
        ("d/e/c[[]1[]][*]?.txt", ["d/e/c[1]*?.txt"]),
        ("none/*", []),
    ],
)
def test_glob(top: Path, pattern: str, found: list[str]) -> None:
    assert list(top.glob(pattern)) == [top / name for name in found]
    assert [one.read_bytes() for one in top.glob(pattern) if one.is_file()] == [
        FILES[name] for name in found if name in FILES
    ]


def test_rglob(top: Path) -> None:
    assert list(top.rglob("*.gz")) == [top / "d/b.tar.gz"]


def test_changes(top: Path) -> None:
    path = top / "new"
    assert path.write_text("ü", "utf-8") == 1
    assert path.read_text("utf-8") == "ü"
    with path.open("ab" if path.is_local else "wb") as file:
        file.write(b"x")
    assert path.rename(top / "newer") == top / "newer"
    assert not path.exists()
    (top / "newer").replace(str(top / "a.bin"))
    assert (top / "a.bin").read_bytes().endswith(b"x")
    (top / "a.bin").unlink()
    (top / "a.bin").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (top / "a.bin").unlink()
    with pytest.raises((IsADirectoryError, PermissionError)):
        (top / "d/b.tar.gz").rename(top / "d/e") if top.is_local else (top / "d").rename(top / "x")
    assert (top / "d/e/c[1]*?.txt").exists()


def test_touch(top: Path) -> None:
    (top / "t").touch()
    assert (top / "t").read_bytes() == b""
    with pytest.raises(FileExistsError):
        (top / "t").touch(exist_ok=False)
    if top.is_local:
        os.utime(top / "t", (1, 1))
        storage.touch(top / "t")
        assert os.stat(top / "t").st_mtime > 1
    else:
        with pytest.raises(UnsupportedByStore, match="only that of writing"):
            (top / "t").touch()


def test_directories(top: Path) -> None:
    if not top.is_local:
        (top / "x/y").mkdir(parents=True)  # only a name
        return
    with pytest.raises(FileNotFoundError):
        (top / "x/y").mkdir()
    (top / "x/y").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        (top / "x/y").mkdir()
    (top / "x/y").mkdir(exist_ok=True)
    with pytest.raises(FileExistsError):
        (top / "a.bin").mkdir(exist_ok=True)
    (top / "x/y").rmdir()
    with pytest.raises(OSError, match="not empty"):
        top.rmdir()


# -- accepted ---------------------------------------------------------------------------------------------------------
def test_the_functions_of_storage_take_it(top: Path) -> None:
    path, other = top / "a.bin", top / "copy"
    assert storage.exists(path)
    assert storage.isfile(path)
    assert storage.getsize(path) == 1
    assert storage.getmtime(path) > 0
    assert storage.isdir(top)
    assert storage.listdir(top) == ["a.bin", "d"]
    assert bytes(storage.load(path)) == b"1"
    assert storage.copy(path, other) == str(other)
    assert storage.move(other, top / "moved") == str(top / "moved")
    assert storage.rename(top / "moved", other) == str(other)
    storage.save(other, storage.load(path))
    assert [bytes(one) for one in storage.load_many([path, other])] == [b"1", b"1"]
    assert [one.size for one in storage.stat_many([path, other])] == [1, 1]
    storage.remove_many([other])
    assert storage.sync(top / "d", top / "d2").copied.keys() == {"b.tar.gz", "e/c[1]*?.txt", ".hidden"}
    files = storage.filesystem()
    assert files.cat_file(path) == b"1"
    assert files.isdir(top)


def test_process_takes_it(top: Path) -> None:
    with apyfal.Accelerator(accelerator="sha3") as accelerator:
        assert accelerator.process(top / "a.bin") == {"digest": hashlib.sha3_256(b"1").hexdigest()}
        names = [top / "a.bin", top / "d/b.tar.gz"]
        digests = [hashlib.sha3_256(one.read_bytes()).hexdigest() for one in names]
        assert [one["digest"] for one in accelerator.process_map(names)] == digests
    with apyfal.Accelerator(accelerator="loopback") as accelerator:
        accelerator.process(top / "a.bin", top / "out")
    assert (top / "out").read_bytes() == b"1"
