"""Mounting, unmounting, finding, and what is shown of it."""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryHandler

from apyfal.exceptions import AcceleratorException, ConfigurationError, InvalidURL, MountError, ParameterError
from apyfal.storage.mounting.table import MountedPath, MountTable, Snapshot, table
from apyfal.storage.url import parse

CANARY = "canary-5f3a"


def used(mounts: MountTable, url: str) -> tuple[MemoryHandler, str]:
    with mounts.resolve(parse(url)) as target:
        handler = target.handler
        assert isinstance(handler, MemoryHandler)
        return handler, target.path


def given(mounts: MountTable, url: str) -> dict[str, object]:
    return {name: value for name, value in used(mounts, url)[0].parameters.items() if value is not None}


DEFAULTS: dict[str, object] = {"timeout": 10.0, "retries": 3, "verify": True}


def test_names(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory", client_id="a")
    mounts.mount("Memory.Lab", client_id="b")
    mounts.mount("my_storage", provider="memory", client_id="c", root="bucket/prefix")
    assert given(mounts, "memory://b/k") == DEFAULTS | {"client_id": "a"}
    assert given(mounts, "memory.lab://b/k") == DEFAULTS | {"client_id": "b"}
    assert used(mounts, "my_storage://key/ %20//")[1] == "bucket/prefix/key/ %20//"
    assert used(mounts, "my_storage:///key")[1] == "bucket/prefix//key"
    assert used(mounts, "memory://b/k")[1] == "b/k"


def test_a_provider_needs_no_mount(mounts: MountTable, memory_provider: str) -> None:
    assert "memory" not in mounts.mounts()
    assert given(mounts, "memory://b/k") == DEFAULTS
    assert mounts.mounts()["memory"].connected


def test_connected_when_first_used_and_once(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory")
    assert not mounts.mounts()["memory"].connected
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        handlers = {id(handler) for handler, _ in pool.map(lambda _: used(mounts, "memory://b/k"), range(100))}
    assert len(handlers) == 1


def test_unknown_schemes(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("my_storage", provider="memory")
    with pytest.raises(InvalidURL, match="did you mean 'my_storage'"):
        mounts.resolve(parse("my_store://x"))
    with pytest.raises(InvalidURL, match="neither mounted nor a storage provider"):
        mounts.resolve(parse("memory.lab://x"))
    with pytest.raises(InvalidURL, match="host_ip="):
        mounts.resolve(parse("host://x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage_type": "x", "provider": "memry"}, "unknown storage provider 'memry'; did you mean 'memory'"),
        ({"storage_type": "memry"}, "did you mean 'memory'"),
        ({"storage_type": "memory", "secert_id": CANARY}, "did you mean 'secret_id'"),
        ({"storage_type": "memory", "timeout": "soon"}, "expected a number, not 'soon'"),
        ({"storage_type": "memory", "retries": "1.5"}, "expected a whole number"),
        ({"storage_type": "memory", "verify": "maybe"}, "expected true or false"),
        ({"storage_type": "memory", "bandwidth": "fast"}, "is not a size"),
        ({"storage_type": "memory", "max_concurrency": "0"}, "1 or more"),
        ({"storage_type": "host"}, "cannot be mounted"),
        ({"storage_type": "a b"}, "URL scheme"),
        ({"storage_type": "3x"}, "URL scheme"),
        ({"storage_type": ""}, "URL scheme"),
        ({"storage_type": "memory", "root": "a", "config": "/no/such/file"}, "/no/such/file"),
        ({"storage_type": "x", "provider": "broken"}, "no_such_module_at_all"),
        ({"storage_type": "x", "provider": "wrong"}, "is not an apyfal.storage.handler.Handler"),
    ],
)
def test_bad_mounts(mounts: MountTable, memory_provider: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(AcceleratorException, match=message) as caught:
        mounts.mount(**arguments)  # type: ignore[arg-type]  # wrong ones are the point
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_of_a_mount(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory", bandwidth="1MB", memory_limit="64MiB", max_concurrency=3)
    handler, _ = used(mounts, "memory://x")
    assert (handler.bandwidth, handler.memory_limit, handler.max_concurrency) == (1_000_000, 64 << 20, 3)


def test_mounting_again(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory", client_id="a", secret_id=CANARY)
    first, _ = used(mounts, "memory://x")
    mounts.mount("memory", client_id="a", secret_id=CANARY)
    assert used(mounts, "memory://x")[0] is first
    with pytest.raises(MountError, match="replace=True") as caught:
        mounts.mount("memory", client_id="a", secret_id="other")
    assert CANARY not in str(caught.value)
    mounts.mount("memory", client_id="b", replace=True)
    assert first.closed == 1
    assert given(mounts, "memory://x")["client_id"] == "b"


def test_replacing_lets_transfers_end(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory", client_id="a")
    target = mounts.resolve(parse("memory://x"))
    mounts.mount("memory", client_id="b", replace=True)
    handler = target.handler
    assert isinstance(handler, MemoryHandler)
    assert handler.closed == 0
    target.release()
    target.release()
    assert handler.closed == 1


def test_unmount(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory", client_id="a")
    handler, _ = used(mounts, "memory://x")
    mounts.unmount("memory")
    assert handler.closed == 1
    with pytest.raises(InvalidURL, match="was unmounted"):
        mounts.resolve(parse("memory://x"))
    with pytest.raises(MountError, match="is not mounted"):
        mounts.unmount("memory")
    with pytest.raises(MountError, match="did you mean 'http' or 'https'"):
        mounts.unmount("httpz")
    mounts.mount("memory", client_id="b")
    assert given(mounts, "memory://x")["client_id"] == "b"


def test_unmount_in_use_fails_and_changes_nothing(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory")
    with mounts.resolve(parse("memory://x")) as target:
        with pytest.raises(MountError, match=r"1 of its files and transfers still run after 0\.01 s"):
            mounts.unmount("memory", timeout=0.01)
        handler = target.handler
        assert used(mounts, "memory://x")[0] is handler
    mounts.unmount("memory", timeout=0)


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, True, "x", 1e300, 10**400, b"1", None])
def test_unmount_refuses_odd_times(mounts: MountTable, memory_provider: str, timeout: Any) -> None:
    mounts.mount("memory")
    with pytest.raises(ParameterError, match="is not a duration"):
        mounts.unmount("memory", timeout=timeout)
    mounts.unmount("memory", timeout="1ms")


def test_unmount_waits_and_lets_nothing_new_in(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory")
    target: MountedPath = mounts.resolve(parse("memory://x"))
    thread = threading.Thread(target=mounts.unmount, args=("memory",))
    thread.start()
    while not target.closing:
        thread.join(0.001)
    with pytest.raises(InvalidURL, match="is being unmounted"):
        mounts.resolve(parse("memory://x"))
    assert thread.is_alive()
    target.release()
    thread.join()
    assert "memory" not in mounts.mounts()


def test_what_is_listed_has_no_secret(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("lab", provider="memory", client_id="me", secret_id=CANARY, root="bucket")
    info = mounts.mounts()["lab"]
    assert info.parameters == {"client_id": "me", "secret_id": "***"}
    assert info.origins == {"client_id": "argument", "secret_id": "argument"}
    assert str(info) == "lab:// memory root=bucket client_id=me secret_id=***"
    assert {"file", "http", "https"} < set(mounts.mounts())
    for thing in (info, mounts.mounts(), mounts.snapshot()):
        assert CANARY not in repr(thing)


def test_full_addresses(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("lab", provider="memory", endpoint_url="https://memory.example", root="ignored")
    assert used(mounts, "https://memory.example/bucket/key")[1] == "bucket/key"


def test_snapshot_is_the_same_elsewhere(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("lab", provider="memory", client_id="me", secret_id=CANARY, timeout=2)
    used(mounts, "lab://x")
    snapshot = pickle.loads(pickle.dumps(mounts.snapshot()))
    assert isinstance(snapshot, Snapshot)
    mounts.clear()
    snapshot.restore()
    assert given(mounts, "lab://x") == DEFAULTS | {"client_id": "me", "secret_id": CANARY, "timeout": 2.0}
    snapshot.restore()


def _in_worker(url: str) -> dict[str, str]:
    return dict(table.mounts()["lab"].parameters)


def test_worker_processes_get_the_mounts(mounts: MountTable) -> None:
    mounts.mount("lab", provider="file", root="/")
    with concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=mounts.snapshot().restore
    ) as pool:
        assert pool.submit(_in_worker, "lab://x").result(60) == {}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # the child only looks up a mount
def test_a_forked_child_makes_its_own_connections(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("memory")
    handler, _ = used(mounts, "memory://x")
    target = mounts.resolve(parse("memory://x"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if used(mounts, "memory://x")[0] is not handler else 2
        finally:
            os._exit(code)
    target.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_mount_keeps_below_its_root(mounts: MountTable, tmp_path: Path) -> None:
    mounts.mount("data", provider="file", root=str(tmp_path))
    with mounts.resolve(parse("data:///a/b")) as target:
        assert target.path == f"{tmp_path}/a/b"
    with pytest.raises(InvalidURL, match="leaves the root"):
        mounts.resolve(parse("data://a/../../b"))


# -- configuration ----------------------------------------------------------------------------------------------------
def configure(home: Path, text: str) -> None:
    (home / "accelerator.conf").write_text(text)


def test_configured_mounts(mounts: MountTable, memory_provider: str, home: Path) -> None:
    configure(
        home,
        "[storage.my_storage]\nprovider = memory\nclient_id = me\nsecret_id = canary-5f3a\nroot = bucket/x\n"
        "timeout = 2.5\nverify = off\n",
    )
    info = mounts.mounts()["my_storage"]
    assert info.root == "bucket/x"
    assert info.origins["client_id"] == f"{home}/accelerator.conf, line 3, [storage.my_storage] client_id"
    assert CANARY not in repr(mounts.mounts())
    handler, path = used(mounts, "my_storage://k")
    assert path == "bucket/x/k"
    assert handler.parameters["timeout"] == 2.5
    assert handler.parameters["verify"] is False
    configure(home, "[storage.other]\nprovider = memory\n")
    with pytest.raises(InvalidURL):
        mounts.resolve(parse("my_storage://k"))
    assert handler.closed == 1


def test_precedence(mounts: MountTable, memory_provider: str, home: Path) -> None:
    configure(
        home,
        "[host]\nhost_type = memory\nregion = from-host\ntimeout = 1\nretries = 1\nclient_id = host\nsecret_id = hs\n"
        "[host.memory]\nregion = from-host-type\ntimeout = 2\n"
        "[storage]\nregion = from-storage\n"
        "[storage.memory]\nendpoint_url = from-provider\n"
        "[storage.memory.lab]\nregion = from-name\n",
    )
    assert given(mounts, "memory.lab://x") == {
        "client_id": "host",
        "secret_id": "hs",
        "region": "from-name",
        "endpoint_url": "from-provider",
        "timeout": 2.0,
        "retries": 1,
        "verify": True,
    }
    assert given(mounts, "memory://x")["region"] == "from-storage"
    mounts.mount("memory.lab", region="from-argument", client_id="arg", replace=True)
    assert given(mounts, "memory.lab://x") == DEFAULTS | {
        "client_id": "arg",  # so the host's secret is not for this
        "region": "from-argument",
        "endpoint_url": "from-provider",
        "timeout": 2.0,
        "retries": 1,
    }


def test_another_providers_section_gives_nothing(mounts: MountTable, memory_provider: str, home: Path) -> None:
    configure(
        home,
        "[host]\nhost_type = aws\nclient_id = host\n[storage]\nprovider = s3\nregion = there\n"
        "[storage.mine]\nprovider = memory\n",
    )
    assert given(mounts, "mine://x") == DEFAULTS


def test_the_hosts_store_is_mounted(mounts: MountTable, memory_provider: str, home: Path) -> None:
    configure(home, "[host.memory]\nclient_id = host\nhost_ip = 10.0.0.1\n")
    assert "memory" in mounts.mounts()
    assert given(mounts, "memory://x")["client_id"] == "host"
    mounts.mount("my_storage", root="bucket")
    assert mounts.mounts()["my_storage"].provider == "memory"


def test_mount_takes_a_configuration(mounts: MountTable, memory_provider: str) -> None:
    mounts.mount("lab", config={"storage.lab": {"provider": "memory", "region": "x", "timeout": 3}})
    assert given(mounts, "lab://x") == DEFAULTS | {"region": "x", "timeout": 3.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[storage.bad]\nprovider = memry\n", "line 2, .*'memry'; did you mean 'memory'"),
        ("[storage.bad]\nprovider = memory\nsecert_id = canary-5f3a\n", "line 3, .*did you mean 'secret_id'"),
        ("[storage.bad]\nprovider = memory\ntimeout = soon\n", "line 3, .*expected a number, not 'soon'"),
        ("[storage.bad]\nprovider = memory\n[storage.bad]\n", "already there"),
        ("[storage.bad]\nnonsense canary-5f3a\n", "line 2"),
    ],
)
def test_bad_configuration(mounts: MountTable, memory_provider: str, home: Path, text: str, message: str) -> None:
    configure(home, text)
    mounts.mount("fine", provider="memory", config={})
    assert given(mounts, "fine://x") == DEFAULTS  # what is wrong is reported when it is used
    for use in (lambda: mounts.resolve(parse("bad://x")), mounts.mounts):
        with pytest.raises(ConfigurationError, match=message) as caught:
            use()
        assert CANARY not in str(caught.value)


def test_what_is_wrong_with_one_store_does_not_stop_another(
    mounts: MountTable, memory_provider: str, home: Path
) -> None:
    configure(home, "[storage.bad]\nprovider = memry\n[storage.good]\nprovider = memory\n")
    assert given(mounts, "good://x") == DEFAULTS
    with mounts.resolve(parse("https://somewhere.example/page")) as target:
        assert target.handler.scheme == "https"
    with pytest.raises(InvalidURL, match="did you mean 'good'"):
        mounts.resolve(parse("goood://x"))


def test_unmounting_what_the_configuration_has(mounts: MountTable, memory_provider: str, home: Path) -> None:
    configure(home, "[storage.lab]\nprovider = memory\n")
    used(mounts, "lab://x")
    mounts.unmount("lab")
    assert "lab" not in mounts.mounts()
    with pytest.raises(InvalidURL, match="was unmounted"):
        mounts.resolve(parse("lab://x"))


def test_a_configuration_that_changes_meanwhile_takes_no_mount_from_the_list(
    mounts: MountTable, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"[storage.{name}]\nprovider = file\nroot = {tmp_path}\n" for name in ("one", "two", "three"))
    file = home / "accelerator.conf"
    file.write_text(text)
    find = mounts._find
    others: list[threading.Thread] = []

    def changed_meanwhile(name: str, *given: object) -> object:
        found = find(name, *given)  # type: ignore[arg-type]
        file.write_text(f"{text}; change {len(others)}\n")
        others.append(threading.Thread(target=mounts.has, args=("one",)))
        others[-1].start()
        others[-1].join(0.2)  # it reads the new one now if nothing keeps it
        return found

    monkeypatch.setattr(mounts, "_find", changed_meanwhile)
    assert {"one", "two", "three"} <= mounts.mounts().keys()
    assert {"one", "two", "three"} <= mounts._usable().keys()
    for other in others:
        other.join()
