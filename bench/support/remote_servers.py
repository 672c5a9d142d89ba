"""The processes that `bench_remote.py` measures: the daemon, a bare socket, uvicorn; and what they spend.

Run as a script it is one of them, on a port of its own, which it prints.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from support.common import Bench

import apyfal
from apyfal.host.protocol import tls

__all__ = ["PIECE", "PROCESSES", "process", "with_costs"]

#: sent in one call over TLS: `ssl` copies what it is given before a part of it is sent
PIECE = 1 << 20

PORT_LINE = "ports:"


# -- servers, each in a process of its own -----------------------------------------------------------------------------
class Wire:
    """An accelerator that does nothing with its data: what is left is the way there and back."""

    outputs = ("dst",)
    reports_size = False

    def __init__(self, accelerator: str | None = None, **_: Any) -> None:
        self._gives = accelerator == "gives"
        self._array: np.ndarray | None = None

    def start(self, src: object = None, **parameters: Any) -> None:
        """Prepare what is given."""
        if self._gives:
            self._array = apyfal.empty((parameters["nbytes"],), np.uint8)
            self._array[:] = 7

    def process(self, src: Any = None, dst: object = None, **_: Any) -> Any:
        """Give it, or say how much was taken."""
        return self._array if self._gives else {"bytes": src.nbytes, "sampled": int(src[::4096].sum())}

    def stop(self) -> None:
        """Nothing is held."""
        self._array = None


def certificate(directory: str) -> ssl.SSLContext:
    """Return the context of a server whose state is in `directory`."""
    return tls.server_context(*tls.ensure_certificate(Path(directory) / "state", ["127.0.0.1"]))


def daemon_process(directory: str, wire: bool) -> None:
    """Run a daemon, on a bare port, one with TLS, and a Unix socket."""
    import asyncio

    from apyfal.host.server.daemon import Daemon, Listener
    from apyfal.host.server.process import limit_pauses
    from apyfal.host.settings import HostSettings

    async def serve() -> None:
        path = Path(directory)
        settings = HostSettings(
            authorized_host_dirs=(directory,),
            state_directory=path / "state",
            audit_log=path / "audit",
            request_rate=1_000_000,
        )
        daemon = Daemon(
            settings,
            [
                Listener(host="127.0.0.1"),
                Listener(host="127.0.0.1", tls=certificate(directory)),
                Listener(unix=path / "run" / "host.sock"),
            ],
            config={},
            open_accelerator=Wire if wire else None,
        )

        def ready() -> None:
            limit_pauses()
            print(PORT_LINE, daemon.ports[0], daemon.ports[1], flush=True)

        await daemon.run(ready)

    asyncio.run(serve())


def socket_process(nbytes: int, directory: str | None) -> None:
    """Receive into, and send from, a prepared array; one connection after another, over TLS where there is a
    directory with a certificate.
    """
    array = np.full(nbytes, 7, np.uint8)
    view = memoryview(array)
    context = None if directory is None else certificate(directory)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(PORT_LINE, server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                if connection.recv(1) == b"T":
                    done = 0
                    while done < nbytes:
                        done += connection.recv_into(view[done:])
                    connection.sendall(b"!")
                else:
                    for start in range(0, nbytes, PIECE):
                        connection.sendall(view[start : start + PIECE])
                    connection.recv(1)


def uvicorn_process(nbytes: int) -> None:
    """The same over uvicorn: the body into a prepared array, and out of it."""
    import uvicorn

    array = np.full(nbytes, 7, np.uint8)
    view = memoryview(array)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        done, more = 0, True
        while more:
            message = await receive()
            body = message.get("body", b"")
            view[done : done + len(body)] = body
            done, more = done + len(body), message.get("more_body", False)
        length = nbytes if scope["method"] == "GET" else 0
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, length, 1 << 20):
            body = bytes(view[start : start + (1 << 20)])
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with socket.create_server(("127.0.0.1", 0)) as server:
        print(PORT_LINE, server.getsockname()[1], flush=True)
        config = uvicorn.Config(application, log_level="critical", lifespan="off", access_log=False)
        uvicorn.Server(config).run(sockets=[server])


#: process of each server, by its port
PROCESSES: dict[int, int] = {}


def cpu_of(port: int) -> float:
    """CPU seconds that a server has used."""
    fields = Path(f"/proc/{PROCESSES[port]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(port: int) -> int:
    """MiB of memory that a server has, shared memory with it."""
    status = Path(f"/proc/{PROCESSES[port]}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


def with_costs(bench: Bench, name: str, port: int, run: Callable[[], Any], check: Any = None, **options: Any) -> None:
    """Add a way to a table; the note has the server's CPU time, its memory, and how that grew from run to run."""
    spent: list[float] = []
    memory: list[int] = []

    def counted() -> Any:
        before = cpu_of(port)
        result = run()
        spent.append((cpu_of(port) - before) / options.get("repeats", 1))
        memory.append(memory_of(port))
        return result

    def note() -> str:
        growth = memory[-1] - memory[len(memory) // 2]
        cpu = f"server CPU {statistics.median(spent) * bench.scale:.3f} {bench.unit}"
        return f"{cpu}, {memory[-1]} MiB ({growth:+} in {len(memory) - len(memory) // 2 - 1} runs)"

    bench.add(name, counted, check, note=note, **options)


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[list[int]]:
    """Run one of the servers above; the ports that it listens on."""
    child = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        if not line.startswith(PORT_LINE):
            raise RuntimeError(f"the server {arguments} did not start")
        ports = [int(port) for port in line.removeprefix(PORT_LINE).split()]
        PROCESSES.update(dict.fromkeys(ports, child.pid))
        yield ports
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


if __name__ == "__main__":
    kind, first, *rest = sys.argv[1:]
    if kind == "daemon":
        daemon_process(first, "wire" in rest)
    elif kind == "socket":
        socket_process(int(first), rest[0] if rest else None)
    else:
        uvicorn_process(int(first))
