"""What a synchronization plans, compared with a plain comparison of each name with each."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from apyfal.exceptions import StorageError
from apyfal.storage.trees.plan import make_plan
from apyfal.storage.trees.sides import DIRECTORY, FILE, PROBLEM, Tree, TreeEntry
from apyfal.storage.url import parse

#: Some sort before "/", and some behind it.
PARTS = ["a", "a-", "a0", "a b", "-", "\x01", "é", "b"]


def is_in(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}/")


def folders(files: Iterable[str], directories: Iterable[str]) -> set[str]:
    found = set(directories)
    for name in [*files, *directories]:
        parts = name.split("/")
        found.update("/".join(parts[:end]) for end in range(1, len(parts)))
    return found


class Side:
    """A tree as plain sets."""

    def __init__(self, choose: random.Random, *, consistent: bool) -> None:
        self.files: dict[str, tuple[int, float]] = {}
        self.directories: set[str] = set()
        self.problems: set[str] = set()
        for _ in range(choose.randint(0, 30)):
            name = "/".join(choose.choices(PARTS, k=choose.randint(1, 4)))
            every = {*self.files, *self.directories, *self.problems}
            if name in every or (
                consistent and any(is_in(name, other) or is_in(other, name) for other in every - self.problems)
            ):
                continue
            kind = choose.choices(("file", "directory", "problem"), (8, 2, 1))[0]
            if kind == "file":
                self.files[name] = choose.randint(1, 2), float(choose.randint(1, 2))
            else:
                (self.directories if kind == "directory" else self.problems).add(name)
        if consistent:
            self.problems = {
                one for one in self.problems if not any(is_in(other, one) for other in (*self.files, *self.directories))
            }

    def tree(self, top: Path, choose: random.Random) -> Tree:
        tree = Tree(parse(str(top)), on_disk=True)
        entries = [TreeEntry(name, FILE, size, None, mtime) for name, (size, mtime) in self.files.items()]
        entries += [TreeEntry(name, DIRECTORY) for name in self.directories]
        entries += [TreeEntry(name, PROBLEM) for name in self.problems]
        choose.shuffle(entries)
        for entry in entries:
            tree.add(entry)
        tree.problems.update((name, StorageError(f"no {name!r}")) for name in self.problems)
        return tree


@pytest.mark.parametrize("seed", range(150))
def test_a_plan_is_that_of_each_name_with_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr("apyfal.storage.packed._RUN", 4)
    choose = random.Random(seed)
    here, there = Side(choose, consistent=False), Side(choose, consistent=True)
    plan = make_plan(
        here.tree(tmp_path / "in", choose), there.tree(tmp_path / "out", choose), checksum=False, delete=True
    )

    refused: dict[str, str] = {}
    of_destination = folders({*there.files, *there.problems}, there.directories)
    for name in here.files:
        if name in here.directories or any(is_in(other, name) for other in (*here.files, *here.directories)):
            refused[name] = "would be a file where"
        elif any(other == name or is_in(name, other) for other in there.problems):
            refused[name] = ": no '"
        elif name in of_destination:
            refused[name] = "there is a directory of this name"
        elif any(is_in(name, other) for other in there.files):
            refused[name] = "is a file there, and no directory"
    no_directories: dict[str, str] = {}
    for name in here.directories:
        if any(other == name or is_in(name, other) for other in there.problems):
            no_directories[name] = ": no '"
        elif any(is_in(name, other) for other in there.files):
            no_directories[name] = "is a file there, and no directory"
        elif name in there.files:
            no_directories[name] = "there is a file of this name"
    assert len(plan.problems) == len(refused) + len(no_directories)
    for name, why in [*refused.items(), *no_directories.items()]:
        shown = repr(str(tmp_path / "in" / name))
        assert any(str(one).startswith(shown) and why in str(one) for one in plan.problems), name

    left = here.files.keys() - refused.keys()
    differ = {name for name in left if here.files[name] != there.files.get(name)}
    assert [work.name for work in plan.work] == sorted(differ, key=lambda name: name.split("/"))
    assert plan.same == len(left) - len(differ)
    assert plan.total == sum(here.files[name][0] for name in differ)
    for work in plan.work:
        assert (work.size, work.mtime) == here.files[work.name]
        assert work.exists is (work.name in there.files)
        if work.existing is not None:
            assert (work.existing.size, work.existing.mtime) == there.files[work.name]
    assert {name for (name,) in plan.folders} == here.directories - no_directories.keys()

    extra = there.files.keys() - left
    kept = folders(left, here.directories)
    empty = there.directories - kept
    assert {name for (name,) in plan.extra} == extra
    emptied = [(name, was_empty) for _, name, was_empty in plan.emptied]
    assert set(emptied) == {(name, name in empty) for name in folders(extra, empty) - kept}
    assert len(emptied) == len(set(emptied))
    assert [len(name) for name, _ in emptied] == sorted((len(name) for name, _ in emptied), reverse=True)
    assert plan.empty == len(empty)


@pytest.mark.parametrize("same", [True, False])
def test_two_trees_and_their_plan_are_held_compressed(tmp_path: Path, same: bool) -> None:
    """Some 130 bytes a file; as objects, a file of two listings takes a kilobyte."""
    count = 10_000

    def listed(name: str, mtime: float) -> Tree:
        tree = Tree(parse(str(tmp_path / name)), on_disk=True)
        for number in range(count):
            tree.add(TreeEntry(f"{number // 100:04}/{number:08}", FILE, 100, f'"{number:032}"', mtime + number / 7))
        return tree

    tracemalloc.start()
    try:
        plan = make_plan(listed("in", 1e9), listed("out", 1e9 if same else 2e9), checksum=False, delete=True)
        assert (plan.same, len(plan.work)) == ((count, 0) if same else (0, count))
        assert tracemalloc.get_traced_memory()[1] < count * 200 + (5 << 20)
    finally:
        tracemalloc.stop()
