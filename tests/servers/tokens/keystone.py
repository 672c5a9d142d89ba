"""A stand-in for OpenStack Keystone: the part of the Identity v3 protocol that Swift and its clients use.

No Keystone is packaged with Swift, and the real one wants a database and a web server of its own. This one issues,
checks and revokes tokens as the Identity API v3 reference describes (``POST``, ``GET`` and ``DELETE
/v3/auth/tokens``, password and application-credential methods, project scope, a service catalogue), keeps them in
memory, and can be told to let all tokens expire (``POST /expire``), so that a client's token refresh is tested
against Swift's own ``authtoken``.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from servers.process import HOST, Server, answers, free_ports, running

__all__ = ["Keystone", "keystone"]


@dataclass(frozen=True)
class Keystone:
    """Where it is and whom it knows."""

    endpoint_url: str
    user: str = "reader"
    password: str = "keystone-password"
    project: str = "lab"
    project_id: str = "0123456789abcdef0123456789abcdef"
    service_user: str = "swift"
    service_password: str = "service-password"
    credential_id: str = "app-credential-1"
    credential_secret: str = "app-credential-secret"
    region: str = "RegionOne"

    def point_to(self, object_store: str) -> None:
        """Put the object store of this address into the catalogue of every token issued from now on."""
        self._post("/catalog", {"object_store": object_store})

    def expire_tokens(self) -> None:
        """Let every token of a user (not of a service) end now."""
        self._post("/expire", {})

    def _post(self, path: str, body: dict[str, str]) -> None:
        request = urllib.request.Request(self.endpoint_url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
            return


@contextmanager
def keystone(directory: Path) -> Iterator[Keystone]:
    """Run it with its log in `directory`; ``POST /catalog`` tells it where the object store is."""
    (port,) = free_ports()
    url = f"http://{HOST}:{port}"
    with running(
        [sys.executable, str(Path(__file__)), "--port", str(port)],
        log=directory / "keystone.log",
        ready=lambda: answers(f"{url}/v3"),
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    ):
        yield Keystone(url)


class State:
    """Tokens that live, and where the object store is."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.object_store = ""


class Identity(BaseHTTPRequestHandler):
    """One request of the Identity API."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms between them otherwise, for every request
    state: State
    known = Keystone("")

    def do_GET(self) -> None:
        if self.path.rstrip("/") in ("", "/v3"):
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": self._base() + "/v3/"}]}
            whole = {"versions": {"values": [version]}} if self.path.rstrip("/") == "" else {"version": version}
            self._answer(300 if self.path.rstrip("/") == "" else 200, whole)
        elif self.path.startswith("/v3/auth/tokens"):
            if self.headers.get("X-Auth-Token") not in self.state.tokens:
                self._refuse(401, "The request you have made requires authentication.")
            elif (body := self.state.tokens.get(self.headers.get("X-Subject-Token", ""))) is None:
                self._refuse(404, "Could not find token.")
            else:
                self._answer(200, body, {"X-Subject-Token": self.headers["X-Subject-Token"]})
        else:
            self._refuse(404, "Not found.")

    def do_DELETE(self) -> None:
        self.state.tokens.pop(self.headers.get("X-Subject-Token", ""), None)
        self._answer(204, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/expire":
            self.state.tokens = {
                token: kept
                for token, kept in self.state.tokens.items()
                if kept["token"]["user"]["name"] == self.known.service_user
            }
            self._answer(204, None)
        elif self.path == "/catalog":
            self.state.object_store = body["object_store"]
            self._answer(204, None)
        elif self.path == "/v3/auth/tokens":
            self._login(body["auth"])
        else:
            self._refuse(404, "Not found.")

    def _login(self, auth: dict[str, Any]) -> None:
        identity, known = auth["identity"], self.known
        if "application_credential" in identity["methods"]:
            given = identity["application_credential"]
            right = given.get("id") == known.credential_id and given.get("secret") == known.credential_secret
            name = known.user
        else:
            user = identity["password"]["user"]
            name = user.get("name", "")
            passwords = {known.user: known.password, known.service_user: known.service_password}
            right = name in passwords and user.get("password") == passwords[name]
        if not right:
            self._refuse(401, "The request you have made requires authentication.")
            return
        now = datetime.now(timezone.utc)
        service = name == known.service_user
        stamp = "%Y-%m-%dT%H:%M:%S.000000Z"
        place = {"region": known.region, "region_id": known.region}
        store = f"{self.state.object_store}/v1/KEY_{known.project_id}"
        endpoints = {
            "object-store": [{"interface": "public", "id": "e1", "url": store, **place}],
            "identity": [
                {"interface": interface, "id": f"e-{interface}", "url": f"{self._base()}/v3", **place}
                for interface in ("internal", "public", "admin")
            ],
        }
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": identity["methods"],
            "user": {"id": f"id-{name}", "name": name, "domain": domain},
            "roles": [{"id": "r1", "name": "service" if service else "member"}],
            "project": {
                "id": "service-id" if service else known.project_id,
                "name": "service" if service else known.project,
                "domain": domain,
            },
            "catalog": [
                {"type": kind, "name": kind, "id": kind, "endpoints": listed} for kind, listed in endpoints.items()
            ],
            "issued_at": now.strftime(stamp),
            "expires_at": (now + timedelta(hours=1)).strftime(stamp),
            "audit_ids": [secrets.token_hex(8)],
        }
        issued = secrets.token_hex(16)
        self.state.tokens[issued] = {"token": token}
        self._answer(201, {"token": token}, {"X-Subject-Token": issued})

    def _base(self) -> str:
        return f"http://{self.headers.get('Host')}"

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"code": status, "title": self.responses[status][0], "message": message}})

    def _answer(self, status: int, body: dict[str, Any] | None, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    Identity.state = State()
    Server((HOST, port), Identity).serve_forever()


if __name__ == "__main__":
    main()
