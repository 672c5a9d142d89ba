"""A WebDAV server, by WsgiDAV, in a directory: about a second to start. pip: ``wsgidav``, ``cheroot``.

=============  =====================================================================
``/``          files, for `Webdav.user`
``/private/``  of `Webdav.other_user` alone
``/kept/``     the same files as ``/``, of which nothing may be changed
=============  =====================================================================
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, answers, free_ports, running

__all__ = ["Webdav", "webdav"]


@dataclass(frozen=True)
class Webdav:
    """Where it is, and who may use it."""

    endpoint_url: str
    root: Path
    user: str = "reader"
    password: str = "webdav-password"
    other_user: str = "owner"
    other_password: str = "owner-password"


@contextmanager
def webdav(directory: Path) -> Iterator[Webdav]:
    """Serve a new directory ``files`` in `directory`."""
    (port,) = free_ports()
    made = Webdav(f"http://{HOST}:{port}", directory / "files")
    made.root.mkdir()
    with running(
        [sys.executable, str(Path(__file__)), "--port", str(port), "--root", str(made.root)],
        log=directory / "webdav.log",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        ready=lambda: answers(made.endpoint_url),
    ):
        yield made


def serve(port: int, root: Path) -> None:
    """Serve until the process ends."""
    from cheroot.wsgi import Server
    from wsgidav.wsgidav_app import WsgiDAVApp

    known = Webdav("", root)
    private = root.parent / "private"
    private.mkdir()
    (private / "secret").write_bytes(b"x")
    user = {known.user: {"password": known.password}}
    settings = {
        "provider_mapping": {
            "/": str(root),
            "/private": str(private),
            "/kept": {"root": str(root), "readonly": True},
        },
        "simple_dc": {
            "user_mapping": {"/private": {known.other_user: {"password": known.other_password}}, "*": user},
        },
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "verbose": 1,
    }
    Server((HOST, port), WsgiDAVApp(settings), numthreads=16).start()


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    serve(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
