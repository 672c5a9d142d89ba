"""The documented limits are those of the module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apyfal.host.server.policy import limits
from apyfal.units import parse_size

TABLE = (Path(__file__).parents[5] / "docs/security.md").read_text().partition("## Limits")[2].partition("## Who")[0]

NUMBERS = {
    "MAX_SESSIONS": "`max_sessions` {}", "MAX_SESSIONS_OF_USER": "`max_sessions` 256; a user {}",
    "MAX_JOBS": "`max_jobs` {}",
    "MAX_JOBS_OF_USER": "`max_jobs` 1024; a user {}", "WORKERS": "`workers` {}", "RESERVED_WORKERS": "up to {} more",
    "REQUEST_RATE": "`request_rate` {}", "MAX_CONNECTIONS": "`max_connections` {}", "HANDSHAKES": "| {}, of 10 s",
    "MOUNTS_OF_SESSION": "with {} mounts", "MAX_MOUNT_TIMEOUT": "a `timeout` of at most {} s",
    "REGIONS_OF_USER": "and {} pieces", "OUTPUTS_OF_USER": "| {} a user",
    "THREADS": "| {}; a user 8", "THREADS_OF_USER": "256; a user {}", "WAITING_OF_USER": "and {} requests that wait",
    "CHANNEL_IDLE_TIMEOUT": "without a job | {} s", "CHANNEL_JOBS_AT_ONCE": "a request; {} in one turn",
    "JOBS_LISTED": "newest {}", "HEADER_TIMEOUT": "valid token | {} s", "JSON_TIMEOUT": "within {} s",
    "FAILURES_AT_ONCE": "of an address | {} at once", "PUBLIC_AT_ONCE": "of an address | {} at once",
    "PUBLIC_RATE": "then {} a second", "REFUSALS_AT_ONCE": "requests | {} at once", "MAX_TARPIT": "up to {} s",
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    assert NUMBERS[name].format(f"{getattr(limits, name):g}") in TABLE


@pytest.mark.parametrize(
    "name", ["MEMORY_LIMIT", "MAX_BODY", "DISK_LIMIT", "DISK_RESERVE", "HOST_QUOTA", "JOURNAL_LIMIT"]
)
def test_sizes(name: str) -> None:
    found = re.search(rf"`{name.lower()}` (\d+ GiB)(?:[^|]*?; a user ([\d.]+ GiB))?", TABLE)
    assert found is not None
    assert parse_size(found[1]) == getattr(limits, name)
    if found[2]:
        assert parse_size(found[2]) == limits.share_of_user(getattr(limits, name))


def test_listings_and_small_outputs() -> None:
    assert f"{limits.MAX_LISTED:,} entries" in TABLE
    assert f"| {limits.KEPT_IN_MEMORY >> 20} MiB | answered" in TABLE
    assert f"| {limits.MAX_JSON >> 20} MiB, within" in TABLE
