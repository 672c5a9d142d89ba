"""What the simulated runs of a job say together: cycles, time at the clock, bytes and waits by port, the limit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from apyfal.exceptions import ConfigurationError

__all__ = ["parse_frequency", "summarize"]

_UNITS = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
#: a usual clock of AMD's accelerator cards, 300 MHz (UG1393, "clocks of the platform")
_CLOCK = 300e6

_log = logging.getLogger("apyfal.rtl")


def parse_frequency(text: str) -> float:
    """Return hertz from text such as ``300 MHz``; a bare number is in Hz.

    Raises
    ------
    ConfigurationError
    """
    number = text.strip().lower()
    unit = next((name for name in sorted(_UNITS, key=len, reverse=True) if number.endswith(name)), "")
    try:
        value = float(number.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12:
        raise ConfigurationError(f"rtl.clock = {text!r} is wrong; expected a frequency such as 300 MHz")
    return value


def summarize(details: Iterable[str]) -> dict[str, Any]:
    """Return what a job's runs said, summed.

    Parameters
    ----------
    details
        JSON of each run, from the driver.

    Returns
    -------
    dict
        ``cycles``, ``device_seconds``, ``ports`` (name to ``read`` and ``written`` in bytes, ``waits_for_memory`` and
        ``waits_for_kernel`` in cycles) and ``limit``.
    """
    cycles, clock = 0, ""
    ports: dict[str, dict[str, int]] = {}
    for text in details:
        run = json.loads(text)
        cycles += run["cycles"]
        clock = run["clock"]
        for name, counts in run["ports"].items():
            held = ports.setdefault(name, dict.fromkeys(counts, 0))
            for key, value in counts.items():
                held[key] += value
        for line in run.get("log", "").splitlines():
            _log.info("%s", line)
    hertz = parse_frequency(clock) if clock else _CLOCK
    return {"cycles": cycles, "device_seconds": cycles / hertz, "ports": ports, "limit": _limit(cycles, ports)}


def _limit(cycles: int, ports: dict[str, dict[str, int]]) -> str:
    """Say what limits: the port for which the kernel waits more than half of the time, else the kernel."""
    name, counts = max(ports.items(), key=lambda item: item[1]["waits_for_memory"], default=("", None))
    if counts is None or not cycles or counts["waits_for_memory"] * 2 < cycles:
        return "the kernel"
    return f"port {name}, {counts['waits_for_memory'] / cycles:.0%} of the cycles"
