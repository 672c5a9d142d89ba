"""What a simulated run leaves behind: waveforms, coverage, text; and what there is no translation for."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal.exceptions import ConfigurationError, KernelError, ProgramError
from apyfal.testing.rtl import Designs, rtl  # noqa: F401 - a fixture

pytestmark = pytest.mark.vendor  # it needs Verilator and a C++ compiler

HERE = Path(__file__).parent / "designs"
PERIOD = 10_000  # of ap_clk, in the waveforms' unit of time


def run(rtl: Designs, **options: object) -> int:  # noqa: F811
    """Compute a CRC in a fresh simulator; return the cycles of the run."""
    card = rtl(
        str(HERE / "crc32.sv"),
        kernel="crc32",
        arguments="src, dst",
        dtype="uint8",
        output="4",
        rtl={"protocol": "ap_ctrl_none", "optimize": 0, "hang_cycles": 5000, **options},
    )
    info: dict[str, Any] = {}
    data = np.arange(3000).astype("uint8")
    assert card.process(data, info_dict=info).view("<u4")[0] == zlib.crc32(data)
    rtl.close()
    cycles = info["cycles"]
    assert isinstance(cycles, int)
    return cycles


def vcd_times(path: Path) -> tuple[int, int]:
    times = [int(line[1:]) for line in path.read_text().splitlines() if line.startswith("#")]
    return times[0], times[-1]


def fst_times(path: Path) -> tuple[int, int]:
    """Return the first and the last time of a file, from its header."""
    kind, _, first, last = struct.unpack(">BQQQ", path.read_bytes()[:25])
    assert kind == 0
    return first, last


@pytest.mark.parametrize(("suffix", "times"), [("vcd", vcd_times), ("fst", fst_times)])
def test_waveforms_hold_the_whole_run_or_a_range(rtl: Designs, tmp_path: Path, suffix: str, times: Any) -> None:  # noqa: F811
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    cycles = run(rtl, trace=whole)
    first, last = times(whole)
    assert first <= PERIOD  # reset is in it
    assert last >= cycles * PERIOD
    run(rtl, trace=part, trace_from=100, trace_cycles=50)
    first, last = times(part)
    assert 100 * PERIOD <= first <= 101 * PERIOD
    assert 149 * PERIOD <= last <= 151 * PERIOD
    assert part.stat().st_size < whole.stat().st_size
    if suffix == "vcd":
        assert "s_axis_data_TVALID" in whole.read_text()


def test_coverage_is_written_for_verilators_tool(rtl: Designs, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "coverage.dat"
    run(rtl, coverage=path)
    text = path.read_text(errors="replace")
    assert text.startswith("# SystemC::Coverage-3")
    counts = [int(line.rpartition(" ")[2]) for line in text.splitlines() if "crc32.sv" in line]
    assert max(counts) > 300  # a beat for every 8 bytes
    assert min(counts) == 0  # some bit never toggles


@pytest.mark.parametrize("option", ["trace", "coverage"])
def test_a_file_that_cannot_be_written_is_an_error(rtl: Designs, tmp_path: Path, option: str) -> None:  # noqa: F811
    path = tmp_path / "absent" / "file.vcd"
    with pytest.raises(KernelError, match=f"rtl.{option} = {path} cannot be written: No such file"):
        run(rtl, **{option: path})


@pytest.mark.parametrize("name", ["run.wlf", "run", "run.fst.gz"])
def test_waveforms_of_another_kind(rtl: Designs, name: str) -> None:  # noqa: F811
    with pytest.raises(ConfigurationError, match=r"expected a file that ends in \.fst or \.vcd"):
        run(rtl, trace=name)


def test_libraries_for_fst_that_are_not_there(
    rtl: Designs,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\necho "lz4.h: No such file or directory: error" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(ProgramError, match=r"zlib1g-dev, liblz4-dev\); install them, or set rtl.trace to .* \.vcd"):
        run(rtl, trace=tmp_path / "run.fst")


@pytest.mark.parametrize("part", ["trireg w;", "wire a, b; tran (a, b);"])
def test_what_verilator_does_not_have_is_one_line_with_its_place(rtl: Designs, tmp_path: Path, part: str) -> None:  # noqa: F811
    source = tmp_path / "top.sv"
    source.write_text(f"module top (input wire ap_clk);\n{part}\nendmodule\n")
    with pytest.raises(
        ProgramError, match=rf"^Verilator cannot translate kernel 'top': {source}:2:\d+: Unsup"
    ) as caught:
        rtl(str(source), kernel="top", arguments="src, dst").process(b"12345678")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("macro", ["xpm_fifo_sync", "xpm_fifo_async"])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (".READ_DATA_WIDTH(64)", "READ_DATA_WIDTH differs from WRITE_DATA_WIDTH"),
        ('.ECC_MODE("en_ecc")', "ECC_MODE no_ecc alone"),
        (".FIFO_WRITE_DEPTH(24)", "a power of two from 16 on"),
        (".FIFO_READ_LATENCY(2)", "std with FIFO_READ_LATENCY 1"),
    ],
)
def test_a_macro_of_another_kind_than_its_model(
    rtl: Designs,  # noqa: F811
    tmp_path: Path,
    macro: str,
    parameters: str,
    message: str,
) -> None:
    source = tmp_path / "top.sv"
    source.write_text(f"module top (input wire ap_clk);\n{macro} #({parameters}) queue ();\nendmodule\n")
    with pytest.raises(ProgramError, match=rf"{macro}\.sv:\d+:\d+: .*{macro}: .*{message}") as caught:
        rtl(str(source), kernel="top", arguments="src, dst").process(b"12345678")
    assert "\n" not in str(caught.value)


def vhdl(rtl: Designs) -> Any:  # noqa: F811
    return rtl(
        str(HERE / "vhdl" / "invert.vhd"),
        kernel="invert",
        arguments="src, dst",
        dtype="uint32",
        output="same",
        rtl={"protocol": "ap_ctrl_none", "optimize": 0, "hang_cycles": 5000},
    )


def test_vhdl(rtl: Designs) -> None:  # noqa: F811
    card = vhdl(rtl)
    for count in (1, 2, 1000):
        values = np.random.default_rng(count).integers(0, 1 << 32, count).astype("uint32")
        np.testing.assert_array_equal(card.process(values), ~values)
    values = np.arange(100, dtype="uint32")
    for seed in rtl.under_pressure(card, seeds=range(5)):
        np.testing.assert_array_equal(card.process(values), ~values, str(seed))


def test_vhdl_with_an_error_in_it(rtl: Designs, tmp_path: Path) -> None:  # noqa: F811
    source = tmp_path / "invert.vhd"
    source.write_text((HERE / "vhdl" / "invert.vhd").read_text().replace("not held", "not hold"))
    with pytest.raises(ProgramError, match=r"ghdl cannot synthesise 'invert': .*invert\.vhd:24:\d+.*hold"):
        rtl(str(source), kernel="invert", arguments="src, dst").process(b"1234")


def test_vhdl_below_a_verilog_module(rtl: Designs) -> None:  # noqa: F811
    card = rtl(f"{HERE / 'crc32.sv'}, {HERE / 'vhdl' / 'invert.vhd'}", kernel="crc32", arguments="src, dst")
    with pytest.raises(
        ProgramError, match=r"kernel 'crc32' is not a VHDL entity, .* any source is VHDL; expected invert"
    ):
        card.process(b"1234")


def test_vhdl_without_ghdl(rtl: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("c++", "g++", "env", "perl", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/false")
    verilator = shutil.which("verilator")
    if verilator:
        (tmp_path / "verilator").symlink_to(verilator)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = tmp_path / "invert.vhd"
    source.write_text((HERE / "vhdl" / "invert.vhd").read_text() + "-- another one\n")
    with pytest.raises(ProgramError, match=f"{source} is VHDL, which needs ghdl; install it, or give Verilog"):
        rtl(str(source), kernel="invert", arguments="src, dst").process(b"1234")
