"""`Accelerator(host_ip=...)`: every method as with a card of one's own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running

import apyfal
from apyfal.exceptions import (
    AccessDenied,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    CopyRefused,
    HostError,
    ObjectNotFound,
    ParameterError,
    RunTimeout,
)
from apyfal.host.client import shared_pool


@pytest.fixture(params=["tcp", "unix"])
def where(
    request: pytest.FixtureRequest, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str | None]:
    """Over the socket, and (for arrays of some size) through shared memory."""
    if request.param == "tcp":
        monkeypatch.setattr(shared_pool, "machine_id", lambda: "another machine")
        return {"host_ip": daemon.url, "token": daemon.token()}
    return {"host_ip": daemon.unix, "token": None}


@pytest.fixture
def loopback(where: dict[str, str | None]) -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("loopback", **where) as opened:
        yield opened


@pytest.mark.parametrize("count", [0, 1, 1000, 100_000, 1 << 20])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_arrays_go_and_come_back(loopback: apyfal.Accelerator, count: int, dtype: str) -> None:
    data = np.arange(count).astype(dtype)
    info: dict[str, object] = {}
    if count == 0:
        data = data.reshape(0)
    result = loopback.process(data, info_dict=info)
    assert result.dtype == data.dtype
    np.testing.assert_array_equal(result, data)
    assert info["bytes_in"] == data.nbytes
    assert info["driver"] == "emulator"
    target = np.zeros_like(data)
    assert loopback.process(data, target) is target
    np.testing.assert_array_equal(target, data)


def test_results_of_shared_memory_stay_valid(where: dict[str, str | None]) -> None:
    """A view keeps its memory although the array it was made of is gone, and later jobs do not write into it."""
    with apyfal.Accelerator("loopback", **where) as loopback:
        first = np.full(1 << 20, 1, np.uint8)
        kept = loopback.process(first)[5:]
        for value in range(2, 6):
            loopback.process(np.full(1 << 20, value, np.uint8))
        assert (kept == 1).all()
    assert (kept == 1).all(), "and after the session has ended"


def test_arrays_from_empty_are_used_where_they_are(daemon: RunningDaemon) -> None:
    with apyfal.Accelerator("scale", host_ip=daemon.unix) as scale:
        data = scale.empty(1 << 18, np.float32)
        data[:] = np.arange(1 << 18)
        target = scale.empty(1 << 18, np.float32)
        assert scale.process(data, target, a=2, b=1) is target
        np.testing.assert_array_equal(target, data * 2 + 1)


def test_copies_of_the_client_are_counted_and_can_be_refused(where: dict[str, str | None]) -> None:
    data, target = np.arange(1 << 20, dtype=np.uint8), np.zeros(1 << 20, np.uint8)
    with apyfal.Accelerator("loopback", **where) as loopback:
        local = where["token"] is None
        info: dict[str, Any] = {}
        loopback.process(data, target, info_dict=info)
        assert info["bytes_copied"] == (2 * data.nbytes if local else 0)
        assert [reason[:4] for reason in info["copy_reasons"]] == (["src:", "dst:"] if local else [])
        loopback.process(data, info_dict=info)
        assert info["bytes_copied"] == (2 * data.nbytes if local else 0)
        target[:] = 0
        for dst in (target, None):  # over the socket from where it is, and to where it is wanted
            result = loopback.process(data, dst, copy=False, info_dict=info)
            np.testing.assert_array_equal(result, data)
            assert (info["bytes_copied"], info["copy_reasons"]) == (0, [])
        placed = loopback.empty(data.shape, data.dtype)
        loopback.process(placed, placed, copy=False, info_dict=info)
        assert (info["bytes_copied"], info["copy_reasons"]) == (0, [])
        for src, dst in ((data[::2], None), (data[: 1 << 19], target[::2])):
            with pytest.raises(CopyRefused, match="not contiguous"):
                loopback.process(src, dst, copy=False)


def test_the_socket_is_used_where_the_host_shares_no_more_memory(tmp_path: Path) -> None:
    data = np.arange(1 << 20, dtype=np.uint8)
    with (
        running(tmp_path, memory_limit=10 << 20) as daemon,
        apyfal.Accelerator("loopback", host_ip=daemon.unix) as loopback,
    ):
        kept = [loopback.empty(data.shape, np.uint8) for _ in range(4)]  # half of the host's memory, but for one
        info: dict[str, Any] = {}
        np.testing.assert_array_equal(loopback.process(data, info_dict=info), data)
        assert info["bytes_copied"] == data.nbytes, "there is room for the input alone"
        del kept


def test_non_contiguous_arrays_and_plain_bytes(loopback: apyfal.Accelerator) -> None:
    data = np.arange(600_000, dtype=np.int32).reshape(2, -1)
    np.testing.assert_array_equal(loopback.process(data[:, ::2]), data[:, ::2])
    target = np.zeros((2, 600_000), np.int32)
    loopback.process(data, target[:, ::2])
    np.testing.assert_array_equal(target[:, ::2], data)
    assert not target[:, 1::2].any()
    assert bytes(loopback.process(b"bytes")) == b"bytes"
    assert bytes(loopback.process(memoryview(bytearray(b"view")))) == b"view"


def test_files_of_the_client_travel(loopback: apyfal.Accelerator, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(3_000_000)
    (tmp_path / "src").write_bytes(content)
    assert loopback.process(str(tmp_path / "src"), tmp_path / "dst") is None
    assert (tmp_path / "dst").read_bytes() == content
    loopback.process(f"file://{tmp_path}/src", f"file://{tmp_path}/dst2")
    assert (tmp_path / "dst2").read_bytes() == content
    target = io.BytesIO()
    loopback.process(io.BytesIO(content), target)
    assert target.getvalue() == content
    with open(tmp_path / "src", "rb", buffering=0) as file:
        file.seek(1000)
        assert bytes(loopback.process(file)) == content[1000:]


def test_a_failed_job_leaves_the_client_file_as_it_was(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "dst").write_bytes(b"before")
    gunzip = apyfal.Accelerator("gunzip", host_ip=daemon.unix)
    with gunzip, pytest.raises(apyfal.exceptions.AcceleratorException):
        gunzip.process(b"this is not a gzip stream", tmp_path / "dst")
    assert (tmp_path / "dst").read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["dst"]


def test_files_of_the_host_are_used_in_place(loopback: apyfal.Accelerator, daemon: RunningDaemon) -> None:
    content = np.random.default_rng(2).bytes(300_000)
    (daemon.shared / "reads").write_bytes(content)
    assert loopback.process("host://reads", "host://copy") is None
    assert (daemon.shared / "copy").read_bytes() == content
    assert bytes(loopback.process("host://reads")) == content
    loopback.process(np.frombuffer(content, np.uint8), f"host://{daemon.shared}/third")
    assert (daemon.shared / "third").read_bytes() == content


@pytest.mark.parametrize("count", [3, 100_000])
def test_files_have_the_element_type_of_the_definition(
    where: dict[str, str | None], tmp_path: Path, count: int
) -> None:
    values = np.arange(count, dtype=np.int16)
    values.tofile(tmp_path / "in")
    with apyfal.Accelerator("negative", **where) as card:
        np.testing.assert_array_equal(card.process(tmp_path / "in"), -values)
        with pytest.raises(ParameterError, match="takes int16 elements, not int32"):
            card.process(np.arange(count, dtype=np.int32))


@pytest.mark.parametrize("count", [0, 3, 100_000, 3 << 20])
def test_several_inputs_and_outputs_travel(
    where: dict[str, str | None], daemon: RunningDaemon, tmp_path: Path, count: int
) -> None:
    x, y = np.random.default_rng(count).integers(0, 256, (2, count), np.uint8)
    (tmp_path / "y").write_bytes(y.tobytes())
    low, high = np.minimum(x, y), np.maximum(x, y)
    with apyfal.Accelerator("both", **where) as card:
        info: dict[str, object] = {}
        results = card.process({"x": x, "y": tmp_path / "y"}, info_dict=info)
        assert list(results) == ["low", "high"]
        np.testing.assert_array_equal(results["low"], low)
        np.testing.assert_array_equal(results["high"], high)
        assert info["bytes_in"] == info["bytes_out"] == 2 * count
        mine = np.zeros((count, 2), np.uint8)[:, 1]
        results = card.process({"x": io.BytesIO(x.tobytes()), "y": y}, {"low": tmp_path / "low", "high": mine})
        assert list(results) == ["high"]
        assert results["high"] is mine
        np.testing.assert_array_equal(mine, high)
        assert (tmp_path / "low").read_bytes() == low.tobytes()
        (daemon.shared / "x").write_bytes(x.tobytes())
        assert card.process({"x": "host://x", "y": y}, {"low": tmp_path / "low", "high": "host://high"}) is None
        assert (daemon.shared / "high").read_bytes() == high.tobytes()
        with pytest.raises(ParameterError, match="high: an array of int16; accelerator 'both' writes uint8"):
            card.process({"x": x, "y": y}, {"high": np.zeros(count, np.int16)})
        with pytest.raises(ParameterError, match="has no output 'hihg'; did you mean 'high'"):
            card.process({"x": x, "y": y}, {"hihg": None})
        with pytest.raises(ParameterError, match="needs src="):
            card.process({"x": x})


def test_several_inputs_and_outputs_are_urls_of_the_host(where: dict[str, str | None], daemon: RunningDaemon) -> None:
    for file in daemon.shared.iterdir():
        file.unlink()
    (daemon.shared / "x").write_bytes(b"ab c")
    (daemon.shared / "y").write_bytes(b" ba ")
    src, dst = {name: f"host://{name}" for name in "xy"}, {"low": "host://low", "high": "host://high"}
    with apyfal.Accelerator("both", **where) as card:
        assert card.process(src, dst) is None
        assert ((daemon.shared / "low").read_bytes(), (daemon.shared / "high").read_bytes()) == (b" b  ", b"abac")
        with pytest.raises(AccessDenied):
            card.process({"x": "host://x", "y": "host:///etc/hostname"}, dst)
        with pytest.raises(AccessDenied):
            card.process(src, {"low": "host://third", "high": "host:///etc/new"})
    assert sorted(path.name for path in daemon.shared.iterdir()) == ["high", "low", "x", "y"]


def test_results_that_are_no_data(daemon: RunningDaemon) -> None:
    with apyfal.Accelerator("sha3", host_ip=daemon.unix) as sha3:
        assert sha3.process(b"abc") == {"digest": hashlib.sha3_256(b"abc").hexdigest()}
        assert sha3.process(b"abc", type="sha3-512") == {"digest": hashlib.sha3_512(b"abc").hexdigest()}
        sha3.start(type="sha3-384")
        assert sha3.process(b"abc") == {"digest": hashlib.sha3_384(b"abc").hexdigest()}


def test_accelerator_without_input(daemon: RunningDaemon) -> None:
    with apyfal.Accelerator("trng", host_ip=daemon.unix) as trng:
        assert trng.process(nbytes=1000).nbytes == 1000


def test_jobs_in_the_background(loopback: apyfal.Accelerator) -> None:
    futures = [loopback.process_submit(np.full(100, number, np.uint8)) for number in range(20)]
    assert [int(future.result()[0]) for future in futures] == list(range(20))
    infos: list[dict[str, object]] = []
    results = loopback.process_map([np.full(10, number, np.uint8) for number in range(30)], info_list=infos)
    assert [int(result[0]) for result in results] == list(range(30))
    assert len(infos) == 30


def test_a_pool_of_hosts(daemon: RunningDaemon, tmp_path: Path) -> None:
    """One job list over two daemons: both work, and results come in order."""
    with running(tmp_path, authorized_host_dirs=[str(daemon.shared)]) as other:
        token = other.token()
        (daemon.state / "tokens.json").write_bytes((other.state / "tokens.json").read_bytes())
        with apyfal.AcceleratorPoolExecutor("sha3", hosts=[daemon.url, other.url], token=token) as pool:
            digests = list(pool.process_map([bytes([number]) * 1000 for number in range(40)]))
            ran = [statistics.jobs for statistics in pool.statistics]
        assert digests == [{"digest": hashlib.sha3_256(bytes([number]) * 1000).hexdigest()} for number in range(40)]
        assert sum(ran) == 40
        assert all(ran), "each host has run some"


def test_progress_is_reported(loopback: apyfal.Accelerator) -> None:
    seen: list[tuple[int, int | None]] = []
    loopback.process(np.zeros(1 << 20, np.uint8), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1 << 20, 1 << 20)


def test_errors_are_those_of_a_local_accelerator(loopback: apyfal.Accelerator, daemon: RunningDaemon) -> None:
    with pytest.raises(ObjectNotFound, match="host://missing"):
        loopback.process("host://missing")
    with pytest.raises(ObjectNotFound):
        loopback.process("/no/such/file/of/the/client")
    with pytest.raises(ParameterError, match="no_such_parameter"):
        loopback.process(b"x", no_such_parameter=1)
    with pytest.raises(AccessDenied):
        loopback.process("s3://not-mounted/key")
    with pytest.raises(ParameterError, match="cannot be sent"):
        loopback.process(np.array([object()]))


def test_unknown_accelerator_and_definitions(daemon: RunningDaemon) -> None:
    wrong = apyfal.Accelerator("sha33", host_ip=daemon.unix)
    with wrong, pytest.raises(ConfigurationError, match="did you mean 'sha3'"):
        wrong.process(b"x")
    for own in (
        {"program": "s3://bucket/program.xclbin"},
        {"program": "a.cl, b.cl"},
        {"opencl.build": "-I /elsewhere"},
        {"program": "a.cl", "opencl.build": "-I /elsewhere"},
    ):
        with pytest.raises(ParameterError, match="defined on its host"):
            apyfal.Accelerator("x", host_ip=daemon.unix, **own)


def test_element_types_are_the_clients_to_choose(daemon: RunningDaemon, tmp_path: Path) -> None:
    x = np.arange(1000, dtype=np.float32)
    x.tofile(tmp_path / "x.raw")
    for given in ("float32", np.float32, np.dtype("<f4")):
        with apyfal.Accelerator("scale", host_ip=daemon.url, token=daemon.token(), dtype=given) as scale:
            np.testing.assert_array_equal(scale.process(x, a=2, b=1), 2 * x + 1)
            scale.process(tmp_path / "x.raw", tmp_path / "y.raw", a=2, b=1)  # the file has no type of its own
            np.testing.assert_array_equal(np.fromfile(tmp_path / "y.raw", np.float32), 2 * x + 1)
    for given in ("object", "no type", "int17", ""):
        with pytest.raises((ParameterError, ConfigurationError)):
            apyfal.Accelerator("scale", host_ip=daemon.url, token=daemon.token(), dtype=given)


@pytest.mark.parametrize("path", ["/tmp/x.so", "./x.so", "../x.so", "x/y", "~/x.so", "file:///x.so"])
def test_a_driver_or_device_that_is_a_path_is_refused(daemon: RunningDaemon, path: str) -> None:
    for key in ("driver", "device"):
        with pytest.raises(AccessDenied, match="cannot name a path"):
            apyfal.Accelerator("loopback", host_ip=daemon.url, token=daemon.token(), **{key: path})


def test_timeouts_end_the_job(daemon: RunningDaemon) -> None:
    data = np.random.default_rng(4).integers(0, 256, 1 << 25, np.uint8)
    with apyfal.Accelerator("gzip", host_ip=daemon.unix) as gzip, pytest.raises(RunTimeout):
        gzip.process(data, level=9, timeout=0.05)


def test_stopping(daemon: RunningDaemon) -> None:
    accelerator = apyfal.Accelerator("loopback", host_ip=daemon.url, token=daemon.token())
    accelerator.process(b"x")
    accelerator.stop()
    accelerator.stop()
    with pytest.raises(ClosedError):
        accelerator.process(b"x")
    assert "stopped" in repr(accelerator)


def test_wrong_tokens_and_addresses(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APYFAL_TOKEN", raising=False)
    for token in (None, "wrong", "apf_0123456789ab_" + "A" * 43):
        with pytest.raises(AuthenticationError, match="valid token"):
            apyfal.Accelerator("loopback", host_ip=daemon.url, token=token)
    for address in ("http://10.0.0.1", "ftp://x", "", "host:port", "https://u@h", "https://h/path", "unix://x"):
        with pytest.raises(ParameterError, match="host_ip"):
            apyfal.Accelerator("loopback", host_ip=address)


def test_token_and_address_from_the_configuration(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(daemon.token() + "\n")
    here = {"host_ip": daemon.url, "token_file": str(tmp_path / "token")}
    with apyfal.Accelerator("loopback", {"host": here}) as opened:
        assert bytes(opened.process(b"x")) == b"x"
    # Of several hosts the one that is asked for, by the argument or by [host] itself.
    several = {"host": {}, "host.lab": here, "host.cloud": {"host_ip": "127.0.0.1:9"}}
    for config, host_type in ((several, "Lab"), ({**several, "host": {"host_type": "lab"}}, None)):
        with apyfal.Accelerator("loopback", config, host_type=host_type) as opened:
            info: dict[str, object] = {}
            opened.process(b"x", info_dict=info)
            assert info["host"] == daemon.url
    with apyfal.Accelerator("loopback", several) as opened:
        assert isinstance(opened, apyfal.Accelerator), "no host is asked for: this machine"
    with pytest.raises(ConfigurationError, match="did you mean 'cloud'"):
        apyfal.Accelerator("loopback", several, host_type="clout")


def test_large_files_are_spooled(tmp_path: Path) -> None:
    from host.support.daemon import running

    content = np.random.default_rng(3).bytes(2_000_000)
    (tmp_path / "src").write_bytes(content)
    (tmp_path / "daemon").mkdir()
    with running(tmp_path / "daemon", spool_above=1_000_000) as daemon:
        with apyfal.Accelerator("loopback", host_ip=daemon.url, token=daemon.token()) as loopback:
            loopback.process(tmp_path / "src", tmp_path / "dst")
            assert (tmp_path / "dst").read_bytes() == content
        assert {file.name for file in daemon.state.iterdir()} >= {"jobs.sqlite", "tokens.json"}
        assert not [file for file in daemon.state.iterdir() if file.name.startswith(("tmp", "spool"))]


def test_host_errors_hide_what_happened_inside(daemon: RunningDaemon) -> None:
    from apyfal.host.protocol.messages import error_document, error_from

    error = error_from(error_document(ZeroDivisionError("internal path /etc/secret")))
    assert isinstance(error, HostError)
    assert "secret" not in str(error)


def test_leaving_waits_for_submitted_jobs_and_an_error_cancels_them(where: dict[str, str | None]) -> None:
    futures = []
    with apyfal.Accelerator("loopback", **where) as loopback:
        assert isinstance(loopback, apyfal.Accelerator)
        futures = [loopback.process_submit(np.full(100, number, np.uint8)) for number in range(20)]
    assert [int(future.result(0)[0]) for future in futures] == list(range(20))

    def leave() -> None:
        with apyfal.Accelerator("loopback", **where) as loopback:
            futures[:] = [loopback.process_submit(np.zeros(1 << 20, np.uint8)) for _ in range(200)]
            raise KeyError("on the way")

    with pytest.raises(KeyError, match="on the way"):
        leave()
    assert sum(future.cancelled() for future in futures) > 100
    assert all(future.done() for future in futures)


def test_a_prepared_job_runs_as_process_does(where: dict[str, str | None]) -> None:
    with apyfal.Accelerator("scale", **where) as scale:
        src, dst = scale.empty(5000, "i4"), scale.empty(5000, "i4")
        job = scale.prepare(src, dst, a=2)
        for turn in range(3):
            src[...] = turn + np.arange(5000)
            info: dict[str, Any] = {}
            assert job(info_dict=info) is dst
            np.testing.assert_array_equal(dst, src * 2)
            assert info["driver"] == "emulator"
        assert job.submit(a=5).result() is dst
        np.testing.assert_array_equal(dst, src * 5)
        with pytest.raises(ParameterError, match="no parameter 'c'"):
            job(c=1)
        with pytest.raises(ParameterError, match="a file object is read or written once"):
            scale.prepare(io.BytesIO(b"abcd"), dst)
        scale.start(a=3)
        with pytest.raises(ParameterError, match="started again"):
            job()
        again = scale.prepare(src, dst)
        again()
        np.testing.assert_array_equal(dst, src * 3)
    with pytest.raises(ClosedError):
        again()


def test_arrays_on_the_card_are_for_the_machine_of_the_card(where: dict[str, str | None]) -> None:
    with apyfal.Accelerator("loopback", **where) as loopback:
        if where.get("host_ip") in (None, "local"):
            array = loopback.put(np.arange(10, dtype="u1"))
            assert loopback.enqueue(array, loopback.device_empty(10, "u1")).result().get().tolist() == list(range(10))
            return
        for call in (lambda: loopback.put(b"x"), lambda: loopback.device_empty(3), loopback.enqueue):
            with pytest.raises(ParameterError, match="is on another machine, and device arrays stay on theirs"):
                call()


def test_jobs_report_and_blocks_nest(where: dict[str, str | None]) -> None:
    data = np.arange(1000, dtype="u1") + 1
    with apyfal.Accelerator("loopback", **where) as loopback:
        with loopback:
            ways = [loopback.process(data, report=True), loopback.process_submit(data, report=True).result()]
            ways += list(loopback.process_map([data] * 40, report=True))
            ways.append(loopback.prepare(data)(report=True))
        for report in ways:
            assert isinstance(report, apyfal.JobReport)
            np.testing.assert_array_equal(report.result, data)
            assert (report.bytes_in, report.driver) == (1000, "emulator")
            assert report.host in repr(report)
            assert report.seconds["network"] >= 0
