"""`storage.sign`: an address that a stranger can use for what it is for, and for nothing else."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from servers.stores.gcs import FakeGcs

import apyfal
from apyfal import cli, storage
from apyfal.exceptions import AcceleratorException, InvalidURL, ParameterError, UnsupportedByStore

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


#: Ways to write an object of this package, given an address that is signed for PUT, the content and a folder.
WRITING: dict[str, Callable[[str, bytes, Path], object]] = {
    "write_bytes": lambda signed, data, folder: storage.write_bytes(signed, data),
    "save": lambda signed, data, folder: storage.save(signed, np.frombuffer(data, np.uint8)),
    "save_many": lambda signed, data, folder: storage.save_many([signed], [np.frombuffer(data, np.uint8)]),
    "copy": lambda signed, data, folder: storage.copy(made(folder / "file", data), signed),
    "copy from a pipe": lambda signed, data, folder: storage.copy(io.BytesIO(data), signed),
    "open": lambda signed, data, folder: written(storage.open(signed, "wb"), data),
    "change in place": lambda signed, data, folder: written(storage.open(signed, "w+b"), data),
    "Path": lambda signed, data, folder: storage.Path(signed).write_bytes(data),
    "the command copy": lambda signed, data, folder: done("copy", made(folder / "file", data), signed),
    "the command process": lambda signed, data, folder: done(
        *("process", "-a", "scale", "--dtype", "uint8", made(folder / "file", data), "-o", signed)
    ),
}
SIZES = {"empty": 0, "small": 1000, "large": 20_000_001}


def made(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def written(file: object, data: bytes) -> None:
    with file as opened:  # type: ignore[attr-defined]
        for start in range(0, len(data), 3_000_000):
            opened.write(data[start : start + 3_000_000])


def done(*arguments: str) -> None:
    assert cli.main([*arguments, "--quiet"]) == 0


@pytest.mark.parametrize("able", ABLE, indirect=True)
@pytest.mark.parametrize(
    ("way", "size"),
    [*((way, "large") for way in WRITING), *((way, size) for way in ("save", "open") for size in SIZES)],
)
def test_written_by_this_package(able: str, way: str, size: str, tmp_path: Path) -> None:
    url = f"{able}/signed/put é+%20.bin"
    data = bytes(range(251)) * (SIZES[size] // 251)
    storage.write_bytes(url, b"before")
    WRITING[way](storage.sign(url, method="PUT"), data, tmp_path)
    assert storage.read_bytes(url) == data


@pytest.mark.parametrize("able", ["s3-ceph", "az-azurite"], indirect=True)
def test_the_type_follows_from_the_name(able: str) -> None:
    url = f"{able}/signed/table.csv"
    storage.write_bytes(storage.sign(url, method="PUT"), b"1,2")
    metadata = storage.stat(url).metadata
    assert metadata is not None
    assert metadata.content_type == "text/csv"


@pytest.mark.parametrize("able", STRICT, indirect=True)
@pytest.mark.parametrize("wrong", ["for reading", "expired", "of another object"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_refused_write_leaves_what_was_there(able: str, wrong: str, size: str, tmp_path: Path) -> None:
    url = f"{able}/signed/kept"
    storage.write_bytes(url, b"before")
    if wrong == "for reading":
        signed = storage.sign(url)
    elif wrong == "expired":
        signed = storage.sign(url, method="PUT", expires=1)
        time.sleep(2.1)
    else:
        signed = storage.sign(f"{able}/signed/else", method="PUT").replace("signed/else", "signed/kept")
    with pytest.raises(AcceleratorException) as caught:
        storage.write_bytes(signed, bytes(SIZES[size]))
    assert "kept" in str(caught.value)
    for value in signed.partition("?")[2].split("&"):
        if len(text := value.partition("=")[2]) > 10:
            assert text not in str(caught.value)
    assert storage.read_bytes(url) == b"before"


@pytest.mark.parametrize("able", ["az-azurite"], indirect=True)
def test_an_exclusive_write_to_azure(able: str) -> None:
    url = f"{able}/signed/exclusive"
    with pytest.raises(AcceleratorException), storage.open(storage.sign(url, method="PUT"), "xb") as file:
        file.write(b"new")  # "x" looks first, which the signature does not allow


@pytest.mark.parametrize("able", ["s3-moto"], indirect=True)
def test_a_job_that_fails_writes_nothing(able: str) -> None:
    url = f"{able}/signed/of a job"
    storage.write_bytes(url, b"before")
    with pytest.raises(AcceleratorException), apyfal.Accelerator("gunzip") as card:
        card.process(b"this is not a gzip", storage.sign(url, method="PUT"))
    assert storage.read_bytes(url) == b"before"


def test_a_google_service_account(gcs_server: FakeGcs, stores: dict[str, str], tmp_path: Path) -> None:
    """The server checks no signature; `tests/unit/storage/stores/test_gcs_signing.py` does, with the public key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": secret}
    account |= {"client_email": "me@p.example", "token_uri": "http://127.0.0.1:9/"}
    (tmp_path / "key.json").write_text(json.dumps(account))
    storage.mount(
        "gs-key", provider="gs", endpoint_url=gcs_server.endpoint_url, credentials_file=str(tmp_path / "key.json")
    )
    try:
        for name in NAMES:
            url = f"{stores['gs-fake']}/signed/{name}"
            keyed = url.replace("gs-fake://", "gs-key://")
            storage.write_bytes(storage.sign(keyed, method="PUT"), b"new" * 1000)
            assert storage.read_bytes(url) == b"new" * 1000
            assert storage.read_bytes(storage.sign(keyed)) == b"new" * 1000
    finally:
        storage.unmount("gs-key")


def test_what_is_not_signed_is_refused_at_once(tmp_path: Path) -> None:
    address = "http://127.0.0.1:9/file"  # nobody is asked
    for way in WRITING:
        if "command" not in way:
            with pytest.raises(UnsupportedByStore, match="signed for PUT"):
                WRITING[way](address, b"data", tmp_path)
    assert cli.main(["copy", made(tmp_path / "file", b""), address]) != 0


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
