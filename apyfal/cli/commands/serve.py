"""``apyfal serve``: share this machine's accelerators with remote users."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apyfal.cli.common import Command, CommonOptions, common_options
from apyfal.exceptions import ConfigurationError, ParameterError

if TYPE_CHECKING:
    from apyfal.host.server.daemon import Daemon, Listener
    from apyfal.host.settings import HostSettings

__all__ = ["command"]


@click.command(cls=Command, name="serve")
@click.option(
    "--listen",
    "addresses",
    multiple=True,
    metavar="ADDRESS[:PORT]",
    help="Listen there; may be repeated. Other addresses than loopback get TLS. Default: 127.0.0.1.",
)
@click.option("--unix", "unix", type=click.Path(path_type=Path), help="Path of the Unix socket.")
@click.option("--no-unix", is_flag=True, help="No Unix socket, and so no shared memory.")
@click.option(
    "--certificate", type=click.Path(path_type=Path), help="Certificate in PEM form. Default: one of its own."
)
@click.option("--key", type=click.Path(path_type=Path), help="The certificate's private key.")
@common_options
@click.pass_obj
def command(
    options: CommonOptions,
    addresses: tuple[str, ...],
    unix: Path | None,
    no_unix: bool,
    certificate: Path | None,
    key: Path | None,
) -> None:
    """Share this machine's accelerators: run the daemon until SIGTERM.

    Remote users need a token: apyfal token create USER. SIGHUP reads the configuration's [security] section anew.
    """
    try:
        from apyfal.host.server.daemon import Daemon
        from apyfal.host.server.process import serve
        from apyfal.host.settings import HostSettings, default_socket
    except ImportError as error:
        raise ConfigurationError(f"the daemon needs {error.name}: pip install 'apyfal[host]'") from error
    settings = HostSettings.load(options.config)
    listeners = [] if no_unix else [_unix_listener(unix or default_socket())]
    listeners += [_tcp_listener(text, settings, certificate, key) for text in addresses or ("127.0.0.1",)]

    def make() -> Daemon:
        return Daemon(settings, listeners, config=options.config)

    def ready(daemon: Daemon) -> None:
        if not options.quiet:
            for url in _urls(daemon, settings, certificate):
                click.echo(f"apyfal host: {url}")

    serve(make, ready)


def _unix_listener(path: Path) -> Listener:
    from apyfal.host.server.daemon import Listener

    return Listener(unix=path)


def _tcp_listener(text: str, settings: HostSettings, certificate: Path | None, key: Path | None) -> Listener:
    from apyfal.host.protocol import tls
    from apyfal.host.server.daemon import Listener

    host, port = split_address(text)
    if certificate is None and key is None and _is_loopback(host):
        return Listener(host=host, port=port)
    if (certificate is None) != (key is None):
        raise ParameterError("--certificate and --key come together")
    if certificate is None or key is None:
        certificate, key = tls.ensure_certificate(settings.state_directory, _names(host))
    return Listener(host=host, port=port, tls=tls.server_context(certificate, key))


def split_address(text: str) -> tuple[str, int]:
    """Split ``address``, ``address:port`` or ``[address]:port``.

    Raises
    ------
    ParameterError
        It is neither.
    """
    from apyfal.host.protocol.messages import DEFAULT_PORT

    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if not host or not ((port.isascii() and port.isdigit()) or port == "") or int(port or 0) > 65535:
        raise ParameterError(f"--listen {text!r}: expected an address, or address:port")
    return host, int(port) if port else DEFAULT_PORT


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names(host: str) -> list[str]:
    """List the names that a certificate for a listening address should have."""
    try:
        unspecified = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        unspecified = False
    return [] if unspecified else [host]


def _urls(daemon: Daemon, settings: HostSettings, certificate: Path | None) -> list[str]:
    """List what a client gives as ``host_ip``, one for each listener."""
    from apyfal.host.protocol import tls
    from apyfal.host.protocol.address import HostAddress

    found = []
    for listener in daemon.listeners:
        if listener.unix is not None:
            found.append(str(HostAddress(unix=str(listener.unix))))
            continue
        names = _names(listener.host) or [socket.gethostname()]
        url = str(HostAddress(names[0], listener.port, secure=listener.tls is not None))
        if listener.tls is not None and certificate is None:
            url += f"#sha256={tls.fingerprint_of(settings.state_directory / 'certificate.pem')}"
        found.append(url)
    return found
