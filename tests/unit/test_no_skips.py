"""The plugin by which CI takes no skip for a success."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CASES = {
    "test_mark": "@pytest.mark.skipif(True, reason='no compiler')\ndef test_it(): pass",
    "test_call": "def test_it(): pytest.skip('no server')",
    "test_fixture": "@pytest.fixture\ndef one(): pytest.skip('no root')\ndef test_it(one): pass",
    "test_module": "pytest.importorskip('no_such_module_of_apyfal')\ndef test_it(): pass",
    "test_may_lack": "pytest.importorskip('no_module_that_is_needed')\ndef test_it(): pass",
    "test_expected": "@pytest.mark.skipif(True, reason='Python has a lock')\ndef test_it(): pass",
    "test_fails": "@pytest.mark.xfail\ndef test_it(): assert False",
}


@pytest.mark.parametrize("strict", [False, True])
def test_a_skip_is_a_failure_where_nothing_may_be_missing(tmp_path: Path, strict: bool) -> None:
    for name, text in CASES.items():
        (tmp_path / f"{name}.py").write_text(f"import pytest\n{text}\n")
    env = {name: value for name, value in os.environ.items() if name != "APYFAL_NO_SKIPS"}
    env |= {"PYTHONPATH": str(TESTS), "APYFAL_MAY_LACK": "pandas no_module_that_is_needed"}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # none is needed, and some import much
    env |= {"APYFAL_NO_SKIPS": str(tmp_path)} if strict else {}
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no_skips"]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", "--rootdir", tmp_path, tmp_path],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1]
    expected = ("1 failed", "3 errors", "2 skipped", "1 xfailed") if strict else ("6 skipped", "1 xfailed")
    assert all(part in last for part in expected), done.stdout
    assert done.returncode == (1 if strict else 0)
