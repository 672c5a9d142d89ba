"""The layers: imports go one way, `import apyfal` is light, and csrc/ knows nothing of Python."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import apyfal

PACKAGE = Path(apyfal.__file__).parent

#: Layers, lowest first; a module may import its own layer and those below. By the longest prefix that fits.
LAYERS = {
    "__version__": 0,
    "exceptions": 0,
    "units": 0,
    "log": 0,
    "ini": 0,
    "configuration": 0,
    "_core": 1,
    "memory": 1,
    "storage": 2,
    "scalars": 2,
    "signature": 2,
    "call": 2,
    "definition": 2,
    "accelerators": 3,
    "handoff": 3,
    "listing": 3,
    "pipeline": 4,
    "trace": 4,
    "card": 5,
    "workers": 5,
    "accelerator": 6,
    "pool": 7,
    "cluster": 7,
    "host": 8,
    "testing": 8,
    "progress": 9,
    "commands": 9,
    "cli": 10,
    "__main__": 10,
}
#: What may be imported against the order, by name, and why.
ALLOWED = {
    ("accelerator", "host"): "Accelerator(host_ip=...) becomes a remote one, when it is asked for",
    ("storage", "host"): "host:// is a scheme, and the gate of remote users' URLs is the host's",
}


def layer_of(module: str) -> tuple[str, int] | None:
    """Return the part of the package that a module belongs to, and its layer."""
    parts = module.split(".")
    if parts[0] != "apyfal" or len(parts) < 2:
        return None
    return parts[1], LAYERS[parts[1]]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Return all modules that a file imports, but for type checking."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    skipped = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    inside = {id(child) for node in skipped for child in ast.walk(node)}
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "apyfal":
                found.update(f"apyfal.{alias.name}" for alias in node.names)
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imports(path):
        if (target := layer_of(module)) is None:
            continue
        name, layer = target
        assert layer <= LAYERS[own] or (own, name) in ALLOWED, f"{own} (layer {LAYERS[own]}) imports {module} ({layer})"


def test_storage_knows_no_accelerators_and_host_no_drivers():
    for path in MODULES:
        part = path.relative_to(PACKAGE).parts[0]
        names = {target[0] for module in imports(path) if (target := layer_of(module))}
        if part == "storage":
            assert not names & {"accelerator", "accelerators", "pipeline", "card", "definition", "handoff"}, path
        if part == "host":
            assert not any(module.startswith("apyfal._core.device") for module in imports(path)), path


def test_importing_loads_no_sdk_no_vendor_library_no_server():
    heavy = (
        "boto3 botocore requests aiohttp fsspec rich click cryptography google azure keystoneauth1 ray distributed ssl"
    )
    script = f"""import sys, apyfal
loaded = [name for name in {heavy.split()!r} if name in sys.modules]
maps = open("/proc/self/maps").read()
loaded += [name for name in ("libOpenCL", "libxrt") if name in maps]
print(loaded)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_costs_little_over_numpy():
    def milliseconds(statement: str) -> float:
        script = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1000)"
        times = [
            float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
            for _ in range(5)
        ]
        return statistics.median(times)

    assert milliseconds("import numpy, apyfal") - milliseconds("import numpy") < 60


def test_csrc_knows_no_python():
    sources = PACKAGE.parent / "csrc"
    if not sources.is_dir():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    for path in [*sources.glob("*.c"), *sources.glob("*.h")]:
        assert "Python.h" not in path.read_text(), path
