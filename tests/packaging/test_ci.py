"""`.ci/run` runs every test: those marked slow, too, and each folder of tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What holds only on a machine with nothing else to do: how to run it is said where one learns about the tests.
ALONE = "tests/host/security/test_limits.py"
#: Folders that hold what tests use, or what other programs than pytest read.
NO_SUITES = {"fixtures", "typing", "__pycache__"}


@pytest.fixture
def script() -> str:
    if not (ROOT / ".ci/run").exists():
        pytest.skip("an installed wheel is being tested: its sources are elsewhere")
    return (ROOT / ".ci/run").read_text().replace("$alone", ALONE)


def commands(script: str) -> list[list[str]]:
    """Return the words of each command that runs a suite."""
    lines = [re.sub(r"^start \S+ ", "", line.split(" || ")[0]) for line in script.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"suites? [a-z]", line)]


def test_every_slow_test_is_run(script: str) -> None:
    lines = [words[2:] for words in commands(script) if words[-2:] == ["-m", "slow"]]
    assert len(lines) == 2

    def is_run(path: Path) -> bool:
        name = str(path.relative_to(ROOT))
        return any(
            any(name == word or name.startswith(f"{word}/") for word in words) and f"--ignore={name}" not in words
            for words in lines
        )

    slow = [path for path in sorted(ROOT.glob("tests/**/test_*.py")) if "pytest.mark.slow" in path.read_text()]
    slow.remove(Path(__file__))  # which names the mark
    assert len(slow) > 15
    assert [path for path in slow if not is_run(path)] == [ROOT / ALONE]
    assert ALONE in (ROOT / "CONTRIBUTING.md").read_text()


def test_every_folder_has_a_suite(script: str) -> None:
    named = {word.removeprefix("tests/") for words in commands(script) for word in words[2:] if word[0] not in "-$"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders - NO_SUITES - named == set()
