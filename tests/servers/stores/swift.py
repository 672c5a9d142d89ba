"""A real OpenStack Swift on one node: proxy, account, container and object servers, about 4 s to start.

It offers what a provider's cluster does: v1 authentication (Swift's own tempauth), Keystone v3 tokens (Swift's own
``authtoken`` and ``keystoneauth`` filters, asking `servers.tokens.keystone`, a stand-in), static large objects
and the S3 interface. Debian packages: ``swift swift-proxy swift-account swift-container swift-object
memcached python3-keystonemiddleware``.
"""

from __future__ import annotations

import getpass
import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, answers, free_ports, program, run, running
from servers.tokens.keystone import Keystone, keystone

__all__ = ["Swift", "swift"]

PACKAGES = "swift swift-proxy swift-account swift-container swift-object memcached python3-keystonemiddleware"
#: Swift refuses segments of a large object below 1 byte only; objects end at this size unless they are in segments.
MAX_FILE_SIZE = 256 << 20


@dataclass(frozen=True)
class Swift:
    """Where it is and who may use it."""

    endpoint_url: str
    keystone: Keystone
    user: str = "test:tester"
    key: str = "testing"
    other_user: str = "test:nobody"
    other_key: str = "testing2"

    @property
    def auth_url(self) -> str:
        """Of v1 authentication."""
        return f"{self.endpoint_url}/auth/v1.0"

    @property
    def storage_url(self) -> str:
        """Of the account of `user`."""
        return f"{self.endpoint_url}/v1/AUTH_test"

    def let_read(self, container: str, user: str) -> None:
        """Let another user of v1 authentication read a container of `user`."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        login = {"X-Storage-User": self.user, "X-Storage-Pass": self.key}
        with opener.open(urllib.request.Request(self.auth_url, headers=login), timeout=20) as answer:
            token = answer.headers["X-Auth-Token"]
        granted = {"X-Auth-Token": token, "X-Container-Read": user}
        url = f"{self.storage_url}/{container}"
        with opener.open(urllib.request.Request(url, headers=granted, method="POST"), timeout=20):
            return


COMMON = """\
[swift-hash]
swift_hash_path_suffix = suffix
swift_hash_path_prefix = prefix
[storage-policy:0]
name = Policy-0
default = yes
[swift-constraints]
max_file_size = {max_file_size}
"""

NODE = """\
[DEFAULT]
devices = {directory}/srv
mount_check = false
bind_ip = {host}
bind_port = {port}
workers = 0
user = {user}
swift_dir = {directory}/etc
recon_cache_path = {directory}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
user = {user}
swift_dir = {directory}/etc
[pipeline:main]
pipeline = catch_errors cache tempurl s3api authtoken keystoneauth tempauth slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
# The defaults are a cluster's, which has other nodes: after half a second without a connection, or ten errors in a
# minute, the only node would be left alone for a minute. On a busy machine that is not a sign of anything.
conn_timeout = 20
node_timeout = 60
error_suppression_limit = 1000000
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_nobody = testing2
user_test2_tester2 = testing3 .admin
token_life = {token_life}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone.endpoint_url}
auth_url = {keystone.endpoint_url}
auth_type = v3password
username = {keystone.service_user}
password = {keystone.service_password}
user_domain_name = Default
project_domain_name = Default
project_name = service
delay_auth_decision = true
token_cache_time = -1
[filter:keystoneauth]
use = egg:swift#keystoneauth
reseller_prefix = KEY_
operator_roles = admin, member
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = {host}:{memcached}
[filter:tempurl]
use = egg:swift#tempurl
[filter:s3api]
use = egg:swift#s3api
force_swift_request_proxy_log = false
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
"""

# What swift-ring-builder does, for the three rings in one process of the distribution's Python, where Swift lives:
# starting that program nine times takes longer than all of the servers.
RINGS = f"""\
import json, sys
from swift.common.ring import RingBuilder
for name, port in json.loads(sys.argv[1]).items():
    builder = RingBuilder(8, 1, 1)
    builder.add_dev(dict(region=1, zone=1, ip="{HOST}", port=port, device="sdb1", weight=1))
    builder.rebalance()
    builder.get_ring().save(name + ".ring.gz")
"""


@contextmanager
def swift(directory: Path, *, token_life: int = 86400) -> Iterator[Swift]:
    """Run Swift in `directory` (empty).

    Parameters
    ----------
    directory
        Where configuration, rings, objects and logs go.
    token_life
        Seconds that a token of v1 authentication lives.
    """
    account, container, objects, proxy, memcached = free_ports(5)
    user = getpass.getuser()
    etc = directory / "etc"
    etc.mkdir()
    (directory / "srv/sdb1").mkdir(parents=True)
    (etc / "swift.conf").write_text(COMMON.format(max_file_size=MAX_FILE_SIZE))
    ports = {"account": account, "container": container, "object": objects}
    builders = json.dumps({str(etc / kind): port for kind, port in ports.items()})
    program("swift-ring-builder", PACKAGES)
    run(["/usr/bin/python3", "-c", RINGS, builders], log=directory / "rings.log", cwd=etc)
    with ExitStack() as stack:
        identity = stack.enter_context(keystone(directory))
        cache = [program("memcached", PACKAGES), "-u", user, "-l", HOST, "-p", str(memcached)]
        stack.enter_context(running(cache, log=directory / "memcached.log"))
        for kind, port in ports.items():
            conf = etc / f"{kind}-server.conf"
            conf.write_text(NODE.format(directory=directory, host=HOST, port=port, user=user, kind=kind))
            server = program(f"swift-{kind}-server", PACKAGES)
            stack.enter_context(running([server, str(conf), "--verbose"], log=directory / f"{kind}.log"))
        (etc / "proxy-server.conf").write_text(
            PROXY.format(
                directory=directory,
                host=HOST,
                port=proxy,
                user=user,
                memcached=memcached,
                keystone=identity,
                token_life=token_life,
            )
        )
        made = Swift(f"http://{HOST}:{proxy}", identity)
        login = {"X-Storage-User": made.user, "X-Storage-Pass": made.key}
        stack.enter_context(
            running(
                [program("swift-proxy-server", PACKAGES), str(etc / "proxy-server.conf"), "--verbose"],
                log=directory / "proxy.log",
                ready=lambda: answers(made.auth_url, headers=login),
                within=60,
            )
        )
        identity.point_to(made.endpoint_url)
        yield made
