"""Moto's S3 as a server process: about 2 s to start. pip: ``moto[s3] flask flask-cors``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, answers, free_ports, running

__all__ = ["Moto", "moto"]


@dataclass(frozen=True)
class Moto:
    """Where it is; it takes any credentials, these among them."""

    endpoint_url: str
    access_key: str = "AKIATESTKEY000000001"
    secret_key: str = "testsecret"
    region: str = "us-east-1"


@contextmanager
def moto(directory: Path) -> Iterator[Moto]:
    """Run Moto with its log in `directory`."""
    (port,) = free_ports()
    url = f"http://{HOST}:{port}"
    with running(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
        log=directory / "moto.log",
        env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "1000", "S3_UPLOAD_PART_MIN_SIZE": str(5 << 20)},
        ready=lambda: answers(f"{url}/moto-api/"),
        within=60,
    ):
        yield Moto(url)
