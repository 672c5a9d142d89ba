"""`apyfal.storage.open` in the modes ``a``, ``a+`` and ``r+`` on stores: copied by the store, or through a file."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace

import pytest
from memory_store import MemoryHandler

from apyfal.exceptions import ObjectChanged, ObjectNotFound, StorageError, UnsupportedByStore
from apyfal.storage.api import opening
from apyfal.storage.handler import Handler, ObjectInfo, RangeReader
from apyfal.storage.mounting.table import MountTable

URL = "mem://b/object"
MIB = 1 << 20


@pytest.fixture(params=["copied by the store", "through a file"])
def changing(request: pytest.FixtureRequest, store: MemoryHandler) -> MemoryHandler:
    """A store that can copy into a part of an upload, and one that cannot."""
    copies = request.param == "copied by the store"
    store.limits = replace(store.limits, max_copied_part=2 * MIB if copies else 0)
    return store


def content(store: MemoryHandler) -> bytes:
    return store.objects["b/object"][0]


@pytest.mark.parametrize("size", [0, 10, MIB - 1, MIB, 3 * MIB + 5])
@pytest.mark.parametrize("added", [0, 10, 9 * MIB])
def test_appending(changing: MemoryHandler, size: int, added: int) -> None:
    old, new = os.urandom(size), os.urandom(added)
    _, before = changing.store("b/object", old), changing.objects["b/object"][1]
    with opening.open(URL, "ab") as file:
        assert file.tell() == size
        file.write(new)
        assert file.tell() == size + added
        file.flush()
        assert content(changing) == old
    assert content(changing) == old + new
    if not added:
        assert changing.objects["b/object"][1] == before  # as the builtin, which leaves the file alone
    assert not changing.uploads


def test_the_store_copies_what_it_has(store: MemoryHandler) -> None:
    store.limits = replace(store.limits, max_copied_part=2 * MIB)
    store.store("b/object", os.urandom(5 * MIB))
    with opening.open(URL, "ab") as file:
        file.write(b"end")
    assert store.calls.count("copy_part") == 3
    assert "read" not in store.calls


def test_appending_to_what_is_not_there(changing: MemoryHandler) -> None:
    for mode in ("ab", "a+b"):
        with opening.open(URL, mode) as file:
            file.write(b"new")
        assert content(changing) == b"new"
        changing.remove("b/object")
    with pytest.raises(ObjectNotFound):
        opening.open(URL, "r+b")


def test_changing_in_place(changing: MemoryHandler) -> None:
    changing.store("b/object", b"0123456789")
    with opening.open(URL, "r+b") as file:
        file.seek(2)
        file.write(b"--")
        file.seek(0, os.SEEK_END)
        file.write(b"!")
        file.seek(0)
        assert file.read() == b"01--456789!"
        assert content(changing) == b"0123456789"
    assert content(changing) == b"01--456789!"
    with opening.open(URL, "r+b") as file:
        file.truncate(3)
    assert content(changing) == b"01-"


def test_appending_and_reading(changing: MemoryHandler) -> None:
    changing.store("b/object", b"old")
    with opening.open(URL, "a+b") as file:
        file.seek(0)
        file.write(b"new")  # at the end, wherever one stands
        file.seek(0)
        assert file.read() == b"oldnew"
    assert content(changing) == b"oldnew"


def test_what_is_not_changed_is_not_sent(changing: MemoryHandler) -> None:
    changing.store("b/object", b"data")
    changing.calls.clear()
    for mode in ("r+b", "a+b", "ab"):
        with opening.open(URL, mode) as file:
            if file.readable():
                file.seek(0)
                assert file.read() == b"data"
    assert not {"put", "upload", "complete"} & set(changing.calls)


@pytest.mark.parametrize("mode", ["ab", "a+b", "r+b"])
@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_what_others_wrote_meanwhile_is_not_lost(changing: MemoryHandler, mode: str, size: int) -> None:
    changing.store("b/object", os.urandom(size))
    file = opening.open(URL, mode)
    file.write(b"mine")
    changing.store("b/object", b"theirs")
    with pytest.raises(ObjectChanged):
        file.close()
    assert content(changing) == b"theirs"
    assert not changing.uploads


@pytest.mark.parametrize("mode", ["ab", "a+b", "r+b"])
@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_an_exception_changes_nothing(changing: MemoryHandler, mode: str, size: int) -> None:
    old = os.urandom(size)
    changing.store("b/object", old)

    def broken_off() -> None:
        with opening.open(URL, mode) as file:
            file.write(os.urandom(9 * MIB))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        broken_off()
    assert content(changing) == old
    assert not changing.uploads


@pytest.mark.parametrize("call", ["copy_part", "write_part", "complete"])
def test_a_failing_store_changes_nothing(store: MemoryHandler, call: str) -> None:
    store.limits = replace(store.limits, max_copied_part=2 * MIB)
    old = os.urandom(5 * MIB)
    store.store("b/object", old)
    store.fail[call] = 1

    def append() -> None:
        with opening.open(URL, "ab") as file:
            file.write(os.urandom(9 * MIB))

    with pytest.raises(StorageError, match="on demand"):
        append()
    assert content(store) == old
    assert not store.uploads


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_has_its_mark_once(changing: MemoryHandler, encoding: str) -> None:
    for line in ("first\n", "zweite ü\n"):
        with opening.open(URL, "a", encoding=encoding, newline="") as file:
            file.write(line)
    assert content(changing) == "first\nzweite ü\n".encode(encoding)


def test_a_member_is_added_to_an_archive(changing: MemoryHandler) -> None:
    for name in ("one", "two"):
        with opening.open(URL, "r+b" if changing.objects else "w+b") as file, zipfile.ZipFile(file, "a") as archive:
            archive.writestr(name, name * 100)
    with opening.open(URL) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["one", "two"]


def test_a_store_that_only_reads_refuses(mounts: MountTable) -> None:
    class ReadOnly(Handler):
        scheme = "readonly"

        def describe(self, path: str) -> ObjectInfo:
            return ObjectInfo(path, 3, '"1"')

        def read(self, path: str, start: int, stop: int | None, version_of: ObjectInfo | None) -> RangeReader:
            raise UnsupportedByStore("not needed here")

    mounts.attach("readonly", ReadOnly())
    for mode in ("ab", "a+b", "r+b"):
        with pytest.raises(UnsupportedByStore, match="read-only"):
            opening.open("readonly://b/object", mode)
