"""A local write killed at each of its system calls leaves the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_at_each_call.py")


@pytest.mark.parametrize("write", ["replace", "new", "exclusive", "named", "copy", "save", "around-cache"])
def test_old_or_new(tmp_path: Path, write: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), write, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the same apyfal as here
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = [(found, left) for found, left in json.loads(done.stdout)]
    before = "nothing" if write in ("new", "exclusive") else "old"
    states = [found for found, _ in runs]
    assert set(states) == {before, "new"}
    assert states[0] == before
    assert runs[-1] == ("new", [])
    assert len(runs) > 20  # two for each call: open, write, fsync, link, rename, close and the like
    for _, left in runs:
        assert len(left) <= 1
        assert all(name.startswith(".destination.") for name in left)
    if write in ("new", "exclusive"):
        assert not any(left for _, left in runs)  # it had no name at all before it was complete
