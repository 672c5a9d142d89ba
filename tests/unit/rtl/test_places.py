"""Where the arguments of a design are: registers of structs, against what the design's own files say of their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, ParameterError
from apyfal.rtl.ports import Kernel, ModulePort, find_interfaces
from apyfal.rtl.registers import ArgumentRegister, find_places
from apyfal.rtl.sources import Sources

_LITE = "awvalid awready awaddr wvalid wready wdata wstrb bvalid bready bresp"
_LITE += " arvalid arready araddr rvalid rready rdata rresp"
_OUT = {"awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata", "rresp"}
_WIDTHS = {"awaddr": 12, "araddr": 12, "wdata": 32, "rdata": 32}
_COMMENTS = """
// 0x10 : Data signal of dst
//        bit 31~0 - dst[31:0] (Read/Write)
// 0x14 : Data signal of dst
// 0x1c : Data signal of s
// 0x20 : Data signal of s
// 0x24 : Data signal of s
// 0x2c : Data signal of n
"""
_XML = """<kernel name="k"><args>
<arg name="dst" addressQualifier="1" size="0x8" offset="0x10"/>
<arg name="s" addressQualifier="0" size="0xA" offset="0x1c"/>
<arg name="n" addressQualifier="0" size="0x4" offset="0x2c"/>
</args></kernel>"""


def _kernel() -> Kernel:
    ports = [ModulePort(f"s_axi_control_{name}", _WIDTHS.get(name, 1), name in _OUT) for name in _LITE.split()]
    return find_interfaces("k", [ModulePort("ap_clk", 1, False), *ports])


def _places(
    folder: Path, registers: str = "", nbytes: int | None = 12, *, files: str = "comments"
) -> list[ArgumentRegister]:
    """The places of a buffer, of an argument that is a struct unless `nbytes` is None, and of a number."""
    source, metadata = folder / "k.v", folder / "kernel.xml"
    source.write_text(_COMMENTS if files == "comments" else "")
    metadata.write_text(_XML)
    sources = Sources(files=[source], metadata=[metadata] if files == "metadata" else [])
    structs = {} if nbytes is None else {"s": nbytes}
    return find_places(_kernel(), sources, [("dst", True), ("s", False), ("n", False)], registers, structs)


@pytest.mark.parametrize(
    ("registers", "nbytes", "files"),
    [
        ("", 12, "comments"),
        ("", 10, "comments"),  # the last register is not full
        ("", 9, "metadata"),
        ("s:0x1c:96", 12, "comments"),
        ("dst:0x10:buffer, s:0x1c:96, n:0x2c", 12, "none"),
        ("dst:0x10:buffer, s:0x1c, n:0x2c", 12, "none"),  # it does not say how many
    ],
)
def test_registers_of_structs(tmp_path: Path, registers: str, nbytes: int, files: str) -> None:
    places = _places(tmp_path, registers, nbytes, files=files)
    assert places == [
        ArgumentRegister("buffer", 0x10),
        ArgumentRegister("bytes", 0x1C, nbytes),
        ArgumentRegister("scalar32", 0x2C),
    ]
    assert [str(place) for place in places] == ["buffer 16", f"bytes 28 {nbytes}", "scalar32 44"]


@pytest.mark.parametrize(
    ("registers", "nbytes", "files", "message"),
    [
        ("", 8, "comments", "has registers of 96 bits for argument 's'; .* 8 bytes, which takes 64"),
        ("", 16, "comments", "has registers of 96 bits for argument 's'; .* 16 bytes, which takes 128"),
        ("", 16, "metadata", "has registers of 96 bits for argument 's'"),
        ("s:0x1c:64", 12, "comments", "has registers of 64 bits for argument 's'"),
        ("s:0x1c", 20, "comments", "arguments 's' and 'n' share the register at 0x2c"),
        ("s:0x1c:100", 12, "comments", "'s:0x1c:100' is wrong; expected NAME:OFFSET"),
        ("s:0x1c:0", 12, "comments", "is wrong; expected NAME:OFFSET"),
        ("s:0x1c:65536", 12, "comments", "is wrong; expected NAME:OFFSET"),
        ("s:0xffc:96", 12, "comments", "'s' is at 0xffc, and s_axi_control ends at 0x1000"),
        ("", None, "comments", "registers of 96 bits for argument 's'; expected a struct or vector of 12 bytes"),
    ],
)
def test_structs_that_do_not_fit(tmp_path: Path, registers: str, nbytes: int | None, files: str, message: str) -> None:
    with pytest.raises((ConfigurationError, ParameterError), match=message) as caught:
        _places(tmp_path, registers, nbytes, files=files)
    assert "\n" not in str(caught.value)
