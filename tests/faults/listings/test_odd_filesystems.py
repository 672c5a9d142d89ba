"""Listings and ranges of filesystems of fsspec that do not keep to its rules: whole, or an error that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import fsspec
import pytest

from apyfal.exceptions import AccessDenied, ObjectNotFound, StorageError, StoreUnavailable
from apyfal.storage.stores.fsspec.handler import FsspecHandler

TREE = {
    "/d": {"a": 1, "z": 3, "s": None},
    "/d/s": {"b": 2},
}
WHOLE = ["d/a", "d/s/b", "d/z"]


def entry(name: str, size: int | None) -> dict[str, Any]:
    return {"name": name, "size": size, "type": "file" if size is not None else "directory"}


class Odd(fsspec.AbstractFileSystem):
    """Lists `TREE`, and errs as its class is told."""

    protocol = "odd"
    cachable = False
    listed: ClassVar[Callable[[str, list[dict[str, Any]]], Any]] = staticmethod(lambda path, found: found)
    told: ClassVar[Callable[[str, dict[str, Any]], Any]] = staticmethod(lambda path, found: found)
    read: ClassVar[Callable[[int, int], bytes]] = staticmethod(lambda start, end: bytes(range(start, end)))

    def info(self, path: str, **keywords: Any) -> Any:
        parent, _, name = path.rpartition("/")
        if path in ("/", *TREE):
            return type(self).told(path, entry(path, None))
        if name not in TREE.get(parent, {}):
            raise FileNotFoundError(path)
        return type(self).told(path, entry(path, TREE[parent][name]))

    def ls(self, path: str, detail: bool = True, **keywords: Any) -> Any:
        found = [entry("/d", None)] if path == "/" else [entry(f"{path}/{name}", n) for name, n in TREE[path].items()]
        return type(self).listed(path, found)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **keywords: Any) -> bytes:
        return type(self).read(start or 0, end or 0)


def _raise(error: BaseException) -> Any:
    raise error


Listed = Callable[[str, list[dict[str, Any]]], Any]
#: what `ls` makes of a listing, and what comes of it: names, or an error
LISTINGS: dict[str, tuple[Listed, list[str] | type[StorageError]]] = {
    "as it should": (lambda path, found: found, WHOLE),
    "a directory in itself": (lambda path, found: [entry(path, None), *found], WHOLE),
    "names twice": (lambda path, found: found + found, WHOLE),
    "names without a slash": (lambda path, found: [one | {"name": one["name"].strip("/")} for one in found], WHOLE),
    "names with two slashes": (lambda path, found: [one | {"name": "/" + one["name"]} for one in found], WHOLE),
    "a tuple": (lambda path, found: tuple(found), WHOLE),
    "a generator": (lambda path, found: (one for one in found), WHOLE),
    "more fields": (lambda path, found: [one | {"islink": False} for one in found], WHOLE),
    "what is deeper": (lambda path, found: [*found, entry(f"{path}/s/b", 2)], StorageError),
    "what is above": (lambda path, found: [*found, entry("/", None)], StorageError),
    "what is beside": (lambda path, found: [*found, entry("/e/a", 2)], StorageError),
    "a name that begins alike": (lambda path, found: [*found, entry(f"{path}x", 2)], StorageError),
    "names alone": (lambda path, found: [one["name"] for one in found], StorageError),
    "names below it": (
        lambda path, found: [one | {"name": one["name"].rpartition("/")[2]} for one in found],
        StorageError,
    ),
    "entries without names": (lambda path, found: [{"type": "file", "size": 1}], StorageError),
    "an empty name": (lambda path, found: [*found, entry("", 1)], StorageError),
    "nothing": (lambda path, found: None, StorageError),
    "a number": (lambda path, found: 7, StorageError),
    "no permission": (lambda path, found: _raise(PermissionError(13, "Permission denied")), AccessDenied),
    "a broken connection": (lambda path, found: _raise(ConnectionResetError(104, "reset")), StoreUnavailable),
    "an error of its own": (lambda path, found: _raise(RuntimeError("what")), StorageError),
    "not found below": (
        lambda path, found: _raise(FileNotFoundError(path)) if path == "/d/s" else found,
        ObjectNotFound,
    ),
    "no permission below": (
        lambda path, found: _raise(PermissionError(13, "Permission denied")) if path == "/d/s" else found,
        AccessDenied,
    ),
    "a directory without end": (lambda path, found: [entry(f"{path}/s", None)], StorageError),
}
Told = Callable[[str, dict[str, Any]], Any]
#: what `info` makes of a directory, whose `isdir` is then False
TOLD: dict[str, tuple[Told, type[StorageError]]] = {
    "no permission": (lambda path, found: _raise(PermissionError(13, "Permission denied")), AccessDenied),
    "a broken connection": (lambda path, found: _raise(ConnectionResetError(104, "reset")), StoreUnavailable),
    "a time that has passed": (lambda path, found: _raise(TimeoutError(110, "timed out")), StorageError),
    "an error of the disk": (lambda path, found: _raise(OSError(5, "Input/output error")), StorageError),
    "an error of its own": (lambda path, found: _raise(RuntimeError("what")), StorageError),
    "no type": (lambda path, found: {"name": path, "size": 0}, StorageError),
    "nothing": (lambda path, found: None, StorageError),
}


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[FsspecHandler]:
    fsspec.register_implementation("odd", Odd, clobber=True)
    yield FsspecHandler(protocol="odd")
    from fsspec.registry import _registry

    _registry.pop("odd", None)


@pytest.mark.parametrize("case", LISTINGS)
def test_a_listing_is_whole_or_an_error(odd: FsspecHandler, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    listed, expected = LISTINGS[case]
    monkeypatch.setattr(Odd, "listed", staticmethod(listed))
    if case == "a directory without end":
        monkeypatch.setattr(Odd, "info", lambda self, path, **keywords: entry(path, None))
        monkeypatch.setattr(Odd, "ls", lambda self, path, **keywords: [entry(f"{path}/s", None)])
    if isinstance(expected, list):
        assert sorted(info.path for info in odd.list("d", recursive=True)) == expected
        assert sorted(info.path for info in odd.list("d")) == ["d/a", "d/s", "d/z"]
    else:
        with pytest.raises(expected, match="cannot list") as caught:
            list(odd.list("d", recursive=True))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", TOLD)
def test_a_directory_that_cannot_be_looked_up_is_not_empty(
    odd: FsspecHandler, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    told, expected = TOLD[case]
    monkeypatch.setattr(Odd, "told", staticmethod(told))
    with pytest.raises(expected):
        list(odd.list("d"))


def test_what_is_not_there_is_empty_below_what_is(odd: FsspecHandler) -> None:
    assert list(odd.list("d/new")) == []
    with pytest.raises(ObjectNotFound, match="there is no 'e'"):
        list(odd.list("e/new"))


@pytest.mark.parametrize(
    ("read", "good"),
    [
        (lambda start, end: bytes(range(start, end)), True),
        (lambda start, end: bytes(range(start, min(end, start + 1))), True),  # less, and then the rest
        (lambda start, end: bytes(range(100)), False),  # all, whatever is asked for
        (lambda start, end: bytes(range(start, end + 1)), False),  # the last byte included
    ],
)
def test_a_range_is_the_one_that_was_asked_for(
    odd: FsspecHandler, monkeypatch: pytest.MonkeyPatch, read: Callable[[int, int], bytes], good: bool
) -> None:
    monkeypatch.setattr(Odd, "read", staticmethod(read))
    monkeypatch.setitem(TREE["/d"], "a", 100)
    object.__setattr__(odd._kind, "ranged", True)
    out = memoryview(bytearray(30))

    def receive() -> int:
        done = 0
        with odd.read("d/a", 10, 40, None) as reader:
            while done < 30 and (count := reader.readinto(out[done:])):
                done += count
        return done

    if good:
        assert receive() == 30
        assert bytes(out) == bytes(range(10, 40))
    else:
        with pytest.raises(StorageError, match="bytes for 30 bytes from byte 10 on"):
            receive()
