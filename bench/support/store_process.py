"""A made-up store in a process of its own, so that its work is not counted as that of what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["in_own_process", "serve"]

BENCH = Path(__file__).parents[1]


async def serve(connection: Callable[[], asyncio.Protocol]) -> None:
    """Listen on a free port, print it, and answer until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def in_own_process(module: str, *arguments: float) -> Iterator[str]:
    """Run a module, which calls `serve`; yields the URL of its store."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=BENCH) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the store has no pipes")
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
