"""Who a mount is where nothing names keys: found, renewed and refused by the clouds' own libraries and protocols."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto
from servers.tokens.identity import Identity

from apyfal import storage
from apyfal.exceptions import AuthenticationError, MountError

pytestmark = pytest.mark.server

DATA = np.arange(20 << 20, dtype=np.uint32).view(np.uint8)[: 20 << 20]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide what this machine and its environment say about clouds."""
    for name in (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST"),
        *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def place() -> Iterator[Callable[..., str]]:
    """Mount a store with a bucket, for one test."""
    names: list[str] = []

    def mount(provider: str, **parameters: Any) -> str:
        names.append(f"{provider}.tokens{len(names)}")
        storage.mount(names[-1], config={}, **parameters)
        return f"{names[-1]}://tokens"

    yield mount
    for name in names:
        storage.unmount(name)


def used(url: str) -> None:
    """Write and read through several requests."""
    storage.makedirs(url, exist_ok=True)
    storage.save(f"{url}/object", DATA)
    assert np.array_equal(storage.load(f"{url}/object"), DATA)
    storage.remove(f"{url}/object")


# -- AWS: what its SDK finds, in the SDK's own order ------------------------------------------------------------------
def test_keys_of_the_environment(ceph_server: Ceph, place: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ceph_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph_server.secret_key)
    used(place("s3", endpoint_url=ceph_server.endpoint_url))


def test_keys_of_a_profile(ceph_server: Ceph, place: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n"
        f"[lab]\naws_access_key_id = {ceph_server.access_key}\naws_secret_access_key = {ceph_server.secret_key}\n"
    )
    used(place("s3", endpoint_url=ceph_server.endpoint_url, profile="lab"))
    with pytest.raises(AuthenticationError):
        storage.listdir(place("s3", endpoint_url=ceph_server.endpoint_url))
    with pytest.raises(MountError, match="elsewhere"):
        storage.listdir(place("s3", endpoint_url=ceph_server.endpoint_url, profile="elsewhere"))


def test_given_keys_win(ceph_server: Ceph, place: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    given = {"client_id": ceph_server.access_key, "secret_id": ceph_server.secret_key}
    used(place("s3", endpoint_url=ceph_server.endpoint_url, **given))


def test_the_role_of_the_instance(
    moto_server: Moto, identity_server: Identity, place: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", identity_server.endpoint_url)
    before = identity_server.issued()
    used(place("s3", endpoint_url=moto_server.endpoint_url))
    assert identity_server.issued() == before + 1


def test_nobody_at_all(moto_server: Moto, place: Callable[..., str]) -> None:
    with pytest.raises(AuthenticationError, match="no AWS credentials: give client_id and secret_id"):
        storage.listdir(place("s3", endpoint_url=moto_server.endpoint_url))


# -- Google -----------------------------------------------------------------------------------------------------------
def test_tokens_of_a_service_account_are_renewed(
    guarded_gcs_server: FakeGcs, identity_server: Identity, place: Callable[..., str]
) -> None:
    url = place("gs", endpoint_url=guarded_gcs_server.endpoint_url, credentials_file=str(identity_server.writer))
    used(url)
    issued = identity_server.issued()
    identity_server.expire_tokens()  # as when they are revoked: the store says so, not the clock
    used(url)
    assert identity_server.issued() == issued + 1


def test_tokens_are_renewed_before_they_end(
    guarded_gcs_server: FakeGcs, identity_server: Identity, place: Callable[..., str]
) -> None:
    identity_server.lifetime(5)
    try:
        issued = identity_server.issued()
        url = place("gs", endpoint_url=guarded_gcs_server.endpoint_url, credentials_file=str(identity_server.writer))
        used(url)
        assert identity_server.issued() > issued + 1
    finally:
        identity_server.lifetime(3600)


def test_the_variable_of_google(
    guarded_gcs_server: FakeGcs,
    identity_server: Identity,
    place: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(identity_server.writer))
    used(place("gs", endpoint_url=guarded_gcs_server.endpoint_url))


def test_the_account_of_a_google_machine(
    guarded_gcs_server: FakeGcs, identity_server: Identity, tmp_path: Path
) -> None:
    address = identity_server.endpoint_url.removeprefix("http://")
    script = f"""
from apyfal import storage
storage.mount("gs", endpoint_url={guarded_gcs_server.endpoint_url!r})
storage.makedirs("gs://tokens", exist_ok=True)
print(storage.listdir("gs://tokens"))
"""
    issued = identity_server.issued()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            "HOME": str(tmp_path),
            "PATH": "",
            "PYTHONPATH": ":".join(sys.path),
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_IP": address,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert identity_server.issued() > issued


def test_an_account_that_google_does_not_know(
    guarded_gcs_server: FakeGcs, identity_server: Identity, place: Callable[..., str], tmp_path: Path
) -> None:
    forged = tmp_path / "forged.json"
    # somebody else's key with this account's name
    forged.write_text(identity_server.stranger.read_text().replace("stranger@", "writer@"))
    url = place("gs", endpoint_url=guarded_gcs_server.endpoint_url, credentials_file=str(forged))
    with pytest.raises(AuthenticationError, match=r"gs: no credentials: invalid_grant: Invalid JWT Signature"):
        storage.listdir(url)
    forged.write_text("no JSON: canary-3b8e")
    url = place("gs", endpoint_url=guarded_gcs_server.endpoint_url, credentials_file=str(forged))
    with pytest.raises(MountError, match=r"credentials_file '.*forged\.json' is none of Google's") as caught:
        storage.listdir(url)
    assert "canary-3b8e" not in str(caught.value)


# -- Microsoft --------------------------------------------------------------------------------------------------------
@pytest.fixture
def trusted(identity_server: Identity, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """Let azure-identity trust the stand-in's certificate."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(identity_server.ca))
    return identity_server


def principal(store: Azurite, known: Identity, **changes: str) -> dict[str, Any]:
    who = {"tenant_id": known.tenant, "client_id": known.application, "secret_id": known.application_secret}
    return {"endpoint_url": store.endpoint_url, "verify": str(store.ca), "authority": known.tls_url, **who, **changes}


def test_tokens_of_a_service_principal(
    azurite_tls_server: Azurite, trusted: Identity, place: Callable[..., str]
) -> None:
    issued = trusted.issued()
    used(place("az", **principal(azurite_tls_server, trusted)))
    assert trusted.issued() == issued + 1


def test_a_wrong_secret_of_a_service_principal(
    azurite_tls_server: Azurite, trusted: Identity, place: Callable[..., str]
) -> None:
    url = place("az", **principal(azurite_tls_server, trusted, secret_id="canary-3b8e"))
    with pytest.raises(AuthenticationError, match=r"azure: no token of Microsoft Entra ID: .*AADSTS7000215") as caught:
        storage.listdir(url)
    assert "\n" not in str(caught.value)
    assert "canary-3b8e" not in str(caught.value)


def test_tokens_of_a_managed_identity_are_renewed(
    azurite_tls_server: Azurite, trusted: Identity, place: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", trusted.endpoint_url)
    store = {"endpoint_url": azurite_tls_server.endpoint_url, "verify": str(azurite_tls_server.ca)}
    trusted.lifetime(2)
    try:
        url = place("az", managed_identity=True, **store)
        used(url)
        issued = trusted.issued()
        time.sleep(2.5)  # Azurite refuses the first token from now on
        used(url)
        assert trusted.issued() > issued
    finally:
        trusted.lifetime(3600)
