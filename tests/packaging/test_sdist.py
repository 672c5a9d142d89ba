"""The source distribution holds what the extension is built from, and nothing that a build makes."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_sources_of_the_extension_are_whole(tmp_path: Path) -> None:
    if not (ROOT / "setup.py").exists():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=100)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as contents:
        names = {str(Path(*Path(name).parts[1:])) for name in contents.getnames()}
    core, suffixes = ROOT / "apyfal" / "_core", ("pyx", "pxd", "pyi", "py")
    wanted = [*(ROOT / "csrc").rglob("*.[ch]"), *(path for suffix in suffixes for path in core.glob(f"*.{suffix}"))]
    assert {str(path.relative_to(ROOT)) for path in wanted} - names == set()
    assert [name for name in names if name.startswith("apyfal/_core/") and name.endswith((".c", ".so"))] == []
