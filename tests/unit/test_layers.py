"""Rooms: imports go one way between the folders of apyfal, no folder is crowded, and ``import apyfal`` is light.

`ROOMS` is the plan of the house: a row a level, lowest first. A folder imports itself and the folders of lower
levels, also inside functions and for type checkers alone; no two modules import each other, directly or by way of
others.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import apyfal

PACKAGE = Path(apyfal.__file__).parent
ROOT = PACKAGE.parent
TREE = Path(__file__).parents[2]  # the package may be elsewhere: an installed wheel's

#: Folders by level. Of the modules at the top, `BASE` is the room ``base``, the others ``apyfal``; ``apyfal.storage``
#: itself, which users import, stands above the folders that its functions come from.
ROOMS = (
    "_core",
    "base",
    "config host/protocol storage/local storage",
    "definition/expressions definition/types",
    "definition storage/flow storage/mounting",
    "device/sharing",
    "accelerators device opencl rtl storage/http storage/transfer",
    "device/chaining host/server/policy pipeline/reports storage/endpoints storage/stores/fsspec storage/stores/s3",
    "host host/server/records pipeline storage/fileobj storage/stores",
    "host/server/transport storage/api storage/stores/azure storage/stores/gcs storage/stores/swift",
    "host/server/jobs storage/batch storage/paths",
    "batching storage/trees",
    "jobs storage/aio",
    "host/client host/server/api storage/fs jobs/failover",
    "storage/__init__",
    "apyfal host/server/channel",
    "cli doctor testing",
    "cli/commands/machine cli/commands/storage host/server testing/storage",
    "cli/commands __main__",
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms.split()}
BASE = ("_moved", "exceptions", "log", "memory", "threads", "units")

#: Source files that one folder may hold. A .pyx counts with its .pxd and .pyi, a .c with its own .h.
MOST = 12

# Imports that lead upwards and wait to be cut.
DOORS: set[tuple[str, str]] = set()
# Modules that know each other for type checkers, and wait to be cut.
PAIRS = {}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """Return the room of a module: its folder, unless `ROOMS` says otherwise."""
    if module == "apyfal.storage":
        return "storage/__init__"
    folder = MODULES[module].parent.relative_to(PACKAGE).as_posix()
    if folder != ".":
        return folder
    name = module.rpartition(".")[2]
    return "base" if name in BASE else name if name == "__main__" else "apyfal"


@functools.cache
def imports(module: str) -> set[str]:
    """Return the modules of apyfal that one imports: at its top, inside functions, for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    native = {"apyfal._core" for name in found if name.startswith("apyfal._core.")}  # its modules are no .py files
    return (found | native) & set(MODULES) - {module}


def reachable(module: str) -> set[str]:
    """Return every module that one brings with it."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for used in imports(waiting.pop()) - found:
            found.add(used)
            waiting.append(used)
    return found


def test_every_folder_is_a_room() -> None:
    assert {room(module) for module in MODULES} == set(LEVEL)  # a folder without a row, or a row without a folder


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    own = room(module)
    upwards = {used for used in imports(module) if room(used) != own and LEVEL[room(used)] >= LEVEL[own]}
    assert upwards == {used for name, used in DOORS if name == module}


def test_no_modules_know_each_other() -> None:
    circles = {module for module in MODULES if module in reachable(module)}
    assert circles == set(PAIRS)


def test_stores_retry_nothing() -> None:
    """The transfer engine repeats what failed; a handler that did so too would multiply the attempts."""
    users = {module for module in MODULES if "apyfal.storage.flow.retry" in imports(module)}
    assert {module for module in users if module.startswith("apyfal.storage.stores")} == set()


def source_folders(top: Path) -> dict[str, set[str]]:
    """Map each folder below `top` that holds source files to their names without suffix."""
    kinds = (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".cl")
    found: dict[str, set[str]] = {}
    for path in top.rglob("*.*"):
        if path.suffix in kinds and path.is_file():
            found.setdefault(path.parent.relative_to(top).as_posix(), set()).add(path.stem)
    return found


@pytest.mark.parametrize("top", [PACKAGE, TREE / "csrc", TREE / "tests", TREE / "bench"], ids=lambda path: path.name)
def test_no_folder_is_crowded(top: Path) -> None:
    folders = source_folders(top)
    assert folders
    for name, files in folders.items():
        assert len(files) <= MOST, f"{top.name}/{name} holds {len(files)} source files: {sorted(files)}"


@pytest.mark.parametrize("top", ["tests", "bench"])
def test_every_folder_has_a_row_in_the_readme(top: str) -> None:
    rows = set(re.findall(r"^\| `([^`]+)/` \|", (TREE / top / "README.md").read_text(), re.MULTILINE))
    folders = {name for name in source_folders(TREE / top) if name != "." and not name.startswith("unit/")}
    assert folders - rows == set()
    assert {name for name in rows if not (TREE / top / name).is_dir()} == set()


@pytest.mark.parametrize("name", sorted(room for room in LEVEL if room not in ("base", "__main__", "storage/__init__")))
def test_every_folder_says_its_idea(name: str) -> None:
    init = PACKAGE / ("" if name == "apyfal" else name) / "__init__.py"
    assert ast.get_docstring(ast.parse(init.read_text())), f"{name} has no sentence at the top of its __init__.py"


def test_a_class_has_a_name_of_its_own() -> None:
    """One word, one meaning: who greps for a public class finds one."""
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert len(places) > 100
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_a_job_has_five_names() -> None:
    """What stands for a job is a task, a call, a run, a job or a future, and `docs/architecture.md` says which."""
    named = re.compile(r"^class ((?!_)\w*(?:Task|Call|Run|Job|Future)s?)\b", re.MULTILINE)
    found = {name for path in MODULES.values() for name in named.findall(path.read_text())} | {"Run"}  # of `_core`
    text = (TREE / "docs" / "architecture.md").read_text()
    section = text[text.index("A job has five names") :].split("\n## ")[0]
    assert found == set(re.findall(r"`(\w*(?:Task|Call|Run|Job|Future)s?)`", section)) - {"Future"}


def test_importing_apyfal_is_light() -> None:
    heavy = "boto3 botocore requests urllib3 http.client aiohttp fsspec rich click multiprocessing importlib.metadata"
    code = f"import sys, apyfal; print(*sorted(set({heavy.split()!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_architecture_shows_the_rooms_as_they_are() -> None:
    drawn = subprocess.run(
        [sys.executable, "-c", "import rooms; print(rooms.page() == rooms.PAGE.read_text())"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        check=True,
    )
    assert drawn.stdout.strip() == "True", "docs/architecture.md is old; run tools/rooms.py"
