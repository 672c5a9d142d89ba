"""HostSettings of the operator of a host: the ``[security]`` section, and arguments of ``apyfal serve``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apyfal.config.configuration import ConfigSource, Configuration
from apyfal.exceptions import ConfigurationError
from apyfal.host.server.policy import limits
from apyfal.host.server.policy.tokens import default_state_directory

__all__ = ["HostSettings", "default_socket"]


def default_socket() -> Path:
    """Return the path of the daemon's Unix socket: in systemd's RuntimeDirectory, else in ``$XDG_RUNTIME_DIR``, else in
    the state directory.
    """
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0]) / "host.sock"
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "apyfal" / "host.sock"
    return default_state_directory() / "host.sock"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The daemon's settings. Sizes in bytes, durations in seconds.

    Attributes
    ----------
    authorized_host_dirs
        Directories that ``host://`` refers to; ``None``: ``~/shared``.
    private_endpoints
        ``host`` or ``host:port`` with a private address to which clients may make this host connect.
    client_drivers, client_programs
        Drivers and URLs of programs that clients may choose in addition to those of the definitions.
    state_directory
        Directory of tokens, journal, certificate and spool files.
    audit_log
        File of the audit log; ``None``: standard error.
    max_body
        Largest request body, in bytes.
    spool_above
        Size from which bodies are kept in a file instead of memory.
    memory_limit
        Memory for the data of all jobs; one user may hold three quarters of it.
    disk_limit
        Disk space for spool files; one user may hold three quarters of it.
    disk_reserve
        Disk space that spool files and ``host://`` leave free on a file system.
    host_quota
        Disk space for the files that one user keeps below ``host://``.
    journal_limit
        Disk space for the journal's results and small outputs; one user may hold three quarters of it.
    max_jobs, max_jobs_of_user
        Largest number of waiting jobs, in total and of one user.
    max_sessions, max_sessions_of_user
        Largest number of open sessions, in total and of one user.
    max_connections
        Largest number of open connections.
    request_rate
        Requests per second of one user; ten times as many at once.
    workers
        Number of jobs that run at once.
    session_timeout
        A session is closed when it has not been used for this time.
    stall_timeout
        A connection is closed when a request or response on it makes no progress for this time.
    stop_timeout
        Time that running jobs have to end when the daemon is asked to stop.
    keep_jobs, keep_outputs
        Time for which ended jobs, and outputs that were not fetched, are kept.
    """

    authorized_host_dirs: tuple[str, ...] | None = None
    private_endpoints: tuple[str, ...] = ()
    client_drivers: tuple[str, ...] = ()
    client_programs: tuple[str, ...] = ()
    state_directory: Path = Path()
    audit_log: Path | None = None
    max_body: int = limits.MAX_BODY
    spool_above: int = limits.SPOOL_ABOVE
    memory_limit: int = limits.MEMORY_LIMIT
    disk_limit: int = limits.DISK_LIMIT
    disk_reserve: int = limits.DISK_RESERVE
    host_quota: int = limits.HOST_QUOTA
    journal_limit: int = limits.JOURNAL_LIMIT
    max_jobs: int = limits.MAX_JOBS
    max_jobs_of_user: int = limits.MAX_JOBS_OF_USER
    max_sessions: int = limits.MAX_SESSIONS
    max_sessions_of_user: int = limits.MAX_SESSIONS_OF_USER
    max_connections: int = limits.MAX_CONNECTIONS
    request_rate: int = limits.REQUEST_RATE
    workers: int = limits.WORKERS
    session_timeout: float = 3600.0
    stall_timeout: float = 30.0
    stop_timeout: float = 30.0
    keep_jobs: float = 3600.0
    keep_outputs: float = 300.0

    @classmethod
    def load(cls, config: ConfigSource = None, **arguments: object) -> HostSettings:
        """Read the ``[security]`` section of a configuration. `arguments` that are not ``None`` override it.

        Raises
        ------
        ConfigurationError
            A value is malformed or unusable; the message names file, line and key.
        """
        section = Configuration.load(config).section("security")
        values: dict[str, object] = {}
        if "authorized_host_dirs" in section:
            values["authorized_host_dirs"] = tuple(str(path) for path in section.paths("authorized_host_dirs"))
        for name in ("private_endpoints", "client_drivers", "client_programs"):
            values[name] = tuple(part.text for part in section.parts(name, None))
        values["state_directory"] = Path(
            os.path.expanduser(section.text("state_directory", "") or default_state_directory())
        )
        if audit_log := section.text("audit_log", None):
            values["audit_log"] = Path(os.path.expanduser(audit_log))
        for name in _SIZES:
            values[name] = section.size(name, None)
        for name in _COUNTS:
            values[name] = section.integer(name, None, minimum=1)
        for name in _DURATIONS:
            values[name] = section.duration(name, None)
        values.update(arguments)
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        settings = cls(**given)
        if settings.spool_above > settings.memory_limit:
            settings = replace(settings, spool_above=settings.memory_limit)
        if settings.authorized_host_dirs == ():
            raise ConfigurationError("[security] authorized_host_dirs: expected at least one directory")
        return settings


_SIZES = ("max_body", "spool_above", "memory_limit", "disk_limit", "disk_reserve", "host_quota", "journal_limit")
_COUNTS = (
    "max_jobs",
    "max_jobs_of_user",
    "max_sessions",
    "max_sessions_of_user",
    "max_connections",
    "request_rate",
    "workers",
)
_DURATIONS = ("session_timeout", "stall_timeout", "stop_timeout", "keep_jobs", "keep_outputs")
