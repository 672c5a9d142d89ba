"""The addresses that the daemon listens on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

from apyfal.exceptions import ConfigurationError

__all__ = ["Listener"]


class Listener:
    """One address that the daemon listens on: a Unix socket, or host and port.

    Parameters
    ----------
    unix
        Path of the Unix socket; ``None``: `host` and `port` are used.
    host, port
        Host name or IP address, and port; 0: a free port, which `bind` stores here.
    tls
        TLS context of `host` and `port`; required unless `host` is a loopback address.
    """

    def __init__(
        self, *, unix: Path | None = None, host: str = "", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.unix = unix
        self.host = host
        self.port = port
        self.tls = tls

    async def bind(self) -> list[socket.socket]:
        """Return sockets bound to the address, one for each IP address of the host; the caller closes them.

        Raises
        ------
        ConfigurationError
            The address cannot be resolved, or is in use.
        """
        try:
            if self.unix is not None:
                return [_bound_to_path(self.unix)]
            found = await asyncio.get_running_loop().getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            sockets = [_bound_to_address(family, address) for family, _, _, _, address in dict.fromkeys(found)]
        except OSError as error:
            where = self.unix or f"{self.host}:{self.port}"
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from error
        self.port = int(sockets[0].getsockname()[1])
        return sockets


def _bound_to_path(path: Path) -> socket.socket:
    """Return a Unix socket at `path`; from its creation on, only the daemon's own user can connect to it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    opened = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        opened.bind(str(path))
    except BaseException:
        opened.close()
        raise
    finally:
        os.umask(before)
    return opened


def _bound_to_address(family: int, address: Any) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
    except BaseException:
        opened.close()
        raise
    return opened
