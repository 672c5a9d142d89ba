"""Built programs are kept for the next process, and a cache that cannot be used is not an error."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drivers.cases.program_cases import SOURCE
from drivers.support.worker import Worker
from fixtures.opencl import installation

pytestmark = pytest.mark.vendor

#: Added by each program, in place of ``{added}``.
ADDED = 3.0


class _Card:
    """One vendor's OpenCL, in a process for each environment; counts the sources that are built."""

    def __init__(self, vendor: str, folder: Path) -> None:
        self.environment = installation.counting(getattr(installation, vendor)(folder), folder)
        self.builds = folder / "builds"
        self.workers: dict[str, Worker] = {}
        self.program = folder / "t.cl"
        self.write()
        self.home = Path(self.environment["XDG_CACHE_HOME"])
        self.cache = self.home / "apyfal" / "opencl"

    def write(self, text: str = SOURCE, added: str = str(ADDED)) -> None:
        self.program.write_text(text.format(added=added))

    def run(self, added: float = ADDED, environment: dict[str, str] | None = None, **options: str) -> int:
        """Return how many sources were built."""
        before = self.builds.stat().st_size if self.builds.exists() else 0
        worker = self.workers.setdefault(str(environment), Worker({**self.environment, **(environment or {})}))
        worker.call("drivers.cases.program_cases", "run", str(self.program), added, options)
        return (self.builds.stat().st_size if self.builds.exists() else 0) - before

    def close(self) -> None:
        while self.workers:
            self.workers.popitem()[1].close()

    def entries(self) -> list[Path]:
        return sorted(self.cache.iterdir()) if self.cache.exists() else []


@pytest.fixture(params=["intel", "pocl"])
def card(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Card]:
    with contextlib.closing(_Card(request.param, tmp_path)) as made:
        yield made


@pytest.fixture
def pocl(tmp_path: Path) -> Iterator[_Card]:
    with contextlib.closing(_Card("pocl", tmp_path)) as made:
        yield made


def test_the_second_process_builds_nothing(card: _Card) -> None:
    assert card.run() > 0
    assert card.cache.stat().st_mode & 0o777 == 0o700
    card.close()
    entries = card.entries()
    assert entries
    assert all(entry.stat().st_mode & 0o777 == 0o600 for entry in entries)
    assert card.run() == 0
    assert card.entries() == entries
    assert card.run(cache="no") > 0


def _cut(entry: Path) -> None:
    os.truncate(entry, entry.stat().st_size // 2)


def _flip(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes(content)


def _lengths(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[16:40] = b"\xff" * 24
    entry.write_bytes(content)


def _fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


def _link(entry: Path) -> None:
    target = entry.with_name("target")
    entry.rename(target)
    entry.symlink_to(target)


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda entry: os.truncate(entry, 0),
    "header": lambda entry: os.truncate(entry, 30),
    "cut": _cut,
    "flip": _flip,
    "lengths": _lengths,
    "fifo": _fifo,
    "link": _link,
    "written by others": lambda entry: entry.chmod(0o666),
    "gone": Path.unlink,
}


def test_damaged_entries_are_built_anew(pocl: _Card) -> None:
    first = pocl.run()
    for name, damage in _DAMAGE.items():
        for entry in pocl.entries():
            if not entry.name.startswith("target"):
                damage(entry)
        assert pocl.run() == first, name
    assert pocl.run() == 0


def _owned_by_another(card: _Card) -> None:
    card.cache.mkdir(parents=True)
    os.chown(card.cache, 12345, 12345)


def _written_by_all(card: _Card) -> None:
    card.cache.mkdir(parents=True)
    card.cache.chmod(0o777)


def _parent_written_by_all(card: _Card) -> None:
    card.cache.mkdir(parents=True)
    card.cache.parent.chmod(0o777)


def _file_in_its_place(card: _Card) -> None:
    card.home.mkdir(parents=True)
    (card.home / "apyfal").write_text("no directory")


@pytest.mark.parametrize(
    "prepare",
    [_owned_by_another, _written_by_all, _parent_written_by_all, _file_in_its_place],
    ids=lambda one: one.__name__,
)
def test_a_directory_that_is_not_safe_is_not_used(prepare: Callable[[_Card], None], pocl: _Card) -> None:
    if prepare is _owned_by_another and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    prepare(pocl)
    assert pocl.run() > 0
    if pocl.cache.is_dir():
        assert pocl.entries() == []


@pytest.mark.parametrize(
    "place", [{"XDG_CACHE_HOME": "/proc/nowhere"}, {"XDG_CACHE_HOME": "relative", "HOME": "/proc/nowhere"}]
)
def test_without_a_place_there_is_no_cache_and_no_error(place: dict[str, str], pocl: _Card) -> None:
    assert pocl.run(environment=place) > 0
    assert not Path("relative").exists()


#: What a source begins with, if it is not the text alone that decides what is built.
_OPEN = [
    '#define MORE_H "more.h"\n#include MORE_H',
    '#inc\\ \nlude "more.h"',
    "#if 0\n#include <which_nobody_has.h>\n#endif",
    "#define MORE_H <more.h>\n#line 1 // \\\n\n#include MORE_H",
    "constant char second[] = __TI\\\nME__;",
]


def test_what_others_decide_is_not_kept(pocl: _Card, tmp_path: Path) -> None:
    (tmp_path / "more.h").write_text("#define MORE 1\n")
    for begin in _OPEN:
        pocl.program.write_text(begin + "\n" + SOURCE.format(added=ADDED))
        assert pocl.run(build=f"-I {tmp_path}") > 0, begin
        assert pocl.entries() == [], begin
    pocl.write()
    for build in ("-DASM=asm", "-D ASM=asm", "-DINCLUDE=include -I include"):
        assert pocl.run(build=build) > 0, build
        assert pocl.entries() == [], build


@pytest.mark.parametrize("line", ['#include "more.h"', "#include <more.h>", '#include "two.h" /* which includes it */'])
def test_the_content_of_included_files_counts(line: str, pocl: _Card, tmp_path: Path) -> None:
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "two.h").write_text("#pragma once\n#include <more.h>\n")
    pocl.program.write_text("/* to be included in all copies\n */\n" + line + "\n" + SOURCE.format(added="MORE"))
    for more, built in ((1.0, True), (1.0, False), (2.0, True), (1.0, False)):
        (folder / "more.h").write_text(f"#define MORE {more}\n")
        for build in (f"-I {folder}", f"-I{folder} -DN=1") if more == 1.0 else (f"-I {folder}",):
            assert (pocl.run(more, build=build) > 0) == built, (more, build)


def test_several_sources(card: _Card, tmp_path: Path) -> None:
    with Worker(card.environment) as worker:
        worker.call("drivers.cases.program_cases", "several_sources", str(tmp_path))


def test_every_part_of_the_key_counts(pocl: _Card) -> None:
    pocl.write(added="ADDED")
    for build, environment in (
        ("-DADDED=1", {}),
        ("-DADDED=2", {}),
        ("-DADDED=1", {"POCL_MAX_PTHREAD_COUNT": "1"}),
    ):
        added = float(build[-1])
        assert pocl.run(added, environment, build=build) > 0
        assert pocl.run(added, environment, build=build) == 0
    pocl.write(added="ADDED + 1")
    assert pocl.run(2.0, build="-DADDED=1") > 0
    assert pocl.run(2.0, build="-DADDED=1") == 0


def test_no_value_of_the_environment_lies_on_the_disk(pocl: _Card) -> None:
    """Variables with the prefixes of the platforms' own can be others' secrets."""
    names = ("NVIDIA_API_KEY", "NEO4J_PASSWORD", "CL_TOKEN", "AMD_SECRET", "POCL_X", "HOME_TOKEN")
    assert pocl.run(environment=dict.fromkeys(names, "canary-9f3b")) > 0
    entries = pocl.entries()
    assert entries
    assert not any(b"canary-9f3b" in entry.read_bytes() for entry in entries)


def test_an_entry_of_another_program_is_not_taken(pocl: _Card) -> None:
    """As if two programs had the same digest: an entry is compared as a whole."""
    pocl.run()
    (old, *_), number = pocl.entries(), len(pocl.entries())
    pocl.write(added="5.0")
    pocl.run(5.0)
    for new in pocl.entries():
        if new != old:
            shutil.copy(old, new)
    assert number >= 1
    assert pocl.run(5.0) > 0


def test_two_processes_at_once(pocl: _Card) -> None:
    with Worker(pocl.environment) as one, Worker(pocl.environment) as two, ThreadPoolExecutor(2) as both:
        for number in range(3):
            pocl.write(added=f"{number}.0")
            case = ("drivers.cases.program_cases", "run", str(pocl.program), float(number), {})
            list(both.map(Worker.call, (one, two), *zip(case, case, strict=True)))
    assert not [entry for entry in pocl.entries() if entry.name.startswith("build-")]
    assert pocl.run(2.0) == 0


def test_other_values_of_the_option(pocl: _Card) -> None:
    with Worker(pocl.environment) as worker:
        worker.call("drivers.cases.program_cases", "wrong_option", str(pocl.program))
