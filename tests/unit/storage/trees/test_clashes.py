"""Names that two copies would share, or that would be a file and a directory, in whatever order they come."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from memory_store import MemoryHandler
from trees import content, fill

from apyfal import cli
from apyfal.cli.selection import select
from apyfal.storage.trees.names import Clash, clashes


def expected(files: list[tuple[str, str]], directories: list[str], *, on_disk: bool) -> set[tuple[int, bool]]:
    """Compare each with each."""
    found = set()
    for number, (name, _) in enumerate(files):
        if any(name == before for before, _ in files[:number]):
            found.add((number, True))
        elif on_disk and (
            any(other.startswith(f"{name}/") for other, _ in files)
            or any(f"{other}/".startswith(f"{name}/") for other in directories)
        ):
            found.add((number, False))
    return found


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("on_disk", [True, False])
def test_each_clash_is_found(monkeypatch: pytest.MonkeyPatch, seed: int, on_disk: bool) -> None:
    monkeypatch.setattr("apyfal.storage.packed._RUN", 5)
    choose = random.Random(seed)
    parts = ["a", "a-", "a0", "a b", "-", "\x01", "é", "b"]  # bytes before and after "/"

    def name() -> str:
        return "/".join(choose.choices(parts, k=choose.randint(1, 3)))

    files = [(name(), f"lab://{number}") for number in range(choose.randint(0, 40))]
    directories = [name() for _ in range(choose.randint(0, 3))]
    found = list(clashes(files, directories, on_disk=on_disk))
    assert {(one.number, one.is_name_shared) for one in found} == expected(files, directories, on_disk=on_disk)
    assert len(found) == len({one.number for one in found})
    for one in found:
        assert files[one.number] == (one.name, one.source)
        same = {source for name, source in files[: one.number] if name == one.name}
        below = {source for name, source in files if name.startswith(f"{one.name}/")}
        empty = {other for other in directories if f"{other}/".startswith(f"{one.name}/")}
        assert one.other in (same if one.is_name_shared else below | empty)


def test_the_first_of_a_name_has_it() -> None:
    files = [("b", "1"), ("a", "2"), ("b", "1"), ("b", "3")]
    assert list(clashes(files, [], on_disk=False)) == [
        Clash(2, "b", "1", "1", is_name_shared=True),
        Clash(3, "b", "3", "1", is_name_shared=True),
    ]


def test_a_file_and_a_directory_of_one_name_in_a_store(
    store: MemoryHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a listing, `a-` and `a.b` stand between `a` and `a/b`."""
    for name in ("a", "a-", "a.b", "a/b", "a/b/c", "a/b0", "c"):
        store.store(f"b/in/{name}", name.encode())
    assert cli.main(["copy", "-r", "lab://b/in", str(tmp_path / "out")]) == 2
    assert "(and 1 more; -k copies the rest)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["copy", "-rk", "lab://b/in", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert "'lab://b/in/a': a copy named 'a' would be a file where 'lab://b/in/a/b' needs a directory" in errors
    assert "2 of 7 could not be copied" in errors
    left = ("a-", "a.b", "a/b/c", "a/b0", "c")
    assert content(str(tmp_path / "out")) == {name: name.encode() for name in left}
    assert cli.main(["copy", "-r", "lab://b/in/", "lab://b/out"]) == 0
    assert {name[6:] for name in store.objects if name.startswith("b/out/")} == {"a", "a/b", "a/b/c", *left}


def test_copies_are_in_the_order_of_the_sources(store: MemoryHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apyfal.cli.selection._BLOCK", 2)
    for name in ("z/b", "z/a", "y/c", "y/a", "x"):
        store.store(f"b/{name}", name.encode())
    chosen = select(["lab://b/z", "lab://b/x", "lab://b/y", "lab://b/x", "lab://b/[z]/b"], "lab://o", recursive=True)
    assert [one.source for one in chosen.pairs] == ["lab://b/z/a", "lab://b/z/b", "lab://b/x", "lab://b/y/c"]
    assert [one.destination for one in chosen.pairs] == ["lab://o/a", "lab://o/b", "lab://o/x", "lab://o/c"]
    assert [str(one) for one in chosen.problems] == [
        "'lab://b/z/a' and 'lab://b/y/a' would both become 'a' in 'lab://o'"
    ]
    blocks = list(chosen.blocks())
    assert [block.first for block in blocks] == [0, 2]
    assert [pair for block in blocks for pair in block.pairs] == list(chosen.pairs)
    assert [(one.url, there.url) for block in blocks for one, there in block.locations] == list(chosen.pairs)
    assert [size for block in blocks for size in block.sizes] == [3, 3, 1, 3] == list(chosen.sizes)


def test_all_blocks_are_copied(
    store: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("apyfal.cli.selection._BLOCK", 7)
    names = {f"{number % 3}/{number}": b"x" * number for number in range(50)}
    for name, data in names.items():
        store.store(f"b/in/{name}", data)
    assert cli.main(["copy", "-r", "--json", "lab://b/in", str(tmp_path / "out")]) == 0
    assert content(str(tmp_path / "out")) == names
    assert capsys.readouterr().out.count('"destination"') == 50
    store.fail["read"] = 1
    assert cli.main(["copy", "-rk", "--json", "lab://b/in", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out.count('"destination"') == 49
    assert "1 of 50 could not be copied" in captured.err


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_a_directory_of_a_files_name_is_not_copied_into(
    store: MemoryHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = "lab://b/in" if kind == "store" else str(tmp_path / "in")
    fill(source, {"a": b"1", "d/b": b"2", "d/c": b"3"})
    (tmp_path / "out/d/b").mkdir(parents=True)
    assert cli.main(["copy", "-rk", source, str(tmp_path / "out")]) == 1
    assert "1 of 3 could not be copied" in capsys.readouterr().err
    assert content(str(tmp_path / "out")) == {"a": b"1", "d/c": b"3"}
