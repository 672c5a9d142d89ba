"""Install a distribution where nothing else is, and run tests against what was installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
#: CPython without an interpreter lock, each with a wheel of its own.
FREE_THREADED = ("3.14t",)
QUICK = ("-m", "not vendor and not server and not slow")
#: Every test that needs no server and no vendor's runtime; and those that meet the interpreter: the extension, the
#: pipeline, and programs that end in the middle of a run.
FULL = ("tests/unit", "tests/lifetime", "tests/drivers", *QUICK)
SHORT = ("tests/unit/core", "tests/unit/pipeline", "tests/unit/definition", "tests/lifetime/test_in_flight.py", *QUICK)
#: What looks at the tree and not at the package, and what measures time.
LEFT_OUT = ("tests/unit/test_layers.py", "tests/drivers/test_bench_drivers.py")
#: What the short choice needs beside the package and an extra; all of them need the extra ``test``.
TOOLS = ("pytest", "pytest-timeout", "hypothesis")
#: Suffixes of the tree's files that a wheel holds.
SHIPPED = (".py", ".pyi", ".pxd", ".cl", ".sv", ".h", ".cpp", ".typed")


def run(*command: str | Path, quiet: bool = False, **keywords: object) -> None:
    """Run a command; end with its status when it fails. What a `quiet` one says is shown only then."""
    print("+", *command, flush=True)
    if quiet:
        keywords |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([str(part) for part in command], check=False, **keywords)  # type: ignore[call-overload]
    if done.returncode:
        if quiet:
            sys.stdout.buffer.write(done.stdout)
        sys.exit(done.returncode)


def version_of(python: str | Path) -> str:
    """Return an interpreter's version, as in ``3.12``, or ``3.14t`` without an interpreter lock."""
    free = "'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''"
    code = f"import sys, sysconfig; print('%d.%d' % sys.version_info[:2] + ({free}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def oldest_numpy() -> str:
    """Return the requirement of the oldest numpy that ``pyproject.toml`` declares, as in ``numpy==1.25``."""
    text = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    declared = re.search(r'"numpy>=([\d.]+)"', text)
    if declared is None:
        sys.exit("trial: pyproject.toml declares no numpy>=VERSION among its dependencies")
    return f"numpy=={declared[1]}"


def environment(python: str | Path, directory: Path, *requirements: str | Path) -> Path:
    """Make a virtual environment; return its interpreter."""
    run(python, "-m", "venv", directory)
    inside = directory / "bin" / "python"
    if requirements:
        install(inside, *requirements)
    return inside


def install(inside: Path, *requirements: str | Path, **keywords: object) -> None:
    """Install into an environment."""
    run(inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements, **keywords)


def clone(where: Path) -> Path:
    """Make a clean copy of the tree: no build products."""
    run("git", "clone", "-q", "--no-hardlinks", ROOT, where)
    return where


def compare(wheel: Path, names: list[str]) -> None:
    """End with an error where the wheel lacks a file of the tree, or holds one that is none of its business."""
    held = {name for name in names if name.startswith("apyfal/") and not name.endswith("/")}
    tracked = subprocess.run(
        ["git", "ls-files", "apyfal"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    expected = {name for name in tracked if name.endswith(SHIPPED)}
    native = {name for name in held if name.startswith("apyfal/_core/_native.")}
    if len(native) != 1 or held - native != expected:
        sys.exit(
            f"{wheel.name}: missing {sorted(expected - held)}, "
            f"unexpected {sorted(held - native - expected)}, native {sorted(native)}"
        )


def try_out(python: str, wheel: Path, scratch: Path, arguments: list[str], numpy: str | None = None) -> None:
    """Install a wheel where there is no compiler, run the main job, then tests, against what was installed.

    Parameters
    ----------
    python
        The interpreter.
    wheel
        What is installed.
    scratch
        An empty directory.
    arguments
        Of pytest.
    numpy
        The requirement of another numpy than the newest.
    """
    path = scratch / "bin"
    path.mkdir()
    for program in ("sh", "env"):  # no cc, no gcc
        (path / program).symlink_to(shutil.which(program) or sys.exit(f"trial: no {program} on this machine"))
    inside = environment(python, scratch / "test")
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CC", "VIRTUAL_ENV")}
    bare = {**plain, "PATH": f"{inside.parent}:{path}"}
    install(inside, wheel, *([numpy] if numpy else []), env=bare)
    run(inside.parent / "apyfal", "process", "-a", "sha3", ROOT / "README.md", cwd=scratch, env=bare)
    run(sys.executable, ROOT / "packaging/typed_start.py", wheel, "--python", python)
    # The tests, with the tree that they look at but for the package: what they import is the wheel's.
    elsewhere = clone(scratch / "elsewhere")
    shutil.rmtree(elsewhere / "apyfal")
    env = {**plain, "PATH": f"{inside.parent}:{os.environ['PATH']}", "PYTHON": str(inside)}
    if version_of(python) in FREE_THREADED:
        run(inside, "-W", "error", "-c", "import apyfal, sys; sys.exit(sys._is_gil_enabled())", cwd=elsewhere, env=env)
        env["PYTHON_GIL"] = "0"  # whatever extension another library of the tests brings
    needed = [f"{wheel}[host]", *TOOLS] if arguments == list(SHORT) else [f"{wheel}[test]"]
    install(inside, *needed, *([numpy] if numpy else []), env=env)
    run(inside, "-c", "import apyfal, sys; sys.exit('site-packages' not in apyfal.__file__)", cwd=elsewhere, env=env)
    ignored = [f"--ignore={name}" for name in LEFT_OUT]
    command: list[str | Path] = [inside, "-m", "pytest", "-q", *ignored, *arguments]
    if subprocess.run(command, cwd=elsewhere, env=env, check=False).returncode:
        # Tests measure time, on a machine that others use too: what fails once is run once more, alone.
        run(*command, "--last-failed", "--last-failed-no-failures", "none", cwd=elsewhere, env=env)
