"""Every route without, with a wrong, an expired, a revoked and another user's token. The list comes from the router."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from host.support.daemon import RunningDaemon, in_thread

from apyfal.host.server.api.routes import PUBLIC
from apyfal.host.server.daemon import Daemon, Listener
from apyfal.host.server.policy.tokens import SCOPES
from apyfal.host.settings import HostSettings

#: routes that anybody may call; a change here is a decision about safety
PUBLIC_ROUTES = {("GET", "/health"), ("GET", "/openapi.json")}


class Forgetful(Daemon):
    """A daemon whose author added a route and forgot its rule."""

    application: web.Application

    def _assemble(self) -> web.Application:
        async def forgotten(request: web.Request) -> web.Response:
            raise AssertionError("a route without a rule was served")

        self.application = super()._assemble()
        self.application.router.add_get("/v1/forgotten", forgotten)
        return self.application


def forgetful_in(directory: Path) -> AbstractContextManager[Forgetful]:
    settings = HostSettings(
        authorized_host_dirs=(str(directory),), state_directory=directory / "state", audit_log=directory / "audit"
    )
    return in_thread(lambda: Forgetful(settings, [Listener(host="127.0.0.1")]))


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forgetful]:
    with forgetful_in(tmp_path_factory.mktemp("forgetful")) as daemon:
        yield daemon


def call(
    port: int, method: str, path: str, token: str | None, body: object = None
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {} if token is None else {"Authorization": token}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text.startswith(b"{") else {}, answer.headers


def concrete(path: str) -> str:
    return (
        path.replace("{session}", "0" * 32)
        .replace("{job}", "0" * 32)
        .replace("{region}", "0" * 32)
        .replace("{name}", "x")
    )


def test_every_route_of_the_router_has_a_rule(forgetful: Forgetful) -> None:
    declared = {(route.method, route.path): route for route in forgetful.routes}
    served = {
        (route.method, route.resource.canonical) for route in forgetful.application.router.routes() if route.resource
    }
    assert served - set(declared) == {("GET", "/v1/forgotten"), ("HEAD", "/v1/forgotten")}
    assert {key for key, route in declared.items() if route.access == PUBLIC} == PUBLIC_ROUTES
    for route in forgetful.routes:
        assert route.access == PUBLIC or route.access in SCOPES


def test_a_route_without_a_rule_is_refused_to_everybody(forgetful: Forgetful) -> None:
    tokens = forgetful._tokens
    administrator = f"Bearer {tokens.create('root', SCOPES)}"
    assert call(forgetful.ports[0], "GET", "/v1/forgotten", None)[0] == 401
    status, document, _ = call(forgetful.ports[0], "GET", "/v1/forgotten", administrator)
    assert (status, document["error"]["type"]) == (403, "AccessDenied")


def test_no_route_without_a_valid_token(forgetful: Forgetful) -> None:
    tokens = forgetful._tokens
    expired = tokens.create("alice", SCOPES, lifetime=1e-9)
    revoked = tokens.create("alice", SCOPES)
    tokens.revoke(revoked.split("_")[1])
    valid = tokens.create("alice", SCOPES)
    wrong = valid[:-4] + ("AAAA" if not valid.endswith("AAAA") else "BBBB")
    presented = [
        None, "", "Bearer", "Bearer ", f"Basic {valid}", valid, f"Bearer {wrong}", f"Bearer {expired}",
        f"Bearer {revoked}", f"Bearer {valid} x", "Bearer \x80\xff", f"Bearer {valid[:16]}",
    ]  # fmt: skip
    forgetful._gatekeeper._failures._rate = forgetful._gatekeeper._failures._burst = 1e9
    for route in forgetful.routes:
        if route.access == PUBLIC:
            continue
        for header in presented:
            status, document, headers = call(forgetful.ports[0], route.method, concrete(route.path), header)
            assert status == 401, (route.path, header)
            assert headers["WWW-Authenticate"].startswith("Bearer")
            assert document["error"]["message"] == "a valid token is needed"
    for path in ("/", "/v1", "/v1/nothing", "/v2/jobs", "/../etc/passwd", "/v1/jobs/x/y", "//v1/jobs"):
        assert call(forgetful.ports[0], "GET", path, None)[0] == 401, (
            "nothing is said about paths before who asks is known"
        )
        assert call(forgetful.ports[0], "GET", path, f"Bearer {valid}")[0] == 404
    assert call(forgetful.ports[0], "PATCH", "/v1/jobs", f"Bearer {valid}")[0] == 405


def test_no_route_beyond_the_token_s_scopes(forgetful: Forgetful) -> None:
    for missing in SCOPES:
        token = forgetful._tokens.create("alice", [scope for scope in SCOPES if scope != missing])
        for route in forgetful.routes:
            status, _, _ = call(forgetful.ports[0], route.method, concrete(route.path), f"Bearer {token}")
            assert (status == 403) == (route.access == missing), (route.path, missing, status)


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    with forgetful_in(tmp_path) as daemon:
        statuses = [call(daemon.ports[0], "GET", "/v1/jobs", "Bearer wrong")[0] for _ in range(30)]
        assert statuses[:20] == [401] * 20
        assert statuses[-1] == 429
        valid = daemon._tokens.create("alice")
        assert call(daemon.ports[0], "GET", "/v1/jobs", f"Bearer {valid}")[0] == 200


def test_another_user_s_things_do_not_exist(daemon: RunningDaemon) -> None:
    alice, bob = daemon.token("alice"), daemon.token("bob")
    administrator = daemon.token("carol", "process", "admin")
    host = daemon.host(alice)
    session = host.json("POST", "/v1/sessions", {"accelerator": "sha3"})["id"]
    region = host.json("POST", f"/v1/sessions/{session}/memory", {"nbytes": 4096})["name"]
    job = host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", {"kind": "start"})["id"]
    routes = {
        (method.upper(), path)
        for path, methods in host.json("GET", "/openapi.json")["paths"].items()
        for method in methods
        if "{session}" in path or "{job}" in path
    }
    host.close()
    requests = [
        ("DELETE", f"/v1/sessions/{session}", None),
        ("PUT", f"/v1/sessions/{session}/mounts/x", {"provider": "s3"}),
        ("DELETE", f"/v1/sessions/{session}/mounts/x", None),
        ("POST", f"/v1/sessions/{session}/memory", {"nbytes": 1}),
        ("DELETE", f"/v1/sessions/{session}/memory/{region}", None),
        ("POST", f"/v1/sessions/{session}/jobs", {}),
        ("GET", f"/v1/jobs/{job}", None),
        ("DELETE", f"/v1/jobs/{job}", None),
        ("GET", f"/v1/jobs/{job}/events", None),
        ("DELETE", f"/v1/jobs/{job}/output", None),
    ]
    names = {session: "{session}", job: "{job}", region: "{region}", "mounts/x": "mounts/{name}"}
    for method, path, _ in requests:
        for name, placeholder in names.items():
            path = path.replace(name, placeholder)
        routes.remove((method, path))
    assert not routes, "a route that names something of a user's, and is not tried"
    for method, path, body in requests:
        theirs = call(daemon.port, method, path, f"Bearer {bob}", body)[:2]
        nobody = call(
            daemon.port, method, path.replace(session, "0" * 32).replace(job, "0" * 32), f"Bearer {bob}", body
        )[:2]
        assert theirs[0] == 404, path
        assert theirs == nobody, "the same answer as for what does not exist"
    for path in ("/v1/sessions", "/v1/jobs"):
        assert session not in json.dumps(call(daemon.port, "GET", path, f"Bearer {bob}")[1])
        assert job not in json.dumps(call(daemon.port, "GET", path, f"Bearer {bob}")[1])
    assert call(daemon.port, "GET", f"/v1/storage/list?url=host://&session={session}", f"Bearer {bob}")[0] == 404
    assert session in json.dumps(call(daemon.port, "GET", "/v1/sessions", f"Bearer {administrator}")[1])
    assert call(daemon.port, "GET", f"/v1/jobs/{job}", f"Bearer {alice}")[0] == 200


def test_every_decision_against_somebody_is_in_the_audit_log(daemon: RunningDaemon) -> None:
    call(daemon.port, "GET", "/v1/jobs?token=x%0ainjected", "Bearer wrong\x85{}")
    last = daemon.audit()[-1]
    assert (last["decision"], last["status"], last["peer"], last["path"]) == ("refused", 401, "127.0.0.1", "/v1/jobs")
