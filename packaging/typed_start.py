"""Type the ten-minute start from its page, with a clock: a wheel in a new environment, and no compiler.

Every block of ``docs/start.md`` is run in order as it stands there, in one shell, in an empty folder, with a path that
holds the interpreter and the few programs that the page calls. ``pip install apyfal`` installs the wheel that is given.
Each output is compared with the page's.

Use: python packaging/typed_start.py WHEEL [--python python3.12] [--page FILE]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 600.0
#: What the page calls, besides Python. No ``cc``, ``gcc`` or ``clang`` is among it.
PROGRAMS = ("sh", "bash", "env", "cat", "gunzip", "gzip", "od", "uname", "cygpath")
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
MARK = "-- block {} --"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return what a reader types, in order, each with the output that the page shows (empty: none)."""
    found: list[tuple[str, str]] = []
    for language, title, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if title == "Output":
            found[-1] = (found[-1][0], code)
        elif title:
            found.append((f"cat > {title} <<'END OF FILE'\n{code}END OF FILE\n", ""))
        elif language == "python":
            found.append((f"python - <<'END OF FILE'\n{code}END OF FILE\n", ""))
        elif language == "sh":
            found.append((code, ""))
        else:
            sys.exit(f"typed_start: {page.name} has a block of {language} without a title")
    return found


def environment_without_compiler(folder: Path, wheel: Path, python: str) -> dict[str, str]:
    """Return the variables of a shell that finds `python` as ``python3``, and no compiler."""
    programs = folder / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        if (place := shutil.which(name)) is not None:
            (programs / name).symlink_to(place)
    interpreter = shutil.which(python) or sys.exit(f"typed_start: there is no {python}")
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n')
    (programs / "python3").chmod(0o755)
    constraint = folder / "constraint.txt"
    constraint.write_text(f"apyfal @ {wheel.as_uri()}\n")
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LC_", "SSL_"))}
    home = folder / "home"
    home.mkdir()
    return {**kept, "PATH": str(programs), "HOME": str(home), "PIP_CONSTRAINT": str(constraint)}


def main() -> None:
    """Type the page; end with an error at the first difference, or after ten minutes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--page", type=Path, default=Path(__file__).resolve().parent.parent / "docs/start.md")
    options = parser.parse_args()
    typed = blocks(options.page)
    script = "set -eo pipefail\n"
    for number, (code, _) in enumerate(typed):
        script += f"echo '{MARK.format(number)}'; echo '{MARK.format(number)}' >&2\n{code}"
    with tempfile.TemporaryDirectory(prefix="apyfal-start-") as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        env = environment_without_compiler(folder, options.wheel.resolve(), options.python)
        began = time.monotonic()
        done = subprocess.run(
            ["/bin/bash", "-c", script], cwd=work, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        seconds = time.monotonic() - began
    said = dict(re.findall(r"^-- block (\d+) --\n(.*?)(?=^-- block|\Z)", done.stdout, re.DOTALL | re.MULTILINE))
    if done.returncode:
        sys.exit(f"typed_start: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    for number, (code, expected) in enumerate(typed):
        if expected and said[str(number)].split() != expected.split():
            sys.exit(f"typed_start: the page says\n{expected}\nand the command\n{code}said\n{said[str(number)]}")
    print(f"== {options.page.name}: {len(typed)} blocks typed in {seconds:.0f} s with {options.wheel.name}", flush=True)


if __name__ == "__main__":
    main()
