"""Compile ``csrc/`` with the compiler at hand (`CC`, default ``cc``), plain and under the sanitizers, and run programs.

`SECONDS` (``APYFAL_TEST_SECONDS``, by default 2) is how long threads hammer a device: a minute finds
what seldom happens.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["HERE", "SECONDS", "VARIANTS", "Variant", "run"]

SECONDS = float(os.environ.get("APYFAL_TEST_SECONDS", "2"))
HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
SOURCES = sorted(CSRC.rglob("*.c"))
COMPILER = shlex.split(os.environ.get("CC", "cc"))
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-g"]
PLACES = (CSRC, CSRC / "include", HERE / "rig", HERE.parent / "fixtures" / "opencl")
INCLUDES = [f"-I{place}" for place in PLACES]
LIBRARIES = ["-lz", "-lpthread", "-lm", "-ldl"]
VARIANTS = {
    "plain": ["-O3"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    # It does not know fences; the one there is orders a device's registers, not threads.
    "thread": ["-O1", "-fsanitize=thread", "-fno-omit-frame-pointer", "-Wno-tsan"],
}
# A race or a leak ends the program with this status.
ENVIRONMENT = {"ASAN_OPTIONS": "exitcode=66:detect_leaks=1", "TSAN_OPTIONS": "exitcode=66:halt_on_error=1"}
NOTHING: Mapping[str, str] = {}


def _checked(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


class Variant:
    """What is compiled with one set of flags into `folder`, each source once."""

    def __init__(self, flags: Sequence[str], folder: Path) -> None:
        self.flags = flags
        self.folder = folder
        self._objects: dict[Path, Path] = {}

    def _compile(self, source: Path) -> Path:
        if source not in self._objects:
            result = self.folder / f"{source.parent.name}-{source.stem}.o"
            _checked(*COMPILER, *FLAGS, *self.flags, *INCLUDES, "-c", source, "-o", result)
            self._objects[source] = result
        return self._objects[source]

    def program(
        self, name: str, sources: Sequence[Path], *libraries: Path, redirect: Mapping[str, str] = NOTHING
    ) -> Path:
        """Link `sources` and all of ``csrc/``.

        Parameters
        ----------
        name
            Of the program.
        sources, libraries
            What it is made of beside ``csrc/``.
        redirect
            Functions that the xdma driver calls, by which others in their place, also where `sources` define them.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            objects = list(pool.map(self._compile, [*SOURCES, *sources]))
        if redirect:
            objects = [self._redirected(each, name, redirect) if "xdma" in each.name else each for each in objects]
        result = self.folder / name
        _checked(*COMPILER, *self.flags, *objects, *libraries, *LIBRARIES, "-o", result)
        return result

    def _redirected(self, given: Path, name: str, redirect: Mapping[str, str]) -> Path:
        result = given.with_name(f"{name}-{given.name}")
        _checked("objcopy", *(f"--redefine-sym={old}={new}" for old, new in redirect.items()), given, result)
        return result


def run(program: Path, *arguments: str, environment: Mapping[str, str] = NOTHING) -> str:
    """Run a program to its good end; returns what it printed."""
    # This process may run under a sanitizer of its own, which would be loaded into the other's program.
    inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [program, *arguments],
        env={**inherited, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS + 280,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
