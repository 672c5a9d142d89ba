"""What is wrong gets one clear error of the right class: the value, what was expected, the nearest valid choices."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import apyfal
from apyfal import exceptions


@pytest.fixture
def old(tmp_path):
    """A destination that must stay as it was."""
    path = tmp_path / "old"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert [name for name in os.listdir(tmp_path) if name not in ("old", "file", "read-only", "directory")] == []


@pytest.fixture
def file(tmp_path):
    """A source."""
    path = tmp_path / "file"
    path.write_bytes(bytes(100_001))
    return path


def opening(**keywords):
    """Make a case that opens an accelerator."""
    return lambda **_: apyfal.Accelerator(**keywords)


def job(name, src, dst=None, **keywords):
    """Make a case that runs a job; `src` and `dst` may be functions of the fixtures."""

    def run(**fixtures):
        definition = keywords.get("definition", {})
        given = {key: value for key, value in keywords.items() if key != "definition"}
        made = [value(**fixtures) if callable(value) else value for value in (src, dst)]
        with apyfal.Accelerator(name, **definition) as accelerator:
            accelerator.process(*made, **given)

    return run


def old_of(old, **_):
    """Name the destination."""
    return old


def missing_of(file, **_):
    """Name a file that is not there."""
    return f"{file}.missing"


CASES = {
    "unknown accelerator": (
        opening(accelerator="sha33"),
        exceptions.ConfigurationError,
        "unknown accelerator 'sha33'; did you mean 'sha3'?",
    ),
    "unknown driver": (
        opening(accelerator="sha3", driver="emulater"),
        exceptions.ConfigurationError,
        "unknown driver 'emulater'; did you mean 'emulator'?",
    ),
    "unknown device": (opening(accelerator="sha3", device="7"), exceptions.DeviceNotFound, "7"),
    "unknown key": (
        opening(accelerator="sha3", chunkin="whole"),
        exceptions.ConfigurationError,
        "did you mean 'chunking'",
    ),
    "wrong driver option": (
        opening(accelerator="sha3", emulator={"memroy": "1GiB"}),
        exceptions.AcceleratorException,
        "memory",
    ),
    "unknown parameter": (job("sha3", b"a", typ="sha3-256"), exceptions.ParameterError, "did you mean 'type'?"),
    "wrong parameter": (job("sha3", b"a", type="sha3-255"), exceptions.ParameterError, "did you mean 'sha3-256'"),
    "parameter out of range": (job("gzip", b"a", level=10), exceptions.ParameterError, "expected 0 to 9, not 10"),
    "wrong dtype": (
        job("scale", np.zeros(3, "c8")),
        exceptions.ParameterError,
        "cannot take elements of type complex64; expected one of float16, float32",
    ),
    "dtype of another definition": (
        job("scale", np.zeros(3, "f4"), definition={"dtype": "int32"}),
        exceptions.ParameterError,
        "takes int32 elements, not float32",
    ),
    "objects": (job("loopback", np.array([{}])), exceptions.ParameterError, "Python objects"),
    "a float for integers": (job("scale", np.zeros(3, "i4"), a=1.5), exceptions.ParameterError, "1.5"),
    "no source": (job("loopback", None), exceptions.ParameterError, "needs src"),
    "a source for none": (job("trng", b"a", nbytes=3), exceptions.ParameterError, "takes no input"),
    "a number as source": (job("loopback", 17), exceptions.ParameterError, "17"),
    "misaligned with copy=False": (
        job("loopback", lambda **_: np.zeros(5000, "u1")[1:], copy=False),
        exceptions.CopyRefused,
        "src: address not a multiple of 4096, and copy=False was given",
    ),
    "read-only with copy=False": (
        job("loopback", b"abc", copy=False),
        exceptions.CopyRefused,
        "read-only memory (drivers pin memory for writing)",
    ),
    "read-only destination array": (
        job("loopback", b"abc", lambda **_: np.frombuffer(b"abc", "u1")),
        exceptions.ParameterError,
        "dst: the array is read-only",
    ),
    "destination array too small": (
        job("loopback", b"abcd", lambda **_: np.zeros(3, "u1")),
        exceptions.ParameterError,
        "dst: an array of 3 bytes; this job's output has 4",
    ),
    "destination array of another type": (
        job("loopback", b"abcd", lambda **_: np.zeros(4, "i1")),
        exceptions.ParameterError,
        "dst: an array of int8; accelerator 'loopback' writes uint8",
    ),
    "missing file": (job("sha3", missing_of), FileNotFoundError, ".missing"),
    "missing file, with a destination": (job("loopback", missing_of, old_of), exceptions.ObjectNotFound, ".missing"),
    "directory as source": (
        job("loopback", lambda file, **_: file.parent, old_of),
        IsADirectoryError,
        "irectory",
    ),
    "directory as destination": (job("loopback", b"abc", lambda file, **_: file.parent), IsADirectoryError, "irectory"),
    "destination below a file": (
        job("loopback", b"abc", lambda file, **_: file / "below"),
        exceptions.StorageError,
        "below",
    ),
    "unknown scheme": (job("sha3", "s4://bucket/key"), exceptions.InvalidURL, "s4"),
    "not a whole number of elements": (
        job("scale", lambda file, **_: file, old_of, definition={"dtype": "float32"}),
        exceptions.ParameterError,
        "100001 bytes of input are not a whole number of float32 elements (4 bytes each)",
    ),
    "empty file to gunzip": (
        job("gunzip", lambda **_: "/dev/null", old_of),
        exceptions.KernelError,
        "it is empty",
    ),
    "memory limit too small": (
        job("loopback", lambda file, **_: file, old_of, memory_limit=100),
        exceptions.ParameterError,
        "memory_limit of 100 B is too small",
    ),
    "no size": (job("loopback", b"a", memory_limit="lots"), exceptions.ParameterError, "'lots' is not a size"),
    "no duration": (job("loopback", b"a", timeout="soon"), exceptions.ParameterError, "soon"),
    "negative timeout": (job("loopback", b"a", timeout=-1), exceptions.ParameterError, "-1"),
    "used after stop": (
        lambda **_: stopped().process(b"a"),
        exceptions.ClosedError,
        "accelerator 'loopback' was stopped",
    ),
}


def stopped():
    """Return an accelerator that was stopped."""
    accelerator = apyfal.Accelerator("loopback")
    accelerator.stop()
    return accelerator


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(case, old, file):
    run, kind, text = CASES[case]
    with pytest.raises(kind) as caught:
        run(old=old, file=file)
    message = str(caught.value)
    assert text in message
    assert "\n" not in message
    assert isinstance(caught.value, exceptions.AcceleratorException)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("this is not a pair", "line 2"),
        ("drivr = emulator", "did you mean 'driver'"),
        ("[nowhere]", "nowhere"),
        ("driver = emulator\ndriver = xrt", "driver"),
        ("kernel = loopback\noutput = much", "much"),
    ],
)
def test_bad_configuration_names_file_and_line(tmp_path, line, expected):
    path = tmp_path / "accelerator.conf"
    path.write_text(f"[accelerator.mine]\n{line}\n")
    with pytest.raises(exceptions.ConfigurationError) as caught:
        apyfal.Accelerator("mine", config=path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_destination_that_cannot_be_written(open_path, old):
    folder = open_path / "read-only"
    folder.mkdir()
    script = f"""
    import os, apyfal
    accelerator = apyfal.Accelerator("loopback")
    accelerator.process(b"abc", {str(folder.parent / "file")!r})  # everything is imported while it may be read
    if os.getuid() == 0:
        os.setgid(65534); os.setuid(65534)
    try:
        accelerator.process(b"abc", {str(folder / "f")!r})
    except PermissionError as error:
        print(type(error).__name__, error)
    """
    folder.chmod(0o555)
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(open_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, env=env
    )
    assert done.stdout.startswith("AccessDenied"), done.stderr
    folder.rmdir()


def test_a_full_disk_leaves_the_destination(old, file):
    # A limit on the size of files fails a write as a full disk does, for this process alone.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), apyfal.Accelerator("loopback") as accelerator:
            accelerator.process(file, old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_shrinks_while_it_is_read(old, file):
    file.write_bytes(bytes(30 << 20))

    def shrink(done: int, total: int | None) -> None:
        os.truncate(file, 1 << 20)

    with (
        apyfal.Accelerator("loopback", memory_limit="6MiB") as accelerator,
        pytest.raises(exceptions.StorageError, match="ended after"),
    ):
        accelerator.process(file, old, progress=shrink)
