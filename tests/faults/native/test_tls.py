"""TLS by OpenSSL and by Python's `ssl`: the same certificates are accepted, and the same broken answers are errors."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from apyfal._core.transport import DONE
from apyfal.exceptions import AcceleratorException, StorageError, StoreUnavailable, TransferTimeout
from apyfal.storage.flow.cancel import CancelToken
from apyfal.storage.http import tls
from apyfal.storage.http.exchanges import Exchanges
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.pool import ConnectionPool, Timeouts, request_head

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
HELLO = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n\r\nhello'
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        """The certificate, as in a file."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def issue(
    name: str,
    by: Pair | None,
    hosts: tuple[str, ...] = (),
    *,
    ca: bool = False,
    begin: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + DAY,
    key: Key | None = None,
) -> Pair:
    """Make a certificate: of an authority, or for hosts; ``by=None``: signed by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((by.key if by else key).public_key()), critical=False
        )
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if hosts:
        names = [
            x509.IPAddress(ipaddress.ip_address(host[3:])) if host.startswith("IP:") else x509.DNSName(host)
            for host in hosts
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(by.key if by else key, hashes.SHA256()), key)


class Certificates:
    """An authority, one below it, and what they vouch for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = issue("root", None, ca=True)
        self.middle = issue("middle", self.root, ca=True)
        self.other = issue("other", None, ca=True)

    def file(self, name: str, *pems: bytes) -> str:
        """Write certificates into a file; returns its path."""
        path = self.folder / f"{name}.pem"
        path.write_bytes(b"".join(pems))
        return str(path)

    def context(self, leaf: Pair, *more: Pair) -> ssl.SSLContext:
        """Make a server's context with a chain."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key = leaf.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(self.file("chain", leaf.pem, *(one.pem for one in more), key))
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


Talk = Callable[[ssl.SSLSocket], None]


def answer(sock: ssl.SSLSocket) -> None:
    """Answer requests until the other side closes."""
    while request(sock):
        sock.sendall(HELLO)


def request(sock: ssl.SSLSocket) -> bytes:
    """Read the head of a request; empty at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = sock.recv(4096)
        if not more:
            return b""
        head += more
    return head


class Server:
    """Accepts connections, talks TLS on each, and says how many it had."""

    def __init__(self, context: ssl.SSLContext | None, talk: Talk = answer) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self._talk = talk
        self.port = self._listener.getsockname()[1]
        self.resumed: list[bool] = []
        self.names: list[str | None] = []
        if context is not None:
            context.sni_callback = lambda sock, name, _: self.names.append(name)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(60)
            if self._context is None:
                self._talk(sock)  # type: ignore[arg-type]  # the talk of one without TLS
                return
            with self._context.wrap_socket(sock, server_side=True) as secure:
                self.resumed.append(bool(secure.session_reused))
                self._talk(secure)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def run(context: ssl.SSLContext | None, talk: Talk = answer) -> Server:
        made.append(Server(context, talk))
        return made[-1]

    yield run
    for server in made:
        server.close()


def by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_native_context", lambda verify, trusted: None)


def pool_for(server: Server, verify: str | bool, stall: float = 20.0) -> ConnectionPool:
    pool = ConnectionPool(Timeouts(20.0, stall), verify=verify)
    pool.gate = lambda host, port: ["127.0.0.1"]
    return pool


def asked(server: Server, host: str, verify: str | bool, stall: float = 20.0) -> object:
    """Return what a request brings: the body, or the kind and text of the error."""
    pool = pool_for(server, verify, stall)
    try:
        return pool.request("GET", Origin("https", host, server.port), "/x").read()
    except AcceleratorException as error:
        return type(error), re.sub(r":\d+", "", str(error))
    finally:
        pool.close()


def exchanged(server: Server, host: str, verify: str | bool, count: int = 1, stall: float = 20.0) -> list[bytes | None]:
    """Return what the native transport receives; ``None`` for what it leaves to the general path."""
    pool = pool_for(server, verify, stall)
    origin = Origin("https", host, server.port)
    heads = [request_head("GET", origin, "/x", ())] * count
    try:
        done = Exchanges(pool, origin, heads, None, most=2, largest=1 << 20, cancel=CancelToken())
        return [bytes(done.take(number) or b"") if done.states[number] == DONE else None for number in range(count)]
    finally:
        pool.close()


REFUSED = "certificate is not accepted"
#: Hosts of the certificate, the host that is asked for, and whether that is accepted.
NAMES = {
    "its name": (("a.example.test",), "a.example.test", True),
    "its name in capitals": (("A.Example.test",), "a.exAmple.test", True),
    "another name": (("b.example.test",), "a.example.test", False),
    "a part of its name": (("a.example.test",), "example.test", False),
    "an address": (("IP:127.0.0.1",), "127.0.0.1", True),
    "another address": (("IP:127.0.0.2",), "127.0.0.1", False),
    "an address as a name": (("127.0.0.1",), "127.0.0.1", False),
    "an address of version 6": (("IP:::1",), "::1", True),
    "another address of version 6": (("IP:::2",), "::1", False),
    "wildcard": (("*.example.test",), "a.example.test", True),
    "wildcard, two labels": (("*.example.test",), "a.b.example.test", False),
    "wildcard, no label": (("*.example.test",), "example.test", False),
    "wildcard, a part of a label": (("a*.example.test",), "abc.example.test", False),
    "wildcard, a whole domain": (("*.test",), "example.test", False),
    "wildcard in the middle": (("a.*.test",), "a.example.test", False),
    "wildcard and an address": (("*.0.0.1",), "127.0.0.1", False),
    "two names": (("x.test", "a.example.test"), "a.example.test", True),
    "a dot at the end": (("a.example.test",), "a.example.test.", False),
    "a name in the subject alone": ((), "subject.test", True),
    "another name in the subject alone": ((), "a.example.test", False),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(
    certificates: Certificates, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    hosts, host, accepted = NAMES[case]
    server = serve(certificates.context(issue("subject.test", certificates.root, hosts)))
    verify = certificates.file("root", certificates.root.pem)
    found = asked(server, host, verify)
    assert exchanged(server, host, verify) == ([b"hello"] if accepted else [None])
    unverified = asked(server, host, False)
    sent = list(server.names)
    by_python(monkeypatch)
    assert asked(server, host, verify) == found
    assert (found == b"hello") is accepted
    if not accepted:
        assert REFUSED in str(found)
        assert "not valid for" in str(found)
    assert unverified == b"hello"
    assert set(server.names) == set(sent)  # a name is told, an address is not


def _chains(made: Certificates) -> dict[str, tuple[tuple[Pair, ...], str | bool, str | None]]:
    """What the server sends, what is trusted, and a part of the error."""
    root, middle, both = made.root, made.middle, made.file("both", made.root.pem, made.middle.pem)
    trusted = made.file("root", root.pem)
    good = issue("x", root, ("a.test",))
    alone = issue("x", None, ("a.test",))
    below = issue("x", middle, ("a.test",))
    weak = issue("x", root, ("a.test",), key=rsa.generate_private_key(65537, 1024))
    return {
        "good": ((good,), trusted, None),
        "the system's authorities": ((good,), True, "unable to get local issuer"),
        "another authority": ((good,), made.file("other", made.other.pem), "unable to get local issuer"),
        "expired": ((issue("x", root, ("a.test",), begin=NOW - 3 * DAY, end=NOW - DAY),), trusted, "has expired"),
        "not yet valid": (
            (issue("x", root, ("a.test",), begin=NOW + DAY, end=NOW + 3 * DAY),),
            trusted,
            "not yet valid",
        ),
        "by itself": ((alone,), trusted, "self"),
        "by itself, trusted": ((alone,), made.file("alone", alone.pem), None),
        "chain": ((below, middle), trusted, None),
        "chain incomplete": ((below,), trusted, "unable to get local issuer"),
        "chain incomplete, middle known": ((below,), both, None),
        "chain, only its middle trusted": ((below, middle), made.file("middle", middle.pem), "unable to get"),
        "no authority signed": ((issue("x", good, ("a.test",)), good), trusted, "invalid CA"),
        "a weak key": ((weak,), trusted, "key too weak"),
        "expired, unverified": (
            (issue("x", None, ("b.test",), begin=NOW - 3 * DAY, end=NOW - DAY),),
            False,
            None,
        ),
        "an authority that expired": (
            (issue("x", old := issue("old", None, ca=True, begin=NOW - 3 * DAY, end=NOW - DAY), ("a.test",)),),
            made.file("old", old.pem),
            "has expired",
        ),
    }


CHAINS = [
    "good",
    "the system's authorities",
    "another authority",
    "expired",
    "not yet valid",
    "by itself",
    "by itself, trusted",
    "chain",
    "chain incomplete",
    "chain incomplete, middle known",
    "chain, only its middle trusted",
    "no authority signed",
    "a weak key",
    "expired, unverified",
    "an authority that expired",
]


@pytest.fixture(scope="module")
def chains(certificates: Certificates) -> dict[str, tuple[tuple[Pair, ...], str | bool, str | None]]:
    return _chains(certificates)


@pytest.mark.parametrize("case", CHAINS)
def test_chains(
    certificates: Certificates,
    chains: dict[str, tuple[tuple[Pair, ...], str | bool, str | None]],
    serve: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    assert chains.keys() == set(CHAINS)
    chain, verify, why = chains[case]
    server = serve(certificates.context(*chain))
    found = asked(server, "a.test", verify)
    assert exchanged(server, "a.test", verify) == ([b"hello"] if why is None else [None])
    by_python(monkeypatch)
    assert asked(server, "a.test", verify) == found
    if why is None:
        assert found == b"hello"
    else:
        assert found[0] is StorageError  # type: ignore[index]
        assert why in str(found)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cut(data: bytes, *, farewell: bool = False, linger: bool = True) -> Talk:
    """Make a server that sends `data` and ends, with TLS's farewell or without, by a TCP reset or in order."""

    def talk(sock: ssl.SSLSocket) -> None:
        request(sock)
        sock.sendall(data)
        if farewell:
            with contextlib.suppress(OSError):
                sock.settimeout(0.1)
                sock.unwrap()
        if not linger:
            time.sleep(0.1)  # the data is to arrive
            reset(sock)

    return talk


def plain(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 400 This is not TLS\r\n\r\n")


def heard(sock: socket.socket) -> None:
    sock.recv(4096)


def half_heard(sock: socket.socket) -> None:
    sock.recv(10)
    reset(sock)


def silent(sock: socket.socket) -> None:
    """Hear the other side until it closes, and answer nothing."""
    while sock.recv(4096):
        pass


UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
#: What the server does after the handshake, and what becomes of it: the body, or a kind of error.
ENDS = {
    "whole": (answer, b"hello"),
    "cut in the body": (cut(HELLO[:-2]), StoreUnavailable),
    "cut in the body, with a farewell": (cut(HELLO[:-2], farewell=True), StoreUnavailable),
    "cut in the head": (cut(HELLO[:20]), StoreUnavailable),
    "cut in the head, with a farewell": (cut(HELLO[:20], farewell=True), StoreUnavailable),
    "cut before the head": (cut(b""), StoreUnavailable),
    "reset in the body": (cut(HELLO[:-2], linger=False), StoreUnavailable),
    "until it closes, with a farewell": (cut(UNTIL_CLOSE, farewell=True), b"hello"),
    "until it closes, cut": (cut(UNTIL_CLOSE), StoreUnavailable),
    "until it closes, reset": (cut(UNTIL_CLOSE, linger=False), StoreUnavailable),
    "silence": (silent, TransferTimeout),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("case", ENDS)
def test_ends(
    certificates: Certificates,
    serve: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    version: ssl.TLSVersion,
) -> None:
    talk, outcome = ENDS[case]
    context = certificates.context(issue("x", certificates.root, ("a.test",)))
    context.minimum_version = context.maximum_version = version
    server = serve(context, talk)
    verify = certificates.file("root", certificates.root.pem)
    stall = 2.0 if case == "silence" else 20.0
    found = asked(server, "a.test", verify, stall)
    whole = case == "whole"
    assert exchanged(server, "a.test", verify, stall=stall) == [b"hello" if whole else None]
    by_python(monkeypatch)
    careful = asked(server, "a.test", verify, stall)
    if "reset" in case:  # OpenSSL and Python tell it in other words
        assert careful[0] is found[0]  # type: ignore[index]
    else:
        assert careful == found
    assert (found if isinstance(outcome, bytes) else found[0]) == outcome  # type: ignore[index]


def _beginnings(certificates: Certificates) -> dict[str, tuple[ssl.SSLContext | None, Talk]]:
    def context(version: ssl.TLSVersion) -> ssl.SSLContext:
        made = certificates.context(issue("x", certificates.root, ("a.test",)))
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        made.maximum_version = version
        return made

    other = context(ssl.TLSVersion.TLSv1_2)
    other.set_ciphers("NULL-SHA256:@SECLEVEL=0")
    return {
        "1.1": (context(ssl.TLSVersion.TLSv1_1), answer),
        "no cipher in common": (other, answer),
        "no TLS": (None, plain),
        "closed": (None, lambda sock: None),
        "closed after the greeting": (None, heard),
        "reset": (None, half_heard),
        "silence": (None, silent),
    }


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    "case",
    ["1.1", "no cipher in common", "no TLS", "closed", "closed after the greeting", "reset", "silence"],
)
def test_beginnings(
    certificates: Certificates, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    context, talk = _beginnings(certificates)[case]
    server = serve(context, talk)
    verify = certificates.file("root", certificates.root.pem)
    told = []
    seconds = 2.0 if case == "silence" else 20.0
    for way in ("native", "python"):
        pool = ConnectionPool(Timeouts(seconds, seconds), verify=verify)
        pool.gate = lambda host, port: ["127.0.0.1"]
        with pytest.raises(AcceleratorException) as caught:
            pool.request("GET", Origin("https", "a.test", server.port), "/x")
        told.append((type(caught.value), str(caught.value)))
        if way == "native":
            by_python(monkeypatch)
    # with bytes that nobody read, a close is a reset; and that is told in other words
    assert told[0] == told[1] or (case in ("reset", "closed") and told[0][0] is told[1][0])
    assert told[0][0] is (TransferTimeout if case == "silence" else StoreUnavailable)


def test_sessions_are_resumed(certificates: Certificates, serve: Callable[..., Server]) -> None:
    """One handshake with a certificate; the next connections of the same mount do without, to the same host only."""
    server = serve(certificates.context(issue("x", certificates.root, ("a.test", "b.test"))))
    verify = certificates.file("resumed", certificates.root.pem)
    for _ in range(3):
        assert asked(server, "a.test", verify) == b"hello"
    assert server.resumed == [False, True, True]
    assert asked(server, "b.test", verify) == b"hello"
    assert server.resumed[-1] is False
    other = certificates.file("other than that", certificates.other.pem)
    assert REFUSED in str(asked(server, "a.test", other))


def test_connections_are_kept(certificates: Certificates, serve: Callable[..., Server]) -> None:
    server = serve(certificates.context(issue("x", certificates.root, ("a.test",))))
    verify = certificates.file("root", certificates.root.pem)
    assert exchanged(server, "a.test", verify, 50) == [b"hello"] * 50
    assert len(server.resumed) <= 2


def test_tickets_that_come_late_are_no_talk(certificates: Certificates, serve: Callable[..., Server]) -> None:
    """A server of TLS 1.3 may send tickets whenever it likes; here they come with the first answer."""
    server = serve(certificates.context(issue("x", certificates.root, ("a.test",))))
    pool = pool_for(server, certificates.file("root", certificates.root.pem))
    origin = Origin("https", "a.test", server.port)
    for pause in (0.0, 0.3, 0.0):  # after a while the connection is looked at
        time.sleep(pause)
        assert pool.request("GET", origin, "/x").read() == b"hello"
    assert len(server.resumed) == 1
    pool.close()


def test_a_replaced_ssl_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that ask the system's store of certificates put their own context into `ssl`."""

    class Context(ssl.SSLContext):
        pass

    tls._native_context.cache_clear()
    monkeypatch.setattr(ssl, "create_default_context", lambda **given: Context(ssl.PROTOCOL_TLS_CLIENT))
    assert not tls.is_native(True)
    tls._native_context.cache_clear()


def test_a_log_of_keys_is_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tls._native_context.cache_clear()
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert not tls.is_native(True)
    tls._native_context.cache_clear()
