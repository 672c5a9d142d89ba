"""The job of `bench_pipeline` on Intel's FPGA emulator, in its own process: the loader reads its environment once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["intel_job"]


@contextlib.contextmanager
def intel_job(source: str, target: str, size: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Open the card in its process; yields what runs the job once and returns its ``info_dict``.

    Parameters
    ----------
    source, target
        S3 endpoints.
    size
        The job's ``memory_limit``.
    """
    from fixtures.opencl import installation

    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **installation.intel(Path(folder))}
        command = [sys.executable, __file__, source, target, size]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the job's process has no pipes")
            stdin, stdout = process.stdin, process.stdout

            def run() -> dict[str, Any]:
                stdin.write("\n")
                stdin.flush()
                info: dict[str, Any] = json.loads(stdout.readline())
                return info

            yield run
            stdin.close()


def serve(source: str, target: str, size: str) -> None:
    """Run the job once for each line of standard input."""
    from support.peers import KEYS

    import apyfal
    from apyfal import storage

    storage.mount("s3.from", endpoint_url=source, config={}, **KEYS)
    storage.mount("s3.to", endpoint_url=target, config={}, **KEYS)
    with apyfal.Accelerator("loopback", driver="opencl", memory_limit=size) as card:
        for _ in sys.stdin:
            info: dict[str, Any] = {}
            card.process("s3.from://b/object", "s3.to://b/object", info_dict=info)
            del info["timeline"]
            print(json.dumps(info), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
