"""Start one server by hand: ``PYTHONPATH=tests python -m servers ceph``. It runs until interrupted."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import signal
import tempfile
from pathlib import Path
from typing import Any

SERVERS = {
    name: folder
    for folder, names in {
        "stores": ("azurite", "ceph", "gcs", "moto", "swift"),
        "files": ("ftp", "sftp", "webdav"),
        "web": ("nginx",),
        "tokens": ("keystone",),
    }.items()
    for name in names
}


def main() -> None:
    """Start the server named on the command line, say how to reach it, and wait."""
    parser = argparse.ArgumentParser(prog="python -m servers", description=__doc__)
    parser.add_argument("server", choices=sorted(SERVERS))
    name = parser.parse_args().server
    start = getattr(importlib.import_module(f"servers.{SERVERS[name]}.{name}"), name)
    with tempfile.TemporaryDirectory(prefix=f"apyfal-{name}-") as directory, start(Path(directory)) as server:
        _show(server)
        print(f"logs: {directory}; stop: interrupt", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _show(server: Any, prefix: str = "") -> None:
    for field in dataclasses.fields(server):
        value = getattr(server, field.name)
        if dataclasses.is_dataclass(value):
            _show(value, f"{field.name}.")
        else:
            print(f"{prefix}{field.name} = {value}")


if __name__ == "__main__":
    main()
