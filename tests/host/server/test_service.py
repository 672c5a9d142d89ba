"""The systemd unit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

UNIT = Path(__file__).parents[3] / "packaging" / "apyfal.service"


def test_exposure_is_at_most_two() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"Overall exposure level for apyfal\.service: ([0-9.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= 2.0
    assert "ignoring" not in done.stderr, done.stderr
