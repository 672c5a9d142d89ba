"""The benchmark of remote control runs, and finds the data right on every way there and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from host.support.daemon import ROOT


@pytest.mark.timeout(300)
def test_every_way_brings_the_data_whole(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "bench"), "remote", "--quick", "--json", str(figures)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    ways = {row["way"] for bench in json.loads(figures.read_text())["benches"] for row in bench["rows"]}
    assert {"remote, TCP", "remote, TLS", "any arrays", "arrays of accelerator.empty"} <= ways
