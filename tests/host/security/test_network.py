"""The README's example, and the documentation's, on two machines: network namespaces, TLS with a pin, a token."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

CLIENT = """
import sys, apyfal
with apyfal.Accelerator("sha3", host_ip=sys.argv[1]) as sha3:
    print(sha3.process(b"abc")["digest"])
    print(sha3.process("host://reads")["digest"])
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two machines on one cable: 10.0.0.1 (the host) and 10.0.0.2 (the client)."""
    host, client = f"apyfal-host-{os.getpid()}", f"apyfal-client-{os.getpid()}"
    with ExitStack() as stack:
        for name in (host, client):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        ends = (f"ah{os.getpid()}", f"ac{os.getpid()}")
        ip("link", "add", ends[0], "netns", host, "type", "veth", "peer", "name", ends[1], "netns", client)
        for name, end, address in ((host, ends[0], "10.0.0.1/24"), (client, ends[1], "10.0.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", end)
            ip("-n", name, "link", "set", end, "up")
        yield host, client


def run(namespace: str, home: Path, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    if token is not None:
        environment["APYFAL_TOKEN"] = token
    return subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, *words],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def typed() -> tuple[list[str], list[str]]:
    """Return the README's lines for the host, and those for the client."""
    text = (ROOT / "README.md").read_text().partition("The same code runs a card of another machine.")[2]
    there, here = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)[:2]
    return there.splitlines(), here.splitlines()


def test_the_example_of_the_readme_as_typed(namespaces: tuple[str, str], tmp_path: Path) -> None:
    """In a shell on each machine; what the README abbreviates is pasted from what the host printed."""
    there, here = typed()
    assert sum(map(len, (*there, *here))) < 200, "less than a minute of typing, at 200 characters a minute"
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "apyfal"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m apyfal "$@"\n')
    command.chmod(0o755)

    def shell(name: str, script: str) -> subprocess.Popen[str]:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        (home / "README.md").write_text("abc")
        environment = {"PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(home), "PYTHONPATH": str(ROOT)}
        words = ["ip", "netns", "exec", namespaces[name == "client"], "sh", "-ec", script]
        return subprocess.Popen(words, env=environment, cwd=home, stdout=subprocess.PIPE, text=True)

    *setup, serve = there
    with shell("host", "\n".join(setup)) as done:
        token = done.communicate(timeout=60)[0].strip()
    with shell("host", f"exec {serve}") as daemon:
        assert daemon.stdout is not None
        try:
            pin = next(line for line in daemon.stdout if "https://10.0.0.1:7391#sha256=" in line).strip()[-64:]
            script = "\n".join(here).replace("apf_...", token).replace("sha256=...", f"sha256={pin}")
            with shell("client", script) as client:
                assert hashlib.sha3_256(b"abc").hexdigest() in client.communicate(timeout=60)[0]
            assert client.returncode == 0
        finally:
            daemon.terminate()
        assert daemon.wait(30) == 0


def test_the_example_of_the_documentation(namespaces: tuple[str, str], tmp_path: Path) -> None:
    host, client = namespaces
    (tmp_path / "host").mkdir()
    (tmp_path / "client").mkdir()
    created = run(host, tmp_path / "host", "-m", "apyfal", "token", "create", "alice")
    token = created.stdout.strip()
    assert token.startswith("apf_"), created.stderr
    with subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-m", "apyfal", "serve", "--listen", "10.0.0.1"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "host"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "host",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        try:
            daemon.stdout.readline()  # the Unix socket
            url = daemon.stdout.readline().removeprefix("apyfal host: ").strip()
            assert url.startswith("https://10.0.0.1:7391#sha256=")
            (tmp_path / "host/shared/reads").write_bytes(b"reads")
            done = run(client, tmp_path / "client", "-c", CLIENT, url, token=token)
            digests = [hashlib.sha3_256(data).hexdigest() for data in (b"abc", b"reads")]
            assert done.stdout.split() == digests, done.stderr
            for wrong in (url[:-4] + "0000", url.partition("#")[0]):  # another pin; no pin, and no authority
                refused = run(client, tmp_path / "client", "-c", CLIENT, wrong, token=token)
                assert "certificate" in refused.stderr.splitlines()[-1]
            refused = run(client, tmp_path / "client", "-c", CLIENT, url, token="apf_0_wrong")
            assert "a valid token is needed" in refused.stderr
            plain = run(client, tmp_path / "client", "-c", CLIENT, "http://10.0.0.1:7391", token=token)
            assert "use https://" in plain.stderr
        finally:
            daemon.terminate()
        assert daemon.wait(30) == 0
