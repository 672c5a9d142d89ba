"""Run a benchmark by its name: ``python bench NAME [arguments]``, or ``./do bench NAME``; without a name, list them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from apyfal.exceptions import did_you_mean

BENCH = Path(__file__).resolve().parent


def main() -> None:
    """Become the benchmark, which finds what benchmarks share, and the servers and cards of the tests."""
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(BENCH.glob("*/bench_*.py"))}
    if len(sys.argv) < 2:
        for name, path in scripts.items():
            print(f"{name:12} {path.relative_to(BENCH.parent)}")
        return
    name = sys.argv[1]
    if name not in scripts:
        sys.exit(f"bench: unknown benchmark {name!r}{did_you_mean(name, scripts)}")
    paths = [str(BENCH), str(BENCH.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.execv(sys.executable, [sys.executable, str(scripts[name]), *sys.argv[2:]])


main()
