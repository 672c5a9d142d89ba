"""`apyfal doctor` on machines that lack one thing each: it names that thing and its remedy, and no secret."""

from __future__ import annotations

import ctypes
import datetime
import email.utils
import http.server
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest

from apyfal.doctor import cards, network
from apyfal.doctor.finding import Finding

TREE = Path(__file__).parents[3]
SECRET = "canary0secret0canary0secret0canary0secret0"
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_CLONE_NEWNS, _CLONE_NEWUSER, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x10000000, 0x1000, 0x4000, 0x40000
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_IPC_LOCK = 1, 2, 14  # linux/capability.h


def drop(*capabilities: int) -> None:
    """Take capabilities from root's next program; others have none."""
    for number in capabilities:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def doctor(
    *arguments: str,
    directory: Path,
    before: Callable[[], None] | None = None,
    code: str | None = None,
    **environment: str,
) -> tuple[int, list[Finding], str]:
    """Run the command; return its status, its findings, and all that it printed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "AZURE_", "OS_", "APYFAL_", "XDG_")) and not name.lower().endswith("_proxy")
    }
    command = ["doctor", "--json", *arguments]
    variables = {**kept, "HOME": str(directory), "PYTHONPATH": str(TREE), **environment}
    if before is None and code is None:
        done = forked.run(command, directory, variables)
    else:
        ended = subprocess.run(
            [sys.executable, "-c", code or forked.COMMAND, *command],
            env=variables,
            cwd=directory,
            capture_output=True,
            timeout=100,
            preexec_fn=before,
        )
        done = forked.Done(ended.returncode, ended.stdout, ended.stderr)
    assert done.status in (0, 1), done.error
    document = json.loads(done.output)
    assert document["problems"] == sum(one["state"] == "problem" for one in document["findings"])
    return done.status, [Finding(**one) for one in document["findings"]], (done.output + done.error).decode()


def few_locked_pages() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    drop(_CAP_IPC_LOCK)


class OffByAnHour(http.server.BaseHTTPRequestHandler):
    """A server whose clock is an hour ahead."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return email.utils.formatdate(time.time() + 3600, usegmt=True)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url_off_by_an_hour() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), OffByAnHour)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def problem(findings: list[Finding], *parts: str) -> Finding:
    """Return the one finding that is not in order and says all of `parts`."""
    (found,) = [one for one in findings if one.state != "ok" and all(part in one.what for part in parts)]
    assert found.remedy
    return found


def test_no_locked_memory(tmp_path: Path) -> None:
    status, findings, _ = doctor(directory=tmp_path, before=few_locked_pages)
    found = problem(findings, "cannot be locked", "64.0 KiB")
    assert (status, found.state) == (1, "problem")
    assert "ulimit -l unlimited" in found.remedy


def test_no_opencl(tmp_path: Path) -> None:
    _, findings, _ = doctor(directory=tmp_path, APYFAL_OPENCL_LIBRARY="/nowhere/libOpenCL.so")
    found = problem(findings, "opencl cannot be used", "/nowhere/libOpenCL.so")
    assert "ocl-icd-libopencl1" in found.remedy
    assert any(one.what.startswith("emulator: ") for one in findings)


def test_a_vendors_library_that_ends_the_process(tmp_path: Path) -> None:
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n")
    library = tmp_path / "libcrash.so"
    subprocess.run(["cc", "-shared", "-o", library, source], check=True)
    status, findings, _ = doctor(directory=tmp_path, APYFAL_OPENCL_LIBRARY=str(library))
    problem(findings, "listing the devices ended with status -6")
    assert status == 1
    assert any(one.area == "network" for one in findings)  # the others went on


def test_device_files_without_permission(tmp_path: Path) -> None:
    (tmp_path / "xdma0_user").touch(mode=0o000)
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri/renderD128").touch()
    code = (
        "from pathlib import Path; from apyfal.doctor.cards import check_device_files\n"
        f"for one in check_device_files(Path({str(tmp_path)!r})): print(one.state, one.what, '->', one.remedy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(TREE), "USER": "alice"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: drop(_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH),
    )
    group = (tmp_path / "xdma0_user").group()
    assert done.stdout == (
        f"problem no permission to open {tmp_path}/xdma0_user: it belongs to group {group!r}"
        f" -> sudo usermod -aG {group} alice, and log in again\n"
    )


def test_device_files_with_permission(tmp_path: Path) -> None:
    assert [one.state for one in cards.check_device_files(tmp_path)] == ["note"]
    (tmp_path / "xdma0_user").touch()
    assert [one.what for one in cards.check_device_files(tmp_path)] == ["1 device files can be opened"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}, ("s3", "from env", "expired 2020-01-01")),
        ({"AWS_PROFILE": "gone"}, ("s3", "gone")),
        ({"AWS_PROFILE": "broken"}, ("s3", "custom-process")),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}, ("gs", "/nowhere.json", "No such file")),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "aws"}, ("gs", "no credentials in JSON")),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}, ("az", "/nowhere")),
        ({"OS_AUTH_URL": "https://127.0.0.1", "OS_USERNAME": "me"}, ("swift", "OS_AUTH_URL")),
        ({"APYFAL_TOKEN": f"'{SECRET}'"}, ("host", "$APYFAL_TOKEN is not a token")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_credentials_that_do_not_work(tmp_path: Path, environment: dict[str, str], parts: tuple[str, ...]) -> None:
    (tmp_path / "aws").write_text("[profile broken]\ncredential_process = /bin/false\n")
    keys = {} if "AWS_PROFILE" in environment else {"AWS_ACCESS_KEY_ID": "AKIAcanary", "AWS_SECRET_ACCESS_KEY": SECRET}
    status, findings, printed = doctor(
        directory=tmp_path, AWS_CONFIG_FILE="aws", OS_PASSWORD_FILE=SECRET, **keys, **environment
    )
    assert problem(findings, *parts).state == "problem"
    assert status == 1
    assert SECRET not in printed
    assert "AKIAcanary" not in printed


def test_a_broken_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "accelerator.conf").write_text("[host\nurl = x\n")
    status, findings, _ = doctor(directory=tmp_path)
    found = problem(findings, "accelerator.conf", "is wrong", "line 1")
    assert (status, found.state) == (1, "problem")


def test_a_configuration_file_that_others_can_write(tmp_path: Path) -> None:
    (tmp_path / "accelerator.conf").write_text("[host]\nurl = http://127.0.0.1:1\n")
    (tmp_path / "accelerator.conf").chmod(0o666)
    _, findings, _ = doctor(directory=tmp_path)
    assert "accelerator.conf" in problem(findings, "accelerator.conf", "write").remedy


def test_a_clock_that_is_off(tmp_path: Path, url_off_by_an_hour: str) -> None:
    status, findings, _ = doctor(url_off_by_an_hour, directory=tmp_path)
    found = problem(findings, "the clock is", "behind", url_off_by_an_hour)
    assert (status, found.state) == (1, "problem")
    assert "timedatectl" in found.remedy


def test_no_tls_library(tmp_path: Path) -> None:
    without = (
        "import runpy, sys; sys.modules['_ssl'] = None; sys.argv[0] = 'apyfal';"
        "runpy.run_module('apyfal', run_name='__main__')"
    )
    status, findings, _ = doctor("https://127.0.0.1:1", directory=tmp_path, code=without)
    assert status == 1
    assert "libssl" in problem(findings, "cannot use TLS").remedy


def hide(*libraries: str) -> None:
    """Put empty files over libraries, in a file system that only the next program sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for name in libraries:
        if libc.mount(b"/dev/null", os.fsencode(name), None, _MS_BIND, None):
            raise OSError(ctypes.get_errno(), "mount", name)


def test_a_machine_without_libssl(tmp_path: Path) -> None:
    linked = subprocess.run(
        ["ldd", importlib.import_module("_ssl").__file__], capture_output=True, text=True, check=True
    )
    libraries = {os.path.realpath(name) for name in re.findall(r"=> (/\S*lib(?:ssl|crypto)\S*)", linked.stdout)}
    assert libraries
    status, findings, _ = doctor("https://127.0.0.1:1", directory=tmp_path, before=lambda: hide(*libraries))
    assert status == 1
    assert "libssl" in problem(findings, "cannot use TLS").remedy


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    status, findings, _ = doctor(directory=tmp_path, HOME="/sys")  # not even by root
    assert status == 1
    assert "XDG_CACHE_HOME" in problem(findings, "cannot be written", "built programs").remedy
    assert "XDG_STATE_HOME" in problem(findings, "cannot be written", "trusted").remedy


def test_nothing_of_the_working_directory_is_run(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    found = list(cards.check_drivers())
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert list(cards.check_drivers()) == found
    finally:
        os.chdir(before)


def test_no_passwords_of_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:3128")
    monkeypatch.setenv("https_proxy", f"socks5://me:{SECRET}@127.0.0.1:1080")
    found = list(network.check_proxies())
    assert [one.state for one in found] == ["ok", "problem"]
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "nothing", "http://", "http://127.0.0.1:1", "http://[::", "http://127.0.0.1:99999"]
)
def test_addresses_that_do_not_respond(url: str) -> None:
    (found,) = network.check_address(url)
    assert found.state == "problem"
    assert found.remedy


def test_text_for_a_person(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apyfal", "doctor", "-v"],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(TREE)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "\x1b" not in done.stdout  # no colours where no terminal is
    assert "loopback: " in done.stdout
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" in order")


def test_times_that_are_over() -> None:
    from apyfal.doctor.credentials import _ended

    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    assert _ended("2020-01-01T00:00:00Z") == "2020-01-01T00:00:00+00:00"
    assert _ended("2020-01-01T00:00:00") is not None
    assert _ended(later.isoformat()) is None
    assert _ended("tomorrow") is None
