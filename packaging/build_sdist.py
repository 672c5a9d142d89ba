"""Build the source distribution, build a wheel from it as pip does, check both, and test what it installs.

What `python -m build` and `pip install apyfal-....tar.gz` give: with the compiler of this machine, in environments
that hold nothing else.

Use: python packaging/build_sdist.py [--out dist]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from trial import ROOT, SHORT, clone, compare, environment, run, try_out


def main() -> None:
    """Build, check, install and test."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True, parents=True)
    with tempfile.TemporaryDirectory(prefix="apyfal-sdist-") as directory:
        scratch = Path(directory)
        source = clone(scratch / "source")
        run(sys.executable, "-m", "validate_pyproject", source / "pyproject.toml")
        run(sys.executable, "-m", "build", "--sdist", "--outdir", scratch / "dist", source, quiet=True)
        (sdist,) = (scratch / "dist").glob("*.tar.gz")
        inside = environment(sys.executable, scratch / "build")
        plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        run(inside, "-m", "pip", "wheel", "-q", "--no-deps", "-w", scratch / "dist", sdist, cwd=scratch, env=plain)
        (wheel,) = (scratch / "dist").glob("*.whl")
        compare(wheel, zipfile.ZipFile(wheel).namelist())
        run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
        run(sys.executable, "-m", "check_wheel_contents", wheel)
        try_out(sys.executable, wheel, scratch, list(SHORT))
        sdist.replace(options.out / sdist.name)
    print(f"== {sdist.name}: built, checked, installed, tested", flush=True)


if __name__ == "__main__":
    main()
