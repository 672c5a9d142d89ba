"""Long lists in little memory, and the commands over trees that hold their listings so."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import storage
from apyfal.cli.commands.many_jobs import JobFiles, find_sources, place_outputs
from apyfal.cli.progress import ProgressSum
from apyfal.cli.selection import select
from apyfal.storage.api.namespace import iter_entries
from apyfal.storage.api.tree import tree
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.mounting import table
from apyfal.storage.packed import Packed, Sorter, repeated
from apyfal.storage.url import parse

MANY = 6_000
#: Bytes an object that a listing may take at its peak, and what does not grow with it. As objects it takes about 800.
EACH, FIXED = 120, 2 << 20


class Endless(MemoryHandler):
    """A bucket of `MANY` objects that exist only while they are listed, and end when they are removed."""

    def __init__(self) -> None:
        super().__init__()
        self.removed = 0

    def list(self, path: str, *, recursive: bool = False) -> Iterator[ObjectInfo]:
        for number in range(self.removed, MANY):
            yield ObjectInfo(f"b/t/{number:09}", 1, f'"{number:032}"', 1e9 + number)

    def remove(self, path: str) -> None:
        with self.lock:
            self.removed += not path.endswith("/")


@pytest.fixture
def endless() -> Iterator[Endless]:
    handler = Endless()
    table.table.attach("lab", handler)
    yield handler
    table.table.unmount("lab")


def peak(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_rows_come_back_as_they_were(count: int) -> None:
    rows = [(f"n\udcff\x00/{n}\U0001f600", n or None, float(n), {"md5": bytes([n])}, n % 2 == 0) for n in range(count)]
    packed: Packed[tuple[Any, ...]] = Packed(tuple, block=8)
    packed.extend(rows)
    assert len(packed) == count
    assert list(packed) == rows == list(packed)
    assert list(chain.from_iterable(packed.blocks())) == rows
    assert list(packed.drain()) == rows
    assert len(packed) == 0
    assert list(packed) == []


def test_rows_are_of_one_length() -> None:
    packed: Packed[tuple[Any, ...]] = Packed(tuple, block=2)
    packed.append((1, 2))
    with pytest.raises(ValueError, match="zip"):
        packed.append((1,))


@pytest.mark.parametrize("order", ["sorted", "reversed", "random", "two"])
def test_sorted(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr("apyfal.storage.packed._RUN", 16)
    numbers = [n // 3 for n in range(500)]
    if order == "reversed":
        numbers.reverse()
    elif order == "random":
        random.Random(3).shuffle(numbers)
    elif order == "two":
        numbers += numbers
    rows = [(number, place) for place, number in enumerate(numbers)]
    sorter: Sorter[tuple[int, ...]] = Sorter(tuple, lambda row: row[0])
    for row in rows:
        sorter.add(row)
    assert list(sorter) == sorted(rows) == list(sorter)
    assert list(repeated(map(str, numbers))) == [number in numbers[:place] for place, number in enumerate(numbers)]


@pytest.mark.parametrize("disorder", [0, 1, 50])
def test_a_listing_has_each_name_once_in_whatever_order(disorder: int) -> None:
    names = [f"p/{n:05}" for n in range(3000)] + [f"p/d{n:05}/" for n in range(50)]
    choose = random.Random(disorder)
    for _ in range(disorder):
        names.insert(choose.randrange(len(names)), choose.choice(names))
    guard, seen = PageGuard("p"), set[str]()
    for name in names:
        assert guard.is_new(name) is (name not in seen)
        seen.add(name)
    guard.end_of_page(more=False)


def test_a_listing_in_order_holds_no_names_as_objects() -> None:
    guard = PageGuard("p")

    def run() -> None:
        for number in range(MANY):
            assert guard.is_new(f"p/{number:09}")

    assert peak(run) < MANY * 20 + FIXED


@pytest.mark.parametrize("sizes_only", [True, False])
def test_the_listing_of_a_tree_is_held_packed(endless: Endless, sizes_only: bool) -> None:
    found = 0

    def run() -> None:
        nonlocal found
        for item in tree(parse("lab://b/t"), sizes_only=sizes_only):
            assert item.name == f"{found:09}"
            assert item.info is not None
            assert item.info.size == 1
            assert item.info.mtime == (None if sizes_only else 1e9 + found)
            assert item.info.etag == (None if sizes_only else f'"{found:032}"')
            found += 1

    assert peak(run) < MANY * EACH + FIXED
    assert found == MANY


def test_a_large_directory_of_a_disk_is_held_packed(tmp_path: Path) -> None:
    count = 4_000
    for number in range(count):
        (tmp_path / f"{number:09}").touch()

    def run() -> None:
        for number, item in enumerate(tree(parse(str(tmp_path)))):
            assert item.name == f"{number:09}"
        assert number == count - 1

    assert peak(run) < count * 30 + 2 * FIXED


def test_a_folder_and_what_matches_in_it_are_held_packed(endless: Endless) -> None:
    def run() -> None:
        for number, (name, info) in enumerate(iter_entries(parse("lab://b/t"))):
            assert (name, info.etag) == (f"{number:09}", f'"{number:032}"')
        assert number == MANY - 1
        for pattern in ("lab://b/t/*77", "lab://b/t/**/*77"):
            assert len(storage.glob(pattern)) == MANY // 100

    assert peak(run) < MANY * EACH + 4 * FIXED


def test_a_tree_is_removed_in_little_memory(endless: Endless) -> None:
    assert peak(lambda: storage.rmtree("lab://b/t")) < MANY * EACH + FIXED
    assert endless.removed == MANY


def test_what_copy_chooses_is_held_packed(endless: Endless, tmp_path: Path) -> None:
    """Also on a disk, where each name is compared with the others."""

    def run() -> None:
        found = 0
        for block in select(["lab://b/t"], str(tmp_path / "out"), recursive=True).blocks():
            assert block.pairs[0].destination == f"{tmp_path}/out/{found:09}"
            found += len(block.pairs)
            assert sum(size or 0 for size in block.sizes) == len(block.pairs)
        assert found == MANY

    assert peak(run) < MANY * EACH + 8 * FIXED


def test_the_jobs_of_a_tree_are_held_packed(endless: Endless) -> None:
    def run() -> None:
        jobs = place_outputs(find_sources(["lab://b/t"], recursive=True), "lab://b/o/{path}")
        assert len(jobs) == MANY
        for number, job in enumerate(jobs):
            assert job == JobFiles(f"lab://b/t/{number:09}", 1, f"lab://b/o/{number:09}")

    assert peak(run) < MANY * EACH + 8 * FIXED


def test_the_sum_of_progress_keeps_a_size_of_each_part() -> None:
    seen: list[tuple[int, int | None]] = []

    def run() -> None:
        shown = ProgressSum(lambda done, total: seen.append((done, total)), (1000 for _ in range(MANY)))
        for number in range(MANY):
            if (update := shown.part(number)) is not None:
                update(500, 1000)
            shown.finished(number)
            del seen[:-1]

    assert peak(run) < MANY * 20 + FIXED
    assert seen == [(1000 * MANY, 1000 * MANY)]
