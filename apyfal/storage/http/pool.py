"""Kept-alive connections to web servers and stores, shared by the threads of one mount."""

from __future__ import annotations

import logging
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from apyfal.exceptions import InvalidURL, ParameterError, StorageError, StoreUnavailable, TransferTimeout
from apyfal.log import redact, redact_text
from apyfal.storage.flow.cancel import current_cancel
from apyfal.storage.http.connection import Connection
from apyfal.storage.http.idle import IdleConnections
from apyfal.storage.http.origin import Origin
from apyfal.storage.http.proxy import Proxy, parse_proxy, proxy_variable
from apyfal.storage.http.response import Response
from apyfal.storage.http.tls import is_native, secured
from apyfal.units import LONGEST, parse_boolean

__all__ = ["ConnectionPool", "Timeouts", "request_head"]

_LOG = logging.getLogger(__name__)

_MAX_KEPT = 64
#: Methods of which a second request is not the same as one.
_SENT_ONCE = ("POST", "DELETE")


class Timeouts(NamedTuple):
    """Seconds to wait: for a connection, and for any progress on it."""

    connect: float = 10.0
    stall: float = 30.0

    @classmethod
    def of(cls, stall: float | None, connect: float | None = None) -> Timeouts:
        """From a mount's parameters; ``None`` means the default."""
        stall = cls().stall if stall is None else stall
        connect = min(cls().connect, stall) if connect is None else connect
        for name, seconds in (("timeout", stall), ("connect_timeout", connect)):
            if not 0 < seconds <= LONGEST:
                raise ParameterError(f"{name}: {seconds:g} s: expected more than 0, and {LONGEST} (100 years) at most")
        return cls(connect, stall)


class ConnectionPool:
    """Sends requests, each over an idle connection or a new one.

    Thread-safe. After a fork the child starts with no connections.

    Parameters
    ----------
    timeouts
        For connecting, and for any progress.
    verify
        Of TLS. ``True``: trust the system's and certifi's authorities, or instead of certifi's those of the file or
        directory in ``AWS_CA_BUNDLE``, ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``, ``SSL_CERT_FILE`` or
        ``SSL_CERT_DIR``. A path (``~`` is the home): trust that bundle only. ``False``: accept any certificate.
    proxy
        URL of an HTTP proxy for all requests, ``"none"`` for no proxy; default: as in the environment
        (``https_proxy``, ``all_proxy``, ``no_proxy`` with names, addresses and networks, each perhaps with a port).

    Attributes
    ----------
    gate
        Called with host and port before a connection is made; returns the addresses that may be connected to, or raises
        to refuse. Redirects pass through it too, as each needs another connection.
    """

    def __init__(
        self,
        timeouts: Timeouts | None = None,
        *,
        verify: str | bool = True,
        proxy: str | None = None,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self._verify = _authorities_of(verify)
        self._proxy = None if proxy is None or proxy == "none" else parse_proxy(proxy)
        self._ask_environment = proxy is None
        self._known_proxies: dict[Origin, Proxy | None] = {}
        self.gate: Callable[[str, int], Sequence[str]] | None = None
        self._idle = IdleConnections(_MAX_KEPT)

    # -- requests -----------------------------------------------------------------------------------------------------
    def request(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: Sequence[memoryview] = (),
        *,
        once: bool = False,
    ) -> Response:
        """Send one request and receive the head of its response, with any status.

        If a kept connection turns out to be closed before any of the response arrived, the request is repeated once on
        a new one, unless its method is POST or DELETE: the lost request may have been carried out, and a second
        removal then meets "not found". Nothing else is repeated here.

        Parameters
        ----------
        method, origin, target
            The request line; `target` is percent-encoded already.
        headers
            In addition to Host and Content-Length.
        body
            Sent from the caller's memory, piece after piece.
        once
            Never send the request twice: if it was sent completely and no response came, that is an error that is not
            retried.

        Raises
        ------
        StoreUnavailable, TransferTimeout
            No connection, or it broke or stalled; with `once`, before the whole request was sent.
        StorageError
            With `once`, the whole request was sent, and no response came: it may have been carried out.
        """
        careful = once or method in _SENT_ONCE
        proxy = self._proxy_of(origin)
        fields = list(headers)
        asked = target
        if proxy is not None and origin.scheme == "http":
            asked = f"http://{origin.authority}{target}"
            if proxy.authorization:
                fields.append(("Proxy-Authorization", proxy.authorization))
        length = sum(map(len, body)) if body or method in ("PUT", "POST") else None
        head = request_head(method, origin, asked, fields, length)
        while True:
            connect = partial(self._connect, origin, proxy)
            connection, fresh = self._idle.lease(origin, connect, careful=careful)
            try:
                response = self._exchange(connection, method, head, body, once)
            except StorageError as error:
                again = not fresh and not careful and isinstance(error, StoreUnavailable)
                if _LOG.isEnabledFor(logging.DEBUG):
                    what = "a kept connection was closed" if again else "failed"
                    _LOG.debug("%s %s: %s: %s", method, _shown(origin, target), what, redact_text(str(error)))
                if not again:
                    raise
            else:
                if _LOG.isEnabledFor(logging.DEBUG):
                    _LOG.debug("%s %s: status %d", method, _shown(origin, target), response.status)
                return response

    def _exchange(
        self, connection: Connection, method: str, head: bytes, body: Sequence[memoryview], once: bool
    ) -> Response:
        cancel = current_cancel()
        connection.cancel = cancel
        try:
            if cancel is not None:
                cancel.add(connection)
                cancel.check()
            broken: StorageError | None = None
            try:
                connection.send(head, body)
            except (StoreUnavailable, TransferTimeout) as error:
                broken = error  # it may have answered first, and said why
            try:
                response = connection.read_response(method)
            except StorageError as error:
                if once and broken is None and isinstance(error, StoreUnavailable | TransferTimeout):
                    raise StorageError(f"{error}; the request was sent, and may have been carried out") from None
                raise (broken or error) from None
            if broken is not None:
                if response.status < 300:
                    raise broken
                response.persistent = False
            response.on_release(partial(self._release, connection))
            return response
        except BaseException:
            self._release(connection, False)
            raise

    # -- for others that send requests --------------------------------------------------------------------------------
    def leads_straight_to(self, origin: Origin) -> bool:
        """Return whether the native transport can use connections to `origin`: no HTTP proxy, and native TLS."""
        if origin.scheme == "https":
            return is_native(self._verify)  # also through a proxy, which then only forwards bytes
        return self._proxy_of(origin) is None

    def lease(self, origin: Origin) -> tuple[Connection, bool]:
        """Return a connection that was kept and ``False``, or a new one and ``True``; to be given back.

        Raises
        ------
        StoreUnavailable, TransferTimeout
            No connection.
        """
        return self._idle.lease(origin, partial(self._connect, origin, self._proxy_of(origin)), careful=False)

    def lease_kept(self, origin: Origin, most: int) -> list[Connection]:
        """Return up to `most` connections that were kept, to be given back."""
        return self._idle.several(origin, most, careful=False)

    def release(self, connection: Connection, usable: bool) -> None:
        """Keep a connection that was leased for the next request, or close it."""
        self._idle.release(connection, usable)

    def keep(self, connections: Iterable[Connection]) -> None:
        """Keep connections that were leased for the next requests."""
        self._idle.keep(connections)

    # -- connections --------------------------------------------------------------------------------------------------
    def _release(self, connection: Connection, usable: bool) -> None:
        if connection.cancel is not None:
            connection.cancel.discard(connection)
            usable = usable and not connection.cancel.is_set()
            connection.cancel = None
        self._idle.release(connection, usable)

    def close(self) -> None:
        """Close the idle connections. Those in use close as their transfers end."""
        self._idle.close()

    def _connect(self, origin: Origin, proxy: Proxy | None) -> Connection:
        name = f"{origin.host}:{origin.port}"
        host, port = (proxy.host, proxy.port) if proxy is not None else (origin.host, origin.port)
        sock = self._open_socket(host, port)
        try:
            if proxy is not None and origin.scheme == "https":
                self._tunnel(sock, origin, proxy)
            if origin.scheme == "https":
                secure = secured(sock, origin.host, origin.port, self._verify, self.timeouts.connect)
                return Connection(secure, name, self.timeouts.stall)
            return Connection(sock, name, self.timeouts.stall)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise StorageError(f"{name}: its certificate is not accepted: {error.verify_message}") from error
        except TimeoutError:
            sock.close()
            raise TransferTimeout(f"{name}: no TLS connection in {self.timeouts.connect:g} s") from None
        except ssl.SSLError as error:
            sock.close()
            raise StoreUnavailable(f"{name}: cannot connect: TLS: {error.reason or error}") from error
        except OSError as error:
            sock.close()
            if isinstance(error, StorageError):
                raise
            raise StoreUnavailable(f"{name}: cannot connect: {error.strerror or error}") from error
        except BaseException:
            sock.close()
            raise

    def _open_socket(self, host: str, port: int) -> socket.socket:
        try:
            if self.gate is not None:
                addresses: list[str] = list(self.gate(host, port))
            else:
                addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except socket.gaierror as error:
            raise StoreUnavailable(f"{host}:{port}: cannot resolve the name: {error.strerror}") from error
        except UnicodeError:
            raise InvalidURL(f"{host!r} is not a host name") from None
        # A large store answers with many addresses: spread the connections, but keep the resolver's order of families.
        random.shuffle(addresses)
        addresses.sort(key=lambda address: ":" in address)
        failure: OSError = OSError("the name has no address")
        for address in addresses:
            try:
                return socket.create_connection((address, port), self.timeouts.connect)
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise TransferTimeout(f"{host}:{port}: no connection in {self.timeouts.connect:g} s")
        raise StoreUnavailable(f"{host}:{port}: cannot connect: {failure.strerror or failure}") from failure

    def _tunnel(self, sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
        """Ask a proxy for a tunnel (RFC 9110, section 9.3.6)."""
        target = f"{origin.host}:{origin.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to TLS
            byte = sock.recv(1)
            if not byte or len(head) > 16384:
                raise StoreUnavailable(f"proxy {proxy.host}:{proxy.port}: no response to CONNECT {target}")
            head += byte
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise StoreUnavailable(
                f"proxy {proxy.host}:{proxy.port} refused {target}: {head.splitlines()[0][:80].decode('latin-1')}"
            )

    # -- proxies ------------------------------------------------------------------------------------------------------
    def _proxy_of(self, origin: Origin) -> Proxy | None:
        if not self._ask_environment:
            return self._proxy
        if origin not in self._known_proxies:
            found = proxy_variable(origin)
            self._known_proxies[origin] = None if found is None else parse_proxy(found[1], found[0])
        return self._known_proxies[origin]


def request_head(
    method: str, origin: Origin, target: str, headers: Iterable[tuple[str, str]], length: int | None = None
) -> bytes:
    """Return the head of a request.

    Parameters
    ----------
    method, origin, target
        The request line, and what the Host header comes from.
    headers
        In addition to Host and Content-Length.
    length
        Of the body; ``None``: there is none.

    Raises
    ------
    ParameterError
        There is a line break in it, which would begin another header.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ParameterError("a path or header must not contain line breaks")
    return (text + "\r\n\r\n").encode("latin-1")


def _authorities_of(verify: str | bool) -> str | bool:
    """Return `verify` as a truth or as an absolute path: a relative one means what it means now."""
    try:
        return parse_boolean(verify)
    except ParameterError:
        path = str(verify)
        return os.path.abspath(os.path.expanduser(path)) if path else path


def _shown(origin: Origin, target: str) -> str:
    """Return where a request goes, without what may be secret in it."""
    return redact(target if "://" in target else f"{origin}{target}")


#: the name of version 0.1, for stores of other packages
Client = ConnectionPool
