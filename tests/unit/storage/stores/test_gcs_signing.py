"""Addresses that a service account's key signs, checked with its public key as Google's servers would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
pytest.importorskip("google.auth")

from cryptography.exceptions import InvalidSignature  # noqa: E402  # an extra
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402

from apyfal.exceptions import AcceleratorException, InvalidURL, ParameterError, UnsupportedByStore  # noqa: E402
from apyfal.storage.stores.gcs.handler import open_gs  # noqa: E402

ACCOUNT = "robot@lab.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def key() -> object:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def credentials_file(key: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    secret = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("key") / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "lab",
                "private_key_id": "1",
                "private_key": secret.decode(),
                "client_email": ACCOUNT,
                "token_uri": "http://127.0.0.1:9/token",  # nobody is asked: the key alone signs
            }
        )
    )
    return str(path)


def check(key: object, method: str, url: str) -> None:
    """Do what the store does: rebuild what was signed from the request, and compare."""
    parts = urlsplit(url)
    query, _, signature = parts.query.rpartition("&X-Goog-Signature=")
    fields = dict(parse_qsl(query))
    assert query == "&".join(sorted(query.split("&")))
    scope = fields["X-Goog-Credential"].removeprefix(f"{ACCOUNT}/")
    request = f"{method}\n{parts.path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"GOOG4-RSA-SHA256\n{fields['X-Goog-Date']}\n{scope}\n{digest}"
    key.public_key().verify(  # type: ignore[attr-defined]
        bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    assert scope == f"{fields['X-Goog-Date'][:8]}/auto/storage/goog4_request"
    assert fields["X-Goog-SignedHeaders"] == "host"


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE"])
@pytest.mark.parametrize("name", ["b/plain", "b/d/a b%20c+d&e=f?#", "b/ü/é", "b//x~.-_"])
def test_a_signature_is_what_the_store_computes(key: object, credentials_file: str, method: str, name: str) -> None:
    handler = open_gs(credentials_file=credentials_file, proxy="none")
    url = handler.sign(name, method, 900)
    assert url.startswith("https://storage.googleapis.com/b/")
    assert unquote(urlsplit(url).path) == f"/{name}"
    assert "X-Goog-Expires=900&" in url
    check(key, method, url)
    with pytest.raises(InvalidSignature):
        check(key, "POST", url)


BAD: dict[str, tuple[dict[str, object], str, int, type[AcceleratorException]]] = {
    "too long": ({}, "b/x", 7 * 86400 + 1, ParameterError),
    "a bucket": ({}, "b", 60, InvalidURL),
    "nobody": ({"credentials_file": None, "anonymous": True}, "b/x", 60, UnsupportedByStore),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_signed(credentials_file: str, case: str) -> None:
    given, path, seconds, kind = BAD[case]
    handler = open_gs(**{"credentials_file": credentials_file, "proxy": "none", **given})  # type: ignore[arg-type]
    with pytest.raises(kind, match="gs"):
        handler.sign(path, "PUT", seconds)


def test_a_token_alone_signs_nothing(credentials_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth.credentials

    credentials: Callable[..., object] = google.auth.credentials.AnonymousCredentials
    monkeypatch.setattr("google.auth.default", lambda **_: (credentials(), None))
    with pytest.raises(UnsupportedByStore, match="only keys sign"):
        open_gs(proxy="none").sign("b/x", "GET", 60)


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"type": "service_account"')
    with pytest.raises(AcceleratorException, match=r"none of Google's"):
        open_gs(credentials_file=str(tmp_path / "broken.json"), proxy="none").sign("b/x", "GET", 60)
