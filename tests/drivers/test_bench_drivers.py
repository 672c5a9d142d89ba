"""The benchmark of the drivers runs, checks its data, and finds the transfers of a card with known times overlapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[2] / "bench"


def _vendors(card: str) -> object:
    return pytest.param(card, marks=pytest.mark.vendor)


def _figures(card: str, folder: Path) -> Any:
    figures = folder / "figures.json"
    command = [sys.executable, str(BENCH), "drivers", "--quick", "--card", card, "--json", str(figures)]
    # glibc overwrites freed memory, so that a library that still reads it fails each time: XRT does, at exit.
    environment = {**os.environ, "MALLOC_PERTURB_": "165"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(figures.read_text())[card]


@pytest.mark.parametrize("card", ["emulator", "xdma", *map(_vendors, ("xrt", "opencl-intel", "opencl-pocl"))])
def test_every_way_moves_the_right_data(card: str, tmp_path: Path) -> None:
    result = _figures(card, tmp_path)
    ways = {"driver", "prepared", "process"} | ({"hand"} if card != "emulator" else set())
    assert {size: set(times) for size, times in result.items()} == {"4 KiB": ways, "64 MiB": ways}


@pytest.mark.parametrize("card", ["emulator-overlap", "opencl-overlap", "xdma-overlap", _vendors("xrt-overlap")])
def test_transfers_hide_behind_each_other_and_computing(card: str, tmp_path: Path) -> None:
    result = _figures(card, tmp_path)
    # The first transfer to the card and the last one from it have nothing to hide behind: 2 of 16.
    assert result["seconds"] < 0.75 * sum(result["stages"].values())
