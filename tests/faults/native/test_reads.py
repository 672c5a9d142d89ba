"""The faults of reads over the native transport: the outcome of the general path, and which way each one took."""

from __future__ import annotations

import base64
import random
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from awscrt import checksums
from faults.conftest import after_a_fault, patience
from faults.native.conftest import COUNT, HIT, OBJECTS, SIZE, Mount, edited, said
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal import storage
from apyfal.exceptions import AcceleratorException, AccessDenied, ObjectChanged, StorageError, TransferCancelled
from apyfal.storage.batch.native import NativeReads, path_counts
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.mounting.table import table
from apyfal.storage.url import parse


def hit(request: Request) -> bool:
    return request.method == "GET" and request.path == f"b/{HIT}"


def first_hit(request: Request) -> bool:
    return hit(request) and request.start is None


def emptied(request: Request, found: Answer) -> None:
    found.body = b""


#: What happens to one answer, the way that its transfer takes, and how many requests it is worth.
PASSING = {
    "none": (edited(), "native", 1),
    "closed before the answer": ({"kind": "cut", "at": -10_000}, "broken", 2),
    "closed in the head": ({"kind": "cut", "at": -9}, "broken", 2),
    "closed before the body": ({"kind": "cut", "at": 0}, "broken", 2),
    "closed in the body": ({"kind": "cut", "at": 10_001}, "broken", 2),
    "reset in the head": ({"kind": "reset", "at": -20}, "broken", 2),
    "reset in the body": ({"kind": "reset", "at": 300}, "broken", 2),
    "lost": ({"kind": "lose"}, "broken", 2),
    "silence": ({"kind": "stall", "at": -10_000}, "stalled", 2),
    "silence in the head": ({"kind": "stall", "at": -3}, "stalled", 2),
    "silence in the body": ({"kind": "stall", "at": 500}, "stalled", 2),
    "slow loris": ({"kind": "drip", "at": 100}, "stalled", 2),
    "slow loris in the head": ({"kind": "drip", "at": -100}, "stalled", 2),
    "chunked, cut": ({"kind": "chunked", "at": 444}, "unfit", 2),
    "408": (said(error(408, "RequestTimeout")), "answered", 2),
    "429": (said(error(429, "TooManyRequests")), "answered", 2),
    "500": (said(error(500, "InternalError")), "answered", 2),
    "502": (said(Answer(502, {}, b"<html>bad gateway</html>")), "answered", 2),
    "503": (said(error(503, "SlowDown")), "answered", 2),
    "504": (said(Answer(504)), "answered", 2),
    "400 RequestTimeout": (said(error(400, "RequestTimeout")), "answered", 2),
    "301 without a place": (said(Answer(301, {"connection": "close"})), "answered", 2),
    "1xx": (said(Answer(103)), "unfit", 2),
    "a huge error": (said(Answer(500, {}, b"x" * 100_000)), "unfit", 2),
    "no ETag": (edited(etag=None), "answered", 1),
    "weak ETag": (edited(etag='W/"weak"'), "answered", 1),
    "a coding": (edited(content_encoding="aws-chunked"), "answered", 1),
    "a checksum of parts": (edited(x_amz_checksum_crc32="abcd-5"), "answered", 1),
    "last answer of its connection": (edited(connection="close"), "native", 1),
    "two ETags": (edited(etag='"a"\r\netag: "b"'), "unfit", 2),
    "two equal lengths": (edited(x="y\r\ncontent-length: 20000"), "unfit", 2),
    "a folded header": (edited(x="y\r\n folded"), "unfit", None),
    "a long head": (edited(x="y" * 20_000), "unfit", 2),
}


@pytest.mark.parametrize("pooled", [False, True], ids=["out", "new memory"])
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes(store: Hostile, mount: Mount, fault: str, pooled: bool) -> None:
    how, way, requests = PASSING[fault]
    urls = mount(timeout=patience(how))
    store.faults.append(Fault(when=first_hit, **how))
    out = None if pooled else np.zeros((COUNT, SIZE), np.uint8)
    found = storage.load_many(urls, out)
    assert [bytes(array) for array in found] == OBJECTS
    if out is not None:
        assert out.tobytes() == b"".join(OBJECTS)
    took = path_counts.take()
    if way == "stalled":  # on a loaded machine others may stall, too
        assert took.keys() <= {"native", "stalled"}
        assert took["stalled"] >= 1
        return
    assert took == ({"native": COUNT} if way == "native" else {"native": COUNT - 1, way: 1})
    assert requests is None or sum(map(hit, store.requests)) == requests
    assert len(store.requests) - sum(map(hit, store.requests)) == COUNT - 1


@pytest.mark.parametrize("timeout", [1.0, 1.8])
def test_a_stall_is_seen_though_the_call_pauses_for_signals(store: Hostile, mount: Mount, timeout: float) -> None:
    """The loop looks for stalls eight times in a timeout, and returns more often: it looked in no call of its own."""
    urls = mount(timeout=timeout)
    store.faults.append(Fault("stall", first_hit, at=100))
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS
    took = path_counts.take()
    assert took.keys() <= {"native", "stalled"}  # a close by the server would be a break
    assert took["stalled"] >= 1


@pytest.mark.parametrize(
    "path", ["", "/", "/k", "//k", "b", "b/", "../k", "./k", "arn:aws:s3:::b/k", "ARN:aws:s3:::b/k"]
)
def test_names_of_no_object_are_refused_as_the_careful_path_does(store: Hostile, mount: Mount, path: str) -> None:
    """An empty bucket or key is no other object's, a listing or another bucket: nothing is asked."""
    urls = mount()
    url = f"{urls[0].partition('://')[0]}://{path}"
    store.requests.clear()
    for many, one in (
        (lambda: storage.load_many([urls[1], url]), lambda: storage.load(url)),
        (lambda: storage.save_many([url], [np.ones(3, "u1")]), lambda: storage.save(url, np.ones(3, "u1"))),
    ):
        with pytest.raises(AcceleratorException) as alone:
            one()
        with pytest.raises(AcceleratorException) as batched:
            many()
        assert type(batched.value) is type(alone.value)
        assert str(alone.value) in str(batched.value)
    assert {request.path for request in store.requests} <= {"b/1"}
    assert {request.method for request in store.requests} <= {"GET"}


def test_a_break_is_resumed_from_the_byte_reached(store: Hostile, mount: Mount) -> None:
    urls = mount()
    store.faults.append(Fault("cut", first_hit, at=12_345))
    assert bytes(storage.load_many(urls)[HIT]) == OBJECTS[HIT]
    again = [request for request in store.requests if hit(request)][1:]
    assert [request.start for request in again] == [12_345]
    assert again[0].headers["if-match"] == store.objects[f"b/{HIT}"].etag


def test_an_object_that_changes_is_never_mixed(store: Hostile, mount: Mount) -> None:
    urls = mount()
    store.faults.append(Fault("cut", first_hit, at=12_345))
    store.faults.append(Fault("change", hit, act=lambda request: store.put(f"b/{HIT}", bytes(SIZE)) and None))
    with pytest.raises(ObjectChanged):
        storage.load_many(urls)


LASTING = {
    "closed": {"kind": "cut", "at": 0},
    "closed before the answer": {"kind": "cut", "at": -10_000},
    "silence": {"kind": "stall", "at": 0},
    "chunked, cut": {"kind": "chunked", "at": 9},
    "503": said(error(503, "SlowDown")),
    "404": said(error(404, "NoSuchKey")),
    "404 with another code": said(error(404, "NoSuchBucket")),
    "410": said(Answer(410)),
    "403": said(error(403, "AccessDenied")),
    "400": said(error(400, "InvalidRequest")),
    "401": said(Answer(401)),
    "405": said(error(405, "MethodNotAllowed")),
    "412": said(error(412, "PreconditionFailed")),
    "ExpiredToken with no other keys": said(error(400, "ExpiredToken")),
    "redirect": said(error(307, "TemporaryRedirect", location="http://127.0.0.1:9/b/data?X-Amz-Signature=abc")),
    "a wrong checksum": edited(x_amz_checksum_crc64nvme=base64.b64encode(bytes(8)).decode()),
    "no checksum at all": edited(x_amz_checksum_crc32c="AAAA"),
    "a wrong SHA-256": edited(x_amz_checksum_sha256=base64.b64encode(bytes(32)).decode()),
    "another length": said(Answer(200, {"etag": '"e"'}, b"short")),
    "an empty object": {"kind": "change", "edit": emptied},
    "no HTTP": edited(x="y\r\nno header"),
}


#: After these a kept connection counts as closed, and the request is repeated on another one.
REPEATED = ("closed before the answer", "no HTTP")


def outcome(store: Hostile, urls: list[str], out: bool) -> tuple[list[object], int]:
    """Return what each item became, and the requests for the one with the fault."""
    before = len(store.requests)
    place = np.zeros((COUNT, SIZE), np.uint8) if out else None
    found = storage.load_many(urls, place, return_exceptions=True)
    told: list[object] = [
        (type(one), re.sub(r"id R\d+|native\d+", "", str(one))) if isinstance(one, Exception) else bytes(one)
        for one in found
    ]
    return told, sum(map(hit, store.requests[before:]))


@pytest.mark.parametrize("out", [True, False], ids=["out", "new memory"])
@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_the_careful_paths_error(
    store: Hostile, mount: Mount, monkeypatch: pytest.MonkeyPatch, fault: str, out: bool
) -> None:
    how = LASTING[fault]
    urls = mount(timeout=0.4 if how["kind"] == "stall" else 10.0)
    store.faults.append(Fault(when=hit, times=-1, **how))
    native, asked = outcome(store, urls, out)
    took = path_counts.take()
    whole = not out and fault in ("another length", "an empty object")  # which is another object then
    assert took["native"] == COUNT - (not whole) or how["kind"] == "stall"
    assert sum(took.values()) == COUNT
    monkeypatch.setattr(NativeReads, "takes", lambda self, target: False)
    careful, asked_carefully = outcome(store, mount(timeout=0.4 if how["kind"] == "stall" else 10.0), out)
    assert path_counts.take() == {}
    assert native == careful
    assert isinstance(native[HIT], bytes) == whole
    if fault not in REPEATED:
        assert asked <= asked_carefully + ("unfit" in took or asked_carefully == 1)
    assert "secret" not in str(native)
    assert "abc" not in str(native[HIT]) or isinstance(native[HIT], bytes)


def test_a_flipped_bit_is_fetched_again_once(store: Hostile, mount: Mount) -> None:
    urls = mount()
    stated = base64.b64encode(checksums.crc64nvme(OBJECTS[HIT]).to_bytes(8, "big")).decode()
    store.put(f"b/{HIT}", OBJECTS[HIT], x_amz_checksum_crc64nvme=stated)
    assert bytes(storage.load_many(urls)[HIT]) == OBJECTS[HIT]
    assert path_counts.take() == {"native": COUNT}
    store.requests.clear()
    store.faults.append(Fault("flip", hit, at=600))
    assert bytes(storage.load_many(urls)[HIT]) == OBJECTS[HIT]
    assert path_counts.take() == {"native": COUNT - 1, "answered": 1}
    assert sum(map(hit, store.requests)) == 2


def test_retries_stay_below_a_tenth_while_a_store_keeps_failing(store: Hostile, mount: Mount) -> None:
    urls = mount() * 50
    store.faults.append(Fault(times=-1, **said(error(503, "SlowDown"))))
    found = storage.load_many(urls, return_exceptions=True)
    assert all(isinstance(one, StorageError) for one in found)
    assert len(store.requests) <= 1.1 * len(urls)
    assert path_counts.take()["not tried"] > len(urls) // 2


def test_a_store_without_the_ordinary_answer_is_read_carefully(store: Hostile, mount: Mount) -> None:
    urls = mount() * 50
    store.faults.append(Fault("change", times=-1, edit=edited(x="y" * 20_000)["edit"]))
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS * 50
    counts = path_counts.take()
    assert counts["not tried"] > len(urls) - 40
    assert len(store.requests) == len(urls) + counts["unfit"]


def test_the_region_is_learned_by_all(store: Hostile, mount: Mount) -> None:
    urls = mount()

    def elsewhere(request: Request) -> Answer | None:
        if "/eu-north-1/s3/" in request.headers["authorization"]:
            return None
        return error(301, "PermanentRedirect", x_amz_bucket_region="eu-north-1")

    store.faults.append(Fault("change", times=-1, act=elsewhere))
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS
    path_counts.take()
    store.requests.clear()
    assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS
    assert path_counts.take() == {"native": COUNT}
    assert len(store.requests) == COUNT


# -- limits, cancellation, addresses -----------------------------------------------------------------------------------
@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("limit", [1, 3])
def test_the_mounts_limit_of_connections(store: Hostile, mount: Mount, limit: int, calls: int) -> None:
    urls = mount(max_concurrency=limit) * 5
    most = 0

    def look(request: Request) -> None:
        nonlocal most
        most = max(most, len(store._open - before))

    before = set(store._open)
    store.faults.append(Fault("change", times=-1, act=look))
    with ThreadPoolExecutor(calls) as threads:
        assert len(list(threads.map(lambda _: storage.load_many(urls), range(calls)))) == calls
    assert path_counts.take() == {"native": calls * len(urls)}
    assert 0 < most <= limit


@pytest.mark.parametrize("parameters", [{"bandwidth": 1 << 30}, {"proxy": "PROXY"}])
def test_limited_and_proxied_mounts_go_the_careful_way(
    store: Hostile, mount: Mount, parameters: dict[str, object]
) -> None:
    if "proxy" in parameters:
        parameters = {"proxy": store.endpoint_url}  # which takes an absolute target for a name of its own
    urls = mount(**parameters)
    found = storage.load_many(urls, return_exceptions=True)
    assert "proxy" in parameters or [bytes(array) for array in found] == OBJECTS  # type: ignore[arg-type]
    assert path_counts.take() == {}


def test_addresses_that_are_refused_get_no_connection(store: Hostile, mount: Mount) -> None:
    urls = mount()

    def refuse(host: str, port: int) -> list[str]:
        raise AccessDenied(f"{host}:{port} is refused")

    with table.resolve(parse(urls[0])) as target:
        target.handler.client.gate = refuse
    found = storage.load_many(urls, return_exceptions=True)
    assert {type(one) for one in found} == {AccessDenied}
    assert store.requests == []


def test_a_token_cancels_at_once(store: Hostile, mount: Mount) -> None:
    urls = mount(timeout=60.0)
    store.faults.append(Fault("stall", hit, at=10, times=-1))
    cancel = CancelToken()
    before = time.monotonic()
    with after_a_fault(store, cancel.set), cancel.scope(), pytest.raises(TransferCancelled):
        storage.load_many(urls)
    assert time.monotonic() - before < 20, "it waited for the store"
    assert bytes(storage.load_many(urls[:1])[0]) == OBJECTS[0]


def test_the_interrupt_key_cancels(store: Hostile, mount: Mount) -> None:
    urls = mount(timeout=60.0)
    store.faults.append(Fault("stall", hit, at=10, times=-1))
    main = threading.get_ident()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    handled = signal.signal(signal.SIGALRM, interrupt)
    before = time.monotonic()
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            after_a_fault(store, lambda: signal.pthread_kill(main, signal.SIGALRM)),
        ):
            storage.load_many(urls)
    finally:
        signal.signal(signal.SIGALRM, handled)
    assert time.monotonic() - before < 20, "it waited for the store"


@pytest.mark.parametrize("dtype", ["<i4", "M8[s]", "f8", "V5"])
def test_any_type_is_filled(store: Hostile, mount: Mount, dtype: str) -> None:
    urls = mount()
    out = np.zeros((COUNT, SIZE // np.dtype(dtype).itemsize), dtype)
    storage.load_many(urls, out)
    assert out.tobytes() == b"".join(OBJECTS)
    assert path_counts.take() == {"native": COUNT}


@pytest.mark.parametrize("size", [0, 1, 4095, 70_000, 8 << 20, (8 << 20) + 1])
def test_any_size(store: Hostile, mount: Mount, size: int) -> None:
    urls = mount()
    data = random.Random(size).randbytes(size)
    store.put("b/0", data)
    assert bytes(storage.load_many(urls[:2])[0]) == data
    assert path_counts.take() == ({"native": 2} if size <= 8 << 20 else {"native": 1, "unfit": 1})
    out = [np.zeros(size, np.uint8), np.zeros(SIZE, np.uint8)]
    storage.load_many(urls[:2], out)
    assert out[0].tobytes() == data
    assert path_counts.take() == {"native": 2 if 0 < size <= 8 << 20 else 1}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_transfers_with_one_connection_in_five_broken(store: Hostile, mount: Mount) -> None:
    urls = mount() * 10
    chance = random.Random(6)
    kinds = ("cut", "reset", "lose")

    class Chance(Fault):
        """A fault that chooses its kind and place anew each time."""

        def __getattribute__(self, name: str) -> object:
            if name == "kind":
                return chance.choice(kinds)
            if name == "at":
                return chance.randrange(-200, SIZE)
            return super().__getattribute__(name)

    store.faults.append(Chance("cut", lambda request: chance.random() < 0.2, times=-1))
    for _ in range(10_000 // len(urls) + 1):
        assert [bytes(array) for array in storage.load_many(urls)] == OBJECTS * 10
    counts = path_counts.take()
    assert len(store.hit) > 1900
    assert counts["broken"] > 1000
    assert counts["native"] > 5000
