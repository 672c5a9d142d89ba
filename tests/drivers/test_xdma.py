"""The xdma driver over the stand-in card, which is preloaded into the process that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.cases import xdma_cases
from drivers.support.worker import Worker
from fixtures.xdma import card


@pytest.fixture(scope="module")
def worker(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process with the stand-in card."""
    folder = tmp_path_factory.mktemp("xdma")
    with Worker({**card.environment(folder), "APYFAL_TEST_DRIVERS": str(library)}) as running:
        yield running


@pytest.mark.parametrize("case", xdma_cases.CASES)
def test_xdma(case: str, worker: Worker) -> None:
    worker.call("drivers.cases.xdma_cases", case)
