"""A daemon in a process of its own, for the tests: started, asked, killed and started again.

Run as a script it is the daemon: ``daemon.py '<settings as JSON>'``. It prints its port and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from apyfal.host.client.http import Host
from apyfal.host.protocol.address import parse_address
from apyfal.host.server.policy.tokens import TokenStore

if TYPE_CHECKING:
    from apyfal.host.server.daemon import Daemon

ROOT = Path(__file__).parents[3]

_D = TypeVar("_D", bound="Daemon")


class RunningDaemon:
    """A daemon that tests talk to.

    Attributes
    ----------
    directory
        Holds its state, its shared directory, its socket and its logs.
    url, unix
        Where it listens.
    namespace
        The network namespace that it is started in; ``None``: that of the tests.
    """

    def __init__(self, directory: Path, namespace: str | None = None, **settings: Any) -> None:
        self.directory = directory
        self.namespace = namespace
        self.shared = directory / "shared"
        self.state = directory / "state"
        self.shared.mkdir(exist_ok=True, mode=0o700)
        self.state.mkdir(exist_ok=True, mode=0o700)
        self.unix = f"unix://{directory}/run/host.sock"
        self.tokens = TokenStore(self.state / "tokens.json")
        self.settings = settings
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, user: str = "alice", *scopes: str) -> str:
        return self.tokens.create(user, scopes or ("process", "storage"))

    def host(self, token: str | None) -> Host:
        return Host(parse_address(self.url), token)

    def start(self) -> None:
        """Start it, on the port it had before."""
        options = {"directory": str(self.directory), "port": self.port, "settings": self.settings}
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HOME": str(self.directory)}
        inside = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        with open(self.directory / "stderr", "ab") as errors:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-X", "faulthandler", __file__, json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=self.directory,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("port "), (self.directory / "stderr").read_text()
        self.port = int(line.split()[1])

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None
        return status

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "audit.log").read_text().splitlines()]

    def resident(self) -> int:
        """Return the bytes of memory that its process has."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    def errors(self) -> str:
        return (self.directory / "stderr").read_text()


@contextlib.contextmanager
def running(directory: Path, namespace: str | None = None, **settings: Any) -> Iterator[RunningDaemon]:
    """Run a daemon for a block; it must end in order, without a traceback."""
    daemon = RunningDaemon(directory, namespace, **settings)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            status = daemon.stop()
            assert status == 0, daemon.errors()
    assert "Traceback" not in daemon.errors(), daemon.errors()


@contextlib.contextmanager
def serving(home: Path, environment: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``apyfal serve`` on a free port for a block that ends it; yields the process and the line that it prints."""
    command = [sys.executable, "-m", "apyfal", "serve", *options, "--listen", "127.0.0.1:0"]
    with (
        open(home / "stderr", "wb") as errors,
        subprocess.Popen(
            command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as daemon,
    ):
        assert daemon.stdout is not None
        yield daemon, daemon.stdout.readline()


@contextlib.contextmanager
def in_thread(make: Callable[[], _D]) -> Iterator[_D]:
    """Run the daemon that `make` makes in a thread of this process, for a block."""
    made: list[_D] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        made.append(make())
        await made[0].run(ready.set)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        yield made[0]
    finally:
        if made:
            loop.call_soon_threadsafe(made[0].stop)
        thread.join(20)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


# -- the daemon's own process ------------------------------------------------------------------------------------------
class Counting:
    """An accelerator that writes down each run, in one atomic append, before it does anything."""

    outputs = ("dst",)
    reports_size = False

    def __init__(self, accelerator: str | None = None, **options: Any) -> None:
        self._log = os.open("runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def start(self, src: object = None, **parameters: Any) -> None:
        """Nothing to configure."""

    def process(self, src: Any = None, dst: object = None, **options: Any) -> dict[str, Any]:
        """Say which job this is; sleep for so long."""
        os.write(self._log, f"{options['number']}\n".encode())
        time.sleep(options.get("seconds", 0.0))
        return {"number": options["number"], "bytes": 0 if src is None else len(src)}

    def stop(self) -> None:
        """Close the log."""
        os.close(self._log)


def both(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Sort two inputs into two outputs."""
    np.minimum(x, y, out=low)
    np.maximum(x, y, out=high)


def negative(src: np.ndarray, dst: np.ndarray) -> None:
    """Change the sign of what has two bytes each."""
    np.negative(src, out=dst)


def register_hanging() -> None:
    """Define ``hangs``, whose jobs take a tenth of a second."""
    from apyfal.accelerators import model

    @model("hangs", dtype="uint8", chunking="elements")
    def hangs(src: np.ndarray, dst: np.ndarray) -> None:
        time.sleep(0.1)
        dst[:] = src


def _main() -> None:
    faulthandler.enable()
    import logging

    from host.support.odd_results import register_results
    from host.support.url_cases import Names

    from apyfal.accelerators import model
    from apyfal.host.server.daemon import Daemon, Listener
    from apyfal.host.server.policy import egress, linux_sandbox
    from apyfal.host.server.process import limit_pauses
    from apyfal.host.settings import HostSettings
    from apyfal.log import get_logger

    options = json.loads(sys.argv[1])
    directory = Path(options["directory"])
    given = options["settings"]
    counting = given.pop("counting", False)
    names = Names(**given.pop("names", {}))
    if names.answers:
        egress._system_resolver = names
    if given.pop("walk", False):  # as on a kernel without openat2
        linux_sandbox.have_openat2 = lambda: False
    for name in ("authorized_host_dirs", "private_endpoints"):
        if name in given:
            given[name] = tuple(given[name])
    settings = HostSettings.load(
        {},
        **{"authorized_host_dirs": (str(directory / "shared"),), **given},
        state_directory=directory / "state",
        audit_log=directory / "audit.log",
    )

    model("both", inputs=("x", "y"), outputs=("low", "high"), dtype="uint8", chunking="elements")(both)
    model("negative", dtype="int16", chunking="elements")(negative)
    register_results()
    register_hanging()
    get_logger().addHandler(logging.StreamHandler())  # a test that makes the daemon log a traceback fails

    async def serve() -> None:
        listeners = [Listener(host="127.0.0.1", port=options["port"]), Listener(unix=directory / "run" / "host.sock")]
        daemon = Daemon(settings, listeners, config={}, open_accelerator=Counting if counting else None)

        def ready() -> None:
            limit_pauses()
            print(f"port {daemon.ports[0]}", flush=True)

        await daemon.run(ready)

    asyncio.run(serve())


if __name__ == "__main__":
    _main()
