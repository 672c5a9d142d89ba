"""Who a mount is: what the cloud providers make of their parameters, without any server."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from apyfal.exceptions import AuthenticationError, MountError, UnsupportedByStore
from apyfal.storage.stores.azure.auth import EntraToken, SharedAccessSignature, SharedKey, settings_of_connection
from apyfal.storage.stores.azure.handler import AzureHandler
from apyfal.storage.stores.gcs.handler import open_gs
from apyfal.storage.stores.oss import OSSHandler
from apyfal.storage.stores.swift.auth import Identity
from apyfal.storage.stores.swift.handler import SwiftHandler

KEY = "a2V5"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what this machine's environment says about clouds."""
    for name in (
        *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
        *("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "ST_AUTH", "ST_USER", "ST_KEY"),
        *("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"),
    ):
        monkeypatch.delenv(name, raising=False)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let modules be missing."""
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


# -- Azure ------------------------------------------------------------------------------------------------------------
def test_a_connection_string() -> None:
    text = "DefaultEndpointsProtocol=https;AccountName=lab;AccountKey=a2V5PT0=;EndpointSuffix=core.windows.net"
    assert settings_of_connection(text, environ={}) == {
        "account": "lab",
        "key": "a2V5PT0=",
        "endpoint": "https://lab.blob.core.windows.net",
    }


def test_a_connection_string_wins_over_the_environment() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_KEY": "b3RoZXI="}
    assert settings_of_connection(None, environ=environ) == {"account": "other", "key": "b3RoZXI="}
    found = settings_of_connection("BlobEndpoint=http://h/lab;SharedAccessSignature=sig=x", environ=environ)
    assert found == {"endpoint": "http://h/lab", "sas": "sig=x"}


def test_a_shared_key_signs_every_part_of_a_request() -> None:
    key = SharedKey("lab", KEY)
    date = ("x-ms-date", "Sun, 22 Nov 2026 08:00:00 GMT")

    def signature(method: str, target: str, headers: list[tuple[str, str]], length: int) -> str:
        return dict(key.authorize(method, target, headers, length)[1])["Authorization"]

    base: tuple[str, str, list[tuple[str, str]], int] = ("PUT", "/lab/c/b?comp=block&blockid=MQ%3D%3D", [date], 5)
    expected = signature(*base)
    assert expected.startswith("SharedKey lab:")
    for other in (
        ("GET", *base[1:]),
        (base[0], "/lab/c/b?comp=block&blockid=Mg%3D%3D", *base[2:]),
        (*base[:2], [date, ("Range", "bytes=0-1")], base[3]),
        (*base[:2], [date, ("x-ms-version", "2021-12-02")], base[3]),
        (*base[:3], 6),
    ):
        assert signature(*other) != expected


def test_a_shared_access_signature_goes_into_the_query() -> None:
    sas = SharedAccessSignature("?sv=2021-12-02&sig=abc")
    assert sas.authorize("GET", "/c/b", [], 0)[0] == "/c/b?sv=2021-12-02&sig=abc"
    assert sas.authorize("GET", "/c?comp=list", [], 0)[0] == "/c?comp=list&sv=2021-12-02&sig=abc"


def test_a_token_of_entra_is_sent() -> None:
    source = SimpleNamespace(get_token=lambda scope: SimpleNamespace(token=f"for {scope}"))
    _, headers = EntraToken(source).authorize("GET", "/c/b", [], 0)
    assert dict(headers)["Authorization"] == "Bearer for https://storage.azure.com/.default"


def test_a_failing_token_is_one_line() -> None:
    def get_token(scope: str) -> Any:
        raise RuntimeError("no identity\nand a long story")

    with pytest.raises(AuthenticationError, match=r"no token of Microsoft Entra ID: no identity$"):
        EntraToken(SimpleNamespace(get_token=get_token)).authorize("GET", "/c/b", [], 0)


@pytest.mark.parametrize(
    ("parameters", "credential"),
    [
        ({"managed_identity": True, "client_id": "id"}, "ManagedIdentityCredential"),
        ({"tenant_id": "t", "client_id": "id", "secret_id": "s"}, "ClientSecretCredential"),
        ({}, "DefaultAzureCredential"),
    ],
)
def test_azure_identity_is_asked(parameters: dict[str, Any], credential: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    identity = ModuleType("azure.identity")
    for name in ("ManagedIdentityCredential", "ClientSecretCredential", "DefaultAzureCredential"):
        setattr(identity, name, lambda *args, _name=name, **kwargs: made.append(_name))
    package = ModuleType("azure")
    package.identity = identity  # type: ignore[attr-defined]  # a module made up here
    monkeypatch.setitem(sys.modules, "azure", package)
    monkeypatch.setitem(sys.modules, "azure.identity", identity)
    AzureHandler(account="lab", **parameters)
    assert made == [credential]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "no account"),
        ({"client_id": "lab", "secret_id": "not base64!"}, "not an account key"),
        ({"client_id": "lab", "sas": "sv=1"}, "no 'sig='"),
        ({"connection_string": "nonsense"}, "neither AccountName nor BlobEndpoint"),
    ],
)
def test_wrong_parameters_of_azure(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(MountError, match=message):
        AzureHandler(**parameters)


def test_a_missing_azure_identity_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "azure", "azure.identity")
    with pytest.raises(MountError, match=r"pip install 'apyfal\[az\]'"):
        AzureHandler(account="lab", managed_identity=True)


# -- Google -----------------------------------------------------------------------------------------------------------
def test_a_missing_google_auth_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "google.auth", "google")
    with pytest.raises(MountError, match=r"pip install 'apyfal\[gs\]'"):
        open_gs().describe("bucket/key")


def test_an_hmac_key_writes_nothing_exclusively() -> None:
    handler = open_gs(client_id="GOOG", secret_id="s")
    with pytest.raises(UnsupportedByStore, match="credentials_file"):
        handler.put("bucket/key", memoryview(b""), None, exclusive=True)
    with pytest.raises(UnsupportedByStore, match="credentials_file"):
        handler.upload("bucket/key", size=None, exclusive=True)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"client_id": "GOOG"}, "come together"),
        ({"client_id": "GOOG", "secret_id": "s", "anonymous": True}, "exclude each other"),
    ],
)
def test_wrong_parameters_of_google(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(MountError, match=message):
        open_gs(**parameters)


def test_buckets_need_a_project() -> None:
    with pytest.raises(MountError, match="project="):
        open_gs(anonymous=True).makedirs("bucket")


# -- Alibaba ----------------------------------------------------------------------------------------------------------
def test_oss_takes_nothing_exclusively() -> None:
    handler = OSSHandler(region="oss-cn-hangzhou", client_id="a", secret_id="b")
    with pytest.raises(UnsupportedByStore, match="OSS"):
        handler.upload("bucket/key", size=None, exclusive=True)


# -- Swift ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("environ", "auth_type", "user"),
    [
        ({"OS_AUTH_URL": "http://k/v3", "OS_USERNAME": "u", "OS_PASSWORD": "canary"}, "v3password", "u"),
        ({"ST_AUTH": "http://s/auth/v1.0", "ST_USER": "a:u", "ST_KEY": "canary"}, "v1", "a:u"),
        (
            {
                "OS_AUTH_URL": "http://k",
                "OS_APPLICATION_CREDENTIAL_ID": "i",
                "OS_APPLICATION_CREDENTIAL_SECRET": "canary",
            },
            "v3applicationcredential",
            "i",
        ),
    ],
)
def test_the_variables_of_openstack(environ: dict[str, str], auth_type: str, user: str) -> None:
    identity = Identity.find(client_id=None, secret_id=None, endpoint_url=None, auth_type=None, environ=environ)
    assert (identity.auth_type, identity.user) == (auth_type, user)
    assert identity.secret == "canary"
    assert "canary" not in repr(identity)


def test_what_swift_misses_is_named() -> None:
    with pytest.raises(MountError, match="swift: endpoint_url and secret_id missing"):
        SwiftHandler(client_id="u")
