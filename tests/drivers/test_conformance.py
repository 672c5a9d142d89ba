"""The cases of three modules of `drivers.cases`, on all cards of `drivers.support.cards`."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from drivers.cases import capability_cases, core_cases, job_cases, resident_cases
from drivers.support import capabilities
from drivers.support.cards import CARDS, Card
from drivers.support.worker import Worker

# What a case needs a card to have; the others run on every card.
_NEEDS = {
    "timeout_of_a_hung_kernel": "hang",
    "exit_with_a_run_in_flight": "hang",
    "cancel_of_a_run": "hang",
    "error_of_a_run": "failing",
    "loss_of_the_device": "losing",
    "bad_programs": "bad_programs",
    "prepared_job_with_several_inputs_and_outputs": "join",
    "several_inputs_and_outputs": "join",
    "coefficients_stay_on_the_card": "coefficients",
    "several_inputs_and_outputs_in_storage": "join",
}
_ALONE = "exit_with_a_run_in_flight"
# Seconds that a case may take where that is more than usual. It is for cards that move data differently.
_SLOW = {"more_than_four_gibibytes": 300}
_MOVE_AS_OTHERS = ("xdma-called", "xdma-interrupts")


def _cases(module: ModuleType) -> dict[str, Callable[..., None]]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def _rows(module: ModuleType) -> list[object]:
    return [
        pytest.param(
            row,
            name,
            id=f"{row.name}-{name}",
            marks=[
                *([pytest.mark.vendor] if row.vendor else []),
                *([pytest.mark.timeout(420)] if row.driver == "rtl" else []),  # the first one compiles the designs
                *([pytest.mark.slow, pytest.mark.timeout(_SLOW[name] + 20)] if name in _SLOW else []),
            ],
        )
        for row in CARDS
        for name in _cases(module)
        if name != _ALONE and (name not in _NEEDS or getattr(row, _NEEDS[name]))
        if name not in _SLOW or row.name not in _MOVE_AS_OTHERS
    ]


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Card], dict[str, str]]:
    """Installations, each set up by the first test that needs it."""
    made: dict[str, dict[str, str]] = {}

    def environment(row: Card) -> dict[str, str]:
        if row.name not in made:
            folder = tmp_path_factory.mktemp(row.name)
            made[row.name] = row.environment(folder) if row.environment else {}
        return made[row.name]

    return environment


@pytest.fixture(scope="session")
def workers(environments: Callable[[Card], dict[str, str]]) -> Iterator[Callable[[Card], Worker]]:
    """A process for each card."""
    running: dict[str, Worker] = {}

    def worker(row: Card) -> Worker:
        if row.name not in running:
            running[row.name] = Worker(environments(row))
        return running[row.name]

    yield worker
    for each in running.values():
        each.close()


@pytest.mark.parametrize(("row", "case"), _rows(job_cases))
def test_jobs(row: Card, case: str, workers: Callable[[Card], Worker], tmp_path: Path) -> None:
    folder = [str(tmp_path)] if "folder" in inspect.signature(_cases(job_cases)[case]).parameters else []
    workers(row).call("drivers.cases.job_cases", case, row.name, *folder, timeout=_SLOW.get(case, 110))


@pytest.mark.parametrize(("row", "case"), _rows(resident_cases))
def test_data_that_stays(row: Card, case: str, workers: Callable[[Card], Worker], tmp_path: Path) -> None:
    folder = [str(tmp_path)] if "folder" in inspect.signature(_cases(resident_cases)[case]).parameters else []
    workers(row).call("drivers.cases.resident_cases", case, row.name, *folder)


@pytest.mark.parametrize(("row", "case"), _rows(core_cases))
def test_buffers_and_runs(row: Card, case: str, workers: Callable[[Card], Worker]) -> None:
    workers(row).call("drivers.cases.core_cases", case, row.name)


@pytest.mark.parametrize(("row", "case"), _rows(capability_cases))
def test_capabilities(row: Card, case: str, workers: Callable[[Card], Worker]) -> None:
    workers(row).call("drivers.cases.capability_cases", case, row.name)


def test_the_table_of_capabilities_is_that_of_the_page() -> None:
    assert f"{capabilities.BEGIN}\n{capabilities.markdown()}\n{capabilities.END}" in capabilities.PAGE.read_text()


@pytest.mark.parametrize("row", capabilities.ROWS, ids=lambda row: row.name)
def test_each_cell_of_the_table_has_a_test(row: capabilities.Row) -> None:
    modules = (capability_cases, core_cases, job_cases, resident_cases)
    assert any(row.tests in _cases(module) for module in modules)
    assert len(row.cells) == len(capabilities.DRIVERS)
    tested = {one.driver for one in CARDS if row.tests not in _NEEDS or getattr(one, _NEEDS[row.tests])}
    assert set(capabilities.DRIVERS) <= tested


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[pytest.mark.vendor] if row.vendor else [])
        for row in CARDS
        if row.hang is not None
    ],
)
def test_the_process_ends_with_a_run_in_flight(row: Card, environments: Callable[[Card], dict[str, str]]) -> None:
    """A program that forgets its accelerator ends all the same, though the card never answers."""
    code = f"from drivers.cases import job_cases; job_cases.{_ALONE}({row.name!r})"
    environment = Worker(environments(row)).environment
    ended = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
