"""Every fault of a PUT to a signed address: sent again only if nothing was written for sure, and no secret told."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable, Iterator

import pytest
from servers.web.hostile import Answer, Fault, Hostile, Request, error

from apyfal.exceptions import AccessDenied, ObjectExists, ParameterError, StorageError, UnsupportedByStore
from apyfal.storage.stores.web import HTTPHandler
from apyfal.storage.transfer import MultipartWriter, TransferOptions, upload

#: More than sockets keep, so that a broken connection is seen while it is sent.
DATA = random.Random(5).randbytes(24 << 20)
SMALL = DATA[:1000]
SECRET = "canary0signature0canary"
V4 = f"X-Amz-Credential=AKIA%2F20260101%2Fus-east-1%2Fs3&X-Amz-SignedHeaders=host&X-Amz-Signature={SECRET}"
AZURE = f"sv=2021-12-02&sp=cw&sr=b&sig={SECRET}"


@pytest.fixture
def connect() -> Iterator[Callable[..., HTTPHandler]]:
    made = []

    def make(**given: object) -> HTTPHandler:
        made.append(HTTPHandler(**{"timeout": 10.0, **given}))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


@pytest.fixture
def written(store: Hostile, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server has carried out, each time that it did."""
    names: list[str] = []
    put = store.put

    def counted(path: str, data: bytes, **headers: str) -> object:
        names.append(path)
        return put(path, data, **headers)

    monkeypatch.setattr(store, "put", counted)
    return names


def send(handler: HTTPHandler, path: str, data: bytes, way: str, **given: object) -> None:
    options = TransferOptions(attempts=3)
    if way == "memory":
        upload(handler, path, memoryview(data), options=options, **given)
        return
    with MultipartWriter(handler, path, options=options, **given) as writing:
        for start in range(0, len(data), 3 << 20):
            writing.write(memoryview(data)[start : start + (3 << 20)])
        writing.commit()


def answer(found: Answer) -> dict[str, object]:
    return {"kind": "change", "act": lambda request: found}


def is_put(request: Request) -> bool:
    return request.method == "PUT"


WAYS = pytest.mark.parametrize("way", ["memory", "stream"])
#: Nothing was written for sure: it is sent again.
PASSING = {
    "cut before the body": {"kind": "cut-request", "at": 0},
    "cut in the body": {"kind": "cut-request", "at": 100_000},
    "408": answer(error(408, "RequestTimeout")),
    "429": answer(error(429, "TooManyRequests")),
    "503": answer(error(503, "SlowDown", retry_after="0")),
}
#: Nobody knows: it is not sent again.
UNSURE = {
    "lost answer": {"kind": "lose"},
    "reset answer": {"kind": "reset", "at": -10_000},
    "cut head": {"kind": "cut", "at": -20},
    "silence": {"kind": "stall", "at": -10_000},
    "500": answer(error(500, "InternalError")),
    "502": answer(Answer(502)),
    "504": answer(Answer(504)),
}
REFUSED = {
    "403": (answer(error(403, "AccessDenied")), AccessDenied),
    "signature": (answer(error(403, "SignatureDoesNotMatch", f"{SECRET} is wrong")), AccessDenied),
    "400": (answer(error(400, "EntityTooLarge")), StorageError),
    "302": (answer(Answer(302, {"location": f"http://127.0.0.1:9/?{V4}"})), StorageError),
    "405": (answer(error(405, "MethodNotAllowed")), UnsupportedByStore),
}


@WAYS
@pytest.mark.parametrize("fault", [None, *PASSING])
def test_it_arrives_once(
    store: Hostile, written: list[str], connect: Callable[..., HTTPHandler], fault: str | None, way: str
) -> None:
    if fault is not None:
        store.faults.append(Fault(when=is_put, **PASSING[fault]))
    send(connect(), f"{store.address}/b/new?{V4}", DATA, way)
    assert len(store.hit) == (fault is not None)
    assert written == ["b/new"]
    assert store.objects["b/new"].data == DATA


@WAYS
@pytest.mark.parametrize("data", [b"", SMALL, DATA], ids=["empty", "small", "large"])
@pytest.mark.parametrize("fault", UNSURE)
def test_what_may_have_been_written_is_not_sent_again(
    store: Hostile, written: list[str], connect: Callable[..., HTTPHandler], fault: str, way: str, data: bytes
) -> None:
    handler = connect(timeout=2.0 if fault == "silence" else 10.0)
    send(handler, f"{store.address}/b/first?{V4}", SMALL, "memory")  # leaves a connection that is kept
    store.faults.append(Fault(when=is_put, **UNSURE[fault]))
    with pytest.raises(StorageError, match="may have been") as caught:
        send(handler, f"{store.address}/b/new?{V4}", data, way)
    assert written.count("b/new") <= 1
    assert sum(request.path == "b/new" for request in store.requests) == 1
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@WAYS
@pytest.mark.parametrize("fault", REFUSED)
def test_a_refusal_names_its_reason_and_no_secret(
    store: Hostile,
    written: list[str],
    connect: Callable[..., HTTPHandler],
    caplog: pytest.LogCaptureFixture,
    fault: str,
    way: str,
) -> None:
    parameters, kind = REFUSED[fault]
    store.faults.append(Fault(when=is_put, times=-1, **parameters))
    with caplog.at_level(logging.DEBUG, "apyfal"), pytest.raises(kind, match="b/new") as caught:
        send(connect(), f"{store.address}/b/new?{V4}", SMALL, way)
    assert not written
    assert len(store.hit) == 1
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(vars(caught.value))
    assert SECRET not in shown
    assert "AKIA" not in shown


@WAYS
def test_a_redirect_that_keeps_the_method_is_followed(
    store: Hostile, written: list[str], connect: Callable[..., HTTPHandler], way: str
) -> None:
    there = {"location": f"{store.endpoint_url}/b/there?{V4}"}
    store.faults.append(Fault(when=lambda request: request.path == "b/new", **answer(Answer(307, there))))
    send(connect(headers={"x-own": "1"}), f"{store.address}/b/new?{V4}", DATA, way)
    assert written == ["b/there"]
    assert store.objects["b/there"].data == DATA


@WAYS
def test_what_fails_before_its_end_sends_nothing(
    store: Hostile, written: list[str], connect: Callable[..., HTTPHandler], way: str
) -> None:
    with MultipartWriter(connect(), f"{store.address}/b/new?{V4}", len(DATA) + 1) as writing:
        writing.write(memoryview(DATA)) if way == "stream" else writing.send(memoryview(DATA))
        with pytest.raises(StorageError, match="announced"):
            writing.commit()
    assert not store.requests
    assert not written


def test_an_exclusive_write_by_azures_signature(store: Hostile, connect: Callable[..., HTTPHandler]) -> None:
    taken = Answer(409, {}, b"<Error><Code>BlobAlreadyExists</Code></Error>")
    store.faults.append(Fault(when=is_put, **answer(taken)))
    with pytest.raises(ObjectExists, match="b/new"):
        send(connect(), f"{store.address}/b/new?{AZURE}", SMALL, "memory", exclusive=True)
    assert store.requests[0].headers["if-none-match"] == "*"
    assert store.requests[0].headers["x-ms-blob-type"] == "BlockBlob"


#: Query of the address, the handler's parameters, what is asked for besides, and the error.
WRONG = {
    "no signature": ("", {}, {}, UnsupportedByStore, "read-only"),
    "another query": ("a=b&signature=x", {}, {}, UnsupportedByStore, "read-only"),
    "azure, for reading": (AZURE.replace("sp=cw", "sp=r"), {}, {}, UnsupportedByStore, "sp=w"),
    "covered field": (V4.replace("=host", "=content-type%3Bhost"), {}, {}, ParameterError, "content-type"),
    "another field given": (
        V4.replace("=host", "=host%3Bx-amz-acl"),
        {"headers": {"X-Other": "1"}},
        {},
        ParameterError,
        "x-amz-acl",
    ),
    "exclusive": (V4, {}, {"exclusive": True}, UnsupportedByStore, "exclusively"),
}


@WAYS
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    store: Hostile, connect: Callable[..., HTTPHandler], case: str, way: str
) -> None:
    query, parameters, given, kind, said = WRONG[case]
    with pytest.raises(kind, match=said) as caught:
        send(connect(**parameters), f"{store.address}/b/new?{query}", SMALL, way, **given)
    assert not store.requests
    assert SECRET not in str(caught.value)


def test_fields_that_the_signature_covers_come_from_the_mount(
    store: Hostile, connect: Callable[..., HTTPHandler]
) -> None:
    query = V4.replace("=host", "=content-type%3Bhost%3Bx-amz-acl")
    send(
        connect(headers={"Content-Type": "a/b", "X-Amz-Acl": "private"}),
        f"{store.address}/b/new?{query}",
        SMALL,
        "memory",
    )
    headers = store.requests[0].headers
    assert (headers["content-type"], headers["x-amz-acl"]) == ("a/b", "private")


#: Fields that each scheme gets beyond host and length; those that would break its signature are not there.
SENT = {
    "s3": (V4, {"content-type": "image/png", "content-md5": ""}),
    "s3, version 2": (f"AWSAccessKeyId=AKIA&Expires=1&Signature={SECRET}", {}),
    "gs": (f"X-Goog-Credential=a&X-Goog-SignedHeaders=host&X-Goog-Signature={SECRET}", {"content-md5": ""}),
    "gs, version 2": (f"GoogleAccessId=a&Expires=1&Signature={SECRET}", {}),
    "oss": (f"OSSAccessKeyId=a&Expires=1&Signature={SECRET}", {}),
    "oss, version 4": (f"x-oss-credential=a&x-oss-signature={SECRET}", {}),
    "swift": (f"temp_url_sig={SECRET}&temp_url_expires=1", {"etag": ""}),
    "azure": (AZURE, {"content-type": "image/png", "content-md5": "", "x-ms-blob-type": "BlockBlob"}),
}


@pytest.mark.parametrize("scheme", SENT)
def test_fields_of_the_header(store: Hostile, connect: Callable[..., HTTPHandler], scheme: str) -> None:
    query, wanted = SENT[scheme]
    send(connect(), f"{store.address}/b/new.png?{query}", SMALL, "memory")
    headers = store.requests[0].headers
    found = set(headers) - {"host", "content-length", "accept-encoding"}
    assert found == set(wanted)
    if "content-type" in wanted:
        assert headers["content-type"] == "image/png"


@pytest.mark.parametrize(("query", "most"), [(V4, 5 << 30), (AZURE, 5000 << 20)])
def test_too_much_is_refused_before_anything_is_sent(
    store: Hostile, connect: Callable[..., HTTPHandler], query: str, most: int
) -> None:
    handler = connect()
    with pytest.raises(UnsupportedByStore, match=str(most)):
        handler.upload(f"{store.address}/b/new?{query}", size=most + 1)
    handler.upload(f"{store.address}/b/new?{query}", size=most).abort()
    assert not store.requests
