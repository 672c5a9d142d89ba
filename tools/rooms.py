"""Write the table and the picture of the rooms of apyfal into docs/architecture.md, from the code.

Run it after a folder was added, or its one sentence or its imports changed: ``python tools/rooms.py``. A test compares.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- rooms: made by tools/rooms.py -->", "<!-- end of rooms -->"

sys.path.insert(0, str(ROOT / "tests/unit"))
from test_layers import LEVEL, MODULES, PACKAGE, ROOMS, imports, room  # noqa: E402 - from the path above


def idea(name: str) -> str:
    """Return the first sentence of a folder's ``__init__``."""
    fixed = {
        "base": "Exceptions, units, logging, threads, pinned arrays: what everything else uses.",
        "apyfal": "What users import: `Accelerator`, `AcceleratorPoolExecutor`, clusters.",
        "storage/__init__": "The functions of `apyfal.storage`, loaded when they are first used.",
        "__main__": "``python -m apyfal``.",
    }
    if name in fixed:
        return fixed[name]
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def uses() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {name: set() for name in LEVEL}
    for module in MODULES:
        found[room(module)].update(room(name) for name in imports(module))
    return {name: others - {name} for name, others in found.items()}


def lines() -> list[str]:
    """Return the table and the picture."""
    others = uses()
    held = {name: sum(room(module) == name for module in MODULES) for name in LEVEL}
    table = ["| level | folder | files | its one idea | imports |", "|---|---|---|---|---|"]
    for level, row in enumerate(ROOMS):
        for name in sorted(row.split()):
            names = ", ".join(f"`{other}`" for other in sorted(others[name]) if other != "base") or "none"
            table.append(f"| {level} | `{name}` | {held[name]} | {idea(name)} | {names} |")
    # An arrow for what is not also reached by way of another room.
    nodes = {name: name.replace("/", "_") for name in sorted(LEVEL)}
    picture = ["```mermaid", "flowchart BT", *(f'    {node}["{name}"]' for name, node in nodes.items())]
    for name in sorted(LEVEL):
        farther: set[str] = set()
        for other in others[name]:
            waiting = [other]
            while waiting:
                for below in others[waiting.pop()] - farther:
                    farther.add(below)
                    waiting.append(below)
        picture.extend(f"    {nodes[name]} --> {nodes[other]}" for other in sorted(others[name] - farther))
    return [BEGIN, *table, "", *picture, "```", END]


def page() -> str:
    """Return the page with the table and the picture as they should be."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN, 1)
    return before + "\n".join(lines()) + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
