"""Run a server as its own process: a free loopback port, a bounded start, a log file, and a stop by process id.

Every module beside this one starts one kind of real server with these helpers. A missing program is an error that names
the package to install, never a skip: a suite that skips its servers proves nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

__all__ = ["Server", "ServerFailed", "answers", "free_ports", "listens", "program", "run", "running", "wait_until"]

HOST = "127.0.0.1"


class ServerFailed(RuntimeError):
    """A server cannot be started here, or did not become ready in time; the message ends with its log."""


def free_ports(count: int = 1) -> list[int]:
    """TCP ports of the loopback interface that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def program(name: str, package: str, *, also: Sequence[str] = ("/usr/sbin", "/usr/local/sbin")) -> str:
    """Path of an executable; `ServerFailed` naming the Debian `package` when it is not installed."""
    found = shutil.which(name)
    if found is None:
        found = next((str(path) for path in (Path(place) / name for place in also) if path.exists()), None)
    if found is None:
        raise ServerFailed(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found


def run(command: Sequence[str], *, log: Path, cwd: Path | None = None, within: float = 30.0) -> None:
    """Run a set-up command to its end, its output appended to `log`."""
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, timeout=within, check=False
        )
    if ended.returncode:
        raise ServerFailed(f"{command[0]} ended with {ended.returncode}\n{_tail(log)}")


def answers(url: str, *, headers: Mapping[str, str] | None = None) -> bool:
    """Whether an HTTP server answers at `url` with anything but a server error."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False


class Server(ThreadingHTTPServer):
    """An HTTP server with a thread a connection, and room for as many at once as a test may make."""

    request_queue_size = 128


def listens(port: int, greeting: bytes = b"") -> bool:
    """Whether a server takes connections at a port of the loopback interface, and begins with this `greeting`."""
    try:
        with socket.create_connection((HOST, port), 5) as connection:
            return not greeting or connection.recv(len(greeting)) == greeting
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], what: str, *, within: float, log: Path | None = None) -> None:
    """Return once `ready` says yes; `ServerFailed` after `within` seconds."""
    end = time.monotonic() + within
    while not ready():
        if time.monotonic() > end:
            raise ServerFailed(f"{what} was not ready within {within:g} s\n{_tail(log)}")
        time.sleep(0.05)


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool] | None = None,
    within: float = 30.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in the foreground until the ``with`` block ends.

    Parameters
    ----------
    command
        The program and its arguments; it must not put itself into the background.
    log
        File that its output is appended to.
    ready
        Asked until it says yes; the block begins then.
    within
        Seconds that this may take.
    cwd, env
        As for `subprocess.Popen`.
    """
    with log.open("ab") as out:
        # setpriv replaces itself by the command, which the kernel then kills if the test process dies without clean-up.
        process = subprocess.Popen(
            [program("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=env,
        )
    try:
        if ready is not None:

            def alive_and_ready() -> bool:
                if process.poll() is not None:
                    raise ServerFailed(f"{command[0]} ended with {process.returncode}\n{_tail(log)}")
                return ready()

            wait_until(alive_and_ready, command[0], within=within, log=log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path | None, lines: int = 15) -> str:
    if log is None or not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
