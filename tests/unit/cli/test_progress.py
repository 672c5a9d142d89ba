"""Progress on the terminal: a bar, and the sums that it shows."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal import cli, storage
from apyfal.cli.progress import ProgressCallback, ProgressSum, progress_bar
from apyfal.exceptions import AccessDenied, StoreUnavailable
from apyfal.storage.handler import RangeReader
from apyfal.storage.mounting.table import table


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("x", enabled=False) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_name_bytes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress_bar("s3://lab/[reads]", enabled=True) as progress:
        assert progress is not None
        progress(1 << 20, None)
        progress(3 << 20, 4 << 20)
    text = terminal.getvalue()
    assert "s3://lab/[reads]" in text
    assert "3.0/4.0 MiB" in text


class Seen:
    """Takes the place of the bar: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    @contextmanager
    def bar(self, description: str, *, enabled: bool, **_: object) -> Iterator[ProgressCallback]:
        assert enabled
        yield lambda done, total: self.told.append((done, total))

    @property
    def last(self) -> tuple[int, int | None]:
        return self.told[-1]

    def check(self) -> None:
        """What is done never exceeds what there is, and what there is does not grow."""
        assert all(total is None or done <= total for done, total in self.told)
        totals = [total for _, total in self.told if total is not None]
        assert totals == sorted(totals, reverse=True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen()
    for name in ("storage.copy", "storage.mv", "storage.sync", "process"):
        monkeypatch.setattr(f"apyfal.cli.commands.{name}.progress_bar", made.bar)
    monkeypatch.setattr("apyfal.cli.common.CommonOptions.progress", property(lambda self: True))
    return made


@pytest.fixture
def lab() -> Iterator[MemoryHandler]:
    handler = MemoryHandler()
    table.attach("lab", handler)
    yield handler
    storage.unmount("lab")


SIZES = {"a": 3, "b": 5 << 20, "c/d": 0, "c/e": 20 << 20}
WHOLE = sum(SIZES.values())


def _store(handler: MemoryHandler) -> None:
    for name, size in SIZES.items():
        handler.store(f"x/{name}", bytes(size))


@pytest.mark.parametrize(
    ("command", "total"),
    [
        (["copy", "-r", "lab://x", "OUT"], WHOLE),
        (["copy", "-r", "lab://x", "lab://y"], WHOLE),
        (["copy", "lab://x/?", "OUT"], SIZES["a"] + SIZES["b"]),
        (["copy", "lab://x/a", "lab://x/b", "OUT"], SIZES["a"] + SIZES["b"]),
        (["copy", "lab://x/b", "OUT/b"], SIZES["b"]),
        (["mv", "lab://x/[ab]", "OUT"], SIZES["a"] + SIZES["b"]),
        (["mv", "lab://x/b", "lab://y/b"], SIZES["b"]),
        (["sync", "lab://x", "OUT"], WHOLE),
        (["sync", "lab://x", "lab://y"], WHOLE),
        (["process", "-a", "loopback", "lab://x/b", "-o", "OUT/b"], SIZES["b"]),
        (["process", "-a", "loopback", "lab://x/?", "-o", "OUT/{name}"], SIZES["a"] + SIZES["b"]),
        (["process", "-a", "loopback", "-r", "lab://x/c", "lab://x/b", "-o", "OUT/{name}"], WHOLE - SIZES["a"]),
        (["process", "-a", "loopback", "lab://x/a", "lab://x/b", "-o", "OUT/{name}"], SIZES["a"] + SIZES["b"]),
    ],
)
def test_a_bar_ends_with_the_sum_of_the_sizes(
    command: list[str], total: int, seen: Seen, lab: MemoryHandler, tmp_path: Path
) -> None:
    _store(lab)
    assert cli.main([part.replace("OUT", str(tmp_path)) for part in command]) == 0
    assert seen.last == (total, total)
    seen.check()


@pytest.mark.parametrize(
    "command", [["copy", "-r", "-k"], ["sync", "-k"], ["process", "-a", "loopback", "-rk", "-o", "OUT/{path}"]]
)
def test_what_fails_is_not_in_the_sum(
    command: list[str], seen: Seen, lab: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store(lab)
    real = lab.read

    def read(path: str, *rest: Any) -> RangeReader:
        if path == "x/b":
            raise AccessDenied("no", path=path)
        return real(path, *rest)

    monkeypatch.setattr(lab, "read", read)
    places = [str(tmp_path)] if "OUT" not in command[-1] else []
    assert cli.main([*(part.replace("OUT", str(tmp_path)) for part in command), "lab://x", *places]) != 0
    assert seen.last == (WHOLE - SIZES["b"], WHOLE - SIZES["b"])


@pytest.mark.parametrize("command", [["copy", "-r"], ["sync"]])
def test_what_is_tried_again_counts_once(
    command: list[str], seen: Seen, lab: MemoryHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    _store(lab)
    real, calls = lab.read, [0]

    class Breaking(RangeReader):
        def __init__(self, reader: RangeReader) -> None:
            self.info = reader.info
            self._reader = reader

        def readinto(self, out: memoryview) -> int:
            calls[0] += 1
            if calls[0] % 3 == 0:
                raise StoreUnavailable("broke off")
            return self._reader.readinto(out[: max(1, len(out) // 2)])

        def close(self) -> None:
            self._reader.close()

    monkeypatch.setattr(lab, "read", lambda *given: Breaking(real(*given)))
    assert cli.main([*command, "lab://x", str(tmp_path)]) == 0
    assert calls[0] > 10
    assert seen.last == (WHOLE, WHOLE)
    seen.check()


def test_a_size_that_is_not_known_makes_the_sum_unknown_until_it_is(seen: Seen) -> None:
    shown = ProgressSum(lambda done, total: seen.told.append((done, total)), [10, None, 5])
    first, second, third = (shown.part(number) for number in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    first(4, 10)
    second(7, None)
    assert seen.last == (11, None)
    shown.finished(1)
    assert seen.last == (11, 22)
    first(2, 10)  # it begins again
    assert seen.last == (9, 22)
    shown.finished(0)
    third(6, 5)  # larger than the listing said
    assert seen.last == (23, 23)
    shown.failed(2)
    assert seen.last == (17, 17)
    assert ProgressSum(None, [1]).part(0) is None
