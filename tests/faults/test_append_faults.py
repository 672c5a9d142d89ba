"""Every fault while a store copies the old object into the front of a longer one: whole, or as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from faults.conftest import DATA, OPTIONS, PART, patience
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal.exceptions import AccessDenied, ObjectChanged
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.transfer import MultipartWriter

Connect = Callable[..., S3Handler]
END = b"the end" * PART
PLACES = pytest.mark.parametrize("place", [0, 2, 5], ids=["first", "middle", "last"])

PASSING = {
    "reset": {"kind": "reset", "at": -10},
    "silence": {"kind": "stall", "at": 100},
    "slow loris": {"kind": "drip", "at": 0},
    "503": {"kind": "change", "act": lambda request: error(503, "SlowDown")},
    "200 with an error": {
        "kind": "change",
        "act": lambda request: Answer(200, {}, error(500, "InternalError").body),
    },
}


def copying(place: int) -> Callable[[Request], bool]:
    return lambda request: "x-amz-copy-source" in request.headers and request.part == place + 1


def append(handler: S3Handler) -> None:
    """Write `END` behind the object, which takes six copied parts."""
    handler.limits = replace(handler.limits, min_part=PART, max_copied_part=PART)
    info = handler.describe("b/data")
    with MultipartWriter(handler, "b/data", options=OPTIONS) as writing:
        writing.begin_with(info)
        writing.write(memoryview(END))
        writing.commit()


@pytest.mark.parametrize("checksum", ["none", "crc64nvme"])
def test_appending(store: Hostile, connect: Connect, checksum: str) -> None:
    append(connect(checksum=checksum))
    assert store.objects["b/data"].data == DATA + END
    assert not store.uploads


@PLACES
@pytest.mark.parametrize("fault", PASSING)
def test_appending_survives(store: Hostile, connect: Connect, fault: str, place: int) -> None:
    store.faults.append(Fault(when=copying(place), **PASSING[fault]))
    append(connect(timeout=patience(PASSING[fault])))
    assert len(store.hit) == 1
    assert store.objects["b/data"].data == DATA + END
    assert not store.uploads


@PLACES
def test_appending_to_what_has_changed_leaves_it(store: Hostile, connect: Connect, place: int) -> None:
    def replaced(request: Request) -> None:
        store.put("b/data", b"theirs")

    store.faults.append(Fault(when=copying(place), kind="change", act=replaced))
    with pytest.raises(ObjectChanged):
        append(connect())
    assert store.objects["b/data"].data == b"theirs"
    assert not store.uploads


@PLACES
def test_appending_that_is_refused_changes_nothing(store: Hostile, connect: Connect, place: int) -> None:
    store.faults.append(
        Fault(when=copying(place), times=-1, kind="change", act=lambda request: error(403, "AccessDenied"))
    )
    with pytest.raises(AccessDenied):
        append(connect())
    assert store.objects["b/data"].data == DATA
    assert not store.uploads
