"""What does it cost to drive a card over the network: arrays to the host and back, small jobs, shared memory?

Beside a bare socket, `sendall` from one prepared array and `recv_into` another in a second process (the limit; over TLS
with Python's `ssl`), and the same transfer to a uvicorn server that keeps the body in a prepared array. The daemon runs
in a process of its own, with accelerators that take or give an array and do nothing with it, and with the software
card; the note behind a row is the daemon's own CPU time and memory. Arrays are compared whole after each run. What many
requests at once do is `bench_many`'s question.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from support.common import Bench, main
from support.remote_servers import PIECE, process, with_costs

import apyfal
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.policy.tokens import TokenStore


# -- the ways ----------------------------------------------------------------------------------------------------------
def connected(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Connect to a bare socket, over TLS where there is a context."""
    connection = socket.create_connection(("127.0.0.1", port))
    return connection if context is None else context.wrap_socket(connection)


def socket_there(port: int, array: np.ndarray, context: ssl.SSLContext | None = None) -> None:
    """Send an array over a bare socket."""
    view = memoryview(array)
    with connected(port, context) as connection:
        connection.sendall(b"T")
        for start in range(0, len(view), PIECE):
            connection.sendall(view[start : start + PIECE])
        connection.recv(1)


def socket_back(port: int, target: np.ndarray, context: ssl.SSLContext | None = None) -> np.ndarray:
    """Receive an array over a bare socket."""
    view = memoryview(target)
    with connected(port, context) as connection:
        connection.sendall(b"B")
        done = 0
        while done < len(view):
            done += connection.recv_into(view[done:])
        connection.sendall(b"!")
    return target


def uvicorn_there(port: int, array: np.ndarray) -> None:
    """Send an array to uvicorn."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(array.nbytes))
    connection.endheaders()
    connection.sock.sendall(memoryview(array))
    connection.getresponse().read()
    connection.close()


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


class Machine:
    """A client, and the servers that one table needs; all of them end with the table.

    Parameters
    ----------
    stack
        Ends them.
    nbytes
        Of the arrays.
    """

    def __init__(self, stack: contextlib.ExitStack, nbytes: int) -> None:
        self.stack = stack
        self.nbytes = nbytes
        self.directory = stack.enter_context(tempfile.TemporaryDirectory())
        self.token = TokenStore(Path(self.directory) / "state" / "tokens.json").create("bench")
        certificate, _ = tls.ensure_certificate(Path(self.directory) / "state", ["127.0.0.1"])
        self.fingerprint = tls.fingerprint_of(certificate)
        self.context = tls.pinning_context()
        self.array, self.target = apyfal.empty(nbytes, np.uint8), apyfal.empty(nbytes, np.uint8)
        self.array.reshape(-1, 256)[:] = np.arange(256, dtype=np.uint8)  # each piece another: what is lost would show
        self.array[::4096] = np.arange(nbytes // 4096) % 251
        self.target[:] = 0

    def daemon(self, *arguments: str) -> tuple[int, int]:
        """Run a daemon; its bare port, and the one with TLS."""
        bare, secure = self.stack.enter_context(process("daemon", self.directory, *arguments))[:2]
        return bare, secure

    def server(self, kind: str, *arguments: str) -> int:
        """Run another server; its port."""
        return self.stack.enter_context(process(kind, str(self.nbytes), *arguments))[0]

    def remote(self, name: str, port: int | None, *, secure: bool = False) -> RemoteAccelerator:
        """Open an accelerator, on the Unix socket (and so with shared memory) without a port."""
        if port is None:
            address = f"unix://{self.directory}/run/host.sock"
        else:
            address = f"https://127.0.0.1:{port}#sha256={self.fingerprint}" if secure else f"http://127.0.0.1:{port}"
        host = Host(parse_address(address), None if port is None else self.token)
        accelerator = RemoteAccelerator(host, {"accelerator": name})
        if port is not None:
            accelerator._pool = None  # the socket is what is measured
        return self.stack.enter_context(accelerator)

    def all_there(self, result: dict[str, int] | None) -> None:
        """Check that an accelerator that takes arrays has all of this one."""
        if result is not None and result != {"bytes": self.nbytes, "sampled": int(self.array[::4096].sum())}:
            raise AssertionError("not everything arrived")

    def all_back(self, result: np.ndarray) -> None:
        """Check that an array came back that is nothing but sevens."""
        if result.nbytes != self.nbytes or (result != 7).any():
            raise AssertionError("not what was sent")
        result[:] = 0

    def all_through(self, result: np.ndarray) -> None:
        """Check that what came back is what was sent."""
        if not np.array_equal(result, self.array):
            raise AssertionError("not what was sent")
        result[:] = 0


def on_the_wire(machine: Machine, secure: bool) -> Iterator[Bench]:
    """To the host, and from it: two tables."""
    size, over = f"{machine.nbytes >> 20} MiB", " over TLS" if secure else ""
    port = machine.daemon("wire")[secure]
    plain = machine.server("socket", *([machine.directory] if secure else []))
    other = None if secure else machine.server("uvicorn")
    context = machine.context if secure else None
    array, target = machine.array, machine.target

    there = Bench(f"an array of {size} to the host{over}", machine.nbytes)
    there.add(f"limit: a bare socket{over}", lambda: socket_there(plain, array, context), limit=True)
    takes = machine.remote("takes", port, secure=secure)
    with_costs(there, "RemoteAccelerator.process(array)", port, lambda: takes.process(array), machine.all_there)
    if other is not None:
        with_costs(there, "uvicorn", other, lambda: uvicorn_there(other, array))
    yield there

    back = Bench(f"an array of {size} from the host{over}", machine.nbytes)
    back.add(
        f"limit: a bare socket{over}", lambda: socket_back(plain, target, context), machine.all_through, limit=True
    )
    gives = machine.remote("gives", port, secure=secure)
    gives.start(nbytes=machine.nbytes)
    with_costs(back, "RemoteAccelerator.process()", port, gives.process, machine.all_back)
    if other is not None:
        with_costs(back, "uvicorn", other, lambda: uvicorn_back(other, target), machine.all_through)
    yield back


def through_the_card(machine: Machine) -> Iterator[Bench]:
    """To the software card of the host and back, by all ways."""
    bare, secure = machine.daemon()
    plain, other = machine.server("socket"), machine.server("uvicorn")
    array, target = machine.array, machine.target

    def there_and_back() -> np.ndarray:
        socket_there(plain, array)
        return socket_back(plain, target)

    def over_uvicorn() -> np.ndarray:
        uvicorn_there(other, array)
        return uvicorn_back(other, target)

    table = Bench(f"an array of {machine.nbytes >> 20} MiB through the host's card and back", machine.nbytes)
    table.add("limit: a bare socket, there and back, no card", there_and_back, machine.all_through, limit=True)
    own = machine.stack.enter_context(apyfal.Accelerator("loopback"))
    table.add("a local card", lambda: own.process(array, target), machine.all_through)
    for name, port, is_secure in (("TCP", bare, False), ("TLS", secure, True)):
        card = machine.remote("loopback", port, secure=is_secure)
        run = functools.partial(card.process, array, target)
        with_costs(table, f"remote, {name}", port, run, machine.all_through)
    with_costs(table, "uvicorn, there and back, no card", other, over_uvicorn, machine.all_through)
    yield table


def on_one_machine(machine: Machine) -> Iterator[Bench]:
    """By shared memory: to the host, and through its card."""
    size = f"{machine.nbytes >> 20} MiB"
    array, target = machine.array, machine.target
    machine.daemon("wire")
    shared = Bench(f"an array of {size} to the host on this machine", machine.nbytes)
    shared.add("limit: memcpy", lambda: np.copyto(target, array), limit=True)
    takes = machine.remote("takes", None)
    shared.add("any array", lambda: takes.process(array), machine.all_there)
    placed = takes.empty(machine.nbytes, np.uint8)
    placed[:] = array
    shared.add("an array of accelerator.empty", lambda: takes.process(placed), machine.all_there)
    yield shared


def cards_on_one_machine(machine: Machine) -> Iterator[Bench]:
    """Through the software card of a host on this machine."""
    array, target = machine.array, machine.target
    port, _ = machine.daemon()
    table = Bench(f"an array of {machine.nbytes >> 20} MiB through a card on this machine", machine.nbytes)
    own = machine.stack.enter_context(apyfal.Accelerator("loopback"))
    table.add("limit: a local card", lambda: own.process(array, target), machine.all_through, limit=True)
    card = machine.remote("loopback", None)
    with_costs(table, "any arrays", port, lambda: card.process(array, target), machine.all_through)
    placed, result = (card.empty(machine.nbytes, np.uint8) for _ in range(2))
    placed[:] = array
    with_costs(table, "arrays of accelerator.empty", port, lambda: card.process(placed, result), machine.all_through)
    yield table


def small_jobs(machine: Machine, jobs: int) -> Iterator[Bench]:
    """Jobs of 4 KiB: one after the other, and from four clients."""
    port, _ = machine.daemon()
    small = np.full(4096, 7, np.uint8)
    latency = Bench("one job of 4 KiB on the software card", unit="ms", scale=1e3)
    own = machine.stack.enter_context(apyfal.Accelerator("loopback"))
    latency.add("local", lambda: [own.process(small) for _ in range(jobs)], repeats=jobs)
    for name, where in (("TCP", port), ("Unix socket", None)):
        run = functools.partial(threaded, [machine.remote("loopback", where)], jobs, small)
        with_costs(latency, f"remote, {name}", port, run, repeats=jobs)
    yield latency
    four = [machine.remote("loopback", port) for _ in range(4)]
    busy = Bench("jobs of 4 KiB from four clients of one process, each", unit="ms", scale=1e3)
    with_costs(busy, "remote, TCP", port, functools.partial(threaded, four, jobs, small), repeats=jobs)
    yield busy


def benches(quick: bool) -> Iterator[Bench]:
    """Make the tables, one after the other: none holds the memory of another."""
    nbytes = 4 << 20 if quick else 1 << 30
    tables: list[Callable[[Machine], Iterator[Bench]]] = [
        functools.partial(on_the_wire, secure=False),
        functools.partial(on_the_wire, secure=True),
        through_the_card,
        on_one_machine,
        cards_on_one_machine,
        functools.partial(small_jobs, jobs=100 if quick else 1000),
    ]
    for table in tables:
        with contextlib.ExitStack() as stack:
            yield from table(Machine(stack, nbytes))


if __name__ == "__main__":
    main(benches, rounds=5)
