"""One key stands for one payload: the whole of it, however large it is and however it arrives."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

from apyfal.host.client.http import Host, Refused
from apyfal.host.protocol.messages import JOB_HEADER, KEY_HEADER


@pytest.fixture(scope="module")
def spooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("idempotency"), spool_above=3 << 20) as started:
        yield started


def submit(host: Host, session: str, key: str, body: np.ndarray, document: dict[str, Any]) -> int:
    """Send a job; its status."""
    headers = {JOB_HEADER: json.dumps(document), KEY_HEADER: key, "Accept": "application/octet-stream"}
    target = f"/v1/sessions/{session}/jobs?wait=20"
    try:
        with host.request("POST", target, headers=headers, body=[memoryview(body)], length=body.nbytes) as answer:
            return answer.status
    except Refused as refused:
        return refused.status


@pytest.mark.parametrize("size", [1, 4096, 64 << 10, (64 << 10) + 1, 1 << 20, (1 << 20) + 1, 3 << 20, (4 << 20) + 3])
@pytest.mark.parametrize("kind", ["file", "array"])
def test_another_payload_with_the_same_key_is_refused(spooling: RunningDaemon, size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    with contextlib.closing(spooling.host(spooling.token())) as host:
        session = host.json("POST", "/v1/sessions", {"accelerator": "sha3"})["id"]
        source: dict[str, Any] = {"body": True}
        if kind == "array":
            source["array"] = {"dtype": "|u1", "shape": [size]}
        body, key = rng.integers(0, 256, size, np.uint8), secrets.token_hex(8)
        assert submit(host, session, key, body, {"src": source}) == 200
        assert submit(host, session, key, body, {"src": source}) == 200  # the stored answer
        for place in sorted({0, size // 3, size // 2, size - 1}):
            body[place] ^= 1
            assert submit(host, session, key, body, {"src": source}) == 422, place
            body[place] ^= 1
        assert submit(host, session, key, body, {"src": source, "timeout": 5}) == 422
        if size > 1 and kind == "file":
            assert submit(host, session, key, body[:-1], {"src": source}) == 422
        assert submit(host, session, key, body, {"src": source}) == 200
        host.json("DELETE", f"/v1/sessions/{session}")
