"""Imports go one way through the layers, and ``import apyfal`` loads none of the heavy things."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import apyfal

PACKAGE = Path(apyfal.__file__).parent

#: Modules and packages of apyfal by layer; a layer imports itself and those before it.
LAYERS = (
    "_core exceptions units log at_exit ini configuration memory handoff",
    "storage testing",
    (
        "drivers scalars signature call definition accelerators "
        "pipeline card workers listing mapping background accelerator attempts pool cluster"
    ),
    "host",
    "progress trace commands cli __main__",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}

#: What leads upwards on purpose: the one class that is local or remote.
DOORS = {("accelerator", "host")}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it, but for type checkers alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__pycache__"} == set(RANK)


@pytest.mark.parametrize("name", sorted(RANK))
def test_imports_go_one_way(name: str) -> None:
    files = sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / f"{name}.py"]
    for file in files:
        for module in imports(file):
            top, _, rest = module.partition(".")
            used = rest.partition(".")[0]
            if top == "apyfal" and used in RANK and (name, used) not in DOORS:
                assert RANK[used] <= RANK[name], f"{file.relative_to(PACKAGE)} imports {module}"


def test_importing_apyfal_is_light() -> None:
    heavy = "boto3 botocore requests urllib3 http.client aiohttp fsspec rich click multiprocessing importlib.metadata"
    code = f"import sys, apyfal; print(*sorted(set({heavy.split()!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
