"""Checks whether this machine can be a host, for ``apyfal host check``."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apyfal.config.configuration import ConfigSource
from apyfal.exceptions import AcceleratorException
from apyfal.host.client.http import Host
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import HostAddress
from apyfal.host.server.policy import linux_sandbox
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.settings import HostSettings, default_socket
from apyfal.units import format_size

__all__ = ["CheckResult", "check"]

_LITTLE_SPACE = 1 << 30


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes
    ----------
    what
        Name of the check.
    state
        ``ok``, ``warning`` or ``wrong``.
    text
        One line that explains the state.
    """

    what: str
    state: str
    text: str


def check(config: ConfigSource = None) -> list[CheckResult]:
    """Check everything that a daemon with this configuration needs. Problems become findings, not exceptions.

    Raises
    ------
    ConfigurationError
        The configuration itself cannot be read.
    """
    settings = HostSettings.load(config)
    found: list[CheckResult] = []
    steps: list[tuple[str, Callable[[HostSettings], Iterator[CheckResult]]]] = [
        ("directories", _directories),
        ("outbound", _outbound),
        ("tokens", _tokens),
        ("certificate", _certificate),
        ("state", _state),
        ("devices", _devices),
        ("daemon", _daemon),
    ]
    for name, step in steps:
        try:
            found += step(settings)
        except (AcceleratorException, OSError) as error:
            found.append(CheckResult(name, "wrong", " ".join(str(error).split())))
    return found


def _directories(settings: HostSettings) -> Iterator[CheckResult]:
    if linux_sandbox.have_openat2():
        yield CheckResult("openat2", "ok", "paths are resolved by the kernel")
    else:
        yield CheckResult("openat2", "warning", "not in this kernel: paths are resolved step by step")
    with AllowedDirectories(settings.authorized_host_dirs) as allowed:
        if allowed.landlocked:
            yield CheckResult(
                "Landlock",
                "ok",
                f"version {linux_sandbox.landlock_version()} restricts the threads that open host:// files",
            )
        else:
            yield CheckResult("Landlock", "warning", "not in this kernel: the resolver alone guards host://")
        for directory in allowed.directories:
            mode = os.stat(directory).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                yield CheckResult("host://", "warning", f"{directory}: anybody on this machine can write there")
            else:
                yield CheckResult("host://", "ok", directory)


def _outbound(settings: HostSettings) -> Iterator[CheckResult]:
    EgressPolicy(settings.private_endpoints)
    allowed = ", ".join(settings.private_endpoints) or "none"
    yield CheckResult("outbound", "ok", f"private endpoints that clients may reach: {allowed}")


def _tokens(settings: HostSettings) -> Iterator[CheckResult]:
    store = TokenStore(settings.state_directory / "tokens.json")
    valid = [token for token in store.list() if token.state(time.time()) == "valid"]
    if not valid:
        yield CheckResult("tokens", "warning", "none: only this user can use the host; see apyfal token create")
        return
    if stat.S_IMODE(store.path.stat().st_mode) & 0o077:
        yield CheckResult("tokens", "wrong", f"{store.path} can be read by others: chmod 600")
        return
    yield CheckResult("tokens", "ok", f"{len(valid)} valid, of {len({token.user for token in valid})} users")


def _certificate(settings: HostSettings) -> Iterator[CheckResult]:
    certificate = settings.state_directory / "certificate.pem"
    if certificate.exists():
        yield CheckResult("certificate", "ok", f"its own: sha256={tls.fingerprint_of(certificate)}")
    else:
        yield CheckResult("certificate", "ok", "none yet: made when it listens beyond this machine")


def _state(settings: HostSettings) -> Iterator[CheckResult]:
    directory = settings.state_directory
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    state = "ok" if free > _LITTLE_SPACE else "warning"
    yield CheckResult("state", state, f"{directory}: {format_size(free)} free")


def _devices(_: HostSettings) -> Iterator[CheckResult]:
    from apyfal.device.listing import devices

    listing = devices()
    for device in listing:
        yield CheckResult("device", "ok", str(device))
    for driver, reason in listing.unavailable.items():
        yield CheckResult("device", "warning", f"{driver}: {reason}")


def _daemon(_: HostSettings) -> Iterator[CheckResult]:
    path = default_socket()
    if not path.exists():
        yield CheckResult("daemon", "warning", f"not running: nothing at {path}")
        return
    host = Host(HostAddress(unix=str(path), secure=False), None)
    try:
        state = host.json("GET", "/health")["state"]
    finally:
        host.close()
    yield CheckResult("daemon", "ok" if state == "ok" else "warning", f"{path}: {state}")
