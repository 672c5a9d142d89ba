"""The conda recipe says what pyproject.toml says. rattler-build itself needs a channel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def listed(text: str, begin: str, end: str) -> set[str]:
    """Return the requirements between two marks, without spaces."""
    part = text.partition(begin)[2].partition(end)[0]
    return {found.replace(" ", "") for found in re.findall(r"[a-z][a-z0-9]* ?>=[\d.]+", part.lower())}


def test_the_recipe_agrees_with_the_package() -> None:
    recipe = ROOT / "packaging/conda/recipe.yaml"
    if not recipe.exists():
        pytest.skip("the sources' own files are elsewhere")
    conda, project = recipe.read_text(), (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    assert version
    assert f'version: "{version[1]}"' in conda
    python = re.search(r'requires-python = ">=([\d.]+)"', project)
    assert python
    dependencies = listed(project, "\ndependencies = [", "\n]")
    assert len(dependencies) == 4
    assert listed(conda, "\n  run:", "\ntests:") == {*dependencies, f"python>={python[1]}"}
    build = listed(project, "\nrequires = [", "]\n")
    assert len(build) == 2
    assert listed(conda, "\n  host:", "\n  run:") == build
