"""What a token is good for: each set of scopes, on each route, with each kind of source and destination."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host.support.daemon import in_thread

from apyfal.exceptions import AcceleratorException
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.tokens import SCOPES, TokenStore
from apyfal.host.settings import HostSettings

SETS = [frozenset(some) for count in range(1, 5) for some in itertools.combinations(SCOPES, count)]
#: kinds of URLs, and whether the scopes of storage govern them
KINDS = {"host": True, "lab": True, "web": False, "mine": False}


class Nothing(http.server.BaseHTTPRequestHandler):
    """A store and a web server without objects."""

    def answer(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - what the base class calls

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Served:
    """A daemon with a shared directory, an operator's mount, and a web server that its clients may reach."""

    def __init__(self, directory: Path, daemon: Daemon, web: int) -> None:
        self.shared = directory / "shared"
        self.tokens: TokenStore = daemon._tokens
        self.daemon = daemon
        self.web = web
        self.url = f"http://127.0.0.1:{daemon.ports[0]}"

    def host(self, *scopes: str, user: str = "alice", **limits: Any) -> Host:
        return Host(parse_address(self.url), self.tokens.create(user, scopes, **limits))

    def of(self, kind: str, name: str) -> str:
        return f"http://127.0.0.1:{self.web}/{name}" if kind == "web" else f"{kind}://{name}"

    def session(self, host: Host) -> str:
        session = str(host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"])
        account = {"client_id": "a", "secret_id": "b", "endpoint_url": f"http://127.0.0.1:{self.web}"}
        host.json("PUT", f"/v1/sessions/{session}/mounts/mine", {"provider": "s3", "region": "x", **account})
        return session


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("scopes")
    for name in ("shared", "shared/alice", "shared/bob"):
        (directory / name).mkdir()
        (directory / name / "t").write_bytes(name.encode())
    (directory / "shared" / "alice" / "out").symlink_to("../bob")
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    settings = HostSettings(
        authorized_host_dirs=(str(directory / "shared"),),
        state_directory=directory / "state",
        audit_log=directory / "audit",
        private_endpoints=("127.0.0.1",),
        max_sessions_of_user=100,
    )
    config = {"storage.lab": {"provider": "fsspec", "protocol": "memory"}}
    try:
        with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config=config)) as daemon:
            yield Served(directory, daemon, web.server_address[1])
    finally:
        web.shutdown()
        web.server_close()


def lacks_scope(error: object) -> bool:
    return isinstance(error, dict) and error.get("type") == "AccessDenied" and "scope" in error["message"]


@pytest.mark.parametrize("scopes", SETS, ids=lambda scopes: "+".join(sorted(scopes)))
def test_a_job_reads_and_writes_what_its_token_may(served: Served, scopes: frozenset[str]) -> None:
    with contextlib.closing(served.host("process")) as opener, contextlib.closing(served.host(*scopes)) as host:
        session = served.session(opener)  # sessions are the user's, whichever token opened them
        for source, target in itertools.product([None, *KINDS], [None, *KINDS]):
            document: dict[str, Any] = {"timeout": 20}
            if source is not None:
                document["src"] = {"url": served.of(source, "t")}
            if target is not None:
                document["dst"] = {"url": served.of(target, "written")}
            request = f"/v1/sessions/{session}/jobs?wait=20"
            (served.shared / "written").unlink(missing_ok=True)
            if "process" not in scopes:
                with pytest.raises(AcceleratorException, match="do not include process"):
                    host.json("POST", request, document)
                continue
            error = host.json("POST", request, document)["error"]
            may_read = source is None or not KINDS[source] or "storage:read" in scopes
            may_write = target is None or not KINDS[target] or "storage:write" in scopes
            assert lacks_scope(error) == (not may_read or not may_write), (source, target, error)
            if not may_read or not may_write:
                assert not (served.shared / "written").exists()
        parts = {"parts": {"src": {"url": "host://t"}}}  # the same of one among several
        if "process" in scopes:
            error = host.json("POST", request, {"src": parts})["error"]
            assert lacks_scope(error) == ("storage:read" not in scopes)
            start = host.json("POST", request, {"kind": "start", "src": {"url": "host://t"}})["error"]
            assert lacks_scope(start) == ("storage:read" not in scopes)
        opener.json("DELETE", f"/v1/sessions/{session}")


def status(host: Host, method: str, target: str, **keywords: Any) -> tuple[int, object]:
    if method == "PUT":
        keywords = {"body": [memoryview(b"x")], "length": 1}
    try:
        with host.request(method, target, **keywords) as answer:
            return answer.status, None
    except Refused as refused:
        return refused.status, refused.document.get("error")


@pytest.mark.parametrize("scopes", SETS, ids=lambda scopes: "+".join(sorted(scopes)))
def test_the_storage_routes_do_what_the_token_may(served: Served, scopes: frozenset[str]) -> None:
    read, write = "storage:read" in scopes, "storage:write" in scopes
    with contextlib.closing(served.host("process")) as opener, contextlib.closing(served.host(*scopes)) as host:
        session = served.session(opener)
        for kind in KINDS:
            url = f"url={served.of(kind, 'other')}&session={session}"
            needed = {
                ("GET", f"/v1/storage/stat?{url}"): read,
                ("GET", f"/v1/storage/list?{url}"): read,
                ("GET", f"/v1/storage/object?{url}"): read,
                ("PUT", f"/v1/storage/object?{url}"): write,
                ("DELETE", f"/v1/storage/object?{url}"): write,
            }
            for (method, target), allowed in needed.items():
                found, error = status(host, method, target)
                assert lacks_scope(error) == (not allowed), (method, target, found, error)
                assert (found == 403) == (not allowed), (method, target, found, error)
        for source, target in itertools.product(KINDS, KINDS):
            body = {"src": served.of(source, "t"), "dst": served.of(target, "copied"), "session": session}
            found, error = status(host, "POST", "/v1/storage/copy", json_body=body)
            allowed = write and (read or not KINDS[source])
            assert lacks_scope(error) == (not allowed), (source, target, found, error)
        assert status(host, "GET", "/v1/mounts")[0] == (200 if read else 403)
        opener.json("DELETE", f"/v1/sessions/{session}")


def test_a_token_limited_to_accelerators_runs_no_other(served: Served) -> None:
    everything = served.host("process")
    limited = served.host("process", accelerators=["loopback"])
    session = served.session(limited)
    assert limited.json("POST", f"/v1/sessions/{session}/jobs?wait=20", {})["state"] == "failed"  # it ran: it needs src
    for name in ("sha3", "nothing", "loopback.x", None, "Loopback"):
        with pytest.raises(AcceleratorException, match="token does not allow"):
            limited.json("POST", "/v1/sessions", {"accelerator": name})
    other = everything.json("POST", "/v1/sessions", {"accelerator": "sha3"})["id"]  # the same user's
    with pytest.raises(AcceleratorException, match="token does not allow"):
        limited.json("POST", f"/v1/sessions/{other}/jobs", {})
    lines = limited.json("GET", "/v1/accelerators")["accelerators"]
    assert len(lines) == 1
    assert lines[0].startswith("loopback")
    everything.close()
    limited.close()


def test_a_token_limited_to_mounts_names_no_other(served: Served) -> None:
    with contextlib.closing(served.host("process", "storage", mounts=[])) as host:
        assert host.json("GET", "/v1/mounts") == {"mounts": {"host": "host"}}
        assert host.json("GET", "/v1/storage/stat?url=host://t")["size"] == 6
        for method in ("GET", "PUT", "DELETE"):
            found, error = status(host, method, "/v1/storage/object?url=lab://x")
            assert found == 403, error
        job = host.json("POST", f"/v1/sessions/{served.session(host)}/jobs?wait=20", {"src": {"url": "lab://x"}})
        assert job["error"]["type"] == "AccessDenied"
        assert job["error"]["message"].startswith("lab:// is not mounted on this host")
    with contextlib.closing(served.host("storage", mounts=["lab"])) as host:
        assert set(host.json("GET", "/v1/mounts")["mounts"]) == {"host", "lab"}
        assert status(host, "PUT", "/v1/storage/object?url=lab://x")[0] == 200


def test_a_token_limited_to_a_directory_sees_no_other(served: Served) -> None:
    with contextlib.closing(served.host("process", "storage", directories=[served.shared / "alice"])) as host:
        names = [entry["path"] for entry in host.json("GET", "/v1/storage/list?url=host://")["entries"]]
        assert names == ["t"]  # not the link to another's directory
        assert host.json("GET", "/v1/storage/stat?url=host://t")["size"] == len("shared/alice")
        inside = served.shared / "alice"
        assert host.json("GET", f"/v1/storage/stat?url=host://{inside}/t")["size"] == len("shared/alice")
        for path in ("../bob/t", "out/t", "../t", f"{served.shared}/bob/t", f"{served.shared}/t", f"{inside}/../bob/t"):
            for method in ("GET", "PUT", "DELETE"):
                found, _ = status(host, method, f"/v1/storage/object?url=host://{path}")
                assert found == 403, (method, path)
        session = served.session(host)
        job = {"src": {"url": "host://t"}, "dst": {"url": "host://made"}}
        assert host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", job)["state"] == "done"
        assert (inside / "made").read_bytes() == b"shared/alice"
    assert (served.shared / "bob" / "t").read_bytes() == b"shared/bob"
    with contextlib.closing(served.host("storage", directories=[served.shared.parent])) as host:
        assert status(host, "GET", "/v1/storage/stat?url=host://shared/t")[0] == 403  # the host does not share that
