"""The OpenAPI document: valid, complete, and true to what the daemon does with whatever a fuzzer sends."""

from __future__ import annotations

import contextlib
import json

import pytest
import schemathesis
from host.support.daemon import RunningDaemon
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_schema_validator import OAS31Validator
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation

from apyfal.host.server.api.openapi import SCHEMAS


@pytest.fixture(scope="module")
def document(daemon: RunningDaemon) -> dict[str, object]:
    host = daemon.host(None)
    found: dict[str, object] = host.json("GET", "/openapi.json")
    host.close()
    return found


def fuzz(
    operation: APIOperation, mode: GenerationMode, headers: dict[str, str], known: dict[str, str], examples: int
) -> set[int]:
    """Send requests to one route, about things that there are; the statuses, none of which may be a failure."""
    statuses: set[int] = set()
    documented = operation.definition.raw["responses"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Case) -> None:
        for name in known.keys() & (case.path_parameters or {}).keys():
            case.path_parameters[name] = known[name]
        answer = case.call(headers=headers, timeout=20)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        kind = (answer.headers.get("content-type") or [""])[0]
        if kind.startswith("text/plain") and answer.status_code == 400:
            return  # no HTTP: aiohttp's parser refused it before any route was looked for
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"type", "message"}
        assert str(answer.status_code) in documented or answer.status_code in (405, 408), answer.text

    # There is no wrong request for an operation without parameters or body.
    with contextlib.suppress(Unsatisfiable):
        send()
    return statuses


@pytest.mark.parametrize("examples", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_the_host_fail(daemon: RunningDaemon, mode: GenerationMode, examples: int) -> None:
    """Requests as the document allows them, and such as it does not."""
    token = daemon.token(f"fuzzer-{mode.name}-{examples}", "process", "storage", "admin")  # who has open sessions left
    host = daemon.host(token)
    try:
        session = host.json("POST", "/v1/sessions", {"accelerator": "sha3"})["id"]
        job = host.json("POST", f"/v1/sessions/{session}/jobs?wait=20", {"kind": "start"})["id"]
    finally:
        host.close()
    headers = {"Authorization": f"Bearer {token}"}
    api = schemathesis.openapi.from_url(f"{daemon.url}/openapi.json")
    statuses: set[int] = set()
    for found in api.get_all_operations():
        operation = found.ok()
        known = {} if operation.definition.raw["operationId"] == "close_session" else {"session": session, "job": job}
        statuses |= fuzz(operation, mode, headers, known, examples)
    assert {200, 400} <= statuses


def test_document_says_what_version_and_every_reference_leads_somewhere(document: dict[str, object]) -> None:
    assert document["openapi"] == "3.1.0"
    text = json.dumps(document)
    for name in SCHEMAS:
        assert f"#/components/schemas/{name}" in text, f"nothing uses {name}"
        OAS31Validator.check_schema(SCHEMAS[name])
    for reference in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in SCHEMAS


def test_document_lists_every_route(document: dict[str, object]) -> None:
    from apyfal.host.server.api import info, jobs, sessions, storage
    from apyfal.host.server.channel.routes import ChannelRoutes

    declared = set()
    holders = (info.InfoRoutes, sessions.SessionRoutes, jobs.JobRoutes, storage.StorageRoutes, ChannelRoutes)
    for holder in holders:
        for function in vars(holder).values():
            route = getattr(function, "__route__", None)
            if route is not None:
                declared.add((route.method.lower(), route.path))
    paths = document["paths"]
    assert isinstance(paths, dict)
    assert {(method, path) for path, operations in paths.items() for method in operations} == declared
    operations = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(operations)) == len(operations)
