"""Pinned memory: whether it is locked, and made of huge pages."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

from apyfal._core.buffer import Buffer
from apyfal.doctor.finding import Finding
from apyfal.units import format_size

__all__ = ["check_huge_pages", "check_locked_memory"]

#: A job's default ring (``memory_limit``); less than this locked, and its pages can be paged out between transfers.
_RING = 256 << 20
_HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def check_locked_memory() -> Iterator[Finding]:
    """Allocate as much pinned memory as one job may use, and look whether it is locked."""
    buffer = Buffer(_RING)
    locked = buffer.locked
    buffer.close()
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    shown = "no limit" if limit == resource.RLIM_INFINITY else f"limit {format_size(limit)}"
    if locked:
        yield Finding("memory", "ok", f"{format_size(_RING)} of pinned memory can be locked ({shown})")
    else:
        yield Finding(
            "memory",
            "problem",
            f"{format_size(_RING)} of pinned memory cannot be locked ({shown}): it can be paged out between transfers",
            "ulimit -l unlimited; for good: '* - memlock unlimited' in /etc/security/limits.conf, or"
            " LimitMEMLOCK=infinity in the service",
        )


def check_huge_pages(setting: Path = _HUGE) -> Iterator[Finding]:
    """Look whether the kernel gives huge pages to those who ask for them."""
    try:
        found = re.search(r"\[(\w+)\]", setting.read_text())
    except OSError:
        found = None
    state = found[1] if found else "not known"
    if state == "never":
        yield Finding(
            "memory",
            "note",
            "the kernel gives no huge pages: the first use of large pinned memory takes about three times as long",
            f"echo madvise | sudo tee {setting}",
        )
    else:
        yield Finding("memory", "ok", f"huge pages: {state}")
