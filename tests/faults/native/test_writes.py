"""The faults of writes over the native transport: the outcome of the general path, and which way each one took."""

from __future__ import annotations

import base64
import re
import time

import numpy as np
import pytest
from awscrt import checksums
from faults.conftest import after_a_fault, patience
from faults.native.conftest import COUNT, HIT, OBJECTS, SIZE, Mount, edited, said
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal import storage
from apyfal.exceptions import TransferCancelled
from apyfal.storage.batch.native import NativeWrites, path_counts
from apyfal.storage.flow.cancel import CancelToken

ARRAYS = [np.frombuffer(data, np.int16) for data in OBJECTS]


def hit(request: Request) -> bool:
    return request.method == "PUT" and request.path == f"b/{HIT}"


def written(store: Hostile) -> list[bytes]:
    return [store.objects[f"b/{number}"].data for number in range(COUNT)]


#: What happens to one request or its answer, and the way that its transfer takes.
PASSING = {
    "none": (edited(), "native"),
    "closed in the request": ({"kind": "cut-request", "at": 5000}, "broken"),
    "lost": ({"kind": "lose"}, "broken"),
    "closed in the head": ({"kind": "cut", "at": -9}, "broken"),
    "reset": ({"kind": "reset", "at": -20}, "broken"),
    "silence": ({"kind": "stall", "at": -10_000}, "stalled"),
    "503": (said(error(503, "SlowDown")), "answered"),
    "500": (said(error(500, "InternalError")), "answered"),
    "400 RequestTimeout": (said(error(400, "RequestTimeout")), "answered"),
    "a body that nobody asked for": (
        {"kind": "change", "edit": lambda request, found: setattr(found, "body", b"x")},
        "native",
    ),
    "no ETag": (edited(etag=None), "native"),
    "chunked": ({"kind": "chunked", "at": 0}, "unfit"),
    "1xx": (said(Answer(103)), "unfit"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes(store: Hostile, mount: Mount, fault: str) -> None:
    how, way = PASSING[fault]
    urls = mount(timeout=patience(how))
    store.objects.clear()
    store.faults.append(Fault(when=hit, **how))
    assert storage.save_many(urls, ARRAYS) == [None] * COUNT
    assert written(store) == OBJECTS
    took = path_counts.take()
    if way == "stalled":  # on a loaded machine others may stall, too
        assert took.keys() <= {"native", "stalled"}
        assert took["stalled"] >= 1
        return
    assert took == ({"native": COUNT} if way == "native" else {"native": COUNT - 1, way: 1})
    assert sum(map(hit, store.requests)) == 1 + (way != "native")


LASTING = {
    "503": said(error(503, "SlowDown")),
    "404": said(error(404, "NoSuchBucket")),
    "403": said(error(403, "AccessDenied")),
    "400": said(error(400, "BadDigest")),
    "412": said(error(412, "PreconditionFailed")),
    "301": said(error(301, "PermanentRedirect", location="http://127.0.0.1:9/b?X-Amz-Signature=abc")),
    "closed in the request": {"kind": "cut-request", "at": 5000},
    "closed": {"kind": "cut", "at": -20},
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_the_careful_paths_error(
    store: Hostile, mount: Mount, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    told = []
    for way in ("native", "careful"):
        urls = mount()
        store.faults.append(Fault(when=hit, times=-1, **LASTING[fault]))
        found = storage.save_many(urls, ARRAYS, return_exceptions=True)
        assert [index for index, one in enumerate(found) if one is not None] == [HIT]
        told.append((type(found[HIT]), re.sub(r"id R\d+|native\d+", "", str(found[HIT]))))
        took = path_counts.take()
        assert (took.get("native", 0) == COUNT - 1) is (way == "native")
        monkeypatch.setattr(NativeWrites, "takes", lambda self, target: False)
    assert told[0] == told[1]
    assert "abc" not in told[0][1]


@pytest.mark.parametrize("checksum", ["crc64nvme", "crc32c", "crc32"])
def test_the_headers_are_those_of_one_write(store: Hostile, mount: Mount, checksum: str) -> None:
    urls = [f"{url}.csv" for url in mount(checksum=checksum, sse="AES256", requester_pays=True)]
    metadata = {"cache_control": "no-store", "user": {"run": "7"}}
    storage.save_many(urls, ARRAYS, metadata=metadata)
    assert path_counts.take() == {"native": COUNT}
    many = store.requests[HIT].headers
    storage.save(urls[HIT], ARRAYS[HIT], metadata=metadata)
    one = store.requests[-1].headers
    varying = ("authorization", "x-amz-date")
    same = [{name: text for name, text in headers.items() if name not in varying} for headers in (many, one)]
    number = next(n for n, data in enumerate(OBJECTS) if f"b/{n}.csv" == store.requests[HIT].path)
    del same[0][f"x-amz-checksum-{checksum}"], same[1][f"x-amz-checksum-{checksum}"]
    assert same[0] == same[1]
    value = getattr(checksums, checksum)(OBJECTS[number]).to_bytes(8 if checksum == "crc64nvme" else 4, "big")
    assert many[f"x-amz-checksum-{checksum}"] == base64.b64encode(value).decode()
    assert many.keys() == one.keys()


@pytest.mark.parametrize(
    ("array", "native"),
    [
        (np.zeros(0, np.uint8), False),
        (np.ma.array([1, 2]).data.view(np.recarray), False),
        (np.zeros((8 << 20) + 1, np.uint8), False),
        (np.zeros((50, 50))[:, ::2], False),
        (np.float64(3), False),
        ([1, 2, 3], False),
        (np.zeros((3, 4, 5), "M8[s]"), True),
        (np.array(7), True),
        (np.zeros(8 << 20, np.uint8), True),
    ],
    ids=str,
)
def test_any_array(store: Hostile, mount: Mount, array: object, native: bool) -> None:
    urls = mount()
    storage.save_many(urls[:1], [array])  # type: ignore[list-item]
    assert store.objects["b/0"].data == np.ascontiguousarray(np.asarray(array)).tobytes()
    assert path_counts.take() == ({"native": 1} if native else {})


def test_objects_in_an_array_are_an_error_of_its_item(store: Hostile, mount: Mount) -> None:
    found = storage.save_many(mount()[:2], [ARRAYS[0], np.array([object()])], return_exceptions=True)
    assert found[0] is None
    assert "Python objects" in str(found[1])


def test_a_token_cancels_at_once_and_nothing_is_made(store: Hostile, mount: Mount) -> None:
    urls = mount(timeout=60.0)
    store.objects.clear()
    store.faults.append(Fault("stall", lambda request: True, at=-10_000, times=-1))
    cancel = CancelToken()
    before = time.monotonic()
    with after_a_fault(store, cancel.set), cancel.scope(), pytest.raises(TransferCancelled):
        storage.save_many(urls, [np.zeros(SIZE, np.uint8)] * COUNT)
    assert time.monotonic() - before < 20, "it waited for the store"
