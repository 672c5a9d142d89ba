"""The harness of all benchmarks: ours, the peers and the physical limit in one run, repeated, verified, as ratios.

A benchmark makes a `Bench`, adds its ways of doing the same work, and calls `main`. The ways take turns, so that a
change of the machine's mood meets all of them; the median counts, the spread is shown, every run's data is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Bench", "Way", "machine", "main"]


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu_seconds() -> float:
    """CPU time of this process, and of the programs that it ran to their end (curl, rclone)."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


@dataclass
class Way:
    """One way of doing the work.

    Attributes
    ----------
    name
        As the table shows it.
    run
        Does it once and returns what `check` wants.
    check
        Raises where the data is wrong.
    limit
        Whether this is the physical limit that others are compared with.
    repeats
        Times that `run` does the work; seconds are divided by it.
    note
        Shown behind the figures; may be a function called after the runs.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None] | None = None
    limit: bool = False
    repeats: int = 1
    note: str | Callable[[], str] = ""
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class Bench:
    """Several ways of doing the same work.

    Parameters
    ----------
    question
        What the table answers.
    nbytes
        Bytes that one run moves, for rates; 0: none.
    unit, scale
        Of the times shown: ``("us", 1e6)``.
    """

    def __init__(self, question: str, nbytes: int = 0, unit: str = "s", scale: float = 1.0) -> None:
        self.question = question
        self.nbytes = nbytes
        self.unit = unit
        self.scale = scale
        self.ways: list[Way] = []

    def add(
        self, name: str, run: Callable[[], Any], check: Callable[[Any], None] | None = None, **keywords: Any
    ) -> None:
        """Add a way; see `Way`."""
        self.ways.append(Way(name, run, check, **keywords))

    def measure(self, rounds: int) -> None:
        """Run all ways in turns; the first round warms up and does not count."""
        for number in range(rounds + 1):
            for way in self.ways:
                cpu, start = _cpu_seconds(), time.perf_counter()
                result = way.run()
                seconds, spent = time.perf_counter() - start, _cpu_seconds() - cpu
                if way.check is not None:
                    way.check(result)
                del result
                if number:
                    way.seconds.append(seconds / way.repeats)
                    way.cpu.append(spent / way.repeats)

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures, one row a way."""
        limits = [statistics.median(way.seconds) for way in self.ways if way.limit]
        rows = []
        for way in self.ways:
            median = statistics.median(way.seconds)
            rows.append(
                {
                    "way": way.name,
                    "median": median,
                    "spread": (max(way.seconds) - min(way.seconds)) / median if median else 0.0,
                    "cpu": statistics.median(way.cpu),
                    "ratio": median / limits[0] if limits and limits[0] else None,
                    "gib_s": self.nbytes / 2**30 / median if self.nbytes and median else None,
                    "note": way.note() if callable(way.note) else way.note,
                }
            )
        return rows

    def show(self) -> None:
        """Print the table."""
        print(f"\n{self.question}")
        print(f"  {'way':<52} {self.unit:>9} {'spread':>7} {'CPU':>9} {'x limit':>8} {'GiB/s':>7}")
        for row in self.rows():
            ratio = f"{row['ratio']:8.2f}" if row["ratio"] is not None else f"{'':8}"
            rate = f"{row['gib_s']:7.2f}" if row["gib_s"] is not None else f"{'':7}"
            print(
                f"  {row['way']:<52} {row['median'] * self.scale:9.3f} {row['spread']:7.0%} "
                f"{row['cpu'] * self.scale:9.3f} {ratio} {rate}  {row['note']}"
            )


def main(benches: Callable[[bool], Iterable[Bench]], rounds: int = 7) -> None:
    """Parse the command line, measure, print, write JSON.

    Parameters
    ----------
    benches
        Makes the benchmarks, each when those before were measured; gets whether this is a smoke run (small data).
    rounds
        How often each way is measured.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="small data, few rounds: does it run and is the data right"
    )
    parser.add_argument("--rounds", type=int, default=None, help=f"measurements of each way (default {rounds})")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    where = machine()
    print("  ".join(f"{key}: {value}" for key, value in where.items()))
    results = []
    for bench in benches(options.quick):
        bench.measure(options.rounds or (1 if options.quick else rounds))
        bench.show()
        results.append({"question": bench.question, "nbytes": bench.nbytes, "rows": bench.rows()})
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": where, "argv": sys.argv, "benches": results}, indent=1))
