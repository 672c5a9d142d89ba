"""The client's side of HTTP: kept connections to one host, over TLS with a pinned certificate or a Unix socket.

Bodies go out of the caller's memory and answers arrive in it; nothing is collected in between.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from apyfal.exceptions import AcceleratorException, AuthenticationError, HostError, ParameterError
from apyfal.host import tls
from apyfal.host.wire import DEFAULT_PORT, error_from

__all__ = ["Answer", "Host", "HostAddress", "Refused", "parse_address"]

_CONNECT_TIMEOUT = 10.0
_STALL_TIMEOUT = 120.0  # longer than the daemon lets a request wait for its job
_MAX_ERROR = 1 << 20
_KEPT = 16
_ONE_PACKET = 1 << 16  # small bodies go with the head, in one system call


class Refused(Exception):
    """The daemon answered with an error; what it means depends on what was asked.

    Attributes
    ----------
    status, document
        Of the answer.
    retry_after
        Seconds after which to ask again, where it says so.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.document = document
        self.retry_after = retry_after

    def error(self) -> AcceleratorException:
        """Return the error that the daemon described."""
        return error_from(self.document.get("error"))


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a daemon is.

    Attributes
    ----------
    host, port
        Its address, or
    unix
        the path of its socket.
    secure
        Whether TLS is spoken.
    fingerprint
        Of the one certificate to accept; ``None``: one that the system's authorities vouch for.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    unix: str | None = None
    secure: bool = True
    fingerprint: str | None = None

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix://{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        return self.unix is not None or _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str) -> HostAddress:
    """Read ``host_ip``: an address or name with or without port, ``https://...``, ``unix:///path``.

    An address without scheme means TLS, unless it is this machine's own loopback. A URL may end in
    ``#sha256=<fingerprint>``, as ``apyfal serve`` prints it.

    Raises
    ------
    ParameterError
        It is none of these, or plain HTTP to another machine, which would show the token to the network.
    """
    if not isinstance(text, str) or not text.strip():
        raise ParameterError(f"host_ip {text!r}: expected an address or an https:// URL")
    url = text.strip()
    if "://" not in url:
        bare = url.count(":") > 1 and not url.startswith("[")
        url = f"//[{url}]" if bare else f"//{url}"
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ParameterError(f"host_ip {text!r}: malformed host or port") from None
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise ParameterError(f"host_ip {text!r}: expected unix:///path/of/socket")
        return HostAddress(unix=unquote(parts.path), secure=False)
    if parts.scheme not in ("", "http", "https"):
        raise ParameterError(f"host_ip {text!r}: expected https://, or http:// or unix:// on this machine")
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        raise ParameterError(f"host_ip {text!r}: expected a host and perhaps a port, and nothing else")
    fingerprint = tls.parse_fingerprint(parts.fragment) if parts.fragment else None
    host = parts.hostname
    secure = parts.scheme == "https" or (parts.scheme == "" and not _is_loopback(host))
    if not secure and not _is_loopback(host):
        raise ParameterError(f"host_ip {text!r}: plain HTTP would show the token to the network; use https://")
    if fingerprint is not None and not secure:
        raise ParameterError(f"host_ip {text!r}: a fingerprint needs https://")
    return HostAddress(host, port, None, secure, fingerprint)


class _Connection(http.client.HTTPConnection):
    """One connection, made in the way that the address says."""

    def __init__(self, address: HostAddress, context: ssl.SSLContext | None) -> None:
        super().__init__(address.host or "localhost", address.port, timeout=_CONNECT_TIMEOUT)
        self._address = address
        self._context = context

    def connect(self) -> None:
        """Connect, and check the certificate before anything is sent."""
        address = self._address
        if address.unix is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(_CONNECT_TIMEOUT)
            self.sock.connect(address.unix)
        else:
            self.sock = socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                try:
                    secured = self._context.wrap_socket(self.sock, server_hostname=address.host)
                except ssl.SSLCertVerificationError as error:
                    self.sock.close()
                    raise HostError(
                        f"{address}: its certificate is not accepted: {error.verify_message}; "
                        f"to pin it, add #sha256=<fingerprint> to the URL"
                    ) from error
                self.sock = secured
                if address.fingerprint is not None:
                    try:
                        tls.verify_pin(secured, address.fingerprint)
                    except HostError:
                        self.close()
                        raise
        self.sock.settimeout(_STALL_TIMEOUT)


class Answer:
    """An answer whose head has arrived. A context manager: at its end the connection is kept, or closed if unread."""

    def __init__(self, response: http.client.HTTPResponse, release: Callable[[bool], None]) -> None:
        self._response = response
        self._release: Callable[[bool], None] | None = release
        self.status = response.status
        self.length = response.length

    def header(self, name: str) -> str | None:
        """Return one header field."""
        return self._response.getheader(name)

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self._response.read())

    def readinto(self, out: memoryview) -> None:
        """Fill `out` with the next bytes of the body; `ConnectionError` where it ends before."""
        done = 0
        while done < len(out):
            count = self._response.readinto(out[done:])
            if not count:
                raise ConnectionError("the answer ended early")
            done += count

    def lines(self) -> Iterable[bytes]:
        """Yield the body's lines as they come."""
        return iter(self._response.readline, b"")

    def close(self) -> None:
        """Give the connection back."""
        release, self._release = self._release, None
        if release is not None:
            whole = self._response.isclosed() or self._response.length == 0
            self._response.close()
            release(whole and not self._response.will_close)

    def __enter__(self) -> Answer:
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
        self._context = tls.client_context(address.fingerprint) if address.secure else None
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._process = os.getpid()

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
    ) -> Answer:
        """Send one request and receive the head of its answer.

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
        fields = {"Accept": "application/json", **(headers or {})}
        if self._token is not None:
            fields["Authorization"] = f"Bearer {self._token}"
        if json_body is not None:
            text = json.dumps(json_body).encode()
            body, length = [memoryview(text)], len(text)
            fields["Content-Type"] = "application/json"
        connection, kept = self._lease()
        try:
            try:
                response = self._exchange(connection, method, target, fields, body, length)
            except (ConnectionError, http.client.BadStatusLine):
                # A kept connection may have been closed by the daemon while it was idle: then nothing was read.
                if not kept or not isinstance(body, list | tuple):
                    raise
                connection.close()
                response = self._exchange(connection, method, target, fields, body, length)
        except BaseException as error:
            connection.close()
            if isinstance(error, http.client.HTTPException):
                raise ConnectionError(f"{self.address}: {type(error).__name__}") from error
            if isinstance(error, OSError) and not isinstance(
                error, ConnectionError | TimeoutError | AcceleratorException
            ):
                raise ConnectionError(f"{self.address}: {error.strerror or error}") from error
            raise
        answer = Answer(response, lambda usable: self._give_back(connection, usable))
        if answer.status >= 400:
            with answer:
                raise self._refusal(answer)
        return answer

    def json(self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request and return its JSON answer; the daemon's error is raised as what it is."""
        try:
            with self.request(method, target, json_body=body, headers=headers) as answer:
                return None if answer.status == 204 else answer.json()
        except Refused as refused:
            raise refused.error() from None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- inside --------------------------------------------------------------------------------------------------------
    @staticmethod
    def _exchange(
        connection: _Connection,
        method: str,
        target: str,
        fields: Mapping[str, str],
        body: Iterable[memoryview],
        length: int | None,
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        if length is not None or method in ("POST", "PUT"):
            connection.putheader("Content-Length", str(length or 0))
        pieces = iter(body)
        first = next(pieces, None)
        try:
            if first is not None and len(first) <= _ONE_PACKET:
                connection.endheaders(bytes(first))
            else:
                connection.endheaders()
                if first is not None:
                    connection.sock.sendall(first)
            for piece in pieces:
                connection.sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError) as broken:
            # The daemon may have answered before it read everything: its answer says more than the broken pipe.
            try:
                return connection.getresponse()
            except (OSError, http.client.HTTPException):
                raise broken from None
        return connection.getresponse()

    def _refusal(self, answer: Answer) -> Exception:
        document: Any = {}
        if answer.length is not None and answer.length <= _MAX_ERROR:
            with contextlib.suppress(ValueError):
                document = answer.json()
        if not isinstance(document, dict):
            document = {}
        if answer.status == 401:
            return AuthenticationError(f"{self.address}: {error_from(document.get('error'))}")
        retry_after = answer.header("Retry-After")
        seconds = float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,5}", retry_after) else None
        return Refused(answer.status, document, seconds)

    def _lease(self) -> tuple[_Connection, bool]:
        with self._lock:
            if self._process != os.getpid():
                self._process, self._idle = os.getpid(), []  # the parent's connections are its own
            if self._idle:
                return self._idle.pop(), True
        return _Connection(self.address, self._context), False

    def _give_back(self, connection: _Connection, usable: bool) -> None:
        if usable:
            with self._lock:
                if len(self._idle) < _KEPT:
                    self._idle.append(connection)
                    return
        connection.close()
