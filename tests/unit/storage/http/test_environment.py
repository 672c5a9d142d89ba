"""The environment's conventions: proxies and where they do not apply, and certificate authorities."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers.certificates import issue

import apyfal.storage as st
from apyfal.doctor.network import check_address
from apyfal.doctor.system import check_tls
from apyfal.exceptions import HostError, ParameterError, StorageError
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import HostAddress
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool, Timeouts
from apyfal.storage.http.proxy import Proxy, environment_proxy, parse_proxy

VARIABLES = ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name in VARIABLES:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "h.example", False),
        ("h.example", "h.example", True),
        ("H.Example", "h.example", True),
        ("h.example", "H.EXAMPLE", True),
        ("h.example", "h.example.", True),
        (".example", "h.example", True),
        ("*.example", "h.example", True),
        ("example", "h.example", True),
        ("h.example", "xh.example", False),
        ("ample", "h.example", False),
        ("other", "h.example", False),
        ("*", "h.example", True),
        ("other, h.example", "h.example", True),
        ("other h.example", "h.example", True),
        (",, ,", "h.example", False),
        ("h.example:9000", "h.example", True),
        (".example:9000", "h.example", True),
        ("*:9000", "h.example", True),
        ("h.example:9001", "h.example", False),
        ("h.example:", "h.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:9000", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", True),
        ("10.0.0.0/8:9000", "10.1.2.3", True),
        ("10.0.0.0/8:9001", "10.1.2.3", False),
        ("10.0.0.0/16", "10.1.2.3", False),
        ("10.0.0.0/8", "h.example", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("0.0.0.0/0", "fd00::1", False),
        ("fd00::1", "fd00::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:9000", "fd00::1", True),
        ("[fd00::1]:9001", "fd00::1", False),
        ("fd00:0:0::0:1", "fd00::1", True),
        ("fd00::/8", "fd00::1", True),
        ("fe80::/10", "fd00::1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, no_proxy: str, host: str, direct: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv(variable, no_proxy)
    assert (environment_proxy(Origin("http", host, 9000)) is None) == direct


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({"http_proxy": "a"}, "a", None),
        ({"https_proxy": "a"}, None, "a"),
        ({"HTTPS_PROXY": "a"}, None, "a"),
        ({"HTTP_PROXY": "a"}, None, None),
        ({"all_proxy": "a"}, "a", "a"),
        ({"ALL_PROXY": "a"}, "a", "a"),
        ({"all_proxy": "a", "http_proxy": "b"}, "b", "a"),
        ({"https_proxy": " ", "all_proxy": ""}, None, None),
    ],
)
def test_variables_of_proxies(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], http: str | None, https: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(Origin("http", "h", 80)) == http
    assert environment_proxy(Origin("https", "h", 443)) == https


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("proxy:3128", Proxy("proxy", 3128, None)),
        ("http://proxy:3128/", Proxy("proxy", 3128, None)),
        ("HTTP://proxy", Proxy("proxy", 80, None)),
        ("http://me:pw@[::1]:3128", Proxy("::1", 3128, "Basic bWU6cHc=")),
    ],
)
def test_a_proxy(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


REFUSED = ["socks5://p:1", "socks5h://p:1", "socks4://p:1", "socks4a://p", "SOCKS://p", "https://p:443", "ftp://p"]
MALFORMED = ["http://p:port", "http://", "p:1/path", "http://p:1/?x", "http://p\n:1"]


@pytest.mark.parametrize("url", [*REFUSED, *MALFORMED])
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "parameter"])
def test_proxies_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch, url: str, variable: str) -> None:
    """At once and by name: no attempt at a direct connection, and none after the first."""
    secret = url.replace("://", "://me:CANARY@") if "://p" in url else url
    if variable == "parameter":
        with pytest.raises(ParameterError, match="proxy") as caught:
            ConnectionPool(proxy=secret)
    else:
        monkeypatch.setenv(variable, secret)
        with pytest.raises(ParameterError, match=variable) as caught:
            st.load("http://127.0.0.1:9/x")
    assert "CANARY" not in str(caught.value)
    if url in REFUSED:
        assert url.partition("://")[0].lower() in str(caught.value)
    assert "http://" in str(caught.value) or "port" in str(caught.value) or "control" in str(caught.value)


class _Hello(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"hello")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that do not trust the certificate."""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose certificate only the tests' own authority vouches for: its URL, and the authority."""
    folder = tmp_path_factory.mktemp("authority")
    authority = issue(folder, "server", ["127.0.0.1"])
    with _Quiet(("127.0.0.1", 0), _Hello) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}/x", authority
        server.shutdown()


def _get(url: str) -> bytes:
    port = int(url.rpartition(":")[2].partition("/")[0])
    pool = ConnectionPool(Timeouts(5, 5))
    try:
        return pool.request("GET", Origin("https", "127.0.0.1", port), "/x").read()
    finally:
        pool.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_authorities_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path], variable: str, kind: str
) -> None:
    url, authority = secure
    with pytest.raises(StorageError, match="certificate is not accepted"):
        _get(url)
    path = authority
    if kind == "directory":
        shutil.copy(authority, tmp_path / "ca.pem")
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
        path = tmp_path
    if (variable, kind) == ("SSL_CERT_DIR", "file"):
        monkeypatch.setenv(variable, f"/nowhere{os.pathsep}{authority.parent}")
        with pytest.raises(StorageError, match="certificate is not accepted"):  # its files have no hashed names
            _get(url)
        return
    monkeypatch.setenv(variable, str(path))
    assert _get(url) == b"hello"
    monkeypatch.delenv(variable)
    with pytest.raises(StorageError, match="certificate is not accepted"):  # what was trusted is not remembered
        _get(url)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
@pytest.mark.parametrize("variable", [*VARIABLES[:-1], "verify"])
def test_bundles_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path], variable: str, content: bytes | None
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    if variable != "verify":
        monkeypatch.setenv(variable, str(path))
    pool = ConnectionPool(verify=str(path) if variable == "verify" else True)
    with pytest.raises(ParameterError, match=rf"{variable}=.*bundle\.pem"):
        pool.request("GET", Origin("https", "127.0.0.1", _port(secure)), "/")


@pytest.mark.parametrize("names", ["{0}", "{1}/none", "{1}/none:{0}", " "])
def test_directories_that_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path], names: str
) -> None:
    """OpenSSL passes over them, and the system's authorities would be left."""
    monkeypatch.setenv("SSL_CERT_DIR", names.format(secure[1], tmp_path))
    with pytest.raises(ParameterError, match=r"SSL_CERT_DIR=.*no such directory"):
        _get(secure[0])


@pytest.mark.parametrize("variable", [*VARIABLES[:-1], "verify"])
def test_directories_without_names_of_hashes(
    monkeypatch: pytest.MonkeyPatch, secure: tuple[str, Path], variable: str
) -> None:
    if variable != "verify":
        monkeypatch.setenv(variable, str(secure[1].parent))
    pool = ConnectionPool(verify=str(secure[1].parent) if variable == "verify" else True)
    with pytest.raises(ParameterError, match=rf"{variable}=.*openssl rehash"):
        pool.request("GET", Origin("https", "127.0.0.1", _port(secure)), "/")


@pytest.mark.parametrize("verify", ["", " ", "fasle"])
def test_verify_that_names_nothing(monkeypatch: pytest.MonkeyPatch, secure: tuple[str, Path], verify: str) -> None:
    """It means neither the authorities of the environment nor none at all."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
    pool = ConnectionPool(verify=verify)
    with pytest.raises(ParameterError, match=r"verify=.*expected true, false"):
        pool.request("GET", Origin("https", "127.0.0.1", _port(secure)), "/")


@pytest.mark.parametrize("verify", ["~/ca.pem", "ca.pem"])
def test_verify_in_the_home_and_relative(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path], verify: str
) -> None:
    monkeypatch.setenv("HOME", str(secure[1].parent))
    monkeypatch.chdir(secure[1].parent)
    pool = ConnectionPool(verify=verify)
    monkeypatch.chdir(tmp_path)
    origin = Origin("https", "127.0.0.1", _port(secure))
    assert pool.request("GET", origin, "/x").read() == b"hello"
    pool.close()


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_environment_adds_nothing_to_a_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path], variable: str
) -> None:
    shutil.copy(secure[1], tmp_path / "ca.pem")
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
    (tmp_path / "another").mkdir()
    monkeypatch.setenv(variable, str(tmp_path))
    pool = ConnectionPool(verify=str(issue(tmp_path / "another", "server", ["127.0.0.1"])))
    with pytest.raises(StorageError, match="certificate is not accepted"):
        pool.request("GET", Origin("https", "127.0.0.1", _port(secure)), "/")


def test_hosts_are_accepted_by_the_same_authorities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path]
) -> None:
    address = HostAddress("127.0.0.1", _port(secure))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ParameterError, match=r"SSL_CERT_FILE=.*none\.pem"):
        Host(address, None)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(HostError, match="certificate is not accepted"), Host(address, None).request("GET", "/"):
        pass
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure[1]))
    with Host(address, None).request("GET", "/") as response:
        assert response.status == 200


def test_the_doctor_trusts_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: tuple[str, Path]) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(secure[1]))
    assert {one.state for one in [*check_tls(), *check_address(secure[0])]} == {"ok"}
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    (found,) = check_tls()
    assert found.state == "problem"
    assert "SSL_CERT_DIR" in str(found)
    assert not list(check_address(secure[0]))


def _port(secure: tuple[str, Path]) -> int:
    return int(secure[0].rpartition(":")[2].partition("/")[0])
