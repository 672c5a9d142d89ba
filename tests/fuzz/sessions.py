"""What a client sends to open a session, to bring a mount and to fetch shared memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apyfal.config.configuration import Configuration
from apyfal.exceptions import AcceleratorException, ParameterError
from apyfal.host.protocol.array_types import SharedArray
from apyfal.host.protocol.shared_memory import Region, TicketServer
from apyfal.host.server.api.request_fields import SessionFields
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.policy.tokens import EVERYTHING
from apyfal.host.server.policy.url_policy import UrlPolicy
from apyfal.host.server.transport.request import parse_json
from apyfal.storage.mounting.table import MountTable

__all__ = ["sessions", "shared_memory"]

_REGION_BYTES = 1 << 16


def _document(data: bytes) -> dict[str, Any]:
    found = parse_json(data)
    if not isinstance(found, dict):
        raise ParameterError("expected an object")
    return found


def _open(data: bytes) -> None:
    checked = SessionFields(Configuration({})).checked(_document(data), EVERYTHING)
    assert all(isinstance(value, str | int) for value in checked.values())
    assert not any("/" in str(value) or ".." in str(value) for value in checked.values())


def _mount(data: bytes) -> None:
    table = MountTable()
    with AllowedDirectories([]) as none:
        policy = UrlPolicy(
            none,
            EgressPolicy(resolver=lambda host, port: ["93.184.216.34"]),
            table,
            lambda inside, _: HostStore(inside),
        )
        name, _, document = data.partition(b"\n")
        mount = policy.mount(name.decode("utf-8", "surrogateescape"), _document(document))
        policy.unmount(mount)
    assert not table.mounts().keys() - {"file", "http", "https"}


def sessions(data: bytes) -> None:
    """The request that opens a session, and the one that mounts a store (its name in the first line)."""
    parsers: list[Callable[[bytes], None]] = [_open, _mount]
    for parse in parsers:
        with contextlib.suppress(AcceleratorException):
            parse(data)


def shared_memory(data: bytes) -> None:
    """A request for a descriptor (nobody guesses a ticket), and the place of an array in a region."""
    region = Region(_REGION_BYTES, name="r")
    try:
        server = TicketServer(Path("/nowhere"), lambda name: region if name == region.name else None)
        assert server.region_of(data) is None
        assert server.region_of(f"r {region.ticket}".encode()) is region
        with contextlib.suppress(AcceleratorException):
            shared = SharedArray.parse(parse_json(data), "src: shared")
            assert region.array(shared).nbytes <= _REGION_BYTES
    finally:
        region.close()
