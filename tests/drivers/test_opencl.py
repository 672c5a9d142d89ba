"""The opencl driver beside the conformance suite: the cases of `drivers.cases.opencl_cases`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.cases import algorithm_cases, kernel_cases, opencl_cases, process_cases
from drivers.support.worker import Worker
from fixtures.opencl import installation

_ON_VENDORS = (
    "scalars_of_every_type",
    "build_logs_are_in_the_error",
    "reference_accelerators_give_the_emulators_results",
)
_WITHOUT = ("no_library", "another_library", "no_platform")
_ON_FAKE = [
    name
    for name, value in vars(opencl_cases).items()
    if not name.startswith("_")
    and getattr(value, "__module__", "") == opencl_cases.__name__
    and name not in (*_ON_VENDORS, *_WITHOUT)
]


_KERNELS = [
    name
    for name, value in vars(kernel_cases).items()
    if not name.startswith("_") and getattr(value, "__module__", "") == kernel_cases.__name__
]


_PROCESSES = [
    name
    for name, value in vars(process_cases).items()
    if not name.startswith("_") and getattr(value, "__module__", "") == process_cases.__name__
]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process with the fake library."""
    with Worker(installation.fake(tmp_path_factory.mktemp("fake"))) as worker:
        yield worker


@pytest.mark.parametrize("case", _ON_FAKE)
def test_on_the_fake(case: str, fake: Worker) -> None:
    fake.call("drivers.cases.opencl_cases", case)


@pytest.mark.vendor
@pytest.mark.parametrize("case", _ON_VENDORS)
@pytest.mark.parametrize("vendor", ["intel", "pocl"])
def test_on_vendors(vendor: str, case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Worker(getattr(installation, vendor)(tmp_path_factory.mktemp(vendor))) as worker:
        worker.call("drivers.cases.opencl_cases", case)


@pytest.mark.vendor
@pytest.mark.timeout(420)  # a compiler of a vendor's builds up to thirty programs
@pytest.mark.parametrize("case", _KERNELS)
@pytest.mark.parametrize("vendor", ["intel", "pocl"])
def test_kernels_on_vendors(vendor: str, case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each in a process of its own, so that it is the first to use OpenCL."""
    with Worker(getattr(installation, vendor)(tmp_path_factory.mktemp(vendor))) as worker:
        worker.call("drivers.cases.kernel_cases", case, timeout=400)


@pytest.mark.vendor
@pytest.mark.parametrize("case", _PROCESSES)
@pytest.mark.parametrize("vendor", ["intel", "pocl"])
def test_threads_and_processes_on_vendors(vendor: str, case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each in a process of its own, so that it is the first to use OpenCL."""
    with Worker(getattr(installation, vendor)(tmp_path_factory.mktemp(vendor))) as worker:
        worker.call("drivers.cases.process_cases", case)


@pytest.fixture(scope="module", params=["intel", "pocl"])
def card(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process with one vendor's OpenCL."""
    with Worker(getattr(installation, request.param)(tmp_path_factory.mktemp(request.param))) as worker:
        yield worker


def test_the_documentation_has_every_algorithm() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/accelerators.md").read_text()
    for row in algorithm_cases.ALGORITHMS.values():
        line = page.partition(f"| `{row.name}` | {row.what} | ")[2].partition("\n")[0]
        assert line, f"{row.name} is not in the table"
        keys = set(row.keys) - {"arguments", "inputs", "outputs", "parameters"}
        assert {f"`{key}`" for key in keys} == {part for part in line.strip(" |").split(", ") if part.startswith("`")}


@pytest.mark.vendor
@pytest.mark.parametrize("name", algorithm_cases.ALGORITHMS)
def test_algorithms_on_vendors(name: str, card: Worker) -> None:
    card.call("drivers.cases.algorithm_cases", "run", name)


@pytest.mark.vendor
@pytest.mark.parametrize(
    "case", ["three_stages", "what_the_kernel_declares_is_named", "a_section_of_the_command_runs_as_pasted"]
)
def test_index_spaces_on_vendors(case: str, card: Worker) -> None:
    card.call("drivers.cases.algorithm_cases", case)


@pytest.mark.vendor
@pytest.mark.parametrize(
    "case",
    [
        "every_scalar_type_takes_what_fits_and_refuses_the_rest",
        "structs_and_vectors_are_compared_with_the_source",
    ],
)
def test_types_on_vendors(case: str, card: Worker) -> None:
    card.call("drivers.cases.type_cases", case)


@pytest.mark.parametrize(
    ("case", "environment"),
    [
        ("no_library", {"APYFAL_OPENCL_LIBRARY": "/nowhere/libOpenCL.so"}),
        ("another_library", {"APYFAL_OPENCL_LIBRARY": "libz.so.1"}),
    ],
)
def test_without_opencl(case: str, environment: dict[str, str]) -> None:
    with Worker(environment) as worker:
        worker.call("drivers.cases.opencl_cases", case)


@pytest.mark.vendor
def test_without_a_platform(tmp_path: Path) -> None:
    with Worker({"OCL_ICD_VENDORS": str(tmp_path), "LD_LIBRARY_PATH": ""}) as worker:
        worker.call("drivers.cases.opencl_cases", "no_platform")
