"""Sessions of TLS as Python sees them: who may use one, what it says when it ends, and what it costs."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.certificates import issue

from apyfal._core.errors import fail_allocation
from apyfal._core.tls import Context, Session, library
from apyfal._core.transport import Transport
from apyfal.exceptions import BufferInUse, HostMemoryExhausted, ParameterError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
SETTINGS = {"options": 0, "verify_flags": 0, "minimum": 0, "maximum": 0, "level": 1}
Make = Callable[[], tuple[Session, ssl.SSLSocket]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    issue(made, "server", ["127.0.0.1"])
    return made


@pytest.fixture
def context(folder: Path) -> Context:
    made = Context(**SETTINGS, verify=True, ciphers=None, suites=None)  # type: ignore[arg-type]
    made.trust(str(folder / "ca.pem"), None)
    return made


@pytest.fixture
def theirs(folder: Path) -> ssl.SSLContext:
    """The context of a server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "server.pem", folder / "server.key")
    return made


def both_sides(context: Context, theirs: ssl.SSLContext) -> tuple[Session, ssl.SSLSocket]:
    mine, other = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(theirs.wrap_socket(other, server_side=True)))
    thread.start()
    session = Session(context, mine, "127.0.0.1", 443, 5.0)
    session.handshake()
    thread.join()
    return session, accepted[0]


@pytest.fixture
def connect(context: Context, theirs: ssl.SSLContext) -> Iterator[Make]:
    """Make a session and the other side of it."""
    opened: list[socket.socket | Session] = []

    def make() -> tuple[Session, ssl.SSLSocket]:
        sides = both_sides(context, theirs)
        opened.extend(sides)
        return sides

    yield make
    for one in opened:
        one.close()


def send_for_ever(session: Session) -> None:
    while True:
        session.send(bytes(100_000))


def test_bytes_go_both_ways_whatever_their_number(connect: Make) -> None:
    mine, theirs = connect()
    sent = os.urandom(3_000_000)
    received = bytearray(len(sent))

    def echo() -> None:
        left = len(sent)
        while left:
            data = theirs.recv(100_000)
            theirs.sendall(data)
            left -= len(data)

    thread = threading.Thread(target=echo)
    thread.start()
    view, done, filled = memoryview(sent), 0, 0
    while filled < len(sent):
        if done < len(sent):
            done += mine.send(view[done : done + 50_000])
        filled += mine.recv_into(memoryview(received)[filled:], 0, 0 if done < len(sent) else socket.MSG_WAITALL)
    thread.join()
    assert received == sent


def test_all_is_waited_for_and_what_is_there_is_not(connect: Make) -> None:
    mine, theirs = connect()
    out = bytearray(10)
    theirs.sendall(b"12345")
    timer = threading.Timer(0.1, theirs.sendall, (b"67890",))
    timer.start()
    assert mine.recv_into(memoryview(out), 0, socket.MSG_WAITALL) == 10
    assert out == b"1234567890"
    timer.join()  # two threads may not send by one session
    theirs.sendall(b"abc")
    assert mine.recv_into(memoryview(out)) == 3
    mine.settimeout(0.2)
    with pytest.raises(TimeoutError):
        mine.recv_into(memoryview(out))


def test_a_slow_reader_is_no_silent_one(connect: Make) -> None:
    mine, theirs = connect()
    mine.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    mine.settimeout(2.0)
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.1):
            theirs.recv(6000)

    thread = threading.Thread(target=read)
    thread.start()
    data = memoryview(bytes(200_000))  # a third of a second for each record: three seconds at least
    begin = time.monotonic()
    try:
        while data:
            data = data[mine.send(data) :]
    finally:
        ended.set()
        thread.join()
    assert time.monotonic() - begin > 2.0, "it is not slow enough to be taken for silent"

    with pytest.raises(TimeoutError):
        send_for_ever(mine)


@pytest.mark.parametrize("early", [b"", b"early"])
def test_what_came_keeps_no_core_busy_while_the_peer_is_slow(connect: Make, early: bytes) -> None:
    mine, theirs = connect()  # the tickets of TLS 1.3 are unread
    theirs.sendall(early)
    mine.settimeout(1.0)
    begin = time.thread_time()
    with pytest.raises(TimeoutError):
        send_for_ever(mine)
    assert time.thread_time() - begin < 0.3
    out = bytearray(5)
    assert mine.recv_into(memoryview(out)[: len(early)]) == len(early)
    assert out.startswith(early)


def test_a_peer_that_answers_and_closes_ends_a_waiting_send(connect: Make) -> None:
    mine, theirs = connect()
    mine.settimeout(20.0)
    theirs.sendall(b"early")
    timer = threading.Timer(0.5, theirs.close)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(ConnectionError):
        send_for_ever(mine)
    assert time.monotonic() - begin < 10
    timer.join()
    out = bytearray(5)
    assert mine.recv_into(memoryview(out)) == 5
    assert out == b"early"


@pytest.mark.parametrize("what", ["handshake", "send", "recv_into", "all of it"])
def test_closed_by_another_thread_a_call_ends_and_touches_no_others_descriptor(
    connect: Make, context: Context, what: str
) -> None:
    if what == "handshake":
        near, silent = socket.socketpair()
        mine = Session(context, near, "127.0.0.1", 443, 20.0)
    else:
        mine, silent = connect()
    mine.settimeout(20.0)
    calls: dict[str, Callable[[], object]] = {
        "handshake": mine.handshake,
        "send": lambda: send_for_ever(mine),
        "recv_into": lambda: mine.recv_into(memoryview(bytearray(5))),
        "all of it": lambda: mine.recv_into(memoryview(bytearray(5)), 0, socket.MSG_WAITALL),
    }
    raised: list[OSError] = []

    def call() -> None:
        try:
            calls[what]()
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.5)
    begin = time.monotonic()
    mine.close()
    others = [socket.socketpair() for _ in range(4)]  # one of them may have its number
    for one, other in others:
        one.sendall(b"not TLS")
        other.sendall(b"not TLS")
    thread.join()
    assert time.monotonic() - begin < 15
    assert [error.errno for error in raised] == [errno.EBADF]
    assert mine.fileno() == -1
    for one, other in others:
        with one, other:
            assert one.recv(100, socket.MSG_DONTWAIT) == other.recv(100, socket.MSG_DONTWAIT) == b"not TLS"
    mine.close()
    silent.close()


@pytest.mark.parametrize("how", ["detach", "del"])
def test_closed_while_a_transport_has_it_the_transport_lets_its_socket_close(connect: Make, how: str) -> None:
    mine, theirs = connect()
    transport = Transport([b"GET / HTTP/1.1\r\n\r\n"], stall=20.0, largest=10, mistakes=1)
    slot = transport.attach(mine.fileno(), False, mine)
    mine.close()
    assert mine.fileno() != -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        mine.quiet()
    raw = theirs.detach()  # below TLS, which may answer the end in several ways
    with socket.socket(fileno=raw) as cut:
        cut.settimeout(5)
        with contextlib.suppress(ConnectionResetError):  # tickets were left unread
            assert cut.recv(1) == b""  # it is cut at once, all the same
    if how == "detach":
        transport.detach(slot)
    else:
        del transport
    assert mine.fileno() == -1


def test_one_thread_at_a_time(connect: Make) -> None:
    mine, theirs = connect()
    thread = threading.Thread(target=lambda: mine.recv_into(memoryview(bytearray(1))))
    thread.start()
    deadline = time.monotonic() + 20
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            mine.quiet()
        except BufferInUse:
            refused = True
    assert refused
    theirs.sendall(b"x")
    thread.join()
    assert mine.quiet()


def test_a_transport_has_it_alone_until_it_lets_go(connect: Make) -> None:
    mine, theirs = connect()
    out = bytearray(5)
    transport = Transport([b"GET / HTTP/1.1\r\n\r\n"], [out], stall=20.0, largest=10, mistakes=1)
    slot = transport.attach(mine.fileno(), False, mine)
    with pytest.raises(BufferInUse):
        mine.send(b"x")
    with pytest.raises(BufferInUse):
        transport.attach(mine.fileno(), False, mine)
    theirs.sendall(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n\r\nhello')
    assert transport.run(1)
    assert out == b"hello"
    assert transport.detach(slot)
    assert not transport.detach(slot)
    assert mine.send(b"x") == 1
    again = Transport([b"GET / HTTP/1.1\r\n\r\n"], stall=20.0, largest=10, mistakes=1)
    again.attach(mine.fileno(), True, mine)
    del again  # which lets go, too
    assert mine.quiet()


def test_after_its_end_it_is_of_no_use(connect: Make) -> None:
    mine, theirs = connect()
    theirs.close()
    with pytest.raises(ssl.SSLEOFError):
        mine.recv_into(memoryview(bytearray(1)))
    assert not mine.quiet()
    mine.close()
    for use in (mine.quiet, lambda: mine.send(b"x"), lambda: mine.recv_into(memoryview(bytearray(1)))):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()


@pytest.mark.parametrize("host", ["", ".example.test", "x" * 300])
def test_names_of_no_host(context: Context, host: str) -> None:
    mine, other = socket.socketpair()
    with mine, other, pytest.raises(ParameterError, match="not the name of a host"):
        Session(context, mine, host, 443, 1.0)


def test_no_memory(context: Context) -> None:
    mine, other = socket.socketpair()
    with mine, other:
        for make in (
            lambda: Context(**SETTINGS, verify=True, ciphers=None, suites=None),  # type: ignore[arg-type]
            lambda: Session(context, mine, "127.0.0.1", 443, 1.0),
        ):
            fail_allocation(0)
            try:
                with pytest.raises(HostMemoryExhausted):
                    make()
            finally:
                fail_allocation(None)


@pytest.mark.parametrize("change", [{"ciphers": "none of these"}, {"suites": "none"}, {"minimum": 5}])
def test_settings_that_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="OpenSSL refuses"):
        Context(**{**SETTINGS, "verify": True, "ciphers": None, "suites": None, **change})  # type: ignore[arg-type]


def test_authorities_that_are_refused(context: Context, tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(ParameterError, match="OpenSSL refuses"):
            context.trust(str(path), None)


@pytest.mark.skipif("APYFAL_SANITIZED" in os.environ, reason="the sanitizer keeps what was freed")
def test_sessions_leave_nothing(context: Context, theirs: ssl.SSLContext) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    for _ in range(30):
        for side in both_sides(context, theirs):
            side.close()
    before = resident()
    for _ in range(300):
        for side in both_sides(context, theirs):
            side.close()
    assert resident() - before < 8 << 20  # 80 KiB each would be 24 MiB


@pytest.mark.parametrize(
    ("value", "told"),
    [("none", "APYFAL_LIBSSL"), ("/nowhere/libssl.so", "no OpenSSL"), ("libc.so.6", "is not an OpenSSL 1.1.1 or 3")],
)
def test_another_library_and_none(value: str, told: str) -> None:
    program = (
        "from apyfal.storage.http import tls; from apyfal._core.tls import library\n"
        "assert not tls.is_native(False)\n"
        "try: library()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "APYFAL_LIBSSL": value}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_the_library_is_pythons_generation() -> None:
    version, text = library()
    assert version >> 28 == ssl.OPENSSL_VERSION_INFO[0]
    assert "OpenSSL" in text
