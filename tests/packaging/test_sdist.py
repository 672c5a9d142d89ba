"""The source distribution holds what the extension is built from, and a build that lacks a part of it is an error."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the extension is built from."""
    tree = tmp_path_factory.mktemp("tree")
    for part in ("csrc", "apyfal/_core"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "apyfal/__init__.py"):
        shutil.copy(ROOT / part, tree / part)
    return tree


@pytest.mark.parametrize(
    ("lost", "message"),
    [("apyfal/_core/run.pyx", "lacks the modules run;"), ("csrc/memory/pool.c", "undefined symbol: apf_pool_")],
)
def test_a_build_without_a_part_is_an_error(tree: Path, lost: str, message: str) -> None:
    kept = (tree / lost).read_bytes()
    (tree / lost).unlink()
    # Without optimization: what is built is thrown away.
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "APYFAL_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    (tree / lost).write_bytes(kept)
    assert built.returncode != 0
    assert message in built.stderr
