"""One user spends each limit of the data channel; another user's job runs on, and what stalls is closed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host.support.channel import RawChannel, array_job
from host.support.daemon import RunningDaemon, running

from apyfal.host.protocol import frames
from apyfal.host.protocol.frames import STREAMS, WINDOW, FrameType
from apyfal.host.server.channel.throttle import JobThrottle

MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with little memory and patience."""
    settings = {"memory_limit": 64 * MIB, "disk_limit": 32 * MIB, "stall_timeout": 2.0, "stop_timeout": 2.0}
    with running(tmp_path_factory.mktemp("daemon"), disk_reserve=0, **settings) as started:
        yield started


class Mallory:
    """A hostile user: many channels, and what is sent on them."""

    def __init__(self, daemon: RunningDaemon, stack: contextlib.ExitStack) -> None:
        self.daemon = daemon
        self.token = daemon.token("mallory")
        self._stack = stack
        with contextlib.closing(daemon.host(self.token)) as host:
            self.session = str(host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"])

    def channels(self, count: int, timeout: float = 30) -> list[RawChannel]:
        return [self._stack.enter_context(RawChannel(self.daemon, self.token, timeout)) for _ in range(count)]

    def job(self, stream: int, nbytes: int, key: str = "") -> bytes:
        text = json.dumps(array_job(nbytes))
        return frames.job_frame(stream, key or f"{time.monotonic_ns()}-{stream}", self.session, text, nbytes) or b""


@pytest.fixture
def mallory(daemon: RunningDaemon) -> Iterator[Mallory]:
    with contextlib.ExitStack() as stack:
        hostile = Mallory(daemon, stack)
        yield hostile
        with contextlib.closing(daemon.host(hostile.token)) as host:
            host.json("DELETE", f"/v1/sessions/{hostile.session}")


def half_headers(mallory: Mallory) -> list[RawChannel]:
    """Stop in the middle of a header."""
    found = mallory.channels(20)
    for number, channel in enumerate(found):
        channel.send(mallory.job(1, 3)[: 1 + number % 11])
    return found


def half_jobs(mallory: Mallory) -> list[RawChannel]:
    """Announce the longest job, and send all of it but a byte."""
    found = mallory.channels(20)
    for channel in found:
        channel.send(frames._HEADER.pack(FrameType.JOB, 0, 0, 1, frames.MAX_JOB), bytes(frames.MAX_JOB - 1))
    return found


def half_bodies(mallory: Mallory) -> list[RawChannel]:
    """Stop in the middle of a body."""
    found = mallory.channels(10)
    for channel in found:
        channel.send(mallory.job(1, 1000), frames.data_header(1, 1000), bytes(500))
    return found


def unsent_bodies(mallory: Mallory) -> list[RawChannel]:
    """Have memory reserved for large bodies, as much as there is, and send none."""
    found = mallory.channels(10)
    for channel in found:
        channel.send(mallory.job(1, 16 * MIB))
    # three quarters of 64 MiB are a user's; the others are refused, and their channels stay open
    waiting = [channel for channel in found if channel.frame()[0] == FrameType.CREDIT]
    assert 1 <= len(waiting) <= 3
    return waiting


def outputs_without_credit(mallory: Mallory) -> list[RawChannel]:
    """Let large outputs be made, and never ask for them."""
    found = mallory.channels(3)
    for channel in found:
        channel.send(mallory.job(1, 2 * MIB))
        assert channel.frame()[0] == FrameType.CREDIT
        channel.send(frames.data_header(1, 2 * MIB), bytes(2 * MIB))
        assert channel.frame()[0] == FrameType.RESULT
    return found


@pytest.fixture
def alice(daemon: RunningDaemon) -> Iterator[Callable[[], None]]:
    """Another user, with a channel; each call runs jobs, a small and a larger one."""
    token = daemon.token("alice")
    with contextlib.closing(daemon.host(token)) as host, RawChannel(daemon, token) as channel:
        own = host.json("POST", "/v1/sessions", {"accelerator": "loopback"})["id"]
        streams = iter(range(1, 1000))

        def work() -> None:
            for nbytes in (100, 200_000):
                stream = next(streams)
                channel.job(stream, own, array_job(nbytes), bytes(nbytes))
                number, document, output = channel.result()
                assert (number, document["state"], output) == (stream, "done", bytes(nbytes))

        work()
        yield work
        host.json("DELETE", f"/v1/sessions/{own}")


@pytest.mark.parametrize("spend", [half_headers, half_jobs, half_bodies, unsent_bodies, outputs_without_credit])
def test_what_stalls_is_closed_and_another_user_works(
    mallory: Mallory, alice: Callable[[], None], spend: Callable[[Mallory], list[RawChannel]]
) -> None:
    stalled = spend(mallory)
    alice()
    for channel in stalled:
        assert channel.error() == (0, 408, "the channel was closed: nothing has moved for 2 s")
        assert channel.is_closed()
    alice()


def test_results_that_nobody_reads_are_bounded(
    daemon: RunningDaemon, mallory: Mallory, alice: Callable[[], None]
) -> None:
    """Results wait as jobs, not as bytes in this process, and the connection is closed."""
    before = daemon.resident()
    found = mallory.channels(3)
    for channel in found:
        for stream in range(1, 250):  # more than the system keeps of a connection
            with contextlib.suppress(ConnectionError):
                channel.send(mallory.job(stream, 60_000), frames.data_header(stream, 60_000), bytes(60_000))
    alice()
    assert daemon.resident() - before < 200 * MIB
    deadline = time.monotonic() + 30
    while channels_of(daemon) > 1 and time.monotonic() < deadline:  # alice's
        time.sleep(0.1)
    assert channels_of(daemon) == 1
    alice()


def test_a_flood_of_small_jobs_on_many_channels(mallory: Mallory, alice: Callable[[], None]) -> None:
    """Each channel is full of jobs; the other user's wait for a few of them."""
    found = mallory.channels(30)
    for channel in found:
        channel.send(*(mallory.job(stream, 3) + frames.data_header(stream, 3) + b"abc" for stream in range(1, 101)))
        alice()
    for channel in found:
        answered = {channel.frame()[1] for _ in range(1)}
        assert answered <= set(range(1, STREAMS))
    alice()


def test_many_idle_channels(daemon: RunningDaemon, mallory: Mallory, alice: Callable[[], None]) -> None:
    before = daemon.resident()
    mallory.channels(500)
    alice()
    assert daemon.resident() - before < 32 * MIB
    alice()


def test_a_user_has_a_part_of_the_connections(tmp_path: Path) -> None:
    with running(tmp_path, max_connections=20) as daemon, contextlib.ExitStack() as stack:
        mallory = Mallory(daemon, stack)
        mallory.channels(14)
        for _ in range(3):
            with pytest.raises(AssertionError, match="429"):
                mallory.channels(2)
        with RawChannel(daemon, daemon.token("alice")):
            pass


def test_jobs_on_a_channel_count_as_requests(tmp_path: Path) -> None:
    with running(tmp_path, request_rate=1) as daemon, contextlib.ExitStack() as stack:
        mallory = Mallory(daemon, stack)
        (channel,) = mallory.channels(1)
        statuses = []
        for stream in range(1, 13):
            channel.send(mallory.job(stream, 3), frames.data_header(stream, 3), b"abc")
            kind, _, payload = channel.frame()
            statuses.append(200 if kind == FrameType.RESULT else frames.parse_error(payload).status)
            if kind == FrameType.RESULT:
                channel.frame()
        assert statuses[:6] == [200] * 6
        assert statuses[-1] == 429
        refused = [line for line in daemon.audit() if line["decision"] == "refused"]
        assert refused[0]["operation"] == "submit_job_on_channel"
        assert refused[0]["user"] == "mallory"


def test_jobs_that_wait_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path, counting=True, workers=1, max_jobs_of_user=5) as daemon, contextlib.ExitStack() as stack:
        mallory = Mallory(daemon, stack)
        (channel,) = mallory.channels(1)
        for stream in range(1, 21):
            job = {"parameters": {"number": stream, "seconds": 0.5 if stream == 1 else 0.0}}
            channel.job(stream, mallory.session, job)
        outcomes = []
        for _ in range(20):
            kind, _, payload = channel.frame()
            outcomes.append(200 if kind == FrameType.RESULT else frames.parse_error(payload).status)
        assert outcomes.count(200) == 6
        assert outcomes.count(429) == 14


def test_a_token_for_another_accelerator(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, contextlib.ExitStack() as stack:
        mallory = Mallory(daemon, stack)
        limited = daemon.tokens.create("mallory", ("process",), accelerators=("sha3",))
        channel = stack.enter_context(RawChannel(daemon, limited))
        channel.job(1, mallory.session, array_job(3), b"abc")
        assert channel.error()[:2] == (1, 403)


def test_turns() -> None:
    import asyncio

    async def check() -> None:
        throttle, called = JobThrottle(2), []
        for _ in range(2):
            assert not throttle.is_exhausted("a")
            throttle.count("a")
        assert throttle.is_exhausted("a")
        assert not throttle.is_exhausted("b")
        throttle.call_later(lambda: called.append(throttle.is_exhausted("a")))
        await asyncio.sleep(0)
        assert called == [False]

    asyncio.run(check())


def test_a_window_fits_into_one_frame() -> None:
    assert WINDOW <= frames.MAX_DATA


def channels_of(daemon: RunningDaemon) -> int:
    with contextlib.closing(daemon.host(daemon.token("root", "admin"))) as host, host.request("GET", "/metrics") as one:
        text = b"".join(one.lines()).decode()
    return int(float(text.split("\napyfal_channels ")[1].split()[0]))
