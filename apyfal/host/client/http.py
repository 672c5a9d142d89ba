"""The client's side of HTTP: kept connections to one host, over TLS with a pinned certificate or a Unix socket.

Bodies go out of the caller's memory and responses arrive in it; nothing is collected in between. The connections
themselves are those of `apyfal.storage`.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from apyfal.exceptions import (
    AcceleratorException,
    AuthenticationError,
    HostError,
    HostUnreachable,
    ParameterError,
    RunTimeout,
    StorageError,
    TransferTimeout,
)
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import HostAddress
from apyfal.host.protocol.messages import error_from
from apyfal.host.protocol.proof import CHALLENGE_HEADER, PROOF_HEADER, address_of, hash_of, proof_of
from apyfal.storage.http.connection import Connection
from apyfal.storage.http.idle import IdleConnections
from apyfal.storage.http.response import Response

__all__ = ["RETRY_FOR", "Host", "HostResponse", "Outgoing", "Refused", "Retry", "SessionLost"]

_CONNECT_TIMEOUT = 10.0
_TOKEN = re.compile(r"apf_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_STALL_TIMEOUT = 120.0  # longer than the daemon lets a request wait for its job
_MAX_JSON = 64 << 20
_KEPT = 16
#: seconds a request is repeated for when the host cannot be reached: long enough for a restart
RETRY_FOR = 60.0
_FIRST_DELAY = 0.05
_MAX_DELAY = 2.0
#: bodies from here on wait until the daemon asks for them: then it receives them at their final address
_ASK_FROM = 1 << 20


class Refused(Exception):
    """The daemon answered with an error; what it means depends on what was asked.

    Attributes
    ----------
    status, document
        Of the response.
    retry_after
        Seconds after which to ask again, if it says so.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.document = document
        self.retry_after = retry_after

    def error(self) -> AcceleratorException:
        """Return the error that the daemon described."""
        return error_from(self.document.get("error"))


class SessionLost(Exception):
    """The daemon does not know the session (any more): it was started again, or closed what nobody used."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it is sent.

    Attributes
    ----------
    method, target
        Its first line.
    head
        All of it but the body.
    pieces
        The body, which is sent once only if it is no list.
    asks
        Whether the daemon is asked before the body is sent.
    """

    method: str
    target: str
    head: bytes
    pieces: Iterable[memoryview]
    asks: bool

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again as it is."""
        return isinstance(self.pieces, list)


class HostResponse:
    """A response whose head has arrived. A context manager: at its end the connection is kept, or closed if unread."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status = response.status
        self.length = response.length

    def header(self, name: str) -> str | None:
        """Return one header field."""
        return self._response.headers.get(name.lower())

    def json(self) -> Any:
        """Read the body as JSON."""
        with _network_errors():
            return json.loads(self._response.read(_MAX_JSON))

    def readinto(self, out: memoryview) -> None:
        """Fill `out` with the next bytes of the body; `ConnectionError` if it ends before."""
        done = 0
        while done < len(out):
            with _network_errors():
                count = self._response.readinto(out[done:])
            if not count:
                raise ConnectionError("the response ended early")
            done += count

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they come."""
        buffer = memoryview(bytearray(4096))
        rest = b""
        while True:
            with _network_errors():
                count = self._response.readinto(buffer)
            if not count:
                break
            *complete, rest = (rest + buffer[:count]).split(b"\n")
            yield from (line + b"\n" for line in complete)
        if rest:
            yield rest

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()

    def __enter__(self) -> HostResponse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Host:
    """One daemon, as its clients reach it. Usable from any thread.

    Parameters
    ----------
    address
        Where it is.
    token
        Sent with every request; ``None``: none (the daemon's own user on its Unix socket).
    """

    def __init__(self, address: HostAddress, token: str | None) -> None:
        self.address = address
        self._token = token
        self._fields = [f"Host: {address.authority}"]
        if token is not None:
            self._fields.append(f"Authorization: Bearer {token}")
        self._context = tls.client_context(address.fingerprint) if address.secure else None
        self._idle = IdleConnections(_KEPT)

    def __repr__(self) -> str:
        return f"<apyfal host {self.address}>"

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: object = None,
        body: Iterable[memoryview] = (),
        length: int | None = None,
    ) -> HostResponse:
        """Send one request and receive the head of its response.

        Parameters
        ----------
        method, target
            The request line.
        headers
            In addition to those of every request.
        json_body
            Sent as JSON, or
        body, length
            pieces of memory, and how many bytes they have together.

        Raises
        ------
        Refused
            The daemon answered with an error.
        ConnectionError, TimeoutError
            There is no daemon, or the connection broke; whether the request was acted on is not known.
        """
        outgoing = self._outgoing(method, target, dict(headers or ()), json_body, body, length)
        with _network_errors():
            connection, fresh = self._idle.lease(self.address, self._connect, careful=not outgoing.repeatable)
            try:
                response = self._exchange(connection, outgoing)
            except (StorageError, ConnectionError):
                # A kept connection may have been closed by the daemon while it was idle: then nothing was read.
                if fresh or not outgoing.repeatable:
                    raise
                connection = self._connect()
                connection.key = self.address
                response = self._exchange(connection, outgoing)
        reply = HostResponse(response)
        if reply.status >= 400:
            with reply:
                raise self._refusal(reply)
        return reply

    def json(self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request and return its JSON response; the daemon's error is raised as what it is."""
        try:
            with self.request(method, target, json_body=body, headers=headers) as reply:
                return None if reply.status == 204 else reply.json()
        except Refused as refused:
            raise refused.error() from None

    def close(self) -> None:
        """Close the idle connections."""
        self._idle.close()

    # -- inside --------------------------------------------------------------------------------------------------------
    def _outgoing(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        json_body: object,
        body: Iterable[memoryview],
        length: int | None,
    ) -> Outgoing:
        if json_body is not None:
            text = json.dumps(json_body).encode()
            body, length = [memoryview(text)], len(text)
            headers["Content-Type"] = "application/json"
        headers.setdefault("Accept", "application/json")
        if length is not None or method in ("POST", "PUT"):
            headers["Content-Length"] = str(length or 0)
        asks = length is not None and length >= _ASK_FROM
        if asks:
            headers["Expect"] = "100-continue"
        lines = [f"{method} {target} HTTP/1.1", *self._fields, *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ParameterError("a token, target or header must not contain line breaks")
        return Outgoing(method, target, f"{head}\r\n\r\n".encode("latin-1", "replace"), body, asks)

    def _exchange(self, connection: Connection, outgoing: Outgoing) -> Response:
        """Send a request and receive the head of its response; the connection is closed if that fails."""
        try:
            response = _send(connection, outgoing)
        except BaseException:
            connection.close()
            raise
        response.on_release(partial(self._idle.give_back, connection))
        return response

    def _refusal(self, reply: HostResponse) -> Exception:
        document: Any = {}
        with contextlib.suppress(ValueError):
            document = reply.json()
        if not isinstance(document, dict):
            document = {}
        if reply.status == 401:
            return AuthenticationError(f"{self.address}: {error_from(document.get('error'))}")
        retry_after = reply.header("Retry-After")
        seconds = float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,5}", retry_after) else None
        return Refused(reply.status, document, seconds)

    def _require_proof(self, connection: Connection, token: str, peer: str) -> None:
        """Let the daemon show that it knows the token; see `apyfal.host.protocol.proof`.

        Raises
        ------
        AuthenticationError
            It does not know it.
        HostError
            It is no daemon, or somebody passes the connection on.
        """
        known = _TOKEN.fullmatch(token)
        if known is None:
            raise AuthenticationError(f"{self.address}: a valid token is needed; expected apf_..._...")
        nonce = secrets.token_hex(16)
        lines = [
            "GET /health HTTP/1.1",
            f"Host: {self.address.authority}",
            f"{CHALLENGE_HEADER}: {known['id']} {nonce} {peer}",
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        response = _send(connection, Outgoing("GET", "/health", head, [], False))
        kept: list[bool] = []
        response.on_release(kept.append)
        with HostResponse(response) as reply:
            if reply.status in (401, 429):
                raise self._refusal(reply)
            with contextlib.suppress(ValueError):
                reply.json()
        proof = reply.header(PROOF_HEADER) or ""
        expected = proof_of(hash_of(known["secret"]), nonce, peer)
        if not hmac.compare_digest(proof.encode("latin-1", "replace"), expected.encode()) or kept != [True]:
            raise HostError(
                f"{self.address}: what listens there is not the host that made the token, so the token was not sent; "
                "use https:// or unix://, or start the host"
            )

    def _connect(self) -> Connection:
        """Connect, and make sure who answers before the token is sent: by the certificate, or by a proof."""
        address = self.address
        if address.unix is not None:
            opened = socket.socket(socket.AF_UNIX)
        else:
            opened = socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT)
        try:
            if address.unix is not None:
                opened.settimeout(_CONNECT_TIMEOUT)
                opened.connect(address.unix)
            if self._context is not None:
                opened = secured = self._context.wrap_socket(
                    opened, server_hostname=address.host, suppress_ragged_eofs=False
                )
                if address.fingerprint is not None:
                    tls.verify_pin(secured, address.fingerprint)
            connection = Connection(opened, str(address), _STALL_TIMEOUT)
            if self._context is None and self._token is not None:
                self._require_proof(connection, self._token, address_of(address.unix or opened.getpeername()))
            return connection
        except ssl.SSLCertVerificationError as error:
            opened.close()
            raise HostError(
                f"{address}: its certificate is not accepted: {error.verify_message}; "
                f"to pin it, add #sha256=<fingerprint> to the URL"
            ) from error
        except BaseException:
            opened.close()
            raise


class Retry:
    """How long and how often one job is asked for again."""

    def __init__(self, timeout: float | None, longest: float = RETRY_FOR) -> None:
        now = time.monotonic()
        self._end = None if timeout is None else now + timeout + _MAX_DELAY
        self._longest = longest
        self._give_up: float | None = None
        self._delay = _FIRST_DELAY

    def pause(self, reason: str, delay: float | None, error: BaseException | None = None) -> None:
        """Wait before the next attempt, or raise what `reason` and `error` say when it has been long enough."""
        now = time.monotonic()
        if self._give_up is None:
            self._give_up = now + self._longest
        if now >= self._give_up:
            if isinstance(error, AcceleratorException):
                raise error
            raise HostUnreachable(f"{reason} for {self._longest:g} s: {error or 'no response'}") from error
        self.check()
        time.sleep(min(self._delay if delay is None else delay, _MAX_DELAY) * (0.5 + secrets.randbelow(1000) / 1000))
        self._delay = min(2 * self._delay, _MAX_DELAY)

    def check(self) -> None:
        """Raise `RunTimeout` when the job's own time is over and the host has not said so."""
        if self._end is not None and time.monotonic() > self._end:
            raise RunTimeout("the job did not end in time, nor did its host say so")


def _send(connection: Connection, outgoing: Outgoing) -> Response:
    pieces = iter(outgoing.pieces)
    if outgoing.asks:
        connection.send(outgoing.head)
        instead = connection.await_continue(outgoing.method)
        if instead is not None:
            instead.persistent = False  # the daemon does not know whether the body still comes
            return instead
    else:
        first = next(pieces, None)  # a small body goes with its head, in one system call
        connection.send(outgoing.head, () if first is None else (first,))
    try:
        connection.send_more(pieces)
    except StorageError as broken:
        # The daemon may have answered before it read everything: its response says more than the broken pipe.
        try:
            return connection.read_response(outgoing.method)
        except StorageError:
            raise broken from None
    return connection.read_response(outgoing.method)


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Raise what breaks on the network as plain `ConnectionError` and `TimeoutError`; other errors as they are."""
    try:
        yield
    except TransferTimeout as error:
        raise TimeoutError(str(error)) from error
    except AuthenticationError:
        raise
    except StorageError as error:
        raise ConnectionError(str(error)) from error
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError | AcceleratorException):
            raise
        raise ConnectionError(error.strerror or str(error)) from error
