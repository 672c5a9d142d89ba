"""Where S3's requests go, by bucket, region and redirect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from apyfal.exceptions import AuthenticationError, InvalidURL, MountError, StorageError
from apyfal.storage.http.origin import Origin
from apyfal.storage.stores.s3.client import split_path
from apyfal.storage.stores.s3.handler import S3Handler


class Canned:
    """An answer that was read already."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, headers, body
        self.length = int(headers.get("content-length", 0))

    def read(self, limit: int = 0) -> bytes:
        return self.body

    def close(self) -> None:
        """Nothing is open."""


class Recorded:
    """Stands for the connections: gives canned answers, and keeps what was asked."""

    def __init__(self, answers: Sequence[Canned]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Origin, str, dict[str, str]]] = []

    def request(self, method: str, origin: Origin, target: str, headers: object, body: object = ()) -> Canned:
        self.asked.append((method, origin, target, dict(headers)))
        return self.answers.pop(0)


def handler(*answers: Canned, **parameters: object) -> tuple[S3Handler, Recorded]:
    made = S3Handler(client_id="key", secret_id="hidden", **parameters)
    recorded = Recorded(answers)
    made._s3.client = recorded
    return made, recorded


FOUND = Canned(200, {"content-length": "5", "etag": '"e"'})


@pytest.mark.parametrize(
    ("parameters", "path", "origin", "target"),
    [
        ({"region": "eu-west-1"}, "bucket/key", "https://bucket.s3.eu-west-1.amazonaws.com", "/key"),
        ({"region": "cn-north-1"}, "bucket/key", "https://bucket.s3.cn-north-1.amazonaws.com.cn", "/key"),
        ({"region": "eu-west-1"}, "dotted.bucket/key", "https://s3.eu-west-1.amazonaws.com", "/dotted.bucket/key"),
        ({"region": "eu-west-1", "addressing": "path"}, "bucket/k", "https://s3.eu-west-1.amazonaws.com", "/bucket/k"),
        ({"endpoint_url": "http://h:81"}, "bucket/a b/\u00e9+", "http://h:81", "/bucket/a%20b/%C3%A9%2B"),
        ({"endpoint_url": "http://h:81/pre/"}, "bucket/key", "http://h:81", "/pre/bucket/key"),
        ({"endpoint_url": "http://h:81", "addressing": "virtual"}, "bucket/key", "http://bucket.h:81", "/key"),
    ],
)
def test_addresses(parameters: dict[str, object], path: str, origin: str, target: str) -> None:
    made, recorded = handler(FOUND, **parameters)
    made.describe(path)
    assert (str(recorded.asked[0][1]), recorded.asked[0][2]) == (origin, target)


@pytest.mark.parametrize(
    "redirect",
    [
        Canned(301, {"x-amz-bucket-region": "eu-north-1"}),
        Canned(400, {}, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>"),
        Canned(307, {"location": "https://bucket.s3.eu-north-1.amazonaws.com/key"}),
        Canned(307, {"location": "https://bucket.s3-eu-north-1.amazonaws.com/key"}),
    ],
)
def test_another_region_is_signed_for_and_remembered(redirect: Canned) -> None:
    made, recorded = handler(redirect, FOUND, FOUND, region="us-east-1")
    made.describe("bucket/key")
    made.describe("bucket/other")
    hosts = [asked[1].host for asked in recorded.asked]
    assert hosts == ["bucket.s3.us-east-1.amazonaws.com", *2 * ["bucket.s3.eu-north-1.amazonaws.com"]]
    assert "/eu-north-1/s3/" in recorded.asked[1][3]["authorization"]


@pytest.mark.parametrize("host", ["evil.example", "s3.eu-north-1.amazonaws.com.evil.example", "localhost"])
def test_no_other_host_is_sent_anything(host: str) -> None:
    made, recorded = handler(
        Canned(307, {"location": f"https://{host}/key"}), region="us-east-1", sse_customer_key=b"k" * 32
    )
    with pytest.raises(StorageError, match="redirected"):
        made.describe("bucket/key")
    assert len(recorded.asked) == 1


def test_parameters_become_headers() -> None:
    made, recorded = handler(
        FOUND, FOUND, region="r", requester_pays=True, session_token="token", sse="aws:kms", sse_kms_key_id="id"
    )
    made.describe("bucket/key")
    made.put("bucket/key", memoryview(b"data"), None, exclusive=True)
    read, written = (asked[3] for asked in recorded.asked)
    assert read["x-amz-request-payer"] == "requester"
    assert read["x-amz-security-token"] == "token"
    assert "x-amz-server-side-encryption" not in read
    assert written["x-amz-server-side-encryption"] == "aws:kms"
    assert written["x-amz-server-side-encryption-aws-kms-key-id"] == "id"
    assert written["if-none-match"] == "*"


def test_a_customer_key_goes_with_reads_and_writes() -> None:
    made, recorded = handler(FOUND, FOUND, region="r", sse_customer_key=b"k" * 32)
    made.describe("bucket/key")
    made.put("bucket/key", memoryview(b"data"), None)
    for asked in recorded.asked:
        assert asked[3]["x-amz-server-side-encryption-customer-algorithm"] == "AES256"


def test_anonymous_requests_are_not_signed() -> None:
    made = S3Handler(anonymous=True, region="r")
    recorded = made._s3.client = Recorded([FOUND])
    made.describe("bucket/key")
    assert "authorization" not in recorded.asked[0][3]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://bucket.s3.eu-west-1.amazonaws.com/a%20b", "bucket/a b"),
        ("https://bucket.s3.amazonaws.com/key", "bucket/key"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/key", "bucket/key"),
        ("https://example.com/bucket/key", None),
        ("https://s3.amazonaws.com.evil.example/bucket/key", None),
    ],
)
def test_web_addresses_of_objects(url: str, path: str | None) -> None:
    assert S3Handler(client_id="key", secret_id="hidden").path_of(url) == path


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"client_id": "key"}, "come together"),
        ({"addressing": "vitual"}, "did you mean 'virtual'"),
        ({"sse": "AES265"}, "did you mean 'AES256'"),
        ({"checksum": "crc64"}, "did you mean"),
        ({"sse_customer_key": b"short"}, "32 bytes"),
        ({"endpoint_url": "http://me:pw@h/"}, "neither a user"),
    ],
)
def test_wrong_parameters(parameters: dict[str, object], match: str) -> None:
    with pytest.raises(MountError, match=match):
        S3Handler(**parameters)


def test_a_path_needs_a_bucket() -> None:
    assert split_path("bucket/key/more") == ("bucket", "key/more")
    with pytest.raises(InvalidURL, match="bucket/key"):
        split_path("/key")


# -- why a look-up was refused -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", AuthenticationError),
        ("ExpiredTokenException", AuthenticationError),
        ("TokenRefreshRequired", AuthenticationError),
        ("InvalidToken", AuthenticationError),
        ("RequestExpired", AuthenticationError),
        ("InvalidSecurity", AuthenticationError),
        ("NotSignedUp", AuthenticationError),
        ("InvalidRequest", StorageError),
    ],
)
@pytest.mark.parametrize("call", ["describe", "read", "put", "list"])
def test_what_a_store_says_of_the_credentials_is_the_error(code: str, kind: type[StorageError], call: str) -> None:
    document = f"<Error><Code>{code}</Code><Message>Because.</Message></Error>".encode()
    # an answer to HEAD has no document: the reason comes with a GET
    answers = [Canned(400, {}, document)] if call != "describe" else [Canned(400, {}), Canned(400, {}, document)]
    made, recorded = handler(*answers, region="r", session_token="t")
    calls: dict[str, Callable[[], object]] = {
        "describe": lambda: made.describe("bucket/key"),
        "read": lambda: made.read("bucket/key", 0, None, None),
        "put": lambda: made.put("bucket/key", memoryview(b"x"), None),
        "list": lambda: list(made.list("bucket")),
    }
    with pytest.raises(kind, match=code) as caught:
        calls[call]()
    assert type(caught.value) is kind
    assert not recorded.answers


def test_where_head_alone_is_a_bad_request_get_decides() -> None:
    """One GET asks for the reason; if it finds none, a second one looks the object up, and its answer is final."""
    made, recorded = handler(Canned(400, {}), FOUND, FOUND, region="r")
    assert made.describe("bucket/key").size == 5
    assert [asked[0] for asked in recorded.asked] == ["HEAD", "GET", "GET"]
    made, recorded = handler(Canned(400, {}), FOUND, Canned(400, {}), region="r")
    with pytest.raises(StorageError, match="status 400"):
        made.describe("bucket/key")
    assert [asked[0] for asked in recorded.asked] == ["HEAD", "GET", "GET"]
    assert not recorded.answers
