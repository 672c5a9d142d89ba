"""An SSH server with SFTP, by asyncssh, in a directory: about half a second to start. pip: ``asyncssh``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, free_ports, listens, running

__all__ = ["Sftp", "sftp"]


@dataclass(frozen=True)
class Sftp:
    """Where it is; the first user may do everything, the other one look at names only."""

    port: int
    root: Path
    host: str = HOST
    user: str = "reader"
    password: str = "sftp-password"
    other_user: str = "looker"
    other_password: str = "looker-password"


@contextmanager
def sftp(directory: Path) -> Iterator[Sftp]:
    """Serve a new directory ``files`` in `directory`."""
    (port,) = free_ports()
    made = Sftp(port, directory / "files")
    made.root.mkdir()
    with running(
        [sys.executable, str(Path(__file__)), "--port", str(port), "--root", str(made.root)],
        log=directory / "sftp.log",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        ready=lambda: listens(port, b"SSH-"),
    ):
        yield made


async def serve(port: int, root: Path) -> None:
    """Serve until the process ends."""
    import asyncssh

    known = Sftp(port, root)
    passwords = {known.user: known.password, known.other_user: known.other_password}

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            return passwords.get(username) == given

    class NamesOnly(asyncssh.SFTPServer):
        def refuse(self, *_: object) -> None:
            raise asyncssh.SFTPPermissionDenied("Permission denied")

        open = open56 = mkdir = remove = rename = posix_rename = setstat = refuse

    def files(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
        mine = channel.get_extra_info("username") == known.user
        return (asyncssh.SFTPServer if mine else NamesOnly)(channel, chroot=str(root))

    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.create_server(Server, HOST, port, server_host_keys=[key], sftp_factory=files)
    await asyncio.Event().wait()


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
