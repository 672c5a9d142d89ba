"""All limits on the resources that a client, or anyone who can connect, can use.

Those in capitals with a field in `apyfal.host.settings.HostSettings` are defaults that the operator can change; the
others are fixed. `docs/security.md` lists for each what it bounds, and the test that checks it.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CHANNEL_IDLE_TIMEOUT",
    "CHANNEL_JOBS_AT_ONCE",
    "COPY_BUFFERS",
    "COUNTED_JSON",
    "DISK_LIMIT",
    "DISK_RESERVE",
    "FAILURES_AT_ONCE",
    "FAILURE_RATE",
    "HANDSHAKES",
    "HANDSHAKE_TIMEOUT",
    "HEADER_TIMEOUT",
    "HOST_QUOTA",
    "JOBS_LISTED",
    "JOURNAL_LIMIT",
    "JSON_TIMEOUT",
    "KEPT_IN_MEMORY",
    "MAX_BODY",
    "MAX_CONNECTIONS",
    "MAX_JOBS",
    "MAX_JOBS_OF_USER",
    "MAX_JSON",
    "MAX_LISTED",
    "MAX_MOUNT_TIMEOUT",
    "MAX_SESSIONS",
    "MAX_SESSIONS_OF_USER",
    "MAX_TARPIT",
    "MEMORY_LIMIT",
    "MOUNTS_OF_SESSION",
    "OUTPUTS_OF_USER",
    "PUBLIC_AT_ONCE",
    "PUBLIC_RATE",
    "REFUSALS_AT_ONCE",
    "REFUSAL_RATE",
    "REGIONS_OF_USER",
    "REQUEST_RATE",
    "RESERVED_WORKERS",
    "SPOOL_ABOVE",
    "TARPIT",
    "THREADS",
    "THREADS_OF_USER",
    "WAITING_OF_USER",
    "WORKERS",
    "ring_limit",
    "share_of_user",
]

_MIB, _GIB = 1 << 20, 1 << 30


def share_of_user(limit: int) -> int:
    """Return the part of `limit` that one user may hold: three quarters, so that something is left for others."""
    return max(1, limit * 3 // 4)


def ring_limit(memory_limit: int, workers: int) -> int:
    """Return the bytes of ring buffers that one job may use: its part of half of the host's memory limit, at least 16
    MiB.
    """
    return max(16 * _MIB, memory_limit // (2 * workers))


# -- memory and disk ---------------------------------------------------------------------------------------------------
#: bytes of all users' bodies, ring buffers, outputs and shared memory
MEMORY_LIMIT: Final = 16 * _GIB
#: bytes of one body, of one output in a file, or of one copied object
MAX_BODY: Final = 64 * _GIB
#: size in bytes from which a body goes to a file
SPOOL_ABOVE: Final = 4 * _GIB
#: bytes of spool files: bodies, outputs and objects on their way to clients
DISK_LIMIT: Final = 256 * _GIB
#: bytes of a file system that spool files and ``host://`` leave free, for the journal and the rest of the machine
DISK_RESERVE: Final = 1 * _GIB
#: bytes of the files that one user keeps below ``host://``
HOST_QUOTA: Final = 256 * _GIB
#: bytes of the journal's results and small outputs
JOURNAL_LIMIT: Final = 2 * _GIB
#: bytes of small outputs kept in memory as well as in the journal, so that they can be sent at once
KEPT_IN_MEMORY: Final = 64 * _MIB
#: outputs of one user that are too large for the journal and have not been fetched
OUTPUTS_OF_USER: Final = 1024
#: bytes of the buffers for one copy between two stores
COPY_BUFFERS: Final = 32 * _MIB
#: bytes of one JSON body; bytes from which it counts against the memory; seconds within which it must arrive
MAX_JSON: Final = 1 * _MIB
COUNTED_JSON: Final = 64 << 10
JSON_TIMEOUT: Final = 30.0
#: jobs in one listing, newest first
JOBS_LISTED: Final = 1000

# -- jobs, sessions, threads -------------------------------------------------------------------------------------------
#: waiting jobs: of all users, of one user
MAX_JOBS: Final = 1024
MAX_JOBS_OF_USER: Final = 256
#: open sessions: of all users, of one user
MAX_SESSIONS: Final = 256
MAX_SESSIONS_OF_USER: Final = 32
#: mounts of one session, and the largest `timeout` of one, in seconds: its store can keep a thread waiting that long
MOUNTS_OF_SESSION: Final = 16
MAX_MOUNT_TIMEOUT: Final = 300.0
#: regions of shared memory of one user; each uses a file descriptor
REGIONS_OF_USER: Final = 256
#: jobs that run at once
WORKERS: Final = 4
#: additional running jobs, each of a user without another running job, so that jobs that hang block only their user
RESERVED_WORKERS: Final = 16
#: threads to read, write, copy and list: of all users, of one user; and requests of one user that wait for a thread
THREADS: Final = 256
THREADS_OF_USER: Final = 8
WAITING_OF_USER: Final = 256
#: entries of one listing
MAX_LISTED: Final = 100_000

# -- requests and connections ------------------------------------------------------------------------------------------
#: requests per second of one user; ten times as many at once
REQUEST_RATE: Final = 5000
#: open connections; one user may have three quarters of them
MAX_CONNECTIONS: Final = 4096
#: seconds without a job after which a channel is closed, as other idle connections
CHANNEL_IDLE_TIMEOUT: Final = 75.0
#: jobs that all channels of one user may submit in one iteration of the event loop
CHANNEL_JOBS_AT_ONCE: Final = 8
#: seconds after which a connection without a valid token is closed
HEADER_TIMEOUT: Final = 20.0
#: TLS handshakes in progress, and seconds for one
HANDSHAKES: Final = 128
HANDSHAKE_TIMEOUT: Final = 10.0
#: wrong tokens per second from one address, and at once
FAILURE_RATE: Final = 1.0
FAILURES_AT_ONCE: Final = 20.0
#: requests per second from one address to routes without a token, and at once
PUBLIC_RATE: Final = 50.0
PUBLIC_AT_ONCE: Final = 200.0
#: seconds between responses to an address above its rate, and the longest delay of one response
TARPIT: Final = 0.05
MAX_TARPIT: Final = 5.0
#: audit lines per second about refused requests of one user or address, and at once
REFUSAL_RATE: Final = 1.0
REFUSALS_AT_ONCE: Final = 20.0
