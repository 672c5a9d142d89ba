"""What each driver can do: the table in docs/reference/drivers.md, and the tests that hold its cells.

``python tests/drivers/support/capabilities.py`` writes the table into the page.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["DRIVERS", "PAGE", "ROWS", "Row", "markdown"]

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "drivers.md"
BEGIN, END = "<!-- capabilities: made by tests/drivers/support/capabilities.py -->", "<!-- end of capabilities -->"

DRIVERS = ("emulator", "opencl", "xrt", "xdma", "rtl")
#: Values of cells. The last two are for drivers of cards of both kinds: with memory apart, and working in the host's.
YES, NO, APART, SHARED = "yes", "no", "cards with memory of their own", "devices in host memory"
#: Of XRT, whose version is told apart by whether it is the one that the tests run over everywhere.
OLDER = "XRT 2.13 to 2.15"


class Row(NamedTuple):
    """One capability.

    Attributes
    ----------
    name
        In ``apyfal devices``; or what it is, if devices do not list it.
    what
        For readers.
    cells
        A value for each of `DRIVERS`.
    tests
        The case of the conformance suite that holds each cell, or a test of one driver.
    listed
        Whether it is in the device's own list.
    """

    name: str
    what: str
    cells: tuple[str, ...]
    tests: str
    listed: bool = True


ROWS = (
    Row("import", "host memory is used in place", (YES,) * 5, "in_place_without_a_copy"),
    Row("import-read-only", "read-only memory too", (NO, SHARED, NO, NO, NO), "read_only_memory"),
    Row("offset", "an argument may begin inside a buffer", (YES,) * 5, "arguments_begin_inside_a_buffer"),
    Row("cancel", "a run can be stopped", (YES, NO, OLDER, NO, YES), "cancel_of_a_run"),
    Row("counters", "bytes moved and runs are counted", (YES,) * 5, "moves_just_what_it_must"),
    Row("duplex", "both directions and compute overlap", (YES,) * 5, "many_jobs_in_flight"),
    Row(
        "separate-memory",
        "memory of its own: a missing transfer shows",
        (YES, APART, YES, YES, YES),
        "syncs_are_needed_where_memory_is_separate",
    ),
    Row(
        "shared-memory",
        "what either side writes is there for the other",
        (NO, SHARED, NO, NO, NO),
        "device_memory_is_moved_from_and_to_any_memory",
    ),
    Row("structs", "a scalar may be a struct or a vector", (YES,) * 5, "structs_are_passed_or_refused"),
    Row("index spaces", "`global` and `local`", (NO, YES, NO, NO, NO), "index_spaces_are_run_or_refused", listed=False),
    Row("data that stays", "arrays on the card", (YES,) * 5, "device_arrays_stay_on_the_card", listed=False),
    Row(
        "queued jobs",
        "`enqueue`: a job begins when those have ended whose arrays it uses, and the program waits for none",
        (YES,) * 5,
        "queued_jobs_need_no_host",
        listed=False,
    ),
    Row(
        "time-outs", "a job ends in time, whatever the card does", (YES,) * 5, "timeout_of_a_hung_kernel", listed=False
    ),
)


def expected(driver: str, *, separate: bool) -> frozenset[str]:
    """Return what a device of a driver lists."""
    place = DRIVERS.index(driver)
    has = {YES, APART if separate else SHARED}
    if not os.environ.get("APYFAL_TEST_XRT"):  # it names a newer XRT
        has.add(OLDER)
    return frozenset(row.name for row in ROWS if row.listed and row.cells[place] in has)


def markdown() -> str:
    """Return the table."""
    lines = [f"| capability | what | {' | '.join(DRIVERS)} | held by |", f"|{'---|' * (len(DRIVERS) + 3)}"]
    for row in ROWS:
        name = f"`{row.name}`" if row.listed else row.name
        lines.append(f"| {name} | {row.what} | {' | '.join(row.cells)} | `{row.tests}` |")
    return "\n".join(lines)


def main() -> None:
    """Write the table into the page."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
