"""The whole path table through the daemon: process, copy, list, read, write and remove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from host.support.daemon import RunningDaemon, running
from host.support.path_cases import ALLOWED, ALLOWED_DIRECTORIES, DENIED, DENIED_URLS, INSIDE, build, fill, snapshot

import apyfal
from apyfal.exceptions import AccessDenied, HostError, IsADirectory, ObjectNotFound, ParameterError
from apyfal.host.client.http import Host, Refused

REFUSED = (AccessDenied, ObjectNotFound, IsADirectory)
# Rows that name nothing forbidden once they may be created.
CREATABLE = {"missing", "dangling", "~", "*", "t?x", "t#x", "URL host://..\u2215secret"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("files") / "ROOT"
    sockets = build(root)
    yield root
    for opened in sockets:
        opened.close()


@pytest.fixture(scope="module", params=["openat2", "walk"])
def server(
    request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningDaemon]:
    """A daemon that resolves paths in each of the two ways."""
    options = {"walk": request.param == "walk", "authorized_host_dirs": [str(tree)], "request_rate": 100_000}
    with running(tmp_path_factory.mktemp("daemon"), **options) as started:
        yield started


@pytest.fixture(scope="module")
def host(server: RunningDaemon) -> Iterator[Host]:
    opened = server.host(server.token("alice"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def loopback(server: RunningDaemon) -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("loopback", host_ip=server.url, token=server.token("alice")) as opened:
        yield opened


def storage(host: Host, method: str, operation: str, url: str) -> object:
    return host.json(method, f"/v1/storage/{operation}?url={quote(url, safe='', errors='surrogatepass')}")


@pytest.mark.parametrize("row", [*DENIED, *(f"URL {url}" for url in DENIED_URLS)])
def test_denied(row: str, host: Host, loopback: apyfal.Accelerator, tree: Path) -> None:
    url = row.removeprefix("URL ") if row.startswith("URL ") else f"host://{fill(row, tree)}"
    refused = (*REFUSED, ParameterError) if len(url) > 4096 else REFUSED
    before = snapshot(tree.parent)
    jobs = f"/v1/sessions/{loopback._session}/jobs?wait=20"
    document = host.json("POST", jobs, {"src": {"url": url}})
    assert document["state"] == "failed"
    assert document["error"]["type"] in ("AccessDenied", "ObjectNotFound", "IsADirectory", "ParameterError")
    in_query = refused if len(url) <= 4096 else (HostError,)  # a request line has its own limit
    with pytest.raises(in_query):
        storage(host, "GET", "object", url)
    with pytest.raises(in_query):
        storage(host, "DELETE", "object", url)
    with pytest.raises(refused):
        host.json("POST", "/v1/storage/copy", {"src": url, "dst": "host://stolen"})
    if row not in CREATABLE:
        document = host.json("POST", jobs, {"src": {"url": "host://t"}, "dst": {"url": url}})
        assert document["state"] == "failed"
        with pytest.raises(refused):
            host.json("POST", "/v1/storage/copy", {"src": "host://t", "dst": url})
        with pytest.raises((*refused, Refused)):
            host.request(
                "PUT", f"/v1/storage/object?url={quote(url, safe='')}", body=[memoryview(b"x")], length=1
            ).close()
    assert snapshot(tree.parent) == before


@pytest.mark.parametrize("row", ALLOWED)
def test_allowed(row: str, host: Host, loopback: apyfal.Accelerator, tree: Path) -> None:
    url = f"host://{fill(row, tree)}"
    assert bytes(loopback.process(url)) == INSIDE
    loopback.process(url, url)
    assert host.json("POST", "/v1/storage/copy", {"src": url, "dst": "host://copied"})["size"] == len(INSIDE)
    storage(host, "DELETE", "object", "host://copied")
    assert host.json("POST", "/v1/storage/copy", {"src": "host://t", "dst": url})["size"] == len(INSIDE)
    with host.request("GET", f"/v1/storage/object?url={quote(url, safe='')}") as answer:
        content = bytearray(len(INSIDE))
        answer.readinto(memoryview(content))
    assert bytes(content) == INSIDE
    target = f"/v1/storage/object?url={quote(url, safe='')}"
    with host.request("PUT", target, body=[memoryview(INSIDE)], length=len(INSIDE)) as answer:
        assert answer.json()["size"] == len(INSIDE)
    assert bytes(loopback.process(url)) == INSIDE
    assert not list(tree.rglob(".apyfal-*"))


@pytest.mark.parametrize("row", ALLOWED_DIRECTORIES)
def test_allowed_to_list(row: str, host: Host, tree: Path) -> None:
    entries = storage(host, "GET", "list", f"host://{fill(row, tree)}")
    assert isinstance(entries, dict)
    assert "t" in {entry["path"].rpartition("/")[2] for entry in entries["entries"]}


@pytest.mark.parametrize(
    "row", ["..", "up", "a/../..", "/", "/etc", "{base}", "slash", "absolute_out_dir", "proc_fd", "fifo"]
)
def test_denied_to_list(row: str, host: Host, tree: Path) -> None:
    with pytest.raises(REFUSED):
        storage(host, "GET", "list", f"host://{fill(row, tree)}")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "etc/passwd", "FILE:///etc/passwd", "fsspec://x", "~/x"]
)
def test_nothing_else_names_files_of_the_host(url: str, host: Host, loopback: apyfal.Accelerator) -> None:
    jobs = f"/v1/sessions/{loopback._session}/jobs?wait=20"
    document = host.json("POST", jobs, {"src": {"url": url}})
    assert (document["state"], document["error"]["type"]) == ("failed", "AccessDenied")
    for method, operation in (("GET", "object"), ("GET", "list"), ("GET", "stat"), ("DELETE", "object")):
        with pytest.raises(AccessDenied):
            storage(host, method, operation, url)
