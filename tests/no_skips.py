"""Where nothing may be missing, a skipped test is a failed one: a plugin of pytest for `.ci/run`.

``APYFAL_NO_SKIPS`` names the folder of the tests that it holds for; ``APYFAL_MAY_LACK`` the modules that may be missing
because another task has them, separated by spaces.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

#: What another task of CI runs (the wheel without an interpreter lock), and what only another kernel has.
EXPECTED = ("Python has a lock", "the kernel has no Landlock")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    folder = os.environ.get("APYFAL_NO_SKIPS")
    if not folder or not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    lacked = tuple(f"No module named '{name}'" for name in os.environ.get("APYFAL_MAY_LACK", "").split())
    if Path(path).is_relative_to(folder) and not reason.endswith(EXPECTED + lacked):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: nothing may be missing here, but: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at each test's report."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at the reports of modules, which can be skipped as a whole."""
    report = yield
    _fail_if_skipped(report)
    return report
