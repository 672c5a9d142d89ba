"""Many objects at once on every store: the same outcome as one by one, also for odd names."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from apyfal import storage
from apyfal.exceptions import IsADirectory, ObjectNotFound
from apyfal.storage.batch.copies import copy_each
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import parse

pytestmark = pytest.mark.server

NAMES = ["a&b <c>", "é/ü", "+ %25", "tab\tkey", "a'b\"c", *(f"many/{number:04}" for number in range(1100))]
S3 = ("s3-moto", "s3-ceph", "oss-moto")


@pytest.mark.parametrize("name", S3)
def test_removals(stores: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    top = f"{stores[name]}/removals"
    urls = [f"{top}/{one}" for one in NAMES]
    data = np.arange(7, dtype=np.uint8)
    storage.save_many(urls, [data] * len(urls))
    with resolve(parse(top)) as target:
        asked: Counter[str] = Counter()
        request = target.handler.client.request

        def counted(method: str, *arguments: object, **keywords: object) -> object:
            asked[method] += 1
            return request(method, *arguments, **keywords)

        monkeypatch.setattr(target.handler.client, "request", counted)
    found = storage.remove_many([*urls, f"{top}/none"], return_exceptions=True)
    assert isinstance(found.pop(), ObjectNotFound)
    assert found == [None] * len(urls)
    assert not storage.exists(top)
    assert asked["POST"] == 2
    assert asked["DELETE"] <= 1  # the tab


#: Stores with another request for many objects, or none: the most objects of one, and how many objects more to remove.
OTHERS = {"az-azurite": (256, 300), "gs-fake": (100, 300), "swift-v1": (0, 60)}
ODD = [
    *("a b", "a%20b", "%2e%2e", "+ %25", "é/ü", "x//y", "new\nline", "tab\tkey"),
    *("a&b <c>?#;=", "'quoted\"", "😀", "~._-"),
]


@pytest.mark.parametrize("name", OTHERS)
def test_removals_by_batches(stores: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each odd name goes, its neighbours stay; what does not exist is told by its item."""
    most, count = OTHERS[name]
    top = f"{stores[name]}/batches"
    urls = [f"{top}/{one}" for one in (*ODD, *(f"many/{number:04}" for number in range(count)))]
    kept = [f"{top}/{one}" for one in ("a", "a b c", "x/y", "many/none", "%2e", "new", "é")]
    storage.save_many([*urls, *kept], [np.arange(7, dtype=np.uint8)] * (len(urls) + len(kept)))
    with resolve(parse(top)) as target:
        asked: Counter[str] = Counter()
        request = target.handler.client.request

        def counted(method: str, *arguments: object, **keywords: object) -> object:
            asked[method] += 1
            return request(method, *arguments, **keywords)

        monkeypatch.setattr(target.handler.client, "request", counted)
    missing = f"{top}/none at all"
    found = storage.remove_many([missing, *urls, stores[name], f"{top}/folder/"], return_exceptions=True)
    expected = [ObjectNotFound, *[type(None)] * len(urls), IsADirectory, ObjectNotFound]
    assert [type(one) for one in found] == expected
    assert "none at all" in str(found[0])
    assert asked["POST"] <= (-(-(len(urls) + 1) // most) if most else 0)
    assert asked["DELETE"] <= 2 if most else asked["DELETE"] >= len(urls)
    assert all(map(storage.exists, kept))
    storage.rmtree(top)
    assert not storage.exists(top)


def test_a_large_object_goes_with_its_segments(stores: dict[str, str]) -> None:
    top = f"{stores['swift-v1']}/large"
    urls = [f"{top}/{one}" for one in ("small", "large", "other")]
    with resolve(parse(top)) as target:
        handler = target.handler
    for url in urls[::2]:
        storage.save(url, np.arange(7, dtype=np.uint8))
    upload = handler.upload(f"{top.partition('://')[2]}/large", size=3 << 20)
    for number in (1, 2, 3):
        upload.write_part(number, memoryview(bytes(1 << 20)), None)
    upload.complete(3 << 20, None)
    segments = f"{stores['swift-v1']}_segments".partition("://")[2]
    assert list(handler.list(segments, recursive=True))
    assert storage.remove_many(urls) == [None] * 3
    assert not list(handler.list(segments, recursive=True))


@pytest.mark.parametrize("name", S3)
def test_a_tree_goes(stores: dict[str, str], name: str) -> None:
    top = f"{stores[name]}/tree"
    storage.save_many([f"{top}/{one}" for one in NAMES], [np.arange(3, dtype=np.uint8)] * len(NAMES))
    storage.rmtree(top)
    assert not storage.exists(top)


@pytest.mark.parametrize(("start", "end"), [("s3-moto", "s3-ceph"), ("s3-ceph", "s3-moto")])
def test_copies_keep_their_metadata(stores: dict[str, str], start: str, end: str) -> None:
    pairs = [(f"{stores[start]}/from/{one}", f"{stores[end]}/to/{one}") for one in NAMES[:60]]
    for number, (source, _) in enumerate(pairs):
        data = np.full(1000 + number, number, np.uint8)
        storage.save(source, data, metadata={"content_type": "text/odd", "user": {"number": str(number)}})
    copied: list[int] = []
    copy_each(
        [(parse(source), parse(destination)) for source, destination in pairs],
        [1000 + number for number in range(len(pairs))],
        copied=lambda done: copied.extend(number for number, _ in done),
        one_by_one=lambda numbers: pytest.fail(f"{len(numbers)} were copied one by one"),
    )
    assert sorted(copied) == list(range(len(pairs)))
    for number, (_, destination) in enumerate(pairs):
        metadata = storage.stat(destination).metadata
        assert metadata is not None
        assert metadata.content_type == "text/odd"
        assert metadata.user == {"number": str(number)}
        assert (storage.load(destination) == number).all()
        assert storage.getsize(destination) == 1000 + number
