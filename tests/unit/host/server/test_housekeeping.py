"""The daemon's housekeeping: what fails is told once and keeps nothing else from its turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from apyfal.host.protocol.audit import AuditLog
from apyfal.host.server.daemon import Daemon
from apyfal.host.server.housekeeping import Step, run_periodically

PARTS = ("idle", "close_session", "look", "expire_outputs", "forget", "checkpoint")


def daemon_of(parts: dict[str, Step], audit: AuditLog) -> Daemon:
    """Return what the housekeeping needs of a daemon, with one idle session."""
    session = SimpleNamespace(user="someone", id="1")

    def idle(_: float) -> list[object]:
        parts["idle"]()
        return [session]

    def part(name: str) -> object:
        return lambda *_: parts[name]()

    fake = SimpleNamespace(
        _sessions=SimpleNamespace(idle=idle), close_session=part("close_session"), _audit=audit,
        _channels=SimpleNamespace(close_stalled=part("look")),
        _journal=SimpleNamespace(database=SimpleNamespace(checkpoint=part("checkpoint"))),
        _manager=SimpleNamespace(expire_outputs=part("expire_outputs"), forget=part("forget")),
        settings=SimpleNamespace(session_timeout=1, keep_outputs=1, keep_jobs=1),
    )  # fmt: skip
    for name in ("_end_idle_sessions", "_forget_jobs", "_tidy_journal", "_housekeeping"):
        setattr(fake, name, getattr(Daemon, name).__get__(fake))
    return cast("Daemon", fake)


def rounds(steps: dict[str, Step], enough: asyncio.Event) -> None:
    async def main() -> None:
        task = asyncio.create_task(run_periodically(steps, 0.001))
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait({task, waiting}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert enough.is_set()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), OSError(28, "No space left")])
@pytest.mark.parametrize("failing", PARTS)
def test_what_fails_keeps_no_other_step_from_its_turn(
    failing: str, error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken: Counter[str] = Counter()
    enough = asyncio.Event()

    def part(name: str) -> Step:
        def take() -> None:
            taken[name] += 1
            if taken[failing] >= 3 and all(taken[other] >= 3 for other in PARTS if other not in without):
                enough.set()
            if name == failing:
                raise error

        return take

    without = {"close_session"} if failing == "idle" else set()  # nothing is known to be idle
    with contextlib.closing(AuditLog(tmp_path / "audit")) as audit:
        rounds(daemon_of({name: part(name) for name in PARTS}, audit)._housekeeping(), enough)
    assert caplog.text.count(str(error)) == 1  # not each round


def test_a_full_audit_log_stops_no_step(tmp_path: Path) -> None:
    taken: Counter[str] = Counter()
    enough = asyncio.Event()

    def part(name: str) -> Step:
        def take() -> None:
            taken[name] += 1
            if all(taken[other] >= 3 for other in PARTS):
                enough.set()

        return take

    with contextlib.closing(AuditLog("/dev/full")) as audit:
        rounds(daemon_of({name: part(name) for name in PARTS}, audit)._housekeeping(), enough)


def test_what_works_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    enough = asyncio.Event()
    outcomes = iter([OSError("full"), OSError("full"), None, OSError("full again"), None])

    def step() -> None:
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome
        if not next(left, None):
            enough.set()

    left = iter(["one"])
    with caplog.at_level(logging.INFO, "apyfal"):
        rounds({"a step": step}, enough)
    told = [record.getMessage() for record in caplog.records if "a step" in record.getMessage()]
    assert told[:3] == [
        "housekeeping, a step: full", "housekeeping, a step: works again", "housekeeping, a step: full again"
    ]  # fmt: skip


def test_a_fault_of_the_programs_ends_it() -> None:
    def step() -> None:
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        asyncio.run(run_periodically({"a step": step}, 0.001))
