"""universal_pathlib's paths of storage URLs: what `pathlib.Path` promises, on a local path, memory and S3.

universal_pathlib's own tests (``BaseTests`` of its release 0.3.9) are not in its package. Run by hand over a local path
and a mount in memory, 243 of 246 pass. The others, all on the mount, are `test_child_path` and two cases of
`test_rename_with_target_absolute`: they make a path of ``mount://...`` without ``apyfal://``, which `UPath` takes for
another library's before this class is asked. What follows are the same questions, and those of this class.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apyfal import storage
from apyfal.exceptions import AcceleratorException, ParameterError, UnsupportedByStore

upath = pytest.importorskip("upath", reason="universal_pathlib is not installed")
UPath = upath.UPath


@pytest.fixture
def base(place: str) -> Any:
    path = UPath(f"apyfal://{place}")
    (path / "d" / "s").mkdir(parents=True, exist_ok=True)
    (path / "d" / "x.txt").write_text("hi")
    (path / "d" / "s" / "y.bin").write_bytes(b"123")
    return path / "d"


def test_found_by_its_entry_point() -> None:
    from apyfal.storage.fs.upath import ApyfalPath

    assert upath.registry.get_upath_class("apyfal") is ApyfalPath
    assert type(UPath("apyfal://s3://b/k")) is ApyfalPath


SCHEMES = ["s3", "s3.lab", "gs", "az", "oss", "swift", "my_storage", "host"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lexical(scheme: str) -> None:
    """Nothing is looked up: no store has to be mounted."""
    path = UPath(f"apyfal://{scheme}://b/k")
    anchor = f"{scheme}://"
    assert str(path / "x.tar.gz") == f"apyfal://{anchor}b/k/x.tar.gz"
    assert path.path == f"{anchor}b/k"
    assert path.parts == (anchor, "b", "k")
    assert (path.drive, path.root, path.anchor) == (anchor, "", anchor)
    assert [str(one) for one in path.parents] == [f"apyfal://{anchor}b", f"apyfal://{anchor}"]
    assert path.parents[-1].parent == path.parents[-1]
    assert path.parents[-1] / "b" / "k" == path
    assert path.joinpath("a", "b/c").path == f"{anchor}b/k/a/b/c"
    assert ((path / "x.tar.gz").name, (path / "x.tar.gz").suffix) == ("x.tar.gz", ".gz")
    assert (path / "x.tar.gz").suffixes == [".tar", ".gz"]
    assert (path / "x.a").with_suffix(".b") == path / "x.b" == (path / "x.a").with_name("x.b")
    assert str((path / "m" / "n").relative_to(path)) == "m/n"
    assert path / (path / "m" / "n").relative_to(path) == path / "m" / "n"
    assert path.is_absolute()
    assert path.is_relative_to(path.parent)
    assert not path.is_relative_to(path / "x")
    assert (path / ".." / "e").resolve() == path.parent / "e"
    assert (path / "x.txt").match("*.txt")
    assert pickle.loads(pickle.dumps(path)) == path
    assert hash(UPath(str(path))) == hash(path)
    assert path.with_segments(f"{anchor}q/r").path == f"{anchor}q/r"
    assert path / f"apyfal://{anchor}other/k" == UPath(f"apyfal://{anchor}other/k")


def test_local_urls() -> None:
    path = UPath("apyfal://file:///tmp/x")
    assert path == UPath("apyfal:///tmp/x")
    assert path.parts == ("/", "tmp", "x")
    assert (path.anchor, path.drive, path.root) == ("/", "", "/")
    assert path / "/other" == UPath("apyfal:///other")


REFUSED: list[tuple[str, type[AcceleratorException], Callable[[Any], Any]]] = [
    ("absolute", ParameterError, lambda path: path / "/etc/passwd"),
    ("absolute, later", ParameterError, lambda path: path.joinpath("a", "/etc/passwd")),
    ("another library's", ParameterError, lambda path: path / "s3://user:SECRET@b/k"),
    ("a mount's", ParameterError, lambda path: path / "mem://b/k"),
    ("as the web resolves", UnsupportedByStore, lambda path: path.joinuri("../x")),
]


@pytest.mark.parametrize(("error", "call"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(error: type[AcceleratorException], call: Callable[[Any], Any]) -> None:
    """A path of a store never becomes one of this machine, or of another store, by joining."""
    with pytest.raises(error, match="expected") as raised:
        call(UPath("apyfal://s3://b/k"))
    assert "SECRET" not in str(raised.value)


def test_reading_and_writing(base: Any) -> None:
    file = base / "x.txt"
    assert (file.read_text(), file.stat().st_size, file.exists(), file.is_file()) == ("hi", 2, True, True)
    assert (base.is_dir(), base.is_file(), (base / "no").exists()) == (True, False, False)
    assert storage.load(file.path).tobytes() == b"hi"
    with file.open("r", encoding="utf-8") as text:
        assert text.read() == "hi"
    assert sorted(one.name for one in base.iterdir()) == ["s", "x.txt"]
    assert list(base.glob("*.txt")) == [file]
    assert list(base.rglob("*.bin")) == [base / "s" / "y.bin"]
    assert [(str(top), sorted(names)) for top, _, names in base.walk()] == [
        (str(base), ["x.txt"]),
        (str(base / "s"), ["y.bin"]),
    ]
    assert file.rename(base / "z.txt") == base / "z.txt"
    assert not file.exists()
    (base / "z.txt").copy(base / "c.txt")
    assert (base / "c.txt").read_text() == "hi"
    (base / "c.txt").unlink()
    (base / "c.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (base / "c.txt").unlink()
    with pytest.raises(FileNotFoundError):
        (base / "c.txt").read_bytes()


def test_rmdir_takes_no_content_unless_asked(base: Any) -> None:
    with pytest.raises(OSError, match="empty"):
        base.rmdir()
    assert (base / "x.txt").exists()
    base.rmdir(recursive=True)
    assert not base.exists()


def test_copies_to_a_local_path(base: Any, tmp_path: Path) -> None:
    (base / "x.txt").copy(UPath(tmp_path / "copied"))
    assert (tmp_path / "copied").read_text(encoding="utf-8") == "hi"
