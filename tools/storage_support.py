"""Make docs/reference/storage-support.md from a run of the storage conformance suite against its real servers.

Usage: ``python tools/storage_support.py`` runs the suite and rewrites the table. ``--junit FILE`` takes the results of
a run that is there (``pytest tests/storage/conformance -o junit_family=xunit1 --junitxml=FILE``). ``--check`` fails if
the table in the tree is not that of the results.
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
SUITE = ROOT / "apyfal/testing/storage"
#: Its modules, in the order of the table's rows.
MODULES = ("objects", "opened", "names", "copies", "access", "threads")
TESTS = ROOT / "tests/storage/conformance/test_conformance.py"
TABLE = ROOT / "docs/reference/storage-support.md"

Cells = dict[tuple[str, str], str]

#: What a cell may say, the worst last.
ORDER = ("yes", "no", "none", "FAILED")

HEAD = """\
---
hide:
  - toc # the table is wide
---

# What each store supports

<!-- Made by tools/storage_support.py from the results of tests/storage/conformance/. Do not edit. -->

Each cell is one test of the conformance suite (`apyfal.testing.storage`) against a real server, named in the column's
head: **yes** is a test that passed, **no** one that passed because the store refuses this with a clear error,
**none** one of permissions where there are none to refuse anything by, **FAILED** what it says.

What the servers are not: no test reaches a cloud. Moto stands in for AWS and, as an S3-compatible store, for Alibaba
OSS; Azurite and fake-gcs-server are emulators; Ceph, Swift, nginx and the servers of SFTP, FTP and WebDAV are the real
ones. The tokens of Google and of Microsoft Entra ID are obtained, checked, refused and renewed by these clouds' own
libraries (google-auth, azure-identity) and protocols, from a local stand-in for their token services
(`tests/servers/tokens/identity.py`); Swift's Keystone v3 tokens likewise (`tests/servers/tokens/keystone.py`).
"""


def titles(path: Path, prefix: str) -> dict[str, str]:
    """Map the classes or functions whose name begins with `prefix` to the first line of their docstring."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith(prefix):
            found[node.name] = (ast.get_docstring(node) or node.name).partition("\n")[0]
    return found


def features_of_suite() -> dict[str, str]:
    """Map the suite's tests to the features that they prove."""
    return {test: title for name in MODULES for test, title in titles(SUITE / f"{name}.py", "test_").items()}


def note(cells: Cells, name: str, test: str, *, support: object = None, failed: bool = False) -> None:
    """Put one result into `cells`; the worst of a test's parameters counts.

    Parameters
    ----------
    cells
        (Class, function) to text.
    name, test
        The class, and the test with its parameters.
    support
        What the test recorded under that name.
    failed
        Whether it failed.
    """
    text = "FAILED" if failed else str(support) if support in ORDER else "yes"
    key = name, test.partition("[")[0]
    cells[key] = max(cells.get(key, "yes"), text, key=ORDER.index)


def results(junit: Path) -> Cells:
    """Read the cells from a report."""
    cells: Cells = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        support = {p.get("name"): p.get("value") for p in case.iterfind("properties/property")}.get("support")
        failed = case.find("failure") is not None or case.find("error") is not None
        name = case.get("classname", "").rpartition(".")[2]
        note(cells, name, case.get("name", ""), support=support, failed=failed)
    return cells


def differences(cells: Cells) -> list[str]:
    """List where the table in the tree is not what was found; what was not run counts for nothing."""
    stores, features = titles(TESTS, "Test"), features_of_suite()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in TABLE.read_text().splitlines() if line[:1] == "|"]
    heads = [head.strip(" |") for head in rows[0]][1:] if rows else []
    said = {
        (head, row[0].strip(" |")): cell.strip(" |") for row in rows for head, cell in zip(heads, row[1:], strict=False)
    }
    return [
        f"{stores[name]}, {features[test]}: {text}, and the table says {said.get((stores[name], features[test]))}"
        for (name, test), text in cells.items()
        if test in features and said.get((stores[name], features[test])) != text
    ]


def table(cells: Cells) -> str:
    """Write the page."""
    stores = {name: title for name, title in titles(TESTS, "Test").items() if any(key[0] == name for key in cells)}
    features = features_of_suite()
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
