"""Heads of many requests that are prepared together: the same as those of one request."""

from __future__ import annotations

import pytest

from apyfal.exceptions import ParameterError
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool, request_head
from apyfal.storage.stores.s3.client import S3Client
from apyfal.storage.stores.s3.credentials import Credentials, StaticCredentials
from apyfal.storage.stores.s3.sigv4 import Keys

KEYS = StaticCredentials(Keys("access", "secret", "token"))
ENDPOINT = (Origin("http", "store.test", 9000), "/below")


@pytest.fixture(autouse=True)
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests have the same time."""
    monkeypatch.setattr("time.time", lambda: 1369353600)


@pytest.mark.parametrize("credentials", [KEYS, Credentials()], ids=["signed", "anonymous"])
@pytest.mark.parametrize(("endpoint", "addressing"), [(ENDPOINT, "path"), (ENDPOINT, "virtual"), (None, "auto")])
@pytest.mark.parametrize("sign_payload", [True, False])
def test_the_same_heads_as_one_by_one(
    credentials: Credentials, endpoint: tuple[Origin, str] | None, addressing: str, sign_payload: bool
) -> None:
    client = S3Client(
        ConnectionPool(), credentials, "eu-west-3", endpoint, addressing, sign_payload, {"x-amz-request-payer": "you"}
    )
    text, other = {"content-type": "text/plain"}, {"content-type": "image/png", "x-amz-meta-a": "b  c"}
    items = [
        ("bucket/plain.txt", text, memoryview(b"some")),
        ("bucket/é ü+%2F.txt", text, memoryview(b"others")),
        ("bucket/picture", other, memoryview(b"some")),
        ("another/plain.txt", text, memoryview(b"0123456789")),
        ("bucket/plain.txt", dict(text), memoryview(b"some")),
    ]
    found = client.requests_to_write(items)
    for (path, headers, data), (origin, head) in zip(items, found, strict=True):
        there, target, fields = client._signed("PUT", path, None, {**client._headers, **headers}, (data,))
        assert origin == there
        assert head == request_head("PUT", there, target, fields, len(data))


def test_no_line_break_in_a_header() -> None:
    client = S3Client(ConnectionPool(), KEYS, "eu-west-3", ENDPOINT, "path", False, {})
    with pytest.raises(ParameterError, match="line breaks"):
        client.requests_to_write([("bucket/key", {"content-type": "a\r\nx-other: b"}, memoryview(b"x"))])


def test_no_secret_is_shown() -> None:
    client = S3Client(ConnectionPool(), KEYS, "eu-west-3", ENDPOINT, "path", False, {})
    template = client._template("GET", "bucket", {}, "UNSIGNED-PAYLOAD", KEYS.keys())
    assert "secret" not in repr(template)
    assert "token" not in repr(template)
