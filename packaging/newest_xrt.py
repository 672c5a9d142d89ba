"""Run the xrt driver's tests over the XRT of Debian's development release, in the folder of `newest_pythons`.

There is a card below it: the tests' stand-in, built here for the interface that this XRT has to its shims, and run
there with the wheel that is tested. All other runs of these tests use the XRT of the machine itself, 2.13 of Debian 12.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from trial import ROOT

PACKAGE = "libxrt2"
TESTS = ("tests/drivers/test_xrt.py", "tests/drivers/test_conformance.py", "-k", "xrt", "-m", "not slow")


def libraries(folder: Path) -> Path:
    """Return where the release in a folder has XRT's libraries, if it has."""
    return folder / "usr/lib" / f"{os.uname().machine}-linux-gnu"


def is_installed(folder: Path) -> bool:
    """Return whether the release in a folder has XRT."""
    return (libraries(folder) / "libxrt_coreutil.so.2").exists()


def build(folder: Path, where: Path) -> None:
    """Build the stand-in card and the drivers for the release in a folder, in another folder in it."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from drivers.support import abi; from fixtures.xrt import installation; "
        "where = Path(sys.argv[2]); installation.newest(where, Path(sys.argv[1])); abi.build(where / 'drivers.so')"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    subprocess.run([sys.executable, "-c", code, str(libraries(folder)), str(where)], env=env, check=True)


def test(folder: Path, at: Path, run: Callable[..., int]) -> bool:
    """Run the tests; return whether all passed.

    Parameters
    ----------
    folder
        Of the release.
    at
        Where it has an interpreter with the wheel, ``venv``, and the tests, ``tree``: an absolute path inside.
    run
        Runs pytest there: its arguments, and additions to its environment.
    """
    where = at / "xrt"
    build(folder, folder / where.relative_to("/"))
    env = {"APYFAL_TEST_XRT": str(where), "APYFAL_TEST_LIBRARY": str(where / "drivers.so")}
    # Some measure time, on a machine that others use too: what fails once is run once more.
    again = ("--last-failed", "--last-failed-no-failures", "none")
    return not run(*TESTS, env=env) or not run(*TESTS, *again, env=env)
