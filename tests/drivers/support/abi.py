"""Drive a driver's C table directly: the structures of ``driver.h`` for ctypes, and a build of ``csrc/`` to load.

For what the layers above never do: wrong arguments, sub-ranges, handles in odd orders, sanitizers.
"""

from __future__ import annotations

import ctypes as c
import mmap
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[3]
CSRC = ROOT / "csrc"

TO_DEVICE, FROM_DEVICE = 0, 1
SYNC_TO, SYNC_FROM, READS = 1, 2, 4
KINDS = ("BUFFER", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F32", "F64", "BYTES")
CAPABILITIES = (
    "import",
    "import_readonly",
    "offset",
    "cancel",
    "counters",
    "duplex",
    "separate_memory",
    "shared_memory",
    "structs",
)


class Error(c.Structure):
    _fields_ = [("code", c.c_int32), ("sys", c.c_int32), ("text", c.c_char * 1016)]


class Option(c.Structure):
    _fields_ = [("key", c.c_char_p), ("value", c.c_char_p)]


class Info(c.Structure):
    _fields_ = [
        ("name", c.c_char * 128),
        ("vendor", c.c_char * 64),
        ("identity", c.c_char * 64),
        ("version", c.c_char * 64),
        ("memory", c.c_uint64),
        ("max_buffer", c.c_uint64),
        ("import_align", c.c_uint32),
        ("size_align", c.c_uint32),
        ("offset_align", c.c_uint32),
        ("capabilities", c.c_uint32),
        ("compute_units", c.c_uint32),
        ("reserved", c.c_uint32 * 7),
    ]


class Program(c.Structure):
    _fields_ = [
        ("data", c.c_char_p),
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("kernel", c.c_char_p),
        ("options", c.c_char_p),
        ("arguments", c.c_char_p),
    ]


class _Value(c.Union):
    _fields_ = [
        ("i", c.c_int64),
        ("u", c.c_uint64),
        ("f", c.c_float),
        ("d", c.c_double),
        ("bytes", c.c_uint8 * 8),
        ("data", c.c_void_p),
    ]


class Arg(c.Structure):
    _fields_ = [
        ("kind", c.c_uint32),
        ("flags", c.c_uint32),
        ("bo", c.c_void_p),
        ("offset", c.c_uint64),
        ("size", c.c_uint64),
        ("value", _Value),
    ]


class Counters(c.Structure):
    _fields_ = [(name, c.c_uint64) for name in ("to_device", "from_device", "runs", "memory_used")]


class Times(c.Structure):
    _fields_ = [("start", c.c_uint64), ("end", c.c_uint64)]


_E, _P, _PP = c.POINTER(Error), c.c_void_p, c.POINTER(c.c_void_p)
_FUNCTIONS = (
    ("list", c.c_int, (c.POINTER(Option), c.POINTER(Info), c.c_uint32, c.POINTER(c.c_uint32), _E)),
    ("open", c.c_int, (c.c_char_p, c.POINTER(Option), _PP, _E)),
    ("describe", c.c_int, (_P, c.POINTER(Info), _E)),
    ("close", None, (_P,)),
    ("load", c.c_int, (_P, c.POINTER(Program), _PP, _E)),
    ("unload", None, (_P,)),
    ("bank", c.c_int, (_P, c.c_uint32, c.POINTER(c.c_uint32), _E)),
    ("alloc", c.c_int, (_P, c.c_uint64, c.c_uint32, _PP, _E)),
    ("import_", c.c_int, (_P, _P, c.c_uint64, c.c_uint32, c.c_uint32, _PP, _E)),
    ("free", None, (_P,)),
    ("sync", c.c_int, (_P, c.c_int, c.c_uint64, c.c_uint64, _E)),
    ("start", c.c_int, (_P, c.POINTER(Arg), c.c_uint32, _PP, _E)),
    ("wait", c.c_int, (_P, c.c_int64, _E)),
    ("cancel", c.c_int, (_P, _E)),
    ("release", None, (_P,)),
    ("times", None, (_P, c.POINTER(Times))),
    ("counters", c.c_int, (_P, c.POINTER(Counters), _E)),
    ("control", c.c_int, (_P, c.c_char_p, c.c_char_p, _E)),
)


class Table(c.Structure):
    _fields_ = [
        ("abi", c.c_uint32),
        ("size", c.c_uint32),
        ("name", c.c_char_p),
        ("summary", c.c_char_p),
        *((name, c.CFUNCTYPE(result, *arguments)) for name, result, arguments in _FUNCTIONS),
    ]


class DriverError(Exception):
    """A call of the table failed: `name` of its error code, the driver's `text`, its `sys`."""

    def __init__(self, name: str, error: Error) -> None:
        self.name, self.text, self.sys = name, error.text.decode(), error.sys
        super().__init__(f"{name}: {self.text}")


def build(target: Path, *flags: str, compiler: str | None = None) -> Path:
    """Compile all of ``csrc/`` into the shared library `target`, with every symbol visible."""
    command = shlex.split(compiler or os.environ.get("CC") or "cc")
    command += ["-std=gnu11", "-D_GNU_SOURCE", "-g"]
    command += ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-fPIC", "-shared", *flags]
    command += [f"-I{CSRC}", f"-I{CSRC / 'include'}"]
    command += ["-o", str(target), *map(str, sorted(CSRC.rglob("*.c"))), "-lz", "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=240)
    return target


class Driver:
    """A driver's table, with errors raised as `DriverError`."""

    def __init__(self, library: c.CDLL, name: str) -> None:
        self.library = library
        self.table = Table.in_dll(library, f"apf_driver_{name}")
        library.apf_error_name.restype = c.c_char_p

    def call(self, name: str, *arguments: object) -> None:
        error = Error()
        code = getattr(self.table, name)(*arguments, c.byref(error))
        if code:
            raise DriverError(self.library.apf_error_name(code).decode(), error)

    def list(self, **options: str) -> list[Info]:
        infos, count = (Info * 16)(), c.c_uint32()
        self.call("list", _options(options), infos, 16, c.byref(count))
        return list(infos[: count.value])

    @contextmanager
    def open(self, selector: str | None = None, **options: str) -> Iterator[Device]:
        handle = c.c_void_p()
        self.call("open", selector.encode() if selector is not None else None, _options(options), c.byref(handle))
        device = Device(self, handle)
        try:
            yield device
        finally:
            for end, owned in reversed(device.owned):
                end(owned)  # type: ignore[operator]  # a function of the table
            self.table.close(handle)


def _options(options: dict[str, str]) -> c.Array[Option]:
    pairs = [Option(key.replace("__", ".").encode(), value.encode()) for key, value in options.items()]
    return (Option * (len(pairs) + 1))(*pairs)


class Device:
    """An open device. Everything made on it is ended, last first, when it is closed."""

    def __init__(self, driver: Driver, handle: c.c_void_p) -> None:
        self.driver, self.handle = driver, handle
        self.owned: list[tuple[object, c.c_void_p]] = []

    def _make(self, end: str, name: str, *arguments: object) -> c.c_void_p:
        made = c.c_void_p()
        self.driver.call(name, *arguments, c.byref(made))
        self.owned.append((getattr(self.driver.table, end), made))
        return made

    def end(self, handle: c.c_void_p) -> None:
        """End something before the device is closed."""
        entry = next(entry for entry in self.owned if entry[1] is handle)
        self.owned.remove(entry)
        entry[0](handle)  # type: ignore[operator]  # likewise

    def describe(self) -> Info:
        info = Info()
        self.driver.call("describe", self.handle, c.byref(info))
        return info

    def capabilities(self) -> set[str]:
        bits = self.describe().capabilities
        return {name for i, name in enumerate(CAPABILITIES) if bits >> i & 1}

    def counters(self) -> Counters:
        counters = Counters()
        self.driver.call("counters", self.handle, c.byref(counters))
        return counters

    def load(self, data: bytes | None, kernel: str | None, name: str = "test.bin", arguments: str = "") -> c.c_void_p:
        wanted = kernel.encode() if kernel is not None else None
        program = Program(data, len(data or b""), name.encode(), wanted, None, arguments.encode())
        return self._make("unload", "load", self.handle, c.byref(program))

    def bank(self, kernel: c.c_void_p, index: int) -> int:
        bank = c.c_uint32()
        self.driver.call("bank", kernel, index, c.byref(bank))
        return bank.value

    def alloc(self, size: int, bank: int = 0) -> c.c_void_p:
        return self._make("free", "alloc", self.handle, size, bank)

    def import_(self, address: int, size: int, *, readonly: bool = False, bank: int = 0) -> c.c_void_p:
        return self._make("free", "import_", self.handle, address, size, readonly, bank)

    def sync(self, bo: c.c_void_p, direction: int, offset: int, size: int) -> None:
        self.driver.call("sync", bo, direction, offset, size)

    def start(self, kernel: c.c_void_p, *arguments: Arg) -> c.c_void_p:
        return self._make("release", "start", kernel, (Arg * len(arguments))(*arguments), len(arguments))

    def begin(self, kernel: c.c_void_p, *arguments: Arg) -> c.c_void_p:
        """As `start`, for a run that the caller releases."""
        run = c.c_void_p()
        self.driver.call("start", kernel, (Arg * len(arguments))(*arguments), len(arguments), c.byref(run))
        return run

    def wait(self, run: c.c_void_p, timeout: float = 20.0) -> None:
        self.driver.call("wait", run, int(timeout * 1e9))

    def cancel(self, run: c.c_void_p) -> None:
        self.driver.call("cancel", run)

    def run(self, kernel: c.c_void_p, *arguments: Arg, timeout: float = 20.0) -> None:
        """Start, wait, release."""
        run = self.start(kernel, *arguments)
        try:
            self.wait(run, timeout)
        finally:
            self.end(run)


def pages(nbytes: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Zeros in whole pages of memory that nothing else uses."""
    return np.frombuffer(mmap.mmap(-1, nbytes), dtype)


def buffer(bo: c.c_void_p, size: int, offset: int = 0, flags: int = 0) -> Arg:
    """A buffer argument."""
    return Arg(0, flags, bo, offset, size)


def block(data: bytes | bytearray) -> Arg:
    """A struct or vector. The driver may use `data` until `start` returns."""
    held = (c.c_uint8 * len(data)).from_buffer(data) if isinstance(data, bytearray) else c.create_string_buffer(data)
    arg = Arg(KINDS.index("BYTES"), 0, None, 0, len(data))
    arg.value.data = c.addressof(held)
    arg.held = held  # type: ignore[attr-defined]
    return arg


def scalar(kind: str, value: float) -> Arg:
    """A scalar argument of a kind such as ``"I32"``."""
    arg = Arg(KINDS.index(kind), 0, None, 0, 0)
    setattr(arg.value, "f" if kind == "F32" else "d" if kind == "F64" else "u" if kind[0] == "U" else "i", value)
    return arg
