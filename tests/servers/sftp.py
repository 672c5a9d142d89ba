"""An SSH server with SFTP, by asyncssh, in a directory: about half a second to start. pip: ``asyncssh``."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, free_ports, running

__all__ = ["Sftp", "sftp"]


@dataclass(frozen=True)
class Sftp:
    """Where it is, and who may use it."""

    port: int
    root: Path
    host: str = HOST
    user: str = "reader"
    password: str = "sftp-password"


@contextmanager
def sftp(directory: Path) -> Iterator[Sftp]:
    """Serve a new directory ``files`` in `directory`."""
    (port,) = free_ports()
    made = Sftp(port, directory / "files")
    made.root.mkdir()
    arguments = ["--port", str(port), "--root", str(made.root), "--user", made.user, "--password", made.password]
    with running(
        [sys.executable, str(Path(__file__)), *arguments],
        log=directory / "sftp.log",
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        ready=lambda: _greets(port),
    ):
        yield made


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), 5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


async def serve(port: int, root: str, user: str, password: str) -> None:
    """Serve until the process ends."""
    import asyncssh

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            return (username, given) == (user, password)

    def files(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=root)

    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.create_server(Server, HOST, port, server_host_keys=[key], sftp_factory=files)
    await asyncio.Event().wait()


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    for name in ("--root", "--user", "--password"):
        parser.add_argument(name, required=True)
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
