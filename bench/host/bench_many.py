"""How many small jobs does a host take on one core, and who waits when it is crowded?

The first table: jobs of 4 KiB on the software card over TCP, with the daemon held to one core and the clients on the
others (one connection and one thread for each job under way; `process_map` makes batches of its own). The second: one
job of one user after the other, while nothing else happens; among 1,000 other connections that are idle or stopped in
the middle of a request; and with 64 jobs of another user, a process of its own, twice a second. There "ahead" is the
daemon's CPU time from the request to its answer: what the job waits for where the daemon has a core, whatever else the
machine does. The three are measured in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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

import numpy as np
from support.common import machine
from support.remote_servers import PROCESSES, process

from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.policy.tokens import TokenStore

SMALL = np.full(4096, 7, np.uint8)
BATCH = 64
PAUSE = 0.5


class CpuClock:
    """The CPU time of another process, in seconds.

    Linux makes the clock's number from the process's (clock_getcpuclockid(3)).
    """

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | 2

    def __call__(self) -> float:
        """Read it."""
        return time.clock_gettime(self._clock)


class Daemon:
    """A daemon with the software card, in a process of its own.

    Parameters
    ----------
    stack
        Ends it.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        self._tokens = TokenStore(Path(directory) / "state" / "tokens.json")
        self.port = stack.enter_context(process("daemon", directory))[0]
        self.pid = PROCESSES[self.port]
        self.cpu = CpuClock(self.pid)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def token(self, user: str) -> str:
        """Make a token."""
        return self._tokens.create(user)

    def client(self, token: str) -> RemoteAccelerator:
        """Open an accelerator, over the socket whatever the size."""
        accelerator = RemoteAccelerator(Host(parse_address(self.url), token), {"accelerator": "loopback"})
        accelerator._pool = None
        return self._stack.enter_context(accelerator)


def pin(pid: int, cores: set[int]) -> None:
    """Hold all threads of a process to these cores."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


def together(clients: list[RemoteAccelerator], seconds: float) -> int:
    """Run jobs of all clients at once; how many were done."""
    done = [0] * len(clients)
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            if not np.array_equal(clients[number].process(SMALL), SMALL):
                raise AssertionError("not what was sent")
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)


def mapped(client: RemoteAccelerator, seconds: float) -> int:
    """Run jobs by `process_map`; how many were done."""
    done = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for result in client.process_map([SMALL] * 2048):
            if not np.array_equal(result, SMALL):
                raise AssertionError("not what was sent")
            done += 1
    return done


def rates(quick: bool) -> None:
    """Print jobs a second, and what each costs the daemon."""
    cores = sorted(os.sched_getaffinity(0))
    rounds, seconds = (1, 0.2) if quick else (3, 1.0)
    with contextlib.ExitStack() as stack:
        daemon = Daemon(stack)
        token = daemon.token("bench")
        clients = [daemon.client(token) for _ in range(16)]
        pin(daemon.pid, {cores[0]})
        os.sched_setaffinity(0, cores[1:] or cores)
        together(clients, seconds)
        ways: dict[str, Callable[[], int]] = {
            f"{flight:>2} under way": functools.partial(together, clients[:flight], seconds) for flight in (1, 4, 16)
        }
        ways["process_map"] = functools.partial(mapped, clients[0], seconds)
        figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, rows in figures.items():
                began, cpu = time.perf_counter(), daemon.cpu()
                jobs = ways[way]()
                rows.append((jobs / (time.perf_counter() - began), (daemon.cpu() - cpu) / jobs * 1e6))
        os.sched_setaffinity(0, cores)
    print("\njobs of 4 KiB a second, the daemon on one core: median (lowest to highest)")
    for way, rows in figures.items():
        rate, cost = zip(*rows, strict=True)
        print(
            f"  {way:<12}   {statistics.median(rate):7.0f} /s ({min(rate):.0f} to {max(rate):.0f})   "
            f"the daemon's CPU {statistics.median(cost):4.0f} us a job ({min(cost):.0f} to {max(cost):.0f})"
        )


def waits(daemon: Daemon, client: RemoteAccelerator, seconds: float) -> tuple[float, float, float]:
    """Median and 99th percentile of one job after the other, and the percentile of what was ahead; milliseconds."""
    times, ahead = [], []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        cpu = daemon.cpu()
        client.process(SMALL)
        ahead.append((daemon.cpu() - cpu) * 1e3)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=100)[98], statistics.quantiles(ahead, n=100)[98]


@contextlib.contextmanager
def slow_connections(port: int, count: int) -> Iterator[None]:
    """Have so many connections that are idle, or stopped in their head or body."""
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(count):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            slow.sendall((b"", head, head + b"Content-Length: 100000\r\n\r\n{")[number % 3])
        time.sleep(0.5)
        yield


@contextlib.contextmanager
def other_user(url: str, token: str) -> Iterator[None]:
    """Have another user's process run its jobs."""
    arguments = [sys.executable, __file__, "--other", url, token]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        try:
            yield
        finally:
            child.stdin.close()


def other(url: str, token: str) -> None:
    """Run 64 jobs, again and again, until standard input ends."""
    stop = threading.Event()
    with RemoteAccelerator(Host(parse_address(url), token), {"accelerator": "loopback"}) as accelerator:

        def batches() -> None:
            while not stop.wait(PAUSE):
                list(accelerator.process_map([SMALL] * BATCH))

        list(accelerator.process_map([SMALL] * BATCH))
        thread = threading.Thread(target=batches)
        thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        stop.set()
        thread.join()


def crowd(quick: bool) -> None:
    """Print the latency of one user's jobs, alone and in a crowd."""
    rounds, seconds, count = (1, 0.3, 100) if quick else (5, 2.0, 1000)
    with contextlib.ExitStack() as stack:
        daemon = Daemon(stack)
        alice, bob = daemon.client(daemon.token("alice")), daemon.token("bob")
        waits(daemon, alice, seconds / 2)
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(rounds):
            rows.setdefault("quiet", []).append(waits(daemon, alice, seconds))
            with slow_connections(daemon.port, count):
                rows.setdefault(f"{count} idle or slow connections", []).append(waits(daemon, alice, seconds))
                with other_user(daemon.url, bob):
                    name = f"and {BATCH} jobs of another user, twice a second"
                    rows.setdefault(name, []).append(waits(daemon, alice, seconds))
    print("\none job of 4 KiB after the other, ms: medians of the rounds (lowest to highest ratio)")
    print(f"  {'':<46} {'median':>7} {'p99':>7} {'x quiet':>22} {'p99 ahead':>10} {'x quiet':>22}")
    for name, figures in rows.items():
        cells = f"  {name:<46} {statistics.median(row[0] for row in figures):7.2f}"
        for column, width in ((1, 7), (2, 10)):
            ratios = [row[column] / quiet[column] for row, quiet in zip(figures, rows["quiet"], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += f" {statistics.median(row[column] for row in figures):{width}.2f} {spread:>22}"
        print(cells)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--other"]:
        other(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--quick", action="store_true", help="a smoke run")
        options = parser.parse_args()
        print("  ".join(f"{key}: {value}" for key, value in machine().items()))
        rates(options.quick)
        crowd(options.quick)
