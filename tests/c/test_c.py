"""The C tests of the core and of the software card, plain and under the sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from c.building import HERE, VARIANTS, Variant, run


@pytest.fixture(scope="module", params=VARIANTS)
def program(request: pytest.FixtureRequest, variant: Callable[[str], Variant]) -> Path:
    """The test program in one variant."""
    sources = [*sorted((HERE / "rig").glob("*.c")), *sorted((HERE / "cases").glob("*.c"))]
    return variant(request.param).program("test", sources)


@pytest.mark.timeout(300)
def test_all_pass(program: Path, certificate: dict[str, str]) -> None:
    printed = run(program, environment=certificate).splitlines()
    assert "ok runs_on_one_buffer_are_in_order" in printed
    assert "ok answers_end_in_the_right_state_over_tls" in printed
    assert "ok a_send_waits_for_room_alone" in printed


def test_a_failing_check_is_seen(program: Path) -> None:
    done = subprocess.run([program, "no_such_test"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no such test" in done.stderr
