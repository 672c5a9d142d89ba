"""The directories of what is made once: who may write there, and what goes when there is too much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apyfal.config.cache import SCRATCH, CacheUnusable, cache_folder, evict


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder("things")


def _names(folder: Path) -> str:
    return "".join(sorted(path.name for path in folder.iterdir()))


@pytest.fixture
def filled(folder: Path) -> Path:
    """Ten bytes in each of the files a (oldest) to e, and one directory f that is older than all."""
    (folder / "f").mkdir()
    (folder / "f" / "part").write_bytes(b"x")
    for age, name in enumerate("edcba"):
        (folder / name).write_bytes(b"0123456789")
        os.utime(folder / name, (1000 - age, 1000 - age))
    os.utime(folder / "f", (1, 1))
    return folder


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, "abcdef"),
        ({"count": 6}, "abcdef"),
        ({"count": 2}, "de"),
        ({"count": 0}, ""),
        ({"nbytes": 30}, "cde"),
        ({"nbytes": 29}, "de"),
        ({"nbytes": 9}, ""),
        ({"count": 1, "nbytes": 30}, "e"),
    ],
)
def test_the_oldest_go_first(limits: dict[str, int], left: str, filled: Path) -> None:
    evict(filled, **limits)
    assert _names(filled) == left


def test_what_is_being_made_stays_until_it_is_abandoned(folder: Path) -> None:
    for name in ("new", "old"):
        (folder / f"{SCRATCH}{name}").write_bytes(b"x")
    os.utime(folder / f"{SCRATCH}old", (1, 1))
    evict(folder, count=0, nbytes=0)
    assert _names(folder) == f"{SCRATCH}new"


def test_a_directory_that_is_gone_is_no_error(folder: Path) -> None:
    folder.rmdir()
    evict(folder, count=0)


def test_only_the_user_can_use_it(folder: Path) -> None:
    assert [one.stat().st_mode & 0o777 for one in (folder, folder.parent)] == [0o700, 0o700]
    assert cache_folder("things") == folder


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
@pytest.mark.parametrize("which", ["things", "apyfal"])
def test_one_that_others_can_write_is_refused(mode: int, which: str, folder: Path) -> None:
    place = folder if which == "things" else folder.parent
    place.chmod(mode)
    with pytest.raises(CacheUnusable, match="can be written by others"):
        cache_folder("things")


def test_one_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another = folder.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(CacheUnusable, match="belongs to somebody else"):
        cache_folder("things")


@pytest.mark.parametrize("value", ["", "relative", "./x"])
def test_a_relative_path_is_ignored(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("things") == tmp_path / "home/.cache/apyfal/things"


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
def test_without_a_place_it_says_so(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(CacheUnusable, match=r"null|nowhere"):
        cache_folder("things")
