"""What clients may name, and the mounts that they may bring."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from host.support.url_cases import DENIED_REDIRECTS, Names

from apyfal.exceptions import AccessDenied, MountError, ParameterError, StorageError
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.policy.refusals import TooLarge
from apyfal.host.server.policy.tokens import EVERYTHING
from apyfal.host.server.policy.url_policy import UrlPolicy, restricted_handler
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import MountParameter
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.url import parse

ACCOUNT = {"provider": "s3", "client_id": "id", "secret_id": "secret"}


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UrlPolicy]:
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    table = MountTable()
    table.mount("lab", provider="s3", client_id="operator", secret_id="operators-secret", config={})
    table.mount("disk", provider="file", root=str(tmp_path), config={})
    with AllowedDirectories([str(tmp_path)]) as allowed:
        egress = EgressPolicy(resolver=Names(public_test=[["93.184.216.34"]]))
        made = UrlPolicy(allowed, egress, table, lambda inside, _: HostStore(inside, max_size=100))
        yield made
        made.close()
    table.clear()


def test_urls_that_are_admitted(policy: UrlPolicy) -> None:
    for url in ("host://a/b", "https://public.test/x?y=1", "lab://bucket/key", "lab://bucket/a..b"):
        assert policy.admit(url, {}, EVERYTHING) == url


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "/etc/passwd", "FILE:///x", "HOST://x", "Lab://b/k", "s3://b/k", "disk://etc/passwd",
        "gs://b/k",
        "nothing://x", "lab:/b", "lab", "", "client-0123://b/k", "https://127.0.0.1/", "http://169.254.169.254/latest/",
        "lab://bucket/../other", "lab://..", "fsspec://x", "apyfal://x", "ftp://x", "data:,x", " lab://b/k",
        "lab ://b/k",
    ],
)  # fmt: skip
def test_urls_that_are_refused(policy: UrlPolicy, url: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        policy.admit(url, {}, EVERYTHING)
    assert "operators-secret" not in str(caught.value)


def test_session_mounts_have_their_own_account_and_the_gate(policy: UrlPolicy) -> None:
    mount = policy.mount("mine", {**ACCOUNT, "root": "bucket/prefix/", "endpoint_url": "https://public.test"})
    mounts = {"mine": mount}
    assert policy.admit("mine://key", mounts, EVERYTHING) == f"{mount.internal}://bucket/prefix/key"
    with pytest.raises(AccessDenied):
        policy.admit("mine://key", {}, EVERYTHING)
    with pytest.raises(AccessDenied):
        policy.admit(f"{mount.internal}://bucket/key", mounts, EVERYTHING)
    assert mount.internal not in policy.operator_mounts()
    with policy._table.resolve(parse(f"{mount.internal}://bucket/key")) as target:
        assert isinstance(target.handler.client.gate, EgressPolicy)
    policy.unmount(mount)
    with pytest.raises(MountError):
        policy.unmount(mount)


@pytest.mark.parametrize(
    "parameters",
    [
        {"provider": "s3"}, {"provider": "s3", "client_id": "x"}, {**ACCOUNT, "provider": "file"},
        {**ACCOUNT, "provider": "fsspec"}, {**ACCOUNT, "provider": "http"}, {**ACCOUNT, "provider": "lab"}, {},
        {**ACCOUNT, "provider": 1}, {**ACCOUNT, "profile": "default"}, {**ACCOUNT, "verify": "/etc/shadow"},
        {**ACCOUNT, "proxy": "http://127.0.0.1"}, {**ACCOUNT, "region": ["x"]}, {**ACCOUNT, "no_such": "x"},
        *({**ACCOUNT, "timeout": value} for value in (0, -1, 301, 1e9, "1e9", "nan", True, "")),
        *({**ACCOUNT, "timeout": float(value)} for value in ("nan", "inf", "-inf")),
        *({**ACCOUNT, name: 5} for name in ("connect_timeout", "retries", "max_concurrency")),
    ],
)  # fmt: skip
def test_mounts_that_a_client_may_not_bring(policy: UrlPolicy, parameters: dict[str, object]) -> None:
    before = set(policy._table.mounts())
    with pytest.raises((MountError, ParameterError)):
        policy.mount("mine", parameters)
    assert set(policy._table.mounts()) == before


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "https://10.0.0.1", "http://user@public.test", "file:///x"]
)
def test_endpoints_that_the_gate_refuses(policy: UrlPolicy, endpoint: str) -> None:
    with pytest.raises(AccessDenied):
        policy.mount("mine", {**ACCOUNT, "endpoint_url": endpoint})


@pytest.mark.parametrize("timeout", [0.5, 1, "2", 300])
def test_timeouts_that_a_client_may_give(policy: UrlPolicy, timeout: object) -> None:
    policy.unmount(policy.mount("mine", {**ACCOUNT, "timeout": timeout}))


def test_a_token_of_a_directory_has_the_limits_of_the_host(policy: UrlPolicy, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    url = parse(policy.admit("host://x", {}, replace(EVERYTHING, directories=(str(tmp_path / "inside"),)), write=True))
    with policy._table.resolve(url) as target:
        target.handler.put("x", memoryview(bytes(100)), None)
        with pytest.raises(TooLarge, match="more than 100 bytes"):
            target.handler.put("y", memoryview(bytes(101)), None)
    assert [path.name for path in (tmp_path / "inside").iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["host", "http", "https", "file", "A", "a.b", "client/..", "", "x" * 64, "1a"])
def test_names_that_a_session_mount_may_not_have(policy: UrlPolicy, name: str) -> None:
    with pytest.raises(ParameterError, match="new name"):
        policy.mount(name, ACCOUNT)


def test_stores_whose_connections_the_gate_would_not_see() -> None:
    arguments = {"protocol": "ftp", "host": "localhost"}
    spec = MountSpec("x", "fsspec", parameters={name: MountParameter(value) for name, value in arguments.items()})
    with pytest.raises(MountError, match="by clients"):
        restricted_handler(spec, EgressPolicy())
    with pytest.raises(MountError, match="what it finds on this machine"):
        restricted_handler(MountSpec("x", "file"), EgressPolicy())


@pytest.mark.parametrize("location", DENIED_REDIRECTS)
def test_redirects_reach_nothing_that_is_refused(location: str) -> None:
    """A server that is allowed by name sends us on: no connection is made to a refused address."""
    with socket.create_server(("127.0.0.1", 0)) as allowed, socket.create_server(("127.0.0.1", 0)) as forbidden:
        port, inner = allowed.getsockname()[1], forbidden.getsockname()[1]
        forbidden.settimeout(0.05)

        def answer() -> None:
            connection, _ = allowed.accept()
            with connection:
                connection.recv(65536)
                target = location.replace("{port}", str(inner))
                connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        here = [["127.0.0.1"]]
        names = Names(allowed_test=here, evil_test=here, rebind_test=here, localhost=here)
        gate = EgressPolicy([f"allowed.test:{port}"], resolver=names)
        handler = restricted_handler(MountSpec("http", "http"), gate)
        with pytest.raises(StorageError):
            handler.describe(f"allowed.test:{port}/x")
        thread.join()
        handler.close()
        with pytest.raises(TimeoutError):
            forbidden.accept()


def test_keys_by_the_names_of_the_sdk(policy: UrlPolicy) -> None:
    keys = {"access_key_id": "id", "secret_access_key": "secret"}
    policy.mount("mine", {"provider": "s3", **keys, "endpoint_url": "https://public.test"})
    with pytest.raises(MountError, match="another name of 'client_id'"):
        policy.mount("mine", {**ACCOUNT, **keys})


@pytest.mark.parametrize("provider", ["s3", "oss", "gs", "az", "swift"])
@pytest.mark.parametrize("anonymous", [False, "false", "no", "0", None])
def test_without_an_account_there_is_no_mount(policy: UrlPolicy, provider: str, anonymous: object) -> None:
    given = {"provider": provider, "endpoint_url": "https://public.test"}
    if anonymous is not None:
        given["anonymous"] = anonymous  # type: ignore[assignment]
    with pytest.raises(MountError):
        policy.mount("mine", given)
