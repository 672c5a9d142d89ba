"""Proxies, the clock, loopback's speed, and addresses that the user names."""

from __future__ import annotations

import ctypes
import email.utils
import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from apyfal.doctor.finding import Finding
from apyfal.exceptions import ParameterError
from apyfal.log import redact, redact_text
from apyfal.units import format_duration, format_size

__all__ = ["check_address", "check_clock", "check_loopback", "check_proxies"]

#: Seconds that a clock may be off before stores refuse signed requests (Amazon S3: RequestTimeTooSkewed, 15 minutes;
#: Azure Storage the same) and tokens of single sign-on count as not yet valid; a third of it is worth a line.
_MAX_SKEW = 300.0
_TIMEOUT = 10.0
_STA_UNSYNC = 0x40  # linux/timex.h
_MOVED = 256 << 20


def check_proxies() -> Iterator[Finding]:
    """Name the proxies of the environment, without their passwords."""
    proxies = urllib.request.getproxies_environment()
    for scheme, address in sorted(proxies.items()):
        if scheme == "no":
            yield Finding("network", "ok", f"no proxy for {address}")
        elif urlsplit(address if "://" in address else f"http://{address}").scheme not in ("http", "https"):
            yield Finding(
                "network",
                "problem",
                f"proxy {redact(address)} of {scheme}_proxy is of a kind that cannot be used",
                f"{scheme}_proxy=http://host:port, or NO_PROXY=the.store",
            )
        else:
            yield Finding("network", "ok", f"{scheme} by the proxy {redact(address)}")
    if not proxies:
        yield Finding("network", "ok", "no proxies")


class _Timex(ctypes.Structure):
    """The first fields of ``struct timex``; the kernel writes 208 bytes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def check_clock() -> Iterator[Finding]:
    """Ask the kernel whether something keeps its clock in step (``adjtimex``; nothing is changed)."""
    state = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) < 0:
        yield Finding("network", "note", "whether the clock is kept in step is not known")
    elif state.status & _STA_UNSYNC:
        yield Finding(
            "network",
            "note",
            "nothing keeps the clock in step: stores refuse requests that are signed minutes off",
            "sudo timedatectl set-ntp true; 'apyfal doctor URL' compares it with a store's",
        )
    else:
        yield Finding("network", "ok", "the clock is kept in step")


def check_loopback() -> Iterator[Finding]:
    """Measure how fast bytes come through a socket of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    piece = memoryview(bytearray(1 << 20))

    def send() -> None:
        with listener, socket.create_connection(listener.getsockname()) as sock:
            for _ in range(_MOVED // len(piece)):
                sock.sendall(piece)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    receiver, _ = listener.accept()
    began, left, buffer = time.perf_counter(), _MOVED, bytearray(1 << 20)
    receiver.settimeout(_TIMEOUT)
    with receiver:
        while left and (count := receiver.recv_into(buffer)):
            left -= count
    seconds = time.perf_counter() - began
    thread.join(_TIMEOUT)
    yield Finding("network", "ok", f"loopback: {format_size(_MOVED / seconds)}/s by one connection")


def check_address(url: str) -> Iterator[Finding]:
    """Ask an address for its head: whether it can be reached, and how far its clock is from ours.

    Parameters
    ----------
    url
        ``http://`` or ``https://`` of the user's choice, such as a store's endpoint. No credentials are sent.
    """
    try:
        import ssl

        from apyfal.storage.http.tls import client_context
    except ImportError:
        return  # which another check says
    try:
        shown, parts = redact(url), urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        yield Finding("network", "problem", f"an address is not a URL: {error}", "apyfal doctor https://the.store")
        return
    if not host or parts.scheme not in ("http", "https"):
        yield Finding("network", "problem", f"{shown} is not an http or https URL", "apyfal doctor https://the.store")
        return
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    if parts.scheme == "https":
        try:
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=client_context())
        except ParameterError:
            return  # which another check says
    began = time.time()
    try:
        connection.request("HEAD", parts.path or "/")
        date = connection.getresponse().getheader("Date")
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            "network",
            "problem",
            f"{shown}: its certificate is refused: {error.verify_message}",
            "SSL_CERT_FILE=/path/to/its/authority.pem; a clock that is off makes good certificates fail, too",
        )
        return
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            "network",
            "problem",
            f"{shown} cannot be reached: {redact_text(str(error)) or type(error).__name__}",
            "check the name, the port, the firewall and the proxies",
        )
        return
    finally:
        connection.close()
    seconds = time.time() - began
    yield Finding("network", "ok", f"{shown} responds within {format_duration(seconds)}")
    when = email.utils.parsedate_tz(date) if date else None
    if when is None:
        return
    skew = (began + seconds / 2) - email.utils.mktime_tz(when)
    if abs(skew) > _MAX_SKEW:
        side = "ahead of" if skew > 0 else "behind"
        yield Finding(
            "network",
            "problem",
            f"the clock is {format_duration(abs(skew))} {side} {shown}'s: signed requests are refused",
            "sudo timedatectl set-ntp true, or sudo date -s '...'",
        )
    else:
        yield Finding("network", "ok", f"the clock agrees with {shown}'s")
