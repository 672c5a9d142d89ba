"""The benchmark of the drivers runs, checks its data, and finds the transfers of a card with known times overlapped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "bench_drivers.py"


@pytest.mark.parametrize(
    "card",
    [
        "emulator-overlap",
        "opencl-overlap",
        "xdma-overlap",
        pytest.param("xrt-overlap", marks=pytest.mark.vendor),
    ],
)
def test_transfers_hide_behind_each_other_and_computing(card: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--card", card, "--json", str(figures)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(figures.read_text())[card]
    # The first transfer to the card and the last one from it have nothing to hide behind: 2 of 16.
    assert result["seconds"] < 0.75 * sum(result["stages"].values())
