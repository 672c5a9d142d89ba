"""The interfaces that kernels have, each in a small design, with its data against numpy."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import KernelError
from apyfal.testing.rtl import Designs, rtl  # noqa: F401 - a fixture

pytestmark = pytest.mark.vendor  # it needs Verilator and a C++ compiler

HERE = Path(__file__).parent / "designs"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "rtl"
CONTROL = Path(apyfal.__file__).parent / "accelerators" / "kernels" / "apf_control.sv"


def negate(rtl: Designs, width: int, **options: object) -> apyfal.Accelerator:  # noqa: F811
    """Two clocks, two memory ports, a file list, metadata, `ap_ctrl_chain`, a vendor's FIFO: all in one design."""
    return rtl(
        str(HERE / "negate" / "negate.f"),
        kernel="negate",
        arguments="words, from, to",
        inputs=f"from: uint{min(width, 64)}",
        outputs=f"to: uint{min(width, 64)}",
        chunking="elements",
        parameters="words: uint32",
        rtl={"parameters": f"WIDTH={width}", "optimize": 1, "hang_cycles": 20000, **options},
    )


@pytest.mark.parametrize("width", [128, 256, 512])
def test_wide_memory_ports(rtl: Designs, width: int) -> None:  # noqa: F811
    card = negate(rtl, width)
    for seed in rtl.under_pressure(card, seeds=range(4)):
        words = 1 + 50 * seed
        values = np.random.default_rng(seed).integers(0, 1 << 63, words * width // 64, dtype="uint64")
        np.testing.assert_array_equal(card.process(values, words=words), ~values, str(seed))


@pytest.mark.parametrize("width", [32, 64])
def test_two_clocks_two_memories_metadata_and_a_file_list(rtl: Designs, width: int) -> None:  # noqa: F811
    card = negate(rtl, width)
    for percent in (100, 37, 250):
        card._context.device.control("clock2_percent", str(percent))
        for count in (1, 2, 63, 64, 65, 1000):
            values = np.random.default_rng(count).integers(0, 1 << 31, count).astype(f"uint{width}")
            info: dict[str, Any] = {}
            result = card.process(values, words=count, info_dict=info)
            np.testing.assert_array_equal(result, ~values, str((percent, count)))
            ports = info["rtl"]["ports"]
            assert (ports["m00_axi"]["read"], ports["m01_axi"]["written"]) == (values.nbytes, values.nbytes)
    values = np.arange(300).astype(f"uint{width}")
    for seed in rtl.under_pressure(card, seeds=range(6)):
        np.testing.assert_array_equal(card.process(values, words=300), ~values, str(seed))


def test_a_slower_second_clock_takes_longer(rtl: Designs) -> None:  # noqa: F811
    card = negate(rtl, 32)
    cycles = []
    card._context.device.control("latency", "0")
    for percent in (100, 4):
        card._context.device.control("clock2_percent", str(percent))
        info: dict[str, Any] = {}
        card.process(np.zeros(2000, "uint32"), words=2000, info_dict=info)
        cycles.append(info["cycles"])
    assert cycles[1] > 2.5 * cycles[0]


def test_the_protocol_of_the_metadata_is_the_one_that_counts(rtl: Designs) -> None:  # noqa: F811
    """A kernel of `ap_ctrl_chain` under `ap_ctrl_hs` would seem to be done at once in its second run: an error."""
    card = negate(rtl, 32, protocol="ap_ctrl_hs")
    with pytest.raises(KernelError, match=r"ap_done is still set after it was read.*ap_ctrl_chain"):
        card.process(np.zeros(10, "uint32"), words=10)


def test_streams_without_tlast_and_tkeep(rtl: Designs) -> None:  # noqa: F811
    card = rtl(
        str(HERE / "sums.sv"),
        kernel="sums",
        arguments="x, y, total",
        inputs="x: int32, y: int32",
        outputs="total: int32",
        chunking="elements",
        rtl={"protocol": "ap_ctrl_none", "registers": "x:a, y:b, total:c", "optimize": 1, "hang_cycles": 5000},
    )
    for count in (1, 15, 16, 17, 1000):
        x = np.random.default_rng(count).integers(-(1 << 31), 1 << 31, count).astype("int32")
        np.testing.assert_array_equal(card.process({"x": x, "y": x[::-1].copy()}), x + x[::-1])
    x = np.arange(100, dtype="int32")
    for seed in rtl.under_pressure(card, seeds=range(10)):
        np.testing.assert_array_equal(card.process({"x": x, "y": x}), 2 * x, str(seed))


@pytest.mark.parametrize("kind", ["ASYNC=0, STD=0", "ASYNC=0, STD=1", "ASYNC=1, STD=0", "ASYNC=1, STD=1"])
def test_the_flags_counts_and_read_modes_of_a_vendors_fifo(rtl: Designs, kind: str) -> None:  # noqa: F811
    """As AMD's UG974 defines them, for a depth of 16, `prog_full` at 10 and `prog_empty` at 4."""
    card = rtl(
        str(HERE / "queue.sv"),
        kernel="queue",
        arguments="src, dst",
        dtype="uint32",
        output="2 * count + 2",
        chunking="whole",
        rtl={"protocol": "ap_ctrl_none", "optimize": 0, "hang_cycles": 5000, "parameters": kind},
    )
    for count in range(1, 17):
        words = np.random.default_rng(count).integers(0, 1 << 32, count, dtype="uint32")
        expected = [count | ((count >= 10) << 18 | (count >= 15) << 17 | (count == 16) << 16)]
        for left, word in zip(range(count, -1, -1), [*words.tolist(), None], strict=True):
            expected.append(left | (left <= 4) << 18 | (left <= 1) << 17 | (left == 0) << 16)
            expected += [] if word is None else [word]
        assert card.process(words).tolist() == expected, count


def joined(rtl: Designs, **options: object) -> apyfal.Accelerator:  # noqa: F811
    """Memory ports m_axi_x and m_axi_y, 512 bits each, an ID for each request, five of them in flight."""
    return rtl(
        f"{FIXTURES / 'joined.sv'}, {CONTROL}",
        kernel="joined",
        arguments="x@0x10, y@0x1c, total@0x28, low@0x34, count@0x40: uint64",
        inputs="x: int32, y: uint8",
        outputs="total: int32, low: uint8",
        chunking="elements",
        rtl={"optimize": 1, "hang_cycles": 5000, **options},
    )


def test_ports_of_one_bank_share_its_bandwidth(rtl: Designs) -> None:  # noqa: F811
    """`negate` reads through one port while it writes through the other."""
    values = np.arange(1000, dtype="uint32")
    cycles = {}
    for banks in ("", "m00_axi:0, m01_axi:1", "m00_axi:3,m01_axi:3"):
        card = negate(rtl, 32, bandwidth=1, latency=0, **({"banks": banks} if banks else {}))
        info: dict[str, Any] = {}
        np.testing.assert_array_equal(card.process(values, words=1000, info_dict=info), ~values)
        cycles[banks] = info["rtl"]["cycles"]
    none, apart, shared = cycles.values()
    assert none == apart  # each port has one direction
    assert apart >= 4000  # 4 bytes a word each way, one a cycle
    assert shared >= max(8000, int(1.5 * apart)), cycles


@pytest.mark.parametrize(
    ("banks", "message"),
    [
        ("m_axi_z:0", "rtl.banks: no memory port is called m_axi_z; expected one of m"),
        *(
            (text, "rtl.banks=.* is wrong: expected PORT:NUMBER")
            for text in ("x", "x:", ":1", "x:a", "x:0 y:1", "x:1,")
        ),
    ],
)
def test_wrong_banks_are_one_clear_line(rtl: Designs, banks: str, message: str) -> None:  # noqa: F811
    with pytest.raises(KernelError, match=message) as caught:
        joined(rtl, banks=banks).process({"x": np.zeros(8, "int32"), "y": np.zeros(8, "uint8")})
    assert "\n" not in str(caught.value)


def crc32(rtl: Designs) -> apyfal.Accelerator:  # noqa: F811
    return rtl(
        str(HERE / "crc32.sv"),
        kernel="crc32",
        arguments="src, dst",
        dtype="uint8",
        output="4",
        rtl={"protocol": "ap_ctrl_none", "optimize": 1, "hang_cycles": 5000},
    )


def test_the_crc_of_a_stream(rtl: Designs) -> None:  # noqa: F811
    card = crc32(rtl)
    for count in (1, 3, 7, 8, 9, 15, 16, 1000, 100_003):
        data = np.random.default_rng(count).integers(0, 256, count).astype("uint8")
        assert card.process(data).view("<u4")[0] == zlib.crc32(data), count
    data = np.arange(77, dtype="uint8")
    for seed in rtl.under_pressure(card, seeds=range(10)):
        assert card.process(data).view("<u4")[0] == zlib.crc32(data), seed


def test_two_wide_memories_whose_answers_overtake_each_other(rtl: Designs) -> None:  # noqa: F811
    card = joined(rtl)
    for seed in rtl.under_pressure(card, seeds=range(20)):
        count = 1 + 37 * seed
        x = np.random.default_rng(seed).integers(-(1 << 31), 1 << 31, count).astype("int32")
        y = np.random.default_rng(seed).integers(0, 256, count).astype("uint8")
        results = card.process({"x": x, "y": y})
        total = (x.view("uint32") + y).view("int32")
        np.testing.assert_array_equal(results["total"], total, str(seed))
        np.testing.assert_array_equal(results["low"], total.astype("uint8"), str(seed))
