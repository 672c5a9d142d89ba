"""The client's HTTP: a pool of connections to one host, over TLS with a pinned certificate or over a Unix socket.

Bodies are sent from the caller's memory, and responses are received into it, without buffers in between. The
connections are those of `apyfal.storage.http`.
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from apyfal.exceptions import (
    AcceleratorException,
    AuthenticationError,
    HostError,
    HostUnreachable,
    ParameterError,
    RunTimeout,
    StorageError,
)
from apyfal.host.client.channel import BY_HTTP, ChannelPool, ChannelReply, ClientChannel
from apyfal.host.client.response import HostResponse, Refused, SessionLost, network_errors
from apyfal.host.protocol import tls
from apyfal.host.protocol.address import HostAddress
from apyfal.host.protocol.frames import OFFERED, PROTOCOLS
from apyfal.host.protocol.messages import error_from
from apyfal.host.protocol.proof import CHALLENGE_HEADER, PROOF_HEADER, address_of, hash_of, proof_of
from apyfal.storage.http.connection import Connection
from apyfal.storage.http.idle import IdleConnections
from apyfal.storage.http.response import Response
from apyfal.storage.http.tls import client_context

__all__ = ["RETRY_FOR", "Host", "HostResponse", "Outgoing", "Refused", "Retry", "SessionLost"]

_CONNECT_TIMEOUT = 10.0
_TOKEN = re.compile(r"apf_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_STALL_TIMEOUT = 120.0  # longer than the daemon lets a request wait for its job
_KEPT = 16
#: seconds for which a request is repeated while the host cannot be reached: enough for a restart
RETRY_FOR = 60.0
_FIRST_DELAY = 0.05
_MAX_DELAY = 2.0
#: bodies of this size and more wait for 100-continue, so that the daemon can receive them at their final address
_ASK_FROM = 1 << 20


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request ready to be sent.

    Attributes
    ----------
    method, target
        Method and target of the request line.
    head
        The request line and header fields as bytes.
    pieces
        The pieces of the body. Only a list can be sent again.
    asks
        Whether the request waits for 100-continue before it sends the body.
    """

    method: str
    target: str
    head: bytes
    pieces: Iterable[memoryview]
    asks: bool

    @property
    def repeatable(self) -> bool:
        """Return whether the request can be sent again."""
        return isinstance(self.pieces, list)


class Host:
    """One daemon, as seen by its clients. Usable from any thread.

    Parameters
    ----------
    address
        Address of the daemon.
    token
        Sent with every request; ``None``: no token is needed (the daemon's own user on its Unix socket).
    """

    def __init__(self, address: HostAddress, token: str | None) -> None:
        self.address = address
        self._token = token
        self._fields = [f"Host: {address.authority}"]
        if token is not None:
            self._fields.append(f"Authorization: Bearer {token}")
        self._context: ssl.SSLContext | None = None
        if address.secure:
            self._context = client_context() if address.fingerprint is None else tls.pinning_context()
        self._idle = IdleConnections(_KEPT)
        self._channels = ChannelPool()
        self._speaks_frames = True

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
        """Send a request and receive the head of its response.

        Parameters
        ----------
        method, target
            HTTP method and target of the request line.
        headers
            Header fields in addition to those of every request.
        json_body
            Sent as JSON; or
        body, length
            the body as pieces of memory, and their total size in bytes.

        Raises
        ------
        Refused
            The daemon answered with an error.
        ConnectionError, TimeoutError
            The daemon cannot be reached, or the connection broke. It is not known whether the request was processed.
        """
        outgoing = self._outgoing(method, target, dict(headers or ()), json_body, body, length)
        with network_errors:
            connection, fresh = self._idle.lease(self.address, self._connect, careful=not outgoing.repeatable)
            try:
                response = self._exchange(connection, outgoing)
            except (StorageError, ConnectionError):
                # The daemon may have closed a connection while it was idle. Then it has read nothing of the request.
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
        """Send a request and return its JSON response. Raises the exception that the daemon describes."""
        try:
            with self.request(method, target, json_body=body, headers=headers) as reply:
                return None if reply.status == 204 else reply.json()
        except Refused as refused:
            raise refused.error() from None

    def submit(
        self,
        key: str,
        session: str,
        text: str,
        pieces: Callable[[], Iterable[memoryview]],
        nbytes: int,
        alive: Callable[[], None],
        flags: int = 0,
        early: memoryview | None = None,
    ) -> ChannelReply | None:
        """Submit a job on a data channel, and wait for its end; see `ClientChannel.submit`.

        Parameters
        ----------
        pieces
            Returns the pieces of the body, for each attempt.
        key, session, text, nbytes, alive, flags, early
            As for `ClientChannel.submit`.

        Returns
        -------
        ChannelReply or None
            ``None``: the host has no channels, or the job does not fit; it has to be submitted by HTTP.

        Raises
        ------
        Refused, ConnectionError, TimeoutError, AuthenticationError, HostError
        """
        if not self._speaks_frames:
            return None
        channel = self._channels.acquire()
        fresh = channel is None
        while True:
            if channel is None and (channel := self._open_channel()) is None:
                return None
            try:
                reply = self._exchange_frames(channel, key, session, text, pieces(), nbytes, alive, flags, early)
            except Refused as refused:
                self._channels.release(channel, usable=True)
                if refused.status == BY_HTTP and "job" not in refused.document:
                    return None
                raise
            except (ConnectionError, TimeoutError):
                channel.close()
                # The host may have closed a channel while it was idle. The key says that this is the same job.
                if fresh:
                    raise
                channel, fresh = None, True
                continue
            except BaseException:
                channel.close()
                raise
            if reply is None:
                self._channels.release(channel, usable=True)
            else:
                reply.on_release(partial(self._channels.release, channel))
            return reply

    def _exchange_frames(self, channel: ClientChannel, *job: Any) -> ChannelReply | None:
        """Send a job and receive the head of its result; see `ClientChannel.submit`."""
        return channel.submit(*job)

    def _open_channel(self) -> ClientChannel | None:
        """Open a channel; ``None``: the host has none."""
        head = self._outgoing("GET", "/v1/channel", {"Connection": "Upgrade", "Upgrade": OFFERED}, None, (), None).head
        with network_errors:
            connection = self._connect()
            try:
                connection.send(head)
                response = connection.await_upgrade("GET")
            except BaseException:
                connection.close()
                raise
        if isinstance(response, str):
            protocol = PROTOCOLS.get(response)
            if protocol is None:
                connection.close()
                raise HostError(f"{self.address}: it speaks {response!r}: expected one of {OFFERED}")
            return ClientChannel(connection, protocol)
        response.on_release(lambda usable: connection.close())
        with HostResponse(response) as reply:
            if reply.status in (401, 429, 503):
                raise self._refusal(reply)
        self._speaks_frames = False  # an older host, or a proxy that forwards HTTP only
        return None

    def close(self) -> None:
        """Close the idle connections and channels."""
        self._idle.close()
        self._channels.close()

    # -- internals -----------------------------------------------------------------------------------------------------
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
        """Send a request and receive the head of its response. If that fails, the connection is closed."""
        try:
            response = _send(connection, outgoing)
        except BaseException:
            connection.close()
            raise
        response.on_release(partial(self._idle.release, connection))
        return response

    def _refusal(self, reply: HostResponse) -> Exception:
        document: Any = {}
        with contextlib.suppress(HostError):  # a proxy's, for example
            document = reply.json()
        if not isinstance(document, dict):
            document = {}
        if reply.status == 401:
            return AuthenticationError(f"{self.address}: {error_from(document.get('error'))}")
        retry_after = reply.header("Retry-After")
        seconds = float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,5}", retry_after) else None
        return Refused(reply.status, document, seconds)

    def _require_proof(self, connection: Connection, token: str, peer: str) -> None:
        """Require a proof from the daemon that it knows the token: see `apyfal.host.protocol.proof`.

        Raises
        ------
        AuthenticationError
            The daemon does not know the token.
        HostError
            The peer is not a daemon, or it forwards the connection.
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
            with contextlib.suppress(HostError):
                reply.json()
        proof = reply.header(PROOF_HEADER) or ""
        expected = proof_of(hash_of(known["secret"]), nonce, peer)
        if not hmac.compare_digest(proof.encode("latin-1", "replace"), expected.encode()) or kept != [True]:
            raise HostError(
                f"{self.address}: what listens there is not the host that made the token, so the token was not sent; "
                "use https:// or unix://, or start the host"
            )

    def _connect(self) -> Connection:
        """Connect, and authenticate the peer before the token is sent: by its certificate, or by a proof."""
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
    """Repeats one job's requests, with pauses and an overall limit."""

    def __init__(self, timeout: float | None, longest: float = RETRY_FOR) -> None:
        now = time.monotonic()
        self._end = None if timeout is None else now + timeout + _MAX_DELAY
        self._longest = longest
        self._give_up: float | None = None
        self._delay = _FIRST_DELAY

    def pause(self, reason: str, delay: float | None, error: BaseException | None = None) -> None:
        """Wait before the next attempt. Raises `HostUnreachable` with `reason` and `error` if the limit is exceeded."""
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
        """Raise `RunTimeout` if the job's timeout has passed and the host has not reported it."""
        if self._end is not None and time.monotonic() > self._end:
            raise RunTimeout("the job did not end in time, nor did its host say so")


def _send(connection: Connection, outgoing: Outgoing) -> Response:
    pieces = iter(outgoing.pieces)
    if outgoing.asks:
        connection.send(outgoing.head)
        instead = connection.await_continue(outgoing.method)
        if instead is not None:
            instead.persistent = False  # the daemon does not know whether the body will follow
            return instead
    else:
        first = next(pieces, None)  # a small body is sent with the head, in one system call
        connection.send(outgoing.head, () if first is None else (first,))
    try:
        connection.send_more(pieces)
    except StorageError as broken:
        # The daemon may have answered before it read the whole body. Its response explains more than the broken pipe.
        try:
            return connection.read_response(outgoing.method)
        except StorageError:
            raise broken from None
    return connection.read_response(outgoing.method)
