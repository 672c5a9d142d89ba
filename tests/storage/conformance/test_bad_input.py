"""What is wrong with a mount is one clear line for every provider, and none of it is a secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal import cli, storage
from apyfal.exceptions import (
    AcceleratorException,
    AccessDenied,
    AuthenticationError,
    ConfigurationError,
    InvalidURL,
    MountError,
    ObjectNotFound,
    StorageError,
)
from apyfal.storage.mounting import table

pytestmark = pytest.mark.server

CANARY = "canary-secret-9c2e57ab"
#: The same as a key that Azure would accept by its form.
CANARY_KEY = "Y2FuYXJ5LXNlY3JldC05YzJlNTdhYg=="
Parameters = dict[str, Any]


def s3(request: pytest.FixtureRequest) -> Parameters:
    server = request.getfixturevalue("ceph_server")
    keys = {"client_id": server.access_key, "secret_id": server.secret_key}
    return {"provider": "s3", "endpoint_url": server.endpoint_url, **keys}


def swift(request: pytest.FixtureRequest) -> Parameters:
    server = request.getfixturevalue("swift_server")
    return {"provider": "swift", "endpoint_url": server.auth_url, "client_id": server.user, "secret_id": server.key}


def keystone(request: pytest.FixtureRequest) -> Parameters:
    known = request.getfixturevalue("swift_server").keystone
    who = {"client_id": known.user, "secret_id": known.password, "project": known.project}
    return {"provider": "swift", "endpoint_url": f"{known.endpoint_url}/v3", "region": known.region, **who}


def azure(request: pytest.FixtureRequest) -> Parameters:
    server = request.getfixturevalue("azurite_server")
    who = {"client_id": server.account, "secret_id": server.key}
    return {"provider": "az", "endpoint_url": server.endpoint_url, **who}


def google(request: pytest.FixtureRequest) -> Parameters:
    server, known = (request.getfixturevalue(name) for name in ("guarded_gcs_server", "identity_server"))
    return {"provider": "gs", "endpoint_url": server.endpoint_url, "credentials_file": str(known.writer)}


def hmac(request: pytest.FixtureRequest) -> Parameters:
    return {**s3(request), "provider": "gs"}  # Google's S3 interface, for which an S3 server stands


def oss(request: pytest.FixtureRequest) -> Parameters:
    return {**s3(request), "provider": "oss", "region": "cn-hangzhou"}


def on_host(request: pytest.FixtureRequest, protocol: str) -> Parameters:
    server = request.getfixturevalue(f"{protocol}_server")
    who = {"client_id": server.user, "secret_id": server.password}
    return {"provider": "fsspec", "protocol": protocol, "host": server.host, "port": server.port, **who}


def sftp(request: pytest.FixtureRequest) -> Parameters:
    return on_host(request, "sftp")


def ftp(request: pytest.FixtureRequest) -> Parameters:
    return on_host(request, "ftp")


def webdav(request: pytest.FixtureRequest) -> Parameters:
    server = request.getfixturevalue("webdav_server")
    who = {"client_id": server.user, "secret_id": server.password}
    return {"provider": "fsspec", "protocol": "webdav", "endpoint_url": server.endpoint_url, **who}


def web(request: pytest.FixtureRequest) -> Parameters:
    server = request.getfixturevalue("nginx_server")
    root = f"{server.endpoint_url.removeprefix('http://')}/private"
    return {"provider": "http", "root": root, "user": server.user, "password": server.password}


PROVIDERS = (s3, swift, keystone, azure, google, hmac, oss, sftp, ftp, webdav, web)
#: What each of them takes for a wrong secret.
WRONG = {azure: {"secret_id": CANARY_KEY}, web: {"password": CANARY}, google: {"credentials_file": "{directory}/file"}}


@pytest.fixture(params=PROVIDERS, ids=lambda provider: provider.__name__)
def provider(request: pytest.FixtureRequest) -> Callable[..., Parameters]:
    """One after the other."""
    found: Callable[..., Parameters] = request.param
    return found


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration, and no mounts but the test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    table.table.clear()
    yield
    table.table.clear()


def told(action: Callable[[], object], kind: type[AcceleratorException], *words: str) -> str:
    """Expect one line of an error that says all of `words`, and no secret anywhere in it."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    seen: BaseException | None = caught.value
    while seen is not None:
        shown = f"{seen} {seen!r} {vars(seen)}"
        assert CANARY not in shown
        assert CANARY_KEY not in shown
        seen = None if seen.__suppress_context__ and seen.__cause__ is None else seen.__cause__ or seen.__context__
    return message


def test_wrong_credentials(
    provider: Callable[..., Parameters],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text(f'{{"type": "service_account", "private_key": "{CANARY}"}}')
    wrong = {name: text.format(directory=tmp_path) for name, text in WRONG.get(provider, {"secret_id": CANARY}).items()}
    right = provider(request)
    with caplog.at_level(logging.DEBUG):
        storage.mount("bad", **{**right, **wrong})
        # a HEAD is refused without a reason, and Azurite has one code for every refusal
        kind = MountError if provider is google else AccessDenied
        for action in (storage.load, storage.stat):
            told(lambda action=action: action("bad://bucket/key"), kind)  # type: ignore[misc]  # the default binds
        if provider is not web:
            told(lambda: storage.remove("bad://bucket/key"), kind)
            told(lambda: storage.listdir("bad://bucket"), kind)
        if provider not in (google, azure):
            told(lambda: storage.load("bad://bucket/key"), AuthenticationError)
    assert cli.main(["ls", "--json", "bad://bucket"]) not in (0, None)
    assert cli.main(["mounts", "--json"]) in (0, None)
    captured = capsys.readouterr()
    assert json.loads(captured.out)[-1]["name"] == "bad"
    assert len(captured.err.splitlines()) == 1
    for shown in (
        captured.out,
        captured.err,
        repr(storage.mounts()),
        *(record.getMessage() for record in caplog.records),
    ):
        assert CANARY not in shown
        assert CANARY_KEY not in shown


def test_a_missing_bucket(provider: Callable[..., Parameters], request: pytest.FixtureRequest) -> None:
    storage.mount("bad", **provider(request))
    told(lambda: storage.load("bad://missing-bucket/key"), ObjectNotFound, "missing-bucket")
    if provider is web:
        return
    told(lambda: storage.save("bad://missing-bucket/key", np.zeros(3, "u1")), ObjectNotFound, "missing-bucket")
    told(lambda: storage.listdir("bad://missing-bucket"), ObjectNotFound, "missing-bucket")


def test_a_misspelled_parameter(provider: Callable[..., Parameters], request: pytest.FixtureRequest) -> None:
    right = provider(request)
    wrong, meant = ("pasword", "password") if provider in (web, sftp, ftp) else ("verfy", "verify")
    place = "storage.bad"

    def mount() -> None:
        storage.mount("bad", **right, **{wrong: CANARY})
        storage.exists("bad://bucket/key")

    told(mount, MountError, wrong, f"did you mean {meant!r}")
    text = "".join(f"{name} = {value}\n" for name, value in {**right, wrong: CANARY}.items())
    Path("accelerator.conf").write_text(f"[{place}]\n{text}")
    table.table.clear()
    told(lambda: storage.exists("bad://bucket/key"), AcceleratorException, wrong, f"did you mean {meant!r}")


def test_an_unknown_provider() -> None:
    told(lambda: storage.mount("bad", provider="swfit"), MountError, "'swfit'", "did you mean 'swift'")
    told(lambda: storage.load("swfit://bucket/key"), InvalidURL, "'swfit'", "did you mean 'swift'")


def test_a_duplicate_mount(provider: Callable[..., Parameters], request: pytest.FixtureRequest) -> None:
    right = provider(request)
    secret = "password" if provider is web else "secret_id"
    storage.mount("twice", **right)
    storage.mount("twice", **right)
    changed = {**right, secret: CANARY}
    told(lambda: storage.mount("twice", **changed), MountError, "'twice' is already mounted", "replace=True")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ((s3, {"region": "mars-1"}), ("mars-1",)),
        ((keystone, {"region": "RegionOn"}), ("no region 'RegionOn'", "did you mean 'RegionOne'")),
    ],
    ids=["s3", "keystone"],
)
def test_a_wrong_region(
    parameters: tuple[Callable[..., Parameters], Parameters], words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    provider, changes = parameters
    storage.mount("bad", **{**provider(request), **changes})
    told(lambda: storage.makedirs("bad://a-new-bucket"), StorageError, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[storage.bad\nprovider = s3\n", ("line 1",)),
        (f"[storage.bad]\nprovider = s3\nsecret_id {CANARY}\n", ("line 3",)),
        (f"secret_id = {CANARY}\n", ("line 1",)),
        (f"[storage.bad]\nsecret_id = {CANARY}\nsecret_id = {CANARY}\n", ("line 3", "secret_id")),
        ("[storage.bad]\n[storage.bad]\n", ("storage.bad",)),
        (f"[storage.bad]\nprovider = {CANARY}\n", ("line 2",)),
    ],
)
def test_a_broken_configuration(text: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    Path("accelerator.conf").write_text(text)
    if f"provider = {CANARY}" in text:
        with pytest.raises(ConfigurationError, match="line 2"):  # a provider's name is not a secret
            storage.load("bad://bucket/key")
        return
    told(lambda: storage.load("bad://bucket/key"), ConfigurationError, "accelerator.conf", *words)
    assert cli.main(["mounts", "--json"]) not in (0, None)
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert CANARY not in captured.out + captured.err
