"""The URL table through a daemon: no connection is made to an address that is denied, as strace sees it.

The daemon and a web server have a network namespace to themselves, without a route to any other machine. A public
address is the namespace's own there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from host.support.daemon import RunningDaemon, running
from host.support.url_cases import DENIED_ADDRESSES, DENIED_REDIRECTS, DENIED_URLS

from apyfal.exceptions import AcceleratorException
from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.policy.egress import is_denied_address

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

PUBLIC = "11.22.33.44"
NAMES = {
    "public_test": [[PUBLIC]],
    "evil_test": [["127.0.0.1"]],
    "mixed_test": [[PUBLIC, "127.0.0.1"]],
    "rebind_test": [[PUBLIC], ["127.0.0.1"]],  # the first connection is let through, all others meet the other answer
    "again_test": [[PUBLIC], ["127.0.0.1"]],
    "localhost": [["127.0.0.1"]],
}
BY_NAME = ["http://evil.test:{port}/x", "http://mixed.test:{port}/x", "http://EVIL.test.:{port}/x"]

#: Makes any web address one that can be written, as far as a client can tell.
SIGNED = "X-Amz-Credential=me&X-Amz-SignedHeaders=host&X-Amz-Signature=mine"

# Sends each client on to what stands behind ``?to=``; hands out one file and takes any; closes after each answer.
SERVER = """
import http.server, sys, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        target = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("to")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response((307 if self.command == "PUT" else 302) if target else 200)
        if target:
            self.send_header("Location", target[0])
        self.send_header("Content-Length", "0" if target else "4")
        self.end_headers()
        if not target and self.command == "GET":
            self.wfile.write(b"data")
    do_HEAD = do_PUT = do_GET
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A machine of its own, with one public address and no way out."""
    name = f"apyfal-urls-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "-n", name, "address", "add", f"{PUBLIC}/32", "dev", "lo"], check=True)
        routes = subprocess.run(["ip", "-n", name, "route"], check=True, capture_output=True, text=True).stdout
        assert not routes, "there must be no way out"
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def port(namespace: str) -> Iterator[int]:
    """The port of a web server on the public address."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVER, PUBLIC]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


class Calls:
    """What a daemon connects to, as strace sees it."""

    def __init__(self, daemon: RunningDaemon, log: Path) -> None:
        assert daemon.process is not None
        self._log = log
        command = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(log), "-p", str(daemon.process.pid)]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE)

    def stop(self) -> None:
        """Stop watching."""
        if self._strace.poll() is None:
            self._strace.send_signal(signal.SIGINT)
        self._strace.communicate(timeout=20)

    def seen(self) -> list[str]:
        """Stop watching, and return the addresses."""
        self.stop()
        found = re.findall(r'inet_addr\("([^"]*)"\)|inet_pton\(AF_INET6, "([^"]*)"', self._log.read_text())
        return [four or six for four, six in found]


def name_everywhere(host: Host, session: str, url: str) -> list[str]:
    """Name a URL in every way that a client can; the answers that are not a refusal."""
    jobs = f"/v1/sessions/{session}/jobs?wait=20"
    taken = []
    signed = f"{url}{'&' if '?' in url else '?'}{SIGNED}"
    for job in (
        {"src": {"url": url}},
        {"src": {"url": "host://t"}, "dst": {"url": url}},
        {"src": {"url": "host://t"}, "dst": {"url": signed}},
    ):
        try:
            if (document := host.json("POST", jobs, {**job, "timeout": 10}))["state"] == "done":
                taken.append(str(document))
        except AcceleratorException:
            continue  # no URL at all
    mount = {"provider": "s3", "client_id": "me", "secret_id": "mine", "region": "us-east-1", "endpoint_url": url}
    for method, path, body in (
        ("POST", "/v1/storage/copy", {"src": url, "dst": "host://stolen"}),
        ("POST", "/v1/storage/copy", {"src": "host://t", "dst": url}),
        ("POST", "/v1/storage/copy", {"src": "host://t", "dst": signed}),
        ("GET", f"/v1/storage/object?url={quote(url, safe='')}", None),
        ("GET", f"/v1/storage/stat?url={quote(url, safe='')}", None),
        ("GET", f"/v1/storage/list?url={quote(url, safe='')}", None),
        ("PUT", f"/v1/sessions/{session}/mounts/m", mount),
        ("GET", f"/v1/storage/object?url=m%3A%2F%2Fb%2Fk&session={session}", None),
    ):
        try:
            with host.request(method, path, json_body=body) as answer:
                taken.append(f"{method} {path}: {answer.status}")
        except (Refused, AcceleratorException, UnicodeError):
            continue
    return [answer for answer in taken if "/mounts/" not in answer]  # a name is looked up when it is connected to


def test_no_connection_is_made_to_what_is_denied(tmp_path: Path, namespace: str, port: int) -> None:
    literal = [f"[{address}]" if ":" in address else address for address in DENIED_ADDRESSES]
    direct = [f"http://{address}:{port}/" for address in literal]
    direct += [*DENIED_URLS, *(url.replace("{port}", str(port)) for url in BY_NAME)]
    redirected = [
        f"http://public.test:{port}/?to={quote(location.replace('{port}', str(port)), safe='')}"
        for location in DENIED_REDIRECTS
    ]
    assert len(set(direct) | set(redirected)) >= 100
    with ExitStack() as stack:
        daemon = stack.enter_context(running(tmp_path, namespace, names=NAMES, request_rate=100_000))
        (daemon.shared / "t").write_bytes(b"data")
        host = Host(parse_address(daemon.unix), None)
        stack.callback(host.close)
        session = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
        calls = Calls(daemon, tmp_path / "connections")
        stack.callback(calls.stop)
        allowed = f"http://public.test:{port}/x"
        copied = host.json("POST", "/v1/storage/copy", {"src": allowed, "dst": "host://taken"})
        assert copied["size"] == 4, "what is allowed is reached, and seen"
        host.json("POST", "/v1/storage/copy", {"src": "host://t", "dst": f"{allowed}?{SIGNED}"})  # and written
        before = sorted(path.name for path in daemon.shared.iterdir())
        first = quote(f"http://rebind.test:{port}/x", safe="")
        host.json("GET", f"/v1/storage/stat?url={first}")  # takes the first answer, which is allowed
        for url in (*direct, *redirected):
            assert name_everywhere(host, session, url) == [], url
        rebound = f"http://again.test:{port}/x"
        host.json("GET", f"/v1/storage/stat?url={quote(rebound, safe='')}")  # the first answer of its name server
        assert name_everywhere(host, session, rebound) == []
        assert sorted(path.name for path in daemon.shared.iterdir()) == before
        seen = calls.seen()
    assert PUBLIC in seen
    assert [address for address in seen if is_denied_address(address)] == []
