"""`storage.sign`: an address that a stranger can use for what it is for, and for nothing else."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from apyfal import cli, storage
from apyfal.exceptions import InvalidURL, ParameterError, UnsupportedByStore

pytestmark = pytest.mark.server

ABLE = ("s3-moto", "s3-ceph", "az-azurite", "oss-moto", "swift-v1")
#: Moto checks no signature.
STRICT = ("s3-ceph", "az-azurite", "swift-v1")
NAMES = ("plain", "d/a b%20c+d&e=f?#", "ü/é")


def ask(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, bytes]:
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "text/plain"} if method == "PUT" else {}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)  # of our servers
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.fixture
def able(stores: dict[str, str], request: pytest.FixtureRequest) -> str:
    store: str = request.param
    if store == "swift-v1":
        from apyfal.storage.mounting.table import resolve
        from apyfal.storage.url import parse

        with resolve(parse(stores[store])) as target:
            headers = [("X-Account-Meta-Temp-URL-Key", "signing key")]
            target.handler._ask("POST", "", "", "prepare", headers=headers, accept=(200, 204))  # type: ignore[attr-defined]
    return stores[store]


@pytest.mark.parametrize("able", ABLE, indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_read_and_write(able: str, name: str) -> None:
    url = f"{able}/signed/{name}"
    storage.write_bytes(url, b"content")
    signed = storage.sign(url, expires="5min")
    assert ask(signed) == (200, b"content")
    assert storage.read_bytes(signed) == b"content"
    assert ask(storage.sign(url, method="HEAD"), "HEAD")[0] == 200
    status, _ = ask(storage.sign(url, method="PUT"), "PUT", b"new")
    assert status in (200, 201)
    assert storage.read_bytes(url) == b"new"
    assert ask(storage.sign(url, method="DELETE"), "DELETE")[0] in (200, 202, 204)
    assert not storage.exists(url)


@pytest.mark.parametrize("able", STRICT, indirect=True)
def test_for_nothing_else(able: str) -> None:
    url, other = f"{able}/signed/one", f"{able}/signed/other"
    storage.write_bytes(url, b"content")
    storage.write_bytes(other, b"secret")
    signed = storage.sign(url, expires=60)
    assert ask(signed.replace("signed/one", "signed/other"))[0] in (401, 403)
    assert ask(signed, "PUT", b"new")[0] in (401, 403)
    assert ask(signed, "DELETE")[0] in (401, 403)
    short = storage.sign(url, expires=1)
    time.sleep(2.1)
    assert ask(short)[0] in (400, 401, 403)
    assert ask(signed) == (200, b"content")


@pytest.mark.parametrize("store", ["fsspec-memory", "fsspec-sftp", "gs-fake", "file"])
def test_stores_without(stores: dict[str, str], store: str) -> None:
    with pytest.raises(UnsupportedByStore, match="cannot sign"):
        storage.sign(f"{stores[store]}/x")


def test_an_address_is_none_of_a_store() -> None:
    with pytest.raises(UnsupportedByStore, match="cannot sign"):
        storage.sign("https://example.org/x?token=hidden")


@pytest.mark.parametrize(
    ("name", "how", "kind"),
    [
        ("x", {"expires": 0}, ParameterError),
        ("x", {"expires": "0.5s"}, ParameterError),
        ("x", {"expires": -1}, ParameterError),
        ("x", {"expires": "soon"}, ParameterError),
        ("x", {"expires": float("inf")}, ParameterError),
        ("x", {"expires": "8d"}, ParameterError),
        ("x", {"method": "POST"}, ParameterError),
        ("x", {"method": None}, ParameterError),
        ("", {}, InvalidURL),
    ],
)
def test_bad_input(stores: dict[str, str], name: str, how: dict[str, object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        storage.sign(f"{stores['s3-moto']}/{name}", **how)  # type: ignore[arg-type]


def test_the_command(stores: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{stores['s3-moto']}/signed-by-command"
    storage.write_bytes(url, b"content")
    assert cli.main(["sign", url, "--expires", "15m"]) == 0
    signed = capsys.readouterr().out.strip()
    assert "X-Amz-Expires=900&" in signed
    assert ask(signed) == (200, b"content")
    assert cli.main(["sign", url, "--json", "--method", "put"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["url"] == url
    assert cli.main(["sign", url, "--expires", "15 parsecs"]) == 2
    assert cli.main(["sign", "README.md"]) == 1
    assert "cannot sign" in capsys.readouterr().err
