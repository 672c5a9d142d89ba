"""An FTP server, by pyftpdlib, in a directory: about half a second to start. pip: ``pyftpdlib``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, free_ports, listens, running

__all__ = ["Ftp", "ftp"]


@dataclass(frozen=True)
class Ftp:
    """Where it is; the first user may do everything, the other one list only."""

    port: int
    root: Path
    host: str = HOST
    user: str = "reader"
    password: str = "ftp-password"
    other_user: str = "looker"
    other_password: str = "looker-password"


@contextmanager
def ftp(directory: Path) -> Iterator[Ftp]:
    """Serve a new directory ``files`` in `directory`."""
    (port,) = free_ports()
    made = Ftp(port, directory / "files")
    made.root.mkdir()
    with running(
        [sys.executable, str(Path(__file__)), "--port", str(port), "--root", str(made.root)],
        log=directory / "ftp.log",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        ready=lambda: listens(port, b"220 "),
    ):
        yield made


def serve(port: int, root: Path) -> None:
    """Serve until the process ends."""
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    known = Ftp(port, root)
    authorizer = DummyAuthorizer()
    # what each letter allows: enter, list, retrieve, append, delete, f (rename), make a directory, write, Mode, Time
    authorizer.add_user(known.user, known.password, str(root), perm="elradfmwMT")
    authorizer.add_user(known.other_user, known.other_password, str(root), perm="el")

    class Session(FTPHandler):
        timeout = 0  # seconds of silence after which it hangs up: never
        auth_failed_timeout = 0.0  # seconds until it answers to a wrong password

    Session.authorizer = authorizer
    ThreadedFTPServer((HOST, port), Session).serve_forever()


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    serve(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
