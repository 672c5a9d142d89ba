"""A real nginx serving one directory in every way that the web does: well under a second to start.

=================  ==================================================================================================
``/``              files, with ranges and strong ETags; PUT, DELETE and MKCOL are refused
``/noranges/``     the same without ranges: 200 to every request
``/gzip/``         compressed on the way: ``Content-Encoding: gzip``, weak ETag
``/private/``      basic authentication (`Nginx.user`, `Nginx.password`)
``/moved/``        301 to ``/``;  ``/found/`` 302;  ``/temporary/`` 307;  ``/loop/`` redirects for ever
``/elsewhere/``    redirects to the second origin (`Nginx.other_url`), which tells the Authorization header it was sent
``/autoindex/``    the directory as HTML
``/dav/``          writable: PUT, DELETE, MKCOL, COPY, MOVE
``/listed``        a bucket of S3 whose listing is the file ``listing.xml``
``/sink/``         a bucket of S3 that takes what is put and forgets it
=================  ==================================================================================================

The same over TLS at `Nginx.tls_url`, with a certificate of the authority in `Nginx.ca`. Debian package:
``nginx-light``; pip: ``cryptography``.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.certificates import issue
from servers.process import HOST, answers, free_ports, program, running

__all__ = ["Nginx", "nginx"]


@dataclass(frozen=True)
class Nginx:
    """Where it is, the directory it serves, and who may see the private part."""

    endpoint_url: str
    tls_url: str
    other_url: str
    root: Path
    ca: Path
    user: str = "reader"
    password: str = "nginx-password"


SITE = """\
        root {root};
        location / {{ }}
        location /noranges/ {{ alias {root}/; max_ranges 0; }}
        location /gzip/ {{ alias {root}/; gzip on; gzip_types *; gzip_min_length 1; gzip_http_version 1.0; }}
        location /private/ {{ alias {root}/; auth_basic "private"; auth_basic_user_file {directory}/users; }}
        location /autoindex/ {{ alias {root}/; autoindex on; }}
        location = /listed {{ default_type application/xml; alias {root}/listing.xml; }}
        location = /sink {{ default_type application/xml; return 200 "<ListBucketResult/>"; }}
        location /sink/ {{ add_header ETag '"d41d8cd98f00b204e9800998ecf8427e"'; return 200 ""; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 permanent; }}
        location /found/ {{ rewrite ^/found/(.*)$ /$1 redirect; }}
        location /temporary/ {{ return 307 /dav/; }}
        location /loop/ {{ return 302 /loop/; }}
        location /elsewhere/ {{ return 302 http://{host}:{other}/authorization; }}
        location /dav/ {{
            alias {root}/;
            dav_methods PUT DELETE MKCOL COPY MOVE;
            create_full_put_path on;
            client_max_body_size 0;
        }}
"""

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/tmp-body;
    proxy_temp_path {directory}/tmp-proxy;
    fastcgi_temp_path {directory}/tmp-fastcgi;
    uwsgi_temp_path {directory}/tmp-uwsgi;
    scgi_temp_path {directory}/tmp-scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nodelay on;
    absolute_redirect off;
    keepalive_requests 100000;
    keepalive_timeout 1h;
    client_max_body_size 0;
    server {{
        listen {host}:{port};
{site}    }}
    server {{
        listen {host}:{tls} ssl;
        ssl_certificate {directory}/server.pem;
        ssl_certificate_key {directory}/server.key;
{site}    }}
    server {{
        listen {host}:{other};
        location /authorization {{ return 200 "$http_authorization"; }}
        location / {{ root {root}; }}
    }}
}}
"""


def htpasswd(user: str, password: str) -> str:
    """One line of a password file, in the salted SHA-1 form that nginx documents for ``auth_basic_user_file``."""
    salt = b"apyfal"
    return f"{user}:{{SSHA}}{base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()}\n"


@contextmanager
def nginx(directory: Path, root: Path | None = None) -> Iterator[Nginx]:
    """Run nginx with its configuration and logs in `directory`.

    Parameters
    ----------
    directory
        For the configuration, certificates and logs.
    root
        What it serves; by default a new directory ``www`` in `directory`.
    """
    if root is None:
        root = directory / "www"
        root.mkdir()
    port, tls, other = free_ports(3)
    ca = issue(directory, "server", [HOST, "localhost"])
    made = Nginx(f"http://{HOST}:{port}", f"https://localhost:{tls}", f"http://{HOST}:{other}", root, ca)
    (directory / "users").write_text(htpasswd(made.user, made.password))
    site = SITE.format(root=root, directory=directory, host=HOST, other=other)
    user = f"user {getpass.getuser()};" if getpass.getuser() == "root" else ""
    ports = {"host": HOST, "port": port, "tls": tls, "other": other}
    conf = directory / "nginx.conf"
    conf.write_text(CONFIGURATION.format(directory=directory, user=user, root=root, site=site, **ports))
    with running(
        [program("nginx", "nginx-light"), "-c", str(conf), "-p", str(directory)],
        log=directory / "nginx.log",
        ready=lambda: answers(made.endpoint_url),
    ):
        yield made
