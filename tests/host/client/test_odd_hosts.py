"""An odd answer of a host is one error of one line, and the results of hosts of other versions are understood."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from apyfal.exceptions import HostError
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address

DONE: dict[str, Any] = {
    "id": "1", "state": "done", "ran": True, "info": {}, "result": {"a": 1}, "output": None,
    "progress": {"done": 1, "total": 1}, "error": None,
}  # fmt: skip


def done(**changes: object) -> bytes:
    return json.dumps({**DONE, **changes}).encode()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RemoteAccelerator, list[bytes]]]:
    """A remote accelerator, and what its host answers to jobs."""
    given = [b"{}"]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(404, b"no channel")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            is_job = "/jobs" in self.path
            self.answer(200 if is_job else 201, given[0] if is_job else b'{"id": "s"}')

        def do_DELETE(self) -> None:
            self.answer(200, b"{}")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            host = Host(parse_address(f"http://127.0.0.1:{server.server_port}"), None)
            with RemoteAccelerator(host, {"accelerator": "x"}) as card:
                yield card, given
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"x", b"null", b"[]", b"1", b'"done"', b"{}", b'{"state": "done"}', b'{"id": "1"}', b"\xff",
        b"[" * 100_000,
        b'{"id": "1", "state": 5}', b'{"id": "1", "state": ["done"]}', b"9" * 5000, b'{"id": "1", "state": "done", ',
        done(exact={"result": 1.5, "info": 5})[:-1], done(exact={"result": ["what", 1]}), done(exact={"result": {}}),
        done(exact=[1]), done(exact={"info": ["list", 1]}),
        done(exact={"result": ["array", "AAAA"]}), done(exact={"result": ["list", ["list", ["list"] * 3, {}]]}),
        done(exact={"result": ["float", "0x"]}), done(result=[1]).replace(b"[1]", b"[" * 50_000 + b"]" * 50_000),
    ],
    ids=lambda answer: str(answer[:40]),
)  # fmt: skip
def test_an_odd_answer_is_one_error(answers: tuple[RemoteAccelerator, list[bytes]], answer: bytes) -> None:
    card, given = answers
    given[0] = answer
    with pytest.raises(HostError) as raised:
        card.process(np.zeros(8, np.uint8), info_dict={})
    assert "\n" not in str(raised.value)
    assert "malformed" in str(raised.value) or "which this version does not know" in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (done(), {"a": 1}),
        (done(result=None), None),
        (done(result={"a": 1}, exact=None), {"a": 1}),
        (done(result={"a": "NaN"}, exact={"other": ["what"]}), {"a": "NaN"}),
        (done(result={"a": 1}).replace(b'"a": 1', b'"a": 1, "a": 2'), {"a": 2}),
        (done(result={"a": 1}).replace(b'"a": 1', b'"a": 1e400'), {"a": math.inf}),
        (done(result={"a": 1}).replace(b'"a": 1', b'"a": -Infinity'), {"a": -math.inf}),
    ],
)
def test_results_of_other_versions(
    answers: tuple[RemoteAccelerator, list[bytes]], answer: bytes, expected: object
) -> None:
    card, given = answers
    given[0] = answer
    assert card.process(np.zeros(8, np.uint8)) == expected


def test_an_array_that_an_older_host_does_not_send(answers: tuple[RemoteAccelerator, list[bytes]]) -> None:
    card, given = answers
    given[0] = done()
    with pytest.raises(HostError, match="did not send what belongs into dst"):
        card.process(np.zeros(8, np.uint8), {"dst": np.zeros(8, np.uint8)})
