"""What errors tell: canaries in the operator's configuration appear in no answer of any route, and in no job."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host.support.daemon import in_thread

from apyfal.config.configuration import Configuration
from apyfal.exceptions import AccessDenied, ConfigurationError, ObjectNotFound, StoreUnavailable
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.jobs.disclosure import Disclosure
from apyfal.host.settings import HostSettings

CANARY = "canary"


class Talkative(http.server.BaseHTTPRequestHandler):
    """A store that names itself, its bucket and its account in every error."""

    def answer(self) -> None:
        status = 404 if "missing" in self.path else 403
        code = "NoSuchKey" if status == 404 else "AccessDenied"
        text = (
            f"<Error><Code>{code}</Code><Message>{CANARY} {self.path}</Message><Resource>{self.path}</Resource></Error>"
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - what the base class calls

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Path]]:
    directory = tmp_path_factory.mktemp("canary-directory")
    shared = directory / "canary-shared"
    shared.mkdir()
    (shared / "t").write_bytes(b"data")
    (shared / "loop").symlink_to("loop")
    (shared / "out").symlink_to(directory)
    store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    account = {
        "client_id": "canary-id",
        "secret_id": "canary-secret",
        "root": "canary-bucket/canary-prefix",
        "region": "x",
    }
    endpoint = f"http://127.0.0.1:{store.server_address[1]}"
    program = directory / "canary-programs"
    config = {
        "storage.lab": {"provider": "s3", "endpoint_url": endpoint, **account},
        "storage.broken": {"provider": "s3", "endpoint_url": "canary-nonsense", **account},
        "storage.tree": {"provider": "fsspec", "protocol": "local", "base": str(directory)},
        "accelerator.mine": {"driver": "opencl", "program": f"{program}/vadd.cl", "arguments": "src, dst, count"},
        "accelerator.remote": {
            "driver": "opencl",
            "program": "lab://missing/canary.cl",
            "arguments": "src, dst, count",
        },
        "accelerator.plugged": {"driver": f"{program}/canary.so", "kernel": "loopback"},
        "accelerator.wrong": {"kernel": "canary-kernel"},
        "process.loopback": {"timeout": "canary-timeout"},
    }
    settings = HostSettings(
        authorized_host_dirs=(str(shared),), state_directory=directory / "state", audit_log=directory / "audit",
        max_sessions_of_user=100, client_drivers=("opencl",),
    )  # fmt: skip
    try:
        with in_thread(lambda: Daemon(settings, [Listener(host="127.0.0.1")], config=config)) as daemon:
            yield daemon, directory
    finally:
        store.shutdown()
        store.server_close()


def test_no_answer_of_any_route_has_a_canary(served: tuple[Daemon, Path]) -> None:
    daemon, directory = served
    host = Host(
        parse_address(f"http://127.0.0.1:{daemon.ports[0]}"), daemon._tokens.create("alice", ("process", "storage"))
    )
    told: list[tuple[str, str]] = []

    def ask(method: str, target: str, body: object = None) -> Any:
        keywords: dict[str, Any] = (
            {"body": [memoryview(b"x")], "length": 1} if "object" in target else {"json_body": body}
        )
        if method in ("GET", "DELETE"):
            keywords = {}
        try:
            with host.request(method, target, **keywords) as answer:
                text = b"".join(answer.lines()).decode("latin-1")
        except Refused as refused:
            text = json.dumps(refused.document)
        told.append((f"{method} {target}", text))
        return json.loads(text) if text.startswith("{") else {}

    urls = [f"{mount}://{name}" for mount in ("lab", "broken", "tree") for name in ("x", "missing", "a/b", "")]
    urls += [
        f"host://{name}" for name in ("", "t", "missing", "loop", "out", "out/state", "../x", "t/x", "%2f", "\u00e9")
    ]
    urls += ["host:///etc/passwd", "http://127.0.0.1:9/x", "https://localhost/x", "nothing://x", "file:///etc/passwd"]
    for url in urls:
        for method, target in (
            ("GET", "stat"),
            ("GET", "list"),
            ("GET", "object"),
            ("PUT", "object"),
            ("DELETE", "object"),
        ):
            if (method, url) != ("DELETE", "host://t") and not url.endswith("\u00e9"):
                ask(method, f"/v1/storage/{target}?url={url}")
        ask("POST", "/v1/storage/copy", {"src": url, "dst": "host://copied"})
        ask("POST", "/v1/storage/copy", {"src": "host://t", "dst": url})
    (directory / "canary-shared" / "t").write_bytes(b"data")
    sessions = {}
    for name in ("loopback", "sha3", "mine", "remote", "plugged", "wrong", "nothing", "scale", "gunzip"):
        sessions[name] = ask("POST", "/v1/sessions", {"accelerator": name}).get("id")
    for given in ({"driver": "opencl"}, {"driver": "xrt"}, {"device": "canarx"}, {"device": 77}, {"dtype": "int64"}):
        session = ask("POST", "/v1/sessions", {"accelerator": "scale", **given}).get("id")
        if session:
            ask("POST", f"/v1/sessions/{session}/jobs?wait=20", {"src": {"url": "host://t"}, "timeout": 5})
    for name, session in sessions.items():
        for src in [None, *urls] if name in ("sha3",) else [None, "host://t", "lab://x"]:
            for dst in (None, "lab://x", "host://missing/x/y", "tree://a"):
                document = {key: {"url": url} for key, url in (("src", src), ("dst", dst)) if url is not None}
                job = ask("POST", f"/v1/sessions/{session}/jobs?wait=20", {**document, "timeout": 5})
                if "id" in job:
                    ask("GET", f"/v1/jobs/{job['id']}/events")
    for path in ("/v1/accelerators", "/v1/devices", "/v1/mounts", "/v1/jobs", "/v1/sessions", "/v1/user", "/health",
                 "/openapi.json", "/metrics", "/nothing", "/v1/jobs/x", "/v1/jobs/x/events"):  # fmt: skip
        ask("GET", path)
    host.close()
    assert len(told) > 300
    leaks = [(asked, text) for asked, text in told if CANARY in text.replace("canarx", "")]
    assert not leaks, (len(leaks), leaks[:5])
    hidden = [str(directory), str(daemon.settings.state_directory), str(Path.home()) + "/", "site-packages", ".py"]
    leaks = [(asked, text) for asked, text in told if any(path in text for path in hidden)]
    assert not leaks, (len(leaks), leaks[:5])
    with contextlib.suppress(FileNotFoundError):
        (directory / "canary-shared" / "copied").unlink()


def test_what_is_hidden_and_what_is_said() -> None:
    hides = Disclosure(
        Configuration.load(
            {
                "storage.lab": {
                    "provider": "s3",
                    "endpoint_url": "https://minio.inside:9000/base",
                    "root": "bucket/dir",
                },
                "accelerator.mine": {"program": "~/programs/x.cl"},
            }
        )
    )
    table = {
        "cannot open /srv/secret/file": "cannot open ...",
        "'/srv/secret/file': denied": "'...': denied",
        "~/x/y is missing": "... is missing",
        "connect to 10.1.2.3:80 failed": "connect to ... failed",
        "connect to [fe80::1]:80 failed": "connect to ... failed",
        "localhost:9000 refused": "... refused",
        "minio.inside:9000 refused, bucket/dir/key": "... refused, .../key",
        "https://other.test/x?y failed": "... failed",
        "host://a/b: no such file on the host": "host://a/b: no such file on the host",
        "expected 1/2, not 3/4; version 1.2.3": "expected 1/2, not 3/4; version 1.2.3",
        "did you mean 'sha3'?": "did you mean 'sha3'?",
        "accelerator 'x' takes float32 elements, not int64": "accelerator 'x' takes float32 elements, not int64",
    }
    for text, shown in table.items():
        assert hides.text(text) == shown
        assert hides.text(text, client_text=text) == text
    error = StoreUnavailable("minio.inside:9000 has gone")
    assert (
        hides.error(error, operators=["lab://x"])["message"]
        == "lab://x: the store cannot be reached, or does not answer"
    )
    for kind in (ObjectNotFound, AccessDenied, ConfigurationError):
        assert "/etc" not in hides.error(kind("/etc/x"))["message"]
