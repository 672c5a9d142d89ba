"""Odd values in every field of every request: an answer that says what is wrong, and never that the host is broken."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from host.support.daemon import RunningDaemon, running

#: as JSON has them; text that is not JSON is sent as it is
ODD = [
    *("null", "true", "false", "0", "1", "-1", "0.5", "-0.0", "1e30", "-1e30", "1e400", "NaN", "Infinity", "-Infinity"),
    *(
        str(10**18),
        str(-(10**18)),
        str(1 << 62),
        str(1 << 63),
        str(1 << 64),
        "9" * 400,
        '""',
        '" "',
        '"x"',
        '"\\u0000"',
    ),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\u202e"', '"\\ufeff"', '"a\\nb"', '"a\\r\\nb"', '"/etc/passwd"', '"../../x"'),
    *('"host://\\ud800"', '"host://\\u0000"', '"host://' + "a/" * 3000 + '"', '"http://[::1"', '"http://x:99999/"'),
    *('"s3://"', '"://"', '"-1"', '"1e30"', '"nan"', '"9999999999GiB"', '"-1GiB"', '"' + "x" * 9000 + '"', "[]", "{}"),
    *("[[]]", "[null]", '{"": null}', '{"x": {"y": []}}', '{"url": null}', '{"url": ""}', '{"body": 1}', '{"data": 1}'),
    *('{"shared": {}}', '{"parts": {}}', '{"parts": {"x": {"offset": -1}}}', '{"array": {"dtype": "O", "shape": []}}'),
    *('{"array": {"dtype": "<f8", "shape": [1e30]}}', '{"array": {"dtype": "<f8", "shape": [4611686018427387904]}}'),
    *('{"array": {"dtype": "<f8", "shape": [100000000000]}}', '{"array": {"dtype": "<i3", "shape": [1]}}', "[" * 2000),
    *(
        '{"parts": {"src": {"offset": 4611686018427387903, "nbytes": 4611686018427387903}}}',
        '{"memory": "' + "0" * 32 + '"}',
    ),
    *('{"shared": {"region": "' + "0" * 32 + '", "array": {"dtype": "|u1", "shape": [4611686018427387903]}}}', "", "x"),
]
FIELDS = {
    "SessionRequest": ("accelerator", "driver", "device", "program", "dtype", "in_dtype", "out_dtype", "other"),
    "JobRequest": ("kind", "src", "dst", "parameters", "copy", "timeout", "memory_limit", "other"),
    "MountRequest": (
        "provider",
        "root",
        "client_id",
        "secret_id",
        "endpoint_url",
        "region",
        "anonymous",
        "timeout",
        "sse",
    ),
    "CopyRequest": ("src", "dst", "session", "other"),
    "MemoryRequest": ("nbytes", "other"),
}
GOOD: dict[str, dict[str, Any]] = {
    "SessionRequest": {"accelerator": "loopback"},
    "JobRequest": {"src": {"url": "host://t"}, "timeout": 5},
    "MountRequest": {"provider": "s3", "client_id": "a", "secret_id": "b", "region": "x"},
    "CopyRequest": {"src": "host://t", "dst": "host://u"},
    "MemoryRequest": {"nbytes": 1},
}
#: parameters of the accelerators themselves
OWN = {"scale": ("a", "b"), "trng": ("nbytes",), "gzip": ("level",), "sha3": ("type",), "histogram": ("bins",)}


class Asking:
    """One connection, opened again where the daemon closes it."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.token = daemon.token("alice", "process", "storage", "admin")
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        given = {
            "Authorization": f"Bearer {self.token}",
            **{key.replace("_", "-"): text for key, text in headers.items()},
        }
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        try:
            self.connection.request(method, target, body, given)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, ConnectionError):
            self.connection.close()
            return 0, b""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("odd"), max_sessions_of_user=5000, max_sessions=5000) as daemon:
        (Path(daemon.shared) / "t").write_bytes(b"data")
        asking = Asking(daemon)
        yield asking
        asking.connection.close()


def opened(asked: Asking, accelerator: str = "loopback") -> str:
    _, text = asked.ask("POST", "/v1/sessions", json.dumps({"accelerator": accelerator}).encode())
    return str(json.loads(text)["id"])


def with_odd(document: dict[str, Any], field: str, odd: str) -> bytes:
    mark = "@odd@"
    return json.dumps({**document, field: mark}).replace(f'"{mark}"', odd or '""').encode()


def check(what: object, status: int, text: bytes) -> None:
    """Nothing is the host's fault: neither the answer nor the job that it is about."""
    assert 200 <= status < 500, (what, status, text[:300])
    if text.startswith(b"{"):
        error = json.loads(text).get("error")
        assert not error or "the host failed" not in error["message"], (what, error)


@pytest.mark.parametrize("schema", FIELDS)
def test_every_field_of_every_document(asked: Asking, schema: str) -> None:
    session = opened(asked)
    route = {
        "SessionRequest": ("POST", "/v1/sessions"),
        "JobRequest": ("POST", f"/v1/sessions/{session}/jobs?wait=10"),
        "MountRequest": ("PUT", f"/v1/sessions/{session}/mounts/mine"),
        "CopyRequest": ("POST", "/v1/storage/copy"),
        "MemoryRequest": ("POST", f"/v1/sessions/{session}/memory"),
    }[schema]
    for field in FIELDS[schema]:
        for odd in ODD:
            status, text = asked.ask(*route, with_odd(GOOD[schema], field, odd))
            check((schema, field, odd[:60]), status, text)
            if schema == "SessionRequest" and status == 201:
                made = json.loads(text)["id"]
                check(
                    (field, odd[:60]),
                    *asked.ask("POST", f"/v1/sessions/{made}/jobs?wait=10", b'{"src": {"url": "host://t"}}'),
                )
                asked.ask("DELETE", f"/v1/sessions/{made}")
    for odd in ODD:
        check((schema, odd[:60]), *asked.ask(*route, odd.encode()))
        check((schema, odd[:60]), *asked.ask(*route, odd.encode("utf-16")))
        check((schema, "bytes"), *asked.ask(*route, b"\xff\xfe{}"))


def test_every_parameter_of_an_accelerator(asked: Asking) -> None:
    for accelerator, names in OWN.items():
        session = opened(asked, accelerator)
        for name in (*names, "src", "self", "other", "\ud800", ""):
            for odd in ODD:
                parameters = with_odd({}, name, odd).decode()
                job = f'{{"src": {{"url": "host://t"}}, "timeout": 5, "parameters": {parameters}}}'
                for kind in ("process", "start"):
                    target = f"/v1/sessions/{session}/jobs?wait=10"
                    body = job.replace('"timeout": 5', f'"kind": "{kind}"').encode()
                    check((accelerator, name, kind, odd[:60]), *asked.ask("POST", target, body))


def test_every_query_header_and_path(asked: Asking) -> None:
    session = opened(asked)
    for odd in ODD:
        with contextlib.suppress(ValueError):
            text = json.loads(odd) if odd.startswith('"') else odd
            value = quote(text.encode("utf-8", "surrogatepass"), safe="")
            for target in (
                f"/v1/storage/stat?url={value}",
                f"/v1/storage/list?url=host://&recursive={value}",
                f"/v1/jobs?key={value}",
                f"/v1/storage/object?url=host://t&session={value}",
                f"/v1/jobs/{value}",
                f"/v1/jobs/{value}?wait={value}",
                f"/v1/jobs/x?wait={value}",
                f"/v1/sessions/{value}",
                f"/{value}",
                f"/v1/jobs/{value}/events",
                f"/v1/user?{value}={value}",
            ):
                check(target[:80], *asked.ask("GET", target))
            check(odd[:60], *asked.ask("DELETE", f"/v1/sessions/{session}/mounts/{value}"))
            check(odd[:60], *asked.ask("DELETE", f"/v1/sessions/{session}/memory/{value}"))
            check(
                odd[:60],
                *asked.ask("PUT", f"/v1/sessions/{session}/mounts/{value}", json.dumps(GOOD["MountRequest"]).encode()),
            )
            check(odd[:60], *asked.ask("PUT", f"/v1/storage/object?url=host://{value}", b"x", Content_Type="x"))
        printable = odd.encode("latin-1", "replace").decode("latin-1")
        target = f"/v1/sessions/{session}/jobs?wait=5"
        for header in ("Idempotency-Key", "Apyfal-Job", "Accept", "Expect", "Content-Type", "Range", "Host", "Origin"):
            status, text = asked.ask("POST", target, b'{"src": {"url": "host://t"}}', **{header: printable})
            if status != 417:
                check((header, odd[:60]), status or 400, text)
