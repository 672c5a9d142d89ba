"""Make docs/storage-support.md from a run of the storage conformance suite against its real servers.

Usage: ``python tools/storage_support.py`` runs the suite and rewrites the table. ``--junit FILE`` takes the results of
a run that is there (``pytest tests/storage/test_conformance.py -o junit_family=xunit1 --junitxml=FILE``). ``--check``
fails if the table in the tree is not that of the results.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "apyfal/testing/storage.py"
TESTS = ROOT / "tests/storage/test_conformance.py"
TABLE = ROOT / "docs/storage-support.md"

HEAD = """\
# What each store supports

<!-- Made by tools/storage_support.py from the results of tests/storage/test_conformance.py. Do not edit. -->

Each cell is one test of the conformance suite (`apyfal.testing.storage`) against a real server, named in the column's
head: **yes** is a test that passed, **no** one that passed because the store refuses this with a clear error,
**untested** one that this server cannot show (an emulator that refuses nobody), **FAILED** what it says.
"""


def titles(path: Path, prefix: str) -> dict[str, str]:
    """Map the classes or functions whose name begins with `prefix` to the first line of their docstring."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith(prefix):
            found[node.name] = (ast.get_docstring(node) or node.name).partition("\n")[0]
    return found


def results(junit: Path) -> dict[tuple[str, str], str]:
    """Read the cells: (class, test) to its text; the worst of a test's parameters counts."""
    cells: dict[tuple[str, str], str] = {}
    order = ["yes", "no", "untested", "FAILED"]
    for case in ElementTree.parse(junit).iter("testcase"):
        key = case.get("classname", "").rpartition(".")[2], case.get("name", "").partition("[")[0]
        support = {p.get("name"): p.get("value") for p in case.iterfind("properties/property")}.get("support")
        text = {"no": "no", "not tested": "untested"}.get(support or "", "yes")
        if case.find("failure") is not None or case.find("error") is not None:
            text = "FAILED"
        cells[key] = max(cells.get(key, "yes"), text, key=order.index)
    return cells


def table(cells: dict[tuple[str, str], str]) -> str:
    """Write the page."""
    stores = {name: title for name, title in titles(TESTS, "Test").items() if any(key[0] == name for key in cells)}
    features = titles(SUITE, "test_")
    lines = ["| | " + " | ".join(stores.values()) + " |", "|---" * (len(stores) + 1) + "|"]
    for feature, title in features.items():
        lines.append(f"| {title} | " + " | ".join(cells.get((store, feature), "") for store in stores) + " |")
    return f"{HEAD}\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--junit", type=Path, help="results of a run that is there")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        junit = arguments.junit
        if junit is None:
            junit = Path(directory) / "results.xml"
            # properties of a test are in the older family of the format only
            family = ["-o", "junit_family=xunit1"]
            command = [sys.executable, "-m", "pytest", "-q", str(TESTS), f"--junitxml={junit}", *family]
            subprocess.run(command, cwd=ROOT, check=False)
        page = table(results(junit))
    if arguments.check:
        if TABLE.read_text() != page:
            print(f"{TABLE.relative_to(ROOT)} is not what the suite finds; run tools/storage_support.py")
            return 1
        return 0
    TABLE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
