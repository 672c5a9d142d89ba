"""A software card, and which way its jobs take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import apyfal
from apyfal.pipeline.direct import PlacedCall


@pytest.fixture
def scale() -> Iterator[apyfal.Accelerator]:
    """A software card with the accelerator ``scale``."""
    with apyfal.Accelerator("scale") as accelerator:
        yield accelerator


@pytest.fixture
def direct_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the short ways each run took."""
    took: list[str] = []
    for name in ("run_once", "run_again"):
        real: Callable[..., None] = getattr(PlacedCall, name)

        def noted(job: PlacedCall, *arguments: Any, name: str = name, real: Callable[..., None] = real) -> None:
            took.append(name)
            real(job, *arguments)

        monkeypatch.setattr(PlacedCall, name, noted)
    return took
