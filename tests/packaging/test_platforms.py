"""The C core compiles without a warning for every platform that has wheels, whichever this machine is."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
#: Folders whose C meets the C library most; `tests` without ``slow`` compile these.
FEW = ("memory", "runtime")


def compiled(target: str, sources: list[Path], folder: Path) -> list[str]:
    """Return what the compiler says of each source."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no cross compiler here: pip install ziglang")
    headers = folder / "include"
    headers.mkdir()
    for name in ("zlib.h", "zconf.h"):
        shutil.copy(Path("/usr/include") / name, headers)
    csrc = ROOT / "csrc"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, f"-I{csrc}", f"-I{csrc / 'include'}"]

    def compile_one(numbered: tuple[int, Path]) -> str:
        number, source = numbered
        one = [*command, f"-I{headers}", "-c", str(source), "-o", str(folder / f"{number}.o")]
        return subprocess.run(one, capture_output=True, text=True, check=False, timeout=300).stderr

    with ThreadPoolExecutor(2) as pool:
        return [said for said in pool.map(compile_one, enumerate(sources)) if said]


@pytest.mark.timeout(600)
def test_with_the_c_library_of_musllinux(tmp_path: Path) -> None:
    if not (ROOT / "setup.py").exists():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    sources = sorted(source for name in FEW for source in (ROOT / "csrc" / name).glob("*.c"))
    assert compiled("x86_64-linux-musl", sources, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("target", ["x86_64-linux-musl", "aarch64-linux-musl", "aarch64-linux-gnu.2.28"])
def test_all_of_it(target: str, tmp_path: Path) -> None:
    if not (ROOT / "setup.py").exists():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    assert compiled(target, sorted((ROOT / "csrc").rglob("*.c")), tmp_path) == []
