"""What does it cost to drive a card over the network: arrays to the host and back, small jobs, shared memory?

Beside a bare socket, `sendall` from one prepared array and `recv_into` another in a second process (the limit), and the
same transfer to a uvicorn server that keeps the body in a prepared array. The daemon runs in a process of its own, with
accelerators that take or give an array and do nothing with it, and with the software card; the note behind a row is
the daemon's own CPU time for it. The last table is printed by itself: the latency of one user's small jobs while
nothing else happens, and while 1,000 other connections are idle or slow and another user runs 64 jobs at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import Bench, main

import apyfal
from apyfal.host.address import parse_address
from apyfal.host.client import RemoteAccelerator
from apyfal.host.http_client import Host
from apyfal.host.tokens import TokenStore

PORT_LINE = "port "


# -- servers, each in a process of its own -----------------------------------------------------------------------------
class Wire:
    """An accelerator that does nothing with its data: what is left is the way there and back."""

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
        return self._array if self._gives else {"bytes": src.nbytes, "last": int(src[-1])}

    def stop(self) -> None:
        """Nothing is held."""
        self._array = None


def daemon_process(directory: str, wire: bool) -> None:
    """Run a daemon."""
    import asyncio

    from apyfal.host.daemon import Daemon, Listener
    from apyfal.host.service import stay_prompt
    from apyfal.host.settings import Settings

    async def serve() -> None:
        path = Path(directory)
        settings = Settings(
            authorized_host_dirs=(directory,),
            state_directory=path / "state",
            audit_log=path / "audit",
            request_rate=1_000_000,
        )
        daemon = Daemon(
            settings,
            [Listener(host="127.0.0.1"), Listener(unix=path / "run" / "host.sock")],
            config={},
            open_accelerator=Wire if wire else None,
        )

        def ready() -> None:
            stay_prompt()
            print(f"{PORT_LINE}{daemon.ports[0]}", flush=True)

        await daemon.run(ready)

    asyncio.run(serve())


def socket_process(nbytes: int) -> None:
    """Receive into, and send from, a prepared array; one connection after another."""
    array = np.full(nbytes, 7, np.uint8)
    view = memoryview(array)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"{PORT_LINE}{server.getsockname()[1]}", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if connection.recv(1) == b"T":
                    done = 0
                    while done < nbytes:
                        done += connection.recv_into(view[done:])
                    connection.sendall(b"!")
                else:
                    connection.sendall(view)


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
        print(f"{PORT_LINE}{server.getsockname()[1]}", flush=True)
        config = uvicorn.Config(application, log_level="critical", lifespan="off", access_log=False)
        uvicorn.Server(config).run(sockets=[server])


#: process of each server, by its port
PROCESSES: dict[int, int] = {}


def cpu_of(port: int) -> float:
    """CPU seconds that a server has used."""
    fields = Path(f"/proc/{PROCESSES[port]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_cpu(bench: Bench, name: str, port: int, run: Callable[[], Any], check: Any = None, **options: Any) -> None:
    """Add a way to a table, with the server's CPU time as the note."""
    spent: list[float] = []

    def counted() -> Any:
        before = cpu_of(port)
        result = run()
        spent.append((cpu_of(port) - before) / options.get("repeats", 1))
        return result

    def note() -> str:
        return f"server CPU {statistics.median(spent) * bench.scale:.3f} {bench.unit}"

    bench.add(name, counted, check, note=note, **options)


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[int]:
    """Run one of the servers above; its port."""
    child = subprocess.Popen([sys.executable, __file__, "--serve", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        if not line.startswith(PORT_LINE):
            raise RuntimeError(f"the server {arguments} did not start")
        port = int(line.removeprefix(PORT_LINE))
        PROCESSES[port] = child.pid
        yield port
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# -- the ways ----------------------------------------------------------------------------------------------------------
def socket_there(port: int, array: np.ndarray) -> dict[str, int]:
    """Send an array over a bare socket."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"T")
        connection.sendall(memoryview(array))
        connection.recv(1)
    return {"bytes": array.nbytes}


def socket_back(port: int, target: np.ndarray) -> np.ndarray:
    """Receive an array over a bare socket."""
    view = memoryview(target)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"B")
        done = 0
        while done < len(view):
            done += connection.recv_into(view[done:])
    return target


def uvicorn_there(port: int, array: np.ndarray) -> dict[str, int]:
    """Send an array to uvicorn."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(array.nbytes))
    connection.endheaders()
    connection.sock.sendall(memoryview(array))
    connection.getresponse().read()
    connection.close()
    return {"bytes": array.nbytes}


def uvicorn_back(port: int, target: np.ndarray) -> np.ndarray:
    """Receive an array from uvicorn."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    answer = connection.getresponse()
    view = memoryview(target)
    done = 0
    while done < len(view):
        done += answer.readinto(view[done:])
    connection.close()
    return target


def threaded(accelerators: list[RemoteAccelerator], jobs: int, data: np.ndarray) -> int:
    """Run so many jobs, shared among the accelerators, each in a thread."""

    def work(accelerator: RemoteAccelerator) -> None:
        for _ in range(jobs // len(accelerators)):
            accelerator.process(data)

    threads = [threading.Thread(target=work, args=(accelerator,)) for accelerator in accelerators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return jobs


def percentiles(accelerator: RemoteAccelerator, jobs: int, data: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of one job after the other, in milliseconds."""
    times = []
    for _ in range(jobs):
        started = time.perf_counter()
        accelerator.process(data)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def crowd(quick: bool) -> None:
    """Print the latency of small jobs, alone and among 1,000 idle or slow connections and 64 jobs of another user."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        tokens = TokenStore(Path(directory) / "state" / "tokens.json")
        port = stack.enter_context(process("daemon", directory, "card"))
        address = parse_address(f"http://127.0.0.1:{port}")
        alice = stack.enter_context(
            RemoteAccelerator(Host(address, tokens.create("alice")), {"accelerator": "loopback"})
        )
        bob = stack.enter_context(RemoteAccelerator(Host(address, tokens.create("bob")), {"accelerator": "loopback"}))
        small = np.zeros(4096, np.uint8)
        jobs = 100 if quick else 1000
        percentiles(alice, 100, small)
        quiet = percentiles(alice, jobs, small)
        head = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
        for number in range(100 if quick else 1000):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            slow.sendall(head if number % 2 else head + b"Content-Length: 100000\r\n\r\n{")
        alone = percentiles(alice, jobs, small)
        stop = threading.Event()

        def batches() -> None:
            while not stop.is_set():
                list(bob.process_map([small] * 64))
                stop.wait(0.5)

        worker = threading.Thread(target=batches)
        worker.start()
        try:
            crowded = percentiles(alice, jobs, small)
        finally:
            stop.set()
            worker.join()
    print("\none job of 4 KiB after the other: median and 99th percentile, ms")
    for name, (median, worst) in (
        ("quiet", quiet),
        ("1,000 idle or slow connections", alone),
        ("and 64 jobs of another user, twice a second", crowded),
    ):
        print(f"  {name:<52} {median:9.3f} {worst:9.3f}  {worst / quiet[1]:5.2f} x quiet")


def benches(quick: bool) -> list[Bench]:
    """Make the tables."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    nbytes = 4 << 20 if quick else 1 << 30
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    cards = stack.enter_context(tempfile.TemporaryDirectory())
    tokens = TokenStore(Path(directory) / "state" / "tokens.json")
    token = tokens.create("bench")
    card_token = TokenStore(Path(cards) / "state" / "tokens.json").create("bench")
    wire_port = stack.enter_context(process("daemon", directory, "wire"))
    card_port = stack.enter_context(process("daemon", cards, "card"))
    socket_port = stack.enter_context(process("socket", str(nbytes)))
    uvicorn_port = stack.enter_context(process("uvicorn", str(nbytes)))

    def remote(name: str, port: int, key: str | None, unix: str | None = None) -> RemoteAccelerator:
        address = f"unix://{unix}/run/host.sock" if unix else f"http://127.0.0.1:{port}"
        host = Host(parse_address(address), key)
        accelerator = RemoteAccelerator(host, {"accelerator": name})
        if unix is None:
            accelerator._pool = None  # the socket is what is measured
        return stack.enter_context(accelerator)

    array, target = apyfal.empty(nbytes, np.uint8), apyfal.empty(nbytes, np.uint8)
    array[:] = 7
    target[:] = 0

    def all_there(result: dict[str, int]) -> None:
        if result["bytes"] != nbytes:
            raise AssertionError("not everything arrived")

    def all_back(result: np.ndarray) -> None:
        if not (result[:: max(1, nbytes // 4096)] == 7).all() or result.nbytes != nbytes:
            raise AssertionError("not what was sent")

    there = Bench(f"an array of {nbytes >> 20} MiB to the host", nbytes)
    there.add("limit: a bare socket", lambda: socket_there(socket_port, array), all_there, limit=True)
    takes = remote("takes", wire_port, token)
    with_cpu(there, "RemoteAccelerator.process(array)", wire_port, lambda: takes.process(array), all_there)
    with_cpu(there, "uvicorn", uvicorn_port, lambda: uvicorn_there(uvicorn_port, array), all_there)

    back = Bench(f"an array of {nbytes >> 20} MiB from the host", nbytes)
    back.add("limit: a bare socket", lambda: socket_back(socket_port, target), all_back, limit=True)
    gives = remote("gives", wire_port, token)
    gives.start(nbytes=nbytes)
    with_cpu(back, "RemoteAccelerator.process(dst=array)", wire_port, lambda: gives.process(dst=target), all_back)
    with_cpu(back, "uvicorn", uvicorn_port, lambda: uvicorn_back(uvicorn_port, target), all_back)

    shared = Bench(f"an array of {nbytes >> 20} MiB to the host on this machine", nbytes)
    shared.add("limit: memcpy", lambda: np.copyto(target, array), limit=True)
    local = remote("takes", 0, None, directory)
    shared.add("shared memory, any array", lambda: local.process(array), all_there)
    placed = local.empty(nbytes, np.uint8)
    placed[:] = 7
    shared.add("shared memory, an array of accelerator.empty", lambda: local.process(placed), all_there)

    small = np.full(4096, 7, np.uint8)
    jobs = 100 if quick else 1000
    latency = Bench("one job of 4 KiB on the software card", unit="ms", scale=1e3)
    with_card = remote("loopback", card_port, card_token)
    own = stack.enter_context(apyfal.Accelerator("loopback"))
    latency.add("local", lambda: [own.process(small) for _ in range(jobs)], repeats=jobs)
    one_by_one = functools.partial(threaded, [with_card], jobs, small)
    with_cpu(latency, "remote, TCP", card_port, one_by_one, repeats=jobs)
    over_unix = remote("loopback", 0, None, cards)
    with_cpu(
        latency, "remote, Unix socket", card_port, functools.partial(threaded, [over_unix], jobs, small), repeats=jobs
    )
    four = [remote("loopback", card_port, card_token) for _ in range(4)]
    busy = Bench("jobs of 4 KiB from four clients of one process, each", unit="ms", scale=1e3)
    with_cpu(busy, "remote, TCP", card_port, functools.partial(threaded, four, jobs, small), repeats=jobs)

    def all_through(result: np.ndarray) -> None:
        if not (result[:: max(1, nbytes // 4096)] == 7).all():
            raise AssertionError("not what was sent")

    through = Bench(f"an array of {nbytes >> 20} MiB through the host's card and back", nbytes)
    through.add("a local card", lambda: own.process(array, target), all_through, limit=True)
    with_cpu(through, "remote, TCP", card_port, lambda: with_card.process(array, target), all_through)
    with_cpu(through, "remote, shared memory", card_port, lambda: over_unix.process(array, target), all_through)
    return [there, back, shared, through, latency, busy]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        kind, *rest = sys.argv[2:]
        if kind == "daemon":
            daemon_process(rest[0], rest[1] == "wire")
        elif kind == "socket":
            socket_process(int(rest[0]))
        else:
            uvicorn_process(int(rest[0]))
    else:
        main(benches, rounds=5)
        crowd("--quick" in sys.argv)
