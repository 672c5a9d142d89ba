"""The page on security names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]
PAGE = next(path for path in ROOT.glob("docs/**/security.md")).read_text()
NAMED = sorted(set(re.findall(r"`([\w/]*test_\w+\.py)`", PAGE)))
#: where tests are that the page names without a folder
FOLDERS = ("tests/host/security", "tests/unit/host/server/policy")


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize("name", NAMED)
def test_each_named_test_exists(name: str) -> None:
    places = [ROOT / name] if "/" in name else [ROOT / folder / name for folder in FOLDERS]
    found = [path for path in places if path.is_file()]
    assert found
    assert "def test_" in found[0].read_text()


def test_each_cell_of_the_attackers_is_filled() -> None:
    table = PAGE.partition("## Who reaches what")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {6}
    assert all(cell.strip() for row in rows[1:] for cell in row)
    for row in rows[2:]:  # each attacker's row names at least one test, or refers to a row that does
        assert "test_" in "".join(row) or "as `process`" in "".join(row) or "fuzz" in "".join(row), row[0]
