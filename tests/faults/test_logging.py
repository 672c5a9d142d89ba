"""What the storage says to those who listen: each event once, at its level, without secrets, and at no cost else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest
from servers.web.hostile import Answer, Fault, Hostile, Request, error, hostile

from apyfal.exceptions import AccessDenied, StoreUnavailable
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.stores.web import HTTPHandler
from apyfal.storage.transfer import TransferOptions, download, upload

DATA = bytes(range(256)) * 4096
KEYS = {"client_id": "CANARY-id", "secret_id": "CANARY-secret", "session_token": "CANARY-token"}
OPTIONS = TransferOptions(attempts=3, part_size=256 << 10)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with hostile() as made:
        yield made


@pytest.fixture
def store(server: Hostile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Hostile:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)
    caplog.set_level(logging.DEBUG, "apyfal")
    server.reset()
    server.put("b/data", DATA)
    return server


def s3(store: Hostile) -> S3Handler:
    return S3Handler(endpoint_url=store.endpoint_url, **KEYS)  # type: ignore[arg-type]


def receive(store: Hostile) -> None:
    download(s3(store), "b/data", memoryview(bytearray(len(DATA))), options=OPTIONS)


def receive_from_web(store: Hostile) -> None:
    path = f"me:CANARY@{store.address}/b/data?X-Amz-Signature=CANARY&q=CANARY"
    download(HTTPHandler(), path, memoryview(bytearray(len(DATA))), options=OPTIONS)


def send(store: Hostile) -> None:
    upload(s3(store), "b/new", memoryview(bytes(6 << 20)), options=TransferOptions(attempts=2, part_size=5 << 20))


def answers(found: Answer, when: Callable[[Request], bool] = lambda request: True, times: int = 1) -> Fault:
    return Fault("change", when, times=times, act=lambda request: found)


def _skewed() -> Answer:
    return error(403, "RequestTimeTooSkewed", date=formatdate(time.time() + 3600, usegmt=True))


def _without_abort(store: Hostile) -> None:
    store.faults.append(answers(error(403, "AccessDenied"), lambda request: request.part > 0, -1))
    store.faults.append(answers(error(503, "SlowDown"), lambda request: request.method == "DELETE", -1))


def _redirecting(store: Hostile) -> None:
    location = f"http://u:CANARY@{store.address}/b/data?sig=CANARY#CANARY"
    store.faults.append(answers(Answer(302, {"location": location})))


#: event: what is prepared, what is done, level, logger, text
EVENTS: dict[str, tuple[Callable[[Hostile], object], Callable[[Hostile], None], int, str, str]] = {
    "a request": (lambda store: None, receive, logging.DEBUG, "http.pool", "/b/data: status 20"),
    "a request to the web": (lambda store: None, receive_from_web, logging.DEBUG, "http.pool", "?...: status 200"),
    "a retry": (
        lambda store: store.faults.append(answers(error(503, "SlowDown"))),
        receive,
        logging.INFO,
        "flow.retry",
        "attempt 2 follows in",
    ),
    "a resumed body": (
        lambda store: store.faults.append(Fault("cut", at=100_000)),
        receive,
        logging.INFO,
        "transfer.ranges",
        "'b/data' broke off at byte 100000 of",
    ),
    "a redirect": (_redirecting, receive_from_web, logging.INFO, "stores.web", "redirects"),
    "another clock": (
        lambda store: store.faults.append(answers(_skewed())),
        receive,
        logging.WARNING,
        "stores.s3.client",
        "s behind the store",
    ),
    "another region": (
        lambda store: store.faults.append(answers(Answer(301, {"x-amz-bucket-region": "eu-west-1"}))),
        receive,
        logging.INFO,
        "stores.s3.client",
        "region eu-west-1",
    ),
    "parts that are left": (_without_abort, send, logging.WARNING, "transfer.multipart", "may be left in the store"),
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_logged(store: Hostile, caplog: pytest.LogCaptureFixture, event: str) -> None:
    prepare, act, level, logger, text = EVENTS[event]
    prepare(store)
    if event == "parts that are left":
        with pytest.raises(AccessDenied):
            act(store)
    else:
        act(store)
    found = [record for record in caplog.records if text in record.getMessage()]
    assert found, caplog.text
    assert {(record.levelno, record.name) for record in found} == {(level, f"apyfal.storage.{logger}")}
    assert len(found) == 1 or level == logging.DEBUG
    assert "CANARY" not in caplog.text


def test_a_request_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "apyfal")
    pool = ConnectionPool()
    with hostile() as store:
        store.faults.append(Fault("lose"))
        host, _, port = store.address.partition(":")
        with pytest.raises(StoreUnavailable):
            pool.request("GET", Origin("http", host, int(port)), "/b/x?sig=CANARY")
    assert "GET http://127.0.0.1" in caplog.text
    assert "failed" in caplog.text
    assert "CANARY" not in caplog.text


def test_nothing_is_said_to_those_who_do_not_ask(
    store: Hostile, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a text made: what formats the address of a request would be the cost."""
    caplog.set_level(logging.WARNING, "apyfal")
    monkeypatch.setattr("apyfal.storage.http.pool._shown", lambda *_: pytest.fail("a text was made for nobody"))
    store.faults.append(answers(error(503, "SlowDown")))
    receive(store)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
