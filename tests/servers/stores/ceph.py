"""A real Ceph RADOS Gateway: monitor, one in-memory OSD and radosgw, about 12 s to start.

Debian packages: ``radosgw ceph-mon ceph-osd ceph-common ceph-base``.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.process import HOST, answers, free_ports, program, run, running, wait_until

__all__ = ["Ceph", "ceph"]

PACKAGES = "radosgw ceph-mon ceph-osd ceph-common ceph-base"


@dataclass(frozen=True)
class Ceph:
    """Where the gateway is and two users: the first owns what tests make, the other may do nothing with it."""

    endpoint_url: str
    access_key: str = "AKIATESTKEY000000001"
    secret_key: str = "testsecret"
    other_access_key: str = "AKIATESTKEY000000002"
    other_secret_key: str = "othersecret"


CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = {monitor}
mon_initial_members = a
keyring = {directory}/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_pool_default_pg_num = 4
osd_crush_chooseleaf_type = 0
run_dir = {directory}
log_file = {directory}/$name.log
admin_socket = {directory}/$name.asok
pid_file = {directory}/$name.pid
mon_data_avail_crit = 1
osd_objectstore = memstore
memstore_device_bytes = {memory}
mon_max_pg_per_osd = 1000
auth_allow_insecure_global_id_reclaim = true
rgw_enable_apis = s3
rgw_dynamic_resharding = false
# What is removed goes after half a minute instead of two hours: a full disk in memory stops every write.
rgw_gc_obj_min_wait = 30
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 60
[mon.a]
mon_data = {directory}/mon
[osd.0]
osd_data = {directory}/osd
[client.rgw]
rgw_frontends = beast endpoint={host}:{port}
"""


@contextmanager
def ceph(directory: Path, *, memory: int = 6 << 30) -> Iterator[Ceph]:
    """Run a gateway in `directory` (empty, with a path short enough for its UNIX sockets: under 80 characters).

    Parameters
    ----------
    directory
        Where configuration, sockets and logs go.
    memory
        Bytes that the in-memory disk may grow to.
    """
    port, one, two = free_ports(3)
    monitor = f"[v2:{HOST}:{one},v1:{HOST}:{two}]"
    fsid = str(uuid.uuid4())
    for name in ("mon", "osd"):
        (directory / name).mkdir()
    conf, keyring, log = directory / "ceph.conf", directory / "keyring", directory / "start.log"
    conf.write_text(
        CONFIGURATION.format(fsid=fsid, monitor=monitor, directory=directory, memory=memory, host=HOST, port=port)
    )

    def tool(name: str, *arguments: str) -> None:
        run([program(name, PACKAGES), *arguments], log=log, cwd=directory, within=60)

    def key(entity: str, *capabilities: str, create: bool = False) -> None:
        granted = [word for each in capabilities for word in ("--cap", *each.split(" ", 1))]
        tool("ceph-authtool", *(["-C"] if create else []), str(keyring), "-n", entity, "--gen-key", *granted)

    def daemon(name: str, *arguments: str) -> list[str]:
        return [program(name, PACKAGES), "-f", "-c", str(conf), *arguments]

    key("mon.", "mon allow *", create=True)
    key("client.admin", "mon allow *", "osd allow *", "mgr allow *")
    key("client.rgw", "mon allow rw", "osd allow rwx")
    key("osd.0", "mon allow profile osd", "osd allow *")
    tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, "monmap")
    tool("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", str(keyring), "-c", str(conf))
    with ExitStack() as stack:
        stack.enter_context(running(daemon("ceph-mon", "-i", "a"), log=log))
        # These wait for the monitor by themselves.
        tool("ceph", "-c", str(conf), "auth", "import", "-i", str(keyring))
        tool("ceph", "-c", str(conf), "osd", "create")
        tool("ceph-osd", "-i", "0", "--mkfs", "-c", str(conf))
        stack.enter_context(running(daemon("ceph-osd", "-i", "0"), log=log))
        url = f"http://{HOST}:{port}"
        gateway = stack.enter_context(running(daemon("radosgw", "-n", "client.rgw"), log=log))
        _wait_for_gateway(gateway, url, log)
        made = Ceph(url)
        for user, access, secret in (
            ("test", made.access_key, made.secret_key),
            ("other", made.other_access_key, made.other_secret_key),
        ):
            tool(
                *("radosgw-admin", "-c", str(conf), "user", "create", f"--uid={user}", f"--display-name={user}"),
                *(f"--access-key={access}", f"--secret={secret}"),
            )
        yield made


def _wait_for_gateway(gateway: subprocess.Popen[bytes], url: str, log: Path) -> None:
    wait_until(lambda: gateway.poll() is not None or answers(url), "radosgw", within=60, log=log)
