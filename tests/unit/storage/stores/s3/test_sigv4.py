"""The signer, against AWS's published examples and against botocore's."""

from __future__ import annotations

import pytest

from apyfal.storage.stores.s3.sigv4 import EMPTY_SHA256, Keys, Signer

# S3 API reference, "Signature Calculations for the Authorization Header": its keys, date and answers
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = 1369353600
HOST = "examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        (
            "/test.txt",
            "",
            {"range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        ("/", "lifecycle=", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/", "max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_published_examples(
    monkeypatch: pytest.MonkeyPatch, path: str, query: str, headers: dict[str, str], signature: str
) -> None:
    monkeypatch.setattr("time.time", lambda: EXAMPLE_TIME)
    fields = dict(Signer().sign("GET", HOST, path, query, headers, EMPTY_SHA256, EXAMPLE, "us-east-1"))
    assert fields["authorization"].endswith(f"Signature={signature}")
    assert "host" not in fields


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize(
    ("path", "query"),
    [("/b/key", ""), ("/b/%C3%A9%20x~/y", "partNumber=3&uploadId=a%2Fb"), ("/b", "list-type=2&prefix=a%20b%2F")],
)
def test_like_botocore(monkeypatch: pytest.MonkeyPatch, method: str, token: str | None, path: str, query: str) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    extra = {"x-amz-checksum-mode": "ENABLED", "if-match": '"an  etag"', "range": "bytes=5-9"}
    keys = Keys("key", "secret", token)
    fields = dict(Signer().sign(method, "s3.test:9000", path, query, extra, EMPTY_SHA256, keys, "eu-west-3"))
    url = f"https://s3.test:9000{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers=extra)
    request.context["timestamp"] = fields["x-amz-date"]
    auth = S3SigV4Auth(Credentials("key", "secret", token), "s3", "eu-west-3")
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    assert fields["authorization"].endswith(
        "Signature=" + auth.signature(auth.string_to_sign(request, canonical), request)
    )


def test_the_key_follows_day_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer()
    seen = set()
    for now in (EXAMPLE_TIME, EXAMPLE_TIME + 86400):
        for region in ("us-east-1", "eu-west-1"):
            monkeypatch.setattr("time.time", lambda now=now: now)
            seen.add(dict(signer.sign("GET", HOST, "/", "", {}, EMPTY_SHA256, EXAMPLE, region))["authorization"])
    assert len(seen) == 4


def test_the_clock_of_the_store_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: EXAMPLE_TIME)
    signer = Signer()
    signer.clock_offset = -3600
    fields = dict(signer.sign("GET", HOST, "/", "", {}, EMPTY_SHA256, EXAMPLE, "us-east-1"))
    assert fields["x-amz-date"] == "20130523T230000Z"


def test_keys_are_not_shown() -> None:
    assert "wJalr" not in repr(EXAMPLE)
    assert "wJalr" not in str([EXAMPLE])
