"""A storage provider of somebody else's: an installed package, found by its entry point, and checked by the suites."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import apyfal

EXAMPLE = Path(__file__).parents[2] / "examples/plugin_store"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's interpreter: this one's packages are in reach, and the example is installed."""
    place = tmp_path_factory.mktemp("environment")
    # pip of this interpreter installs into the other one, so that it needs none
    venv.create(place, with_pip=False)
    python = place / "bin/python"
    site = Path(printed(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert apyfal.__file__ is not None
    reach = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), Path(apyfal.__file__).parents[1]]
    (site / "reach.pth").write_text("".join(f"{path}\n" for path in reach))
    source = place / "source"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", str(source)], check=True, timeout=100)
    return python


def printed(python: Path, script: str) -> str:
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_it_is_a_url_scheme_once_it_is_installed(python: Path, tmp_path: Path) -> None:
    assert importlib.util.find_spec("example_store") is None
    script = f"""
import numpy as np
from apyfal import storage
from apyfal.exceptions import MountError
storage.mount("my_shelf", provider="shelf", endpoint_url={str(tmp_path)!r})
storage.makedirs("my_shelf://bucket")
storage.save("my_shelf://bucket/a key", np.arange(9, dtype="u1"))
print(storage.load("my_shelf://bucket/a key").sum(), storage.listdir("my_shelf://bucket"))
try:
    storage.mount("other", provider="shlef")
except MountError as error:
    print(error)
"""
    assert printed(python, script).splitlines() == [
        "36 ['a key']",
        "unknown storage provider 'shlef'; did you mean 'shelf'?",
    ]


def test_it_passes_the_suites_that_come_with_apyfal(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_example_store.py").write_bytes((EXAMPLE / "test_example_store.py").read_bytes())
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "temporary",
    ]
    done = subprocess.run(
        [*command, "test_example_store.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.splitlines()[-1].split()[0]) > 60
