"""Every fault of a read, at the first, a middle and the last part: the right bytes, or the right error."""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from awscrt import checksums
from faults.conftest import DATA, OPTIONS, PART, patience
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal.exceptions import (
    AuthenticationError,
    ChecksumMismatch,
    ObjectChanged,
    StorageError,
    StoreUnavailable,
    TransferTimeout,
)
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.stores.web import HTTPHandler
from apyfal.storage.transfer import ObjectStream, TransferOptions, download, stream

Connect = Callable[..., S3Handler]
PLACES = pytest.mark.parametrize("place", [0, 2 * PART, 4 * PART], ids=["first", "middle", "last"])


def at_part(place: int) -> Callable[[Request], bool]:
    return lambda request: request.method == "GET" and request.start == place


def fetch(handler: S3Handler, options: TransferOptions = OPTIONS, **parameters: object) -> bytes:
    info = handler.describe("b/data")
    out = bytearray(info.size or 0)
    download(handler, "b/data", memoryview(out), info=info, options=options, **parameters)
    return bytes(out)


def read_all(reading: ObjectStream) -> bytes:
    out = bytearray()
    piece = memoryview(bytearray(10_000))
    while count := reading.readinto(piece):
        out += piece[:count]
    return bytes(out)


def answer(found: Answer) -> dict[str, object]:
    return {"kind": "change", "act": lambda request: found}


def edit(**headers: str | None) -> dict[str, object]:
    """Change headers of the answer; ``None`` removes one."""

    def change(request: Request, found: Answer) -> None:
        for name, value in headers.items():
            found.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                found.headers[name.replace("_", "-")] = value

    return {"kind": "change", "edit": change}


def whole_body(request: Request, found: Answer) -> None:
    """Answer a range with everything, as a server without ranges does."""
    found.status = 200
    found.body = DATA
    found.headers.pop("content-range")


PASSING = {
    "closed before the answer": {"kind": "cut", "at": -10_000},
    "closed in the head": {"kind": "cut", "at": -9},
    "closed before the body": {"kind": "cut", "at": 0},
    "closed in the body": {"kind": "cut", "at": 40_001},
    "closed at the last byte": {"kind": "cut", "at": 700},
    "reset in the head": {"kind": "reset", "at": -20},
    "reset in the body": {"kind": "reset", "at": 300},
    "silence": {"kind": "stall", "at": -10_000},
    "silence in the head": {"kind": "stall", "at": -3},
    "silence in the body": {"kind": "stall", "at": 500},
    "slow loris": {"kind": "drip", "at": 100},
    "slow loris in the head": {"kind": "drip", "at": -100},
    "framed shorter than its range": {"kind": "shorten", "at": 333},
    "empty": {"kind": "shorten", "at": 0},
    "chunked, cut": {"kind": "chunked", "at": 444},
    "408": answer(error(408, "RequestTimeout")),
    "429": answer(error(429, "TooManyRequests")),
    "500": answer(error(500, "InternalError")),
    "502": answer(Answer(502, {}, b"<html>bad gateway</html>")),
    "503": answer(error(503, "SlowDown")),
    "504": answer(Answer(504)),
    "400 RequestTimeout": answer(error(400, "RequestTimeout")),
    "wrong range": edit(content_range="bytes 1-65536/328457"),
    "range of another size": edit(content_range="bytes 0-9/10"),
    "no range": edit(content_range=None),
    "range that is none": edit(content_range="bytes 9-1/3"),
    "200 to a range": {"kind": "change", "edit": whole_body},
}


@PLACES
@pytest.mark.parametrize("fault", PASSING)
def test_read_survives(store: Hostile, connect: Connect, fault: str, place: int) -> None:
    store.faults.append(Fault(when=at_part(place), **PASSING[fault]))
    assert fetch(connect(timeout=patience(PASSING[fault]))) == DATA
    assert len(store.hit) == 1


@PLACES
def test_star_in_content_range_is_good_enough_for_a_known_size(store: Hostile, connect: Connect, place: int) -> None:
    end = min(place + PART, len(DATA)) - 1
    if place == 4 * PART:
        end = len(DATA) - 1
    store.faults.append(Fault(when=at_part(place), **edit(content_range=f"bytes {place}-{end}/*")))
    assert fetch(connect()) == DATA


LASTING = {
    "closed": ({"kind": "cut", "at": 0}, StoreUnavailable),
    "silence": ({"kind": "stall", "at": 0}, TransferTimeout),
    "503": (answer(error(503, "SlowDown")), StoreUnavailable),
    "wrong range": (edit(content_range="bytes 1-65536/328457"), StoreUnavailable),
    "no range": (edit(content_range=None), StoreUnavailable),
    "another ETag": (edit(etag='"other"'), ObjectChanged),
    "no ETag": (edit(etag=None), ObjectChanged),
    "weak ETag": (edit(etag='W/"weak"'), ObjectChanged),
    "another size": (edit(content_range="bytes 0-65535/65536"), StorageError),
    "412": (answer(error(412, "PreconditionFailed")), ObjectChanged),
    "404": (answer(error(404, "NoSuchKey")), FileNotFoundError),
    "403": (answer(error(403, "AccessDenied")), PermissionError),
    "ExpiredToken with no other keys": (answer(error(400, "ExpiredToken")), AuthenticationError),
    "416": (answer(error(416, "InvalidRange")), StorageError),
}


@PLACES
@pytest.mark.parametrize("fault", LASTING)
def test_read_fails_with_the_right_error(store: Hostile, connect: Connect, fault: str, place: int) -> None:
    parameters, kind = LASTING[fault]
    store.faults.append(Fault(when=at_part(place), times=-1, **parameters))
    handler = connect(timeout=patience(parameters))
    with pytest.raises(kind) as caught:
        fetch(handler, TransferOptions(part_size=PART, concurrency=3, attempts=3))
    assert "b/data" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_errors_tell_code_status_request_and_offset(store: Hostile, connect: Connect) -> None:
    store.faults.append(Fault(when=at_part(2 * PART), times=-1, **answer(error(503, "SlowDown"))))
    with pytest.raises(StoreUnavailable) as caught:
        fetch(connect(), TransferOptions(part_size=PART, attempts=2))
    failure = caught.value
    assert (failure.code, failure.status, failure.request_id) == ("SlowDown", 503, "REQ-SlowDown")
    assert (failure.path, failure.offset) == ("b/data", 2 * PART)


@PLACES
def test_an_object_that_changes_is_never_mixed(store: Hostile, connect: Connect, place: int) -> None:
    def replace(request: Request) -> None:
        store.put("b/data", bytes(len(DATA)))

    store.faults.append(Fault("change", at_part(place), act=replace))
    with pytest.raises(ObjectChanged):
        fetch(connect())


@PLACES
def test_a_break_is_resumed_from_the_byte_reached(store: Hostile, connect: Connect, place: int) -> None:
    store.faults.append(Fault("cut", at_part(place), at=12_345))
    assert fetch(connect()) == DATA
    assert any(request.start == place + 12_345 for request in store.requests)
    assert all("if-match" in request.headers for request in store.requests if request.method == "GET")


def stated_checksum() -> dict[str, str]:
    return {"x_amz_checksum_crc64nvme": base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()}


@PLACES
def test_a_flipped_bit_is_fetched_again_once(store: Hostile, connect: Connect, place: int) -> None:
    store.put("b/data", DATA, **stated_checksum())
    store.faults.append(Fault("flip", at_part(place), at=600))
    assert fetch(connect()) == DATA
    store.faults.append(Fault("flip", at_part(place), at=600, times=2))
    with pytest.raises(ChecksumMismatch, match="checksum"):
        fetch(connect())


@PLACES
def test_a_flipped_bit_is_an_error_once_bytes_were_handed_out(store: Hostile, connect: Connect, place: int) -> None:
    store.put("b/data", DATA, **stated_checksum())
    store.faults.append(Fault("flip", at_part(place), at=600))
    with pytest.raises(ChecksumMismatch):
        fetch(connect(), on_ready=lambda upto: None)


@PLACES
def test_a_checksum_survives_breaks(store: Hostile, connect: Connect, place: int) -> None:
    store.put("b/data", DATA, **stated_checksum())
    store.faults += [Fault("cut", at_part(place), at=101), Fault("reset", at_part(place + 101), at=7)]
    assert fetch(connect()) == DATA


@PLACES
def test_a_flipped_bit_is_found_by_a_stream(store: Hostile, connect: Connect, place: int) -> None:
    store.put("b/data", DATA, **stated_checksum())
    store.faults.append(Fault("flip", at_part(place), at=600))
    with stream(connect(), "b/data", options=OPTIONS) as reading, pytest.raises(ChecksumMismatch):
        read_all(reading)


@PLACES
@pytest.mark.parametrize("fault", ["closed in the body", "silence in the body", "503", "wrong range", "chunked, cut"])
def test_a_stream_survives(store: Hostile, connect: Connect, fault: str, place: int) -> None:
    store.faults.append(Fault(when=at_part(place), **PASSING[fault]))
    with stream(connect(timeout=patience(PASSING[fault])), "b/data", options=OPTIONS) as reading:
        assert read_all(reading) == DATA
    assert len(store.hit) == 1


def test_retry_after_is_honoured(store: Hostile, connect: Connect) -> None:
    store.faults.append(Fault(when=at_part(0), **answer(error(503, "SlowDown", retry_after="1"))))
    begin = time.monotonic()
    assert fetch(connect()) == DATA
    assert time.monotonic() - begin >= 1.0


def test_the_wait_for_a_slow_store_ends_soon(store: Hostile, connect: Connect) -> None:
    store.faults.append(Fault("drip", at_part(0), at=10))
    begin = time.monotonic()
    assert fetch(connect(timeout=2.0)) == DATA
    assert time.monotonic() - begin < 20.0


def test_retries_stay_below_a_tenth_while_a_store_keeps_failing(
    store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.001)
    store.faults.append(Fault(when=lambda request: True, times=-1, **answer(error(503, "SlowDown"))))
    handler = connect()
    operations = 600
    for _ in range(operations):
        with pytest.raises(StoreUnavailable):
            download(handler, "b/data", memoryview(bytearray(10)), stop=10)
    assert len(store.requests) <= 1.1 * operations


def test_an_object_that_looks_like_an_error_is_data(store: Hostile, connect: Connect) -> None:
    text = error(503, "SlowDown").body
    store.put("b/data", text)
    assert fetch(connect()) == text


def test_the_clock_is_adjusted_once(store: Hostile, connect: Connect) -> None:
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)

    def skewed(request: Request) -> Answer | None:
        stamp = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if abs(ahead - stamp) < timedelta(minutes=15):
            return None
        return error(403, "RequestTimeTooSkewed", date=format_datetime(ahead, usegmt=True))

    store.faults.append(Fault("change", times=-1, act=skewed))
    handler = connect()
    assert fetch(handler) == DATA
    assert len(store.requests) == 1 + 1 + 5
    assert fetch(handler) == DATA
    assert len(store.requests) == 7 + 6


def test_expired_keys_are_refreshed_once(store: Hostile, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "old-secret")
    handler = connect(client_id=None, secret_id=None)

    def expired(request: Request) -> Answer | None:
        if "Credential=old/" not in request.headers["authorization"]:
            return None
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        return error(400, "ExpiredToken")

    assert fetch(handler) == DATA
    store.faults.append(Fault("change", times=-1, act=expired))
    assert fetch(handler) == DATA
    assert "Credential=new/" in store.requests[-1].headers["authorization"]


def test_another_region_is_signed_for(store: Hostile, connect: Connect) -> None:
    def elsewhere(request: Request) -> Answer | None:
        if "/eu-north-1/s3/" in request.headers["authorization"]:
            return None
        return error(301, "PermanentRedirect", x_amz_bucket_region="eu-north-1")

    store.faults.append(Fault("change", times=-1, act=elsewhere))
    assert fetch(connect()) == DATA
    assert sum(request.method == "HEAD" for request in store.requests) == 2


def test_no_secret_follows_a_redirect_elsewhere(store: Hostile, connect: Connect) -> None:
    with_location = error(307, "TemporaryRedirect", location="http://127.0.0.1:9/b/data?X-Amz-Signature=abc")
    store.faults.append(Fault(when=at_part(0), times=-1, **answer(with_location)))
    with pytest.raises(StorageError, match="redirected to") as caught:
        fetch(connect())
    assert "abc" not in str(caught.value)


# -- the web: no ranges, no versions -----------------------------------------------------------------------------------
@pytest.fixture
def web(store: Hostile) -> HTTPHandler:
    handler = HTTPHandler(timeout=10)
    yield handler
    handler.close()


def receive(handler: HTTPHandler, url: str, size: int = len(DATA), **parameters: object) -> bytes:
    out = bytearray(size)
    download(handler, url, memoryview(out), options=OPTIONS, **parameters)
    return bytes(out)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'], ids=["no ETag", "weak ETag"])
def test_without_a_strong_etag_a_break_starts_again(store: Hostile, web: HTTPHandler, etag: str | None) -> None:
    store.faults += [
        Fault("cut", at=200_000, edit=edit(etag=etag)["edit"]),
        Fault("change", times=-1, edit=edit(etag=etag)["edit"]),
    ]
    assert receive(web, f"{store.address}/b/data") == DATA
    assert [request.start for request in store.requests] == [None, None]


def test_without_a_strong_etag_bytes_handed_out_make_a_break_an_error(store: Hostile, web: HTTPHandler) -> None:
    store.faults.append(Fault("cut", at=200_000, edit=edit(etag=None)["edit"]))
    with pytest.raises(StoreUnavailable, match="cannot be resumed"):
        receive(web, f"{store.address}/b/data", on_ready=lambda upto: None)


def test_without_ranges_a_range_is_cut_out_of_the_whole(store: Hostile, web: HTTPHandler) -> None:
    store.faults.append(Fault("change", times=-1, edit=whole_body))
    assert receive(web, f"{store.address}/b/data", 1000, start=100_000, stop=101_000) == DATA[100_000:101_000]


def test_an_encoded_body_is_decoded_and_not_resumed(store: Hostile, web: HTTPHandler) -> None:
    packed = gzip.compress(DATA[:100_000]) + gzip.compress(DATA[100_000:])
    store.put("b/data", packed, content_encoding="gzip")
    store.faults.append(Fault("cut", at=150_000))
    assert receive(web, f"{store.address}/b/data") == DATA
    assert [request.start for request in store.requests] == [None, None]
    assert store.requests[0].headers["accept-encoding"] == "identity"


def test_a_truncated_encoded_body_is_an_error(store: Hostile, web: HTTPHandler) -> None:
    store.put("b/data", gzip.compress(DATA)[:100_000], content_encoding="gzip")
    with pytest.raises(StoreUnavailable, match="ended early"):
        receive(web, f"{store.address}/b/data")


def test_an_unknown_encoding_is_refused(store: Hostile, web: HTTPHandler) -> None:
    store.put("b/data", b"?", content_encoding="br")
    with pytest.raises(StorageError, match="cannot be decoded"):
        receive(web, f"{store.address}/b/data")


def test_credentials_are_dropped_across_origins(store: Hostile) -> None:
    handler = HTTPHandler(user="me", password="hidden", headers={"X-Token": "hidden"}, timeout=10)
    other = f"http://localhost:{store.address.rpartition(':')[2]}/b/data"
    moved = Answer(302, {"location": other})
    store.faults.append(Fault("change", lambda request: request.path == "b/moved", times=-1, act=lambda request: moved))
    assert receive(handler, f"{store.address}/b/moved") == DATA
    handler.close()
    for request in store.requests:
        trusted = request.path == "b/moved"
        assert ("authorization" in request.headers, request.headers.get("x-token") == "hidden") == (trusted, trusted)


def test_a_redirect_loop_ends(store: Hostile, web: HTTPHandler) -> None:
    store.faults.append(Fault("change", times=-1, act=lambda request: Answer(302, {"location": "/b/data"})))
    with pytest.raises(StorageError, match="redirects"):
        receive(web, f"{store.address}/b/data")
