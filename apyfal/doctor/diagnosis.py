"""All checks, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from apyfal.doctor import cards, credentials, files, memory, network, system
from apyfal.doctor.finding import Finding

__all__ = ["diagnose"]

_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    system.check_python,
    system.check_tls,
    system.check_extras,
    memory.check_locked_memory,
    memory.check_huge_pages,
    cards.check_drivers,
    cards.check_device_files,
    cards.check_simulator,
    files.check_configuration,
    files.check_directories,
    credentials.check_aws,
    credentials.check_google,
    credentials.check_azure,
    credentials.check_swift,
    credentials.check_host,
    network.check_proxies,
    network.check_clock,
    network.check_loopback,
)


def diagnose(*urls: str) -> Iterator[Finding]:
    """Run every check.

    Parameters
    ----------
    urls
        Addresses to ask, too: http or https.

    Yields
    ------
    Finding
        As each check ends. A check that fails itself is a problem that is found, and the others go on.
    """
    for check in _CHECKS:
        yield from _guarded(check.__name__, check)
    for url in urls:
        yield from network.check_address(url)


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # what one library of this machine does must not hide the rest
        text = f"{name.removeprefix('check_').replace('_', ' ')}: {type(error).__name__}: {error}"
        yield Finding("system", "problem", text, "please report this")
