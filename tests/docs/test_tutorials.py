"""Each tutorial is typed as it stands: files with their titles, commands and programs in order, outputs compared."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/start.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.S | re.M)

#: Lines that are not run, by their beginning, and why.
NOT_RUN = {
    "pip install": "asks a package index; CI installs the same before the tests",
    "python3 -m venv": "makes an environment; the tests run in one",
    ". apyfal-env": "enters that environment",
}
#: Ports in the pages: each run has its own.
PORTS = re.compile(r"\b(5000|7391)\b")
#: Succeeds if somebody listens.
PROBE = "(: < /dev/tcp/127.0.0.1/{})"
MARK = "-- block {} --"


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def script_of(text: str) -> tuple[str, dict[int, str]]:
    """Return a page as one shell script, and what its blocks should print."""
    lines = ["set -eo pipefail"]
    outputs: dict[int, str] = {}
    number = 0
    for language, title, code in FENCE.findall(text):
        if title == "Output":
            outputs[number] = code
        elif title:
            lines.append(f"cat > {title} <<'END OF FILE'\n{code}END OF FILE")
        elif language in ("sh", "python"):
            number += 1
            lines.append(f"echo '{MARK.format(number)}'")
            if language == "python":
                lines.append(f"python - <<'END OF FILE'\n{code}END OF FILE")
                continue
            kept = [line for line in code.splitlines() if not line.startswith(tuple(NOT_RUN))]
            lines += kept
            for line in kept:
                if line.endswith("&"):  # a server: readers wait until it is there
                    (port,) = re.findall(r"\b\d{4,5}\b", line)
                    lines.append(f"for i in $(seq 600); do {PROBE.format(port)} 2> /dev/null && break; sleep 0.1; done")
        else:
            raise AssertionError(f"a block of {language} without a title: {code}")
    return "\n".join(lines) + "\n", outputs


@contextmanager
def running(script: str, place: Path) -> Iterator[tuple[int, str]]:
    """Run a script in a session of its own, and end all of it; yield status and output."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("APYFAL_", "AWS_", "XDG_"))},
        "HOME": str(place),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),  # of designs in Verilog
    }
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=place,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=400)
            yield status, log.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pattern(expected: str) -> str:
    """Return a regular expression for an output, in which ``...`` stands for anything."""
    return re.escape(expected.strip()).replace(re.escape("..."), ".*")


@pytest.mark.timeout(420)  # designs are compiled
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_works_as_typed(page: Path, tmp_path: Path) -> None:
    ports: dict[str, str] = {}
    text = PORTS.sub(lambda match: ports.setdefault(match[0], str(free_port())), page.read_text())
    script, outputs = script_of(text)
    with running(script, tmp_path) as (status, output):
        assert status == 0, output[-3000:]
    said = dict(re.findall(r"^-- block (\d+) --\n(.*?)(?=^-- block|\Z)", output, re.S | re.M))
    for number, expected in outputs.items():
        got = "\n".join(line.rstrip() for line in said[str(number)].strip("\n").splitlines()).strip()
        assert re.fullmatch(pattern(expected), got, re.S), f"block {number}:\n{got}\n-- expected\n{expected}"
    assert outputs, "a tutorial shows what its commands print"


def test_the_exceptions_are_needed() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for start in NOT_RUN:
        assert re.search(f"^{re.escape(start)}", text, re.M), f"{start!r} is on no page"
