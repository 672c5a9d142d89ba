"""What one user keeps below ``host://`` is bounded, whatever way it came, and across restarts of the daemon."""

from __future__ import annotations

import http.client
import signal
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

from apyfal.exceptions import AcceleratorException, JobRejected
from apyfal.host.client.accelerator import RemoteAccelerator
from apyfal.host.client.http import Host, Refused

KIB = 1 << 10
QUOTA = 256 * KIB


def put(host: Host, name: str, nbytes: int) -> None:
    target = f"/v1/storage/object?url={quote(f'host://{name}', safe='')}"
    with host.request("PUT", target, body=[memoryview(bytes(nbytes))], length=nbytes) as answer:
        assert answer.json()["size"] == nbytes


def remove(host: Host, name: str) -> None:
    host.json("DELETE", f"/v1/storage/object?url={quote(f'host://{name}', safe='')}")


def by_job(daemon: RunningDaemon, token: str, name: str, nbytes: int) -> None:
    with RemoteAccelerator(daemon.host(token), {"accelerator": "loopback"}) as loopback:
        loopback.process(np.zeros(nbytes, np.uint8), f"host://{name}")


def test_a_user_keeps_so_much_and_another_is_not_touched(tmp_path: Path) -> None:
    with running(tmp_path, host_quota=QUOTA, disk_reserve=0) as daemon:
        tokens = {user: daemon.token(user) for user in ("alice", "bob")}
        alice, bob = (daemon.host(token) for token in tokens.values())
        put(alice, "a", 200 * KIB)
        with pytest.raises(Refused) as caught:
            put(alice, "b", 100 * KIB)
        assert caught.value.status == 429
        assert "you keep 204800 there, and a user may keep 262144; remove some files" in str(caught.value.error())
        with pytest.raises(Refused) as caught:
            put(alice, "b", QUOTA + 1)
        assert caught.value.status == 413
        # A copy, and a job that writes there, count as well.
        with pytest.raises(JobRejected, match="you keep 204800"):
            alice.json("POST", "/v1/storage/copy", {"src": "host://a", "dst": "host://b"})
        with pytest.raises(JobRejected, match="you keep 204800"):
            by_job(daemon, tokens["alice"], "b", 100 * KIB)
        assert sorted(path.name for path in daemon.shared.iterdir()) == ["a"]
        put(bob, "c", 200 * KIB)
        # A token that is limited to a directory belongs to the same user.
        (daemon.shared / "inside").mkdir()
        limited = daemon.host(
            daemon.tokens.create("alice", ("process", "storage"), directories=[daemon.shared / "inside"])
        )
        with pytest.raises(Refused):
            put(limited, "d", 100 * KIB)
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemon.stop(number)
            daemon.start()
            with pytest.raises(Refused):
                put(daemon.host(tokens["alice"]), "b", 100 * KIB)
        put(alice, "a", 40 * KIB)
        put(limited, "d", 100 * KIB)
        by_job(daemon, tokens["alice"], "b", 100 * KIB)
        with pytest.raises(AcceleratorException):
            by_job(daemon, tokens["alice"], "e", 100 * KIB)
        remove(bob, "b")  # whoever removes it
        by_job(daemon, tokens["alice"], "e", 100 * KIB)
        for one in (alice, bob, limited):
            one.close()
        written = [line["url"] for line in daemon.audit() if line["decision"] == "written"]
        assert written == ["host://a", "host://c", "host://a", "host://d"], "as the clients named them"


def test_it_is_refused_before_the_body_is_received(tmp_path: Path) -> None:
    with running(tmp_path, host_quota=QUOTA, disk_reserve=0) as daemon:
        token = daemon.token()
        host = daemon.host(token)
        put(host, "a", 200 * KIB)
        host.close()
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        connection.putrequest("PUT", "/v1/storage/object?url=host://b")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Length", str(100 * KIB))
        connection.endheaders()  # and nothing of the body
        assert connection.getresponse().status == 429
        connection.close()


def test_who_may_keep_nothing_can_still_remove(tmp_path: Path) -> None:
    with running(tmp_path, host_quota=1, disk_reserve=0) as daemon:
        host = daemon.host(daemon.token())
        for nbytes in (0, 1):
            with pytest.raises(Refused) as caught:
                put(host, "a", nbytes)
            assert caught.value.status == 413
        (daemon.shared / "b").write_bytes(b"b")
        remove(host, "b")
        host.close()
