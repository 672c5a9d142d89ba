"""Commands over whole trees, from a thousand small objects to a million: does the time of one, or the memory, grow?

A store makes objects (64 bytes) and listings as they are asked for. Each command runs in a process of its own, whose
peak of resident memory is compared with that of the smallest tree. ``APYFAL_BENCH_MILLION=1`` goes on to a million.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.common import Bench, main
from support.listed import listed

SIZE = 64
COMMANDS = {
    "ls -R": ["ls", "-R", "lab://{count}"],
    "rm -r": ["rm", "-r", "lab://{count}"],
    "copy -r": ["copy", "-r", "-q", "lab://{count}", "other://out"],
    "sync": ["sync", "-q", "lab://{count}", "other://out"],
    "sync, the same": ["sync", "-q", "lab://{count}", "other://{count}"],
}
CONFIGURATION = """
[storage.{name}]
provider     = s3
root         = b
endpoint_url = {url}
client_id    = bench
secret_id    = bench-secret
region       = us-east-1
"""
#: Runs a command and prints the process's peak of memory (KiB) on its last line.
RUN = """
import sys
from apyfal import cli
status = cli.main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


class Memory:
    """The peak of each command, by the number of objects."""

    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}

    def note(self, count: int) -> str:
        """Text for a table: how much more than with the fewest objects, in all and an object."""
        fewest = min(self.peaks)
        more = self.peaks[count] - self.peaks[fewest]
        each = f", {more * 1024 / (count - fewest):.0f} bytes an object" if count > fewest else ""
        return f"{self.peaks[count] / 1024:.0f} MiB{each}"


def benches(quick: bool) -> list[Bench]:
    """1,000, 10,000 and 100,000 objects, in turns (100 and 1,000 in a smoke run)."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    urls = {name: stack.enter_context(listed(SIZE, second)) for name, second in (("lab", 0), ("other", 30))}
    (folder / "accelerator.conf").write_text("".join(CONFIGURATION.format(name=n, url=u) for n, u in urls.items()))
    counts = [100, 1000] if quick else [1000, 10_000, 100_000]
    if os.environ.get("APYFAL_BENCH_MILLION"):
        counts.append(1_000_000)
    made = []
    for name, arguments in COMMANDS.items():
        bench = Bench(f"{name}: microseconds an object of {SIZE} bytes, by their number", unit="us", scale=1e6)
        memory = Memory()
        for count in counts:

            def run(arguments: list[str] = arguments, count: int = count, memory: Memory = memory) -> None:
                words = [one.format(count=count) for one in arguments]
                with (folder / "out").open("w+") as out:
                    subprocess.run([sys.executable, "-c", RUN, *words], cwd=folder, stdout=out, check=True)
                lines = (folder / "out").read_text().splitlines()
                if words[0] == "ls" and len(lines) != count + 1:
                    raise AssertionError(f"{len(lines)} lines for {count} objects")
                memory.peaks[count] = int(lines[-1])

            bench.add(
                f"{count:,} objects",
                run,
                repeats=count,
                note=lambda count=count, memory=memory: memory.note(count),
            )
        made.append(bench)
    return made


if __name__ == "__main__":
    main(benches, rounds=1)
