"""The rtl driver: kernels in Verilog, simulated by Verilator, against numpy; and each protocol error by its name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ConfigurationError, KernelError, ParameterError, ProgramError, RunTimeout

pytestmark = pytest.mark.vendor  # it needs Verilator and a C++ compiler

HERE = Path(__file__).parent / "designs"
CONTROL = Path(apyfal.__file__).parent / "accelerators" / "kernels" / "apf_control.sv"


def faulty(**options: object) -> apyfal.Accelerator:
    return apyfal.Accelerator(
        driver="rtl",
        program=f"{HERE / 'faulty.sv'}, {CONTROL}",
        kernel="faulty",
        arguments="src, dst, value:uint64, fault:uint32",
        output="same",
        rtl={
            "registers": "src:0x10:buffer, dst:0x1c:buffer, value:0x28:64, fault:0x34",
            "hang_cycles": 5000,
            **options,
        },
    )


def stream(**options: object) -> apyfal.Accelerator:
    return apyfal.Accelerator(
        driver="rtl",
        program=str(HERE / "faulty_stream.sv"),
        kernel="faulty_stream",
        arguments="src, dst",
        output="same",
        rtl={"protocol": "ap_ctrl_none", "hang_cycles": 5000, **options},
    )


@pytest.fixture(scope="module")
def scale() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("scale", driver="rtl", dtype="int32") as card:
        yield card


def control(card: apyfal.Accelerator, **settings: object) -> None:
    for key, value in settings.items():
        card._context.device.control(key, str(value))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint64"])
def test_the_reference_kernel_computes_as_numpy_does(dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, 3001).astype(dtype)
    with apyfal.Accelerator("scale", driver="rtl", dtype=dtype) as card:
        result = card.process(values, a=3, b=7)
    with apyfal.Accelerator("scale", dtype=dtype) as software:
        assert np.array_equal(result, software.process(values, a=3, b=7))
    assert np.array_equal(result, values * np.array(3, dtype) + np.array(7, dtype))


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 511, 512, 513, 1024, 1025])
def test_every_length_of_the_last_burst(scale: apyfal.Accelerator, count: int) -> None:
    values = np.arange(count, dtype="int32")
    assert np.array_equal(scale.process(values, a=-1, b=5), values * -1 + 5)


def test_what_a_run_says(scale: apyfal.Accelerator) -> None:
    info: dict[str, Any] = {}
    values = np.arange(1000, dtype="int32")
    scale.process(values, info_dict=info)
    said = info["rtl"]
    assert info["cycles"] == said["cycles"] > 1000  # a word a cycle, there and back
    assert said["device_seconds"] == pytest.approx(said["cycles"] / 300e6)
    port = said["ports"]["m_axi_gmem"]
    assert (port["read"], port["written"]) == (4000, 4000)
    assert 0 < port["waits_for_memory"] < said["cycles"]
    assert said["limit"] in (
        "the kernel",
        f"port m_axi_gmem, {port['waits_for_memory'] / said['cycles']:.0%} of the cycles",
    )
    control(scale, latency=400)
    try:
        scale.process(values, info_dict=info)
    finally:
        control(scale, latency=40)
    assert info["rtl"]["limit"].startswith("port m_axi_gmem, 9")


def test_memory_with_a_character(scale: apyfal.Accelerator) -> None:
    cycles = {}
    values = np.arange(4096, dtype="int32")
    try:
        for name, settings in {
            "near": {"latency": 0},
            "far": {"latency": 400},
            "narrow": {"latency": 0, "bandwidth": 1},
            "busy": {"latency": 0, "stall": 80, "bandwidth": 0},
        }.items():
            control(scale, **settings)
            info: dict[str, Any] = {}
            assert np.array_equal(scale.process(values, a=2, info_dict=info), values * 2)
            cycles[name] = info["cycles"]
    finally:
        control(scale, latency=40, stall=0, bandwidth=0)
    bursts = 4096 * 4 // 256
    assert cycles["far"] - cycles["near"] == pytest.approx(2 * 400 * bursts, rel=0.05)
    assert cycles["narrow"] > 1.9 * 4096 * 4  # bytes at one a cycle, in and out
    assert cycles["busy"] > 2 * cycles["near"]


def test_a_right_design_has_no_fault_under_back_pressure(scale: apyfal.Accelerator) -> None:
    values = np.arange(200, dtype="int32")
    try:
        for seed in range(40):
            control(scale, seed=seed, stall=seed * 2, reorder=seed % 2, latency=seed)
            assert np.array_equal(scale.process(values, a=3, b=seed), values * 3 + seed), seed
    finally:
        control(scale, seed=1, stall=0, reorder=0, latency=40)


FAULTS = {
    1: "m00_axi: AWVALID was taken back before AWREADY",
    2: "m00_axi: AWADDR.* changed while AWVALID waited: 0x",
    3: "m00_axi: the burst of 8 beats of 8 bytes at 0x[0-9a-f]+ crosses a 4 KiB boundary",
    4: "m00_axi: no WLAST at the last of 8 beats",
    5: "m00_axi: WLAST at beat 4 of 8",
    6: "m00_axi: WSTRB has lane 4 set, outside of the beat of 4 bytes",
    7: "m00_axi: write to 0xf000000, which no buffer of this run covers; buffers are 0x1",
    8: "m00_axi: read of 0xf000000, which no buffer of this run covers",
    9: "m00_axi: WVALID was taken back before WREADY",
    10: "m00_axi: WDATA, WSTRB or WLAST changed while WVALID waited",
    11: "m00_axi: ARSIZE says 16 bytes a beat, the port has 8",
    12: "m00_axi: ARBURST is 3, which is reserved",
    13: "the kernel said that it is done, but m00_axi: the burst of 8 beats at 0x[0-9a-f]+ has got 5",
    14: r"s_axi_control: response 2 \(SLVERR\) to register 0x",
    15: "s_axi_control: BVALID without a request",
    16: "nothing moved for hang_cycles = 5000",
    17: r"the design ended itself: \$finish at .*faulty.sv:\d+",
    18: "m00_axi: ARVALID was taken back before ARREADY",
    20: "m00_axi: ARADDR, ARLEN.* changed while ARVALID waited",
    21: r"the design ended itself: \$stop at .*faulty.sv:\d+",
}


def test_data_before_its_address() -> None:
    """AXI allows it, up to what the other side accepts; not every memory accepts any."""
    with faulty(optimize=0) as card:
        assert card.process(bytes(64), value=5, fault=22).view("u8").tolist() == [5] * 8
        with pytest.raises(KernelError, match=r"m00_axi: 2 beats of WDATA without an address \(rtl.early_data = 0"):
            card.process(bytes(64), value=5, fault=23)
        control(card, early_data=1)
        with pytest.raises(KernelError, match="m00_axi: WVALID waits for WREADY"):
            card.process(bytes(64), value=5, fault=22)
        control(card, early_data=0)
        with pytest.raises(KernelError, match="m00_axi: WVALID waits for WREADY"):
            card.process(bytes(64), value=5, fault=22)
        assert card.process(bytes(64), value=6, fault=0).view("u8").tolist() == [6] * 8


@pytest.fixture(scope="module")
def faulty_card() -> Iterator[apyfal.Accelerator]:
    with faulty(stall=80, seed=3) as card:
        yield card


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_its_cycle(faulty_card: apyfal.Accelerator, fault: int) -> None:
    def run() -> None:
        for _ in range(50):  # some faults show only if the card's side holds back at that moment
            faulty_card.process(bytes(64), value=7, fault=fault)

    with pytest.raises(KernelError, match=f"{FAULTS[fault]}.*\\(cycle \\d+ of the run\\)"):
        run()
    # A failed run takes nothing with it: the next one begins in a design that was reset.
    assert faulty_card.process(bytes(64), value=9, fault=0).view("u8").tolist() == [9] * 8


STREAM_FAULTS = {
    1: "m_axis_out: TVALID was taken back before TREADY",
    2: "m_axis_out: TDATA, TKEEP or TLAST changed while TVALID waited",
    3: "m_axis_out: TKEEP 0xfd has a hole",
    4: "m_axis_out: more than the 96 bytes of its output",
    5: "m_axis_out: TLAST after 40 of 96 bytes",
    6: "nothing moved for hang_cycles = 5000; .*TVALID waits for TREADY of the kernel",
}


@pytest.fixture(scope="module")
def stream_card() -> Iterator[apyfal.Accelerator]:
    with stream(stall=60, seed=5) as card:
        yield card


@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_each_fault_of_a_stream_is_named(stream_card: apyfal.Accelerator, fault: int) -> None:
    data = bytes([fault]) + bytes(95)

    def run() -> None:
        for _ in range(50):
            stream_card.process(data)

    with pytest.raises(KernelError, match=STREAM_FAULTS[fault]):
        run()
    assert stream_card.process(bytes(24)).tolist() == [1] * 24


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_streams_of_every_length(stream_card: apyfal.Accelerator, count: int) -> None:
    values = np.zeros(count, "uint8")
    values[1:] = np.arange(count - 1, dtype="uint8")
    assert np.array_equal(stream_card.process(values), values + 1)


def test_a_killed_simulator_is_an_error_and_the_next_run_has_another(faulty_card: apyfal.Accelerator) -> None:
    faulty_card.process(bytes(64), value=1, fault=0)
    mine = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and _is_child_simulator(path, faulty_card)
    ]
    assert mine
    for pid in mine:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(KernelError, match="the simulator was ended by signal 9"):
        faulty_card.process(bytes(64), value=1, fault=0)
    assert faulty_card.process(bytes(64), value=2, fault=0).view("u8").tolist() == [2] * 8


def _is_child_simulator(path: Path, card: apyfal.Accelerator) -> bool:
    try:
        parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == os.getpid() and (path / "comm").read_text().strip() == "simulator"
    except (OSError, ValueError, IndexError):
        return False


def test_a_run_that_hangs_ends_at_its_timeout() -> None:
    with faulty(hang_cycles=0) as card:
        began = time.monotonic()
        with pytest.raises(RunTimeout):
            card.process(bytes(64), value=7, fault=16, timeout=0.3)
        assert time.monotonic() - began < 10
        assert card.process(bytes(64), value=3, fault=0).view("u8").tolist() == [3] * 8


def test_max_cycles_end_a_run() -> None:
    with faulty(max_cycles=20) as card, pytest.raises(KernelError, match="more than max_cycles = 20"):
        card.process(bytes(64), value=7, fault=0)


def test_what_the_design_prints_is_logged(faulty_card: apyfal.Accelerator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="apyfal.rtl"):
        faulty_card.process(bytes(64), value=0xABC, fault=0, info_dict={})
    assert "wrote 8 beats of abc" in caplog.text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"program": "/no/such.sv"}, ProgramError, "no such file: /no/such.sv"),
        ({"program": str(HERE)}, ProgramError, "Verilator cannot translate"),
        ({"program": f"{HERE / 'broken.sv'}"}, ProgramError, r"broken\.sv:3"),
        ({"kernel": "absent"}, ProgramError, "absent"),
        ({"arguments": "src, dst, valeu:uint64, fault:uint32"}, ProgramError, "argument 'valeu'; did you mean 'value'"),
        ({"rtl": {"registers": "src=0x10"}}, ConfigurationError, "expected NAME:OFFSET"),
        ({"rtl": {"registers": "src:0x11"}}, ConfigurationError, "multiple of 4"),
        (
            {"rtl": {"registers": "src:0x10:buffer, dst:0x14:buffer, value:0x28:64, fault:0x34"}},
            ConfigurationError,
            "arguments 'src' and 'dst' share the register at 0x14",
        ),
        (
            {"rtl": {"registers": "src:0x10:buffer, dst:0x1c:buffer, value:0xffc:64, fault:0x34"}},
            ConfigurationError,
            "argument 'value' is at 0xffc, and s_axi_control ends at 0x1000",
        ),
        ({"kernel": "fualty"}, ProgramError, "no module 'fualty'; expected apf_control, faulty; did you mean 'faulty'"),
        (
            {"program": str(HERE / "faulty_stream.sv"), "kernel": "faulty_stream"},
            ProgramError,
            r"no control interface \(s_axi_control_\*\) for argument 'src' at 0x10; its streams: s_axis_in, m_axis_out",
        ),
        ({"rtl": {"protocol": "ap_ctrl"}}, ConfigurationError, "expected one of ap_ctrl_hs"),
        ({"rtl": {"stall": "101"}}, ParameterError, "stall = '101' is wrong: expected percent"),
        ({"rtl": {"latency": "-1"}}, ParameterError, "latency = '-1' is wrong: expected a whole number"),
        ({"rtl": {"parameters": "A B"}}, ConfigurationError, "expected NAME=VALUE"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_gets_one_clear_line(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {
        "program": f"{HERE / 'faulty.sv'}, {CONTROL}",
        "kernel": "faulty",
        "arguments": "src, dst, value:uint64, fault:uint32",
        "rtl": {"registers": "src:0x10:buffer, dst:0x1c:buffer, value:0x28:64, fault:0x34"},
    }
    names = ("valeu" if "valeu" in str(change) else "value", "fault")

    def run() -> None:
        with apyfal.Accelerator(driver="rtl", **{**given, **change}) as card:
            card.process(bytes(64), **dict.fromkeys(names, 0))

    with pytest.raises(error, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


def test_from_storage_through_verilog_to_storage(tmp_path: Path, scale: apyfal.Accelerator) -> None:
    values = np.arange(100_000, dtype="int32")
    apyfal.storage.save(str(tmp_path / "in"), values)
    info: dict[str, Any] = {}
    scale.process(str(tmp_path / "in"), str(tmp_path / "out"), a=5, info_dict=info, memory_limit="256KiB")
    assert np.array_equal(apyfal.storage.load(str(tmp_path / "out"), dtype="int32"), values * 5)
    assert info["chunks"] > 1
    assert info["rtl"]["ports"]["m_axi_gmem"]["read"] == values.nbytes
