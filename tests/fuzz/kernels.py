"""What describes a kernel: definitions, and the sources and metadata of designs in Verilog."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apyfal import units
from apyfal.definition.grammar import Argument, Chunking, OutputSize, Parameter, Port
from apyfal.definition.types.dtypes import parse_element_type
from apyfal.exceptions import AcceleratorException
from apyfal.rtl.ports import find_interfaces, parse_header
from apyfal.rtl.registers import find_places
from apyfal.rtl.sources import Sources, find_sources
from apyfal.rtl.summary import parse_frequency

__all__ = ["definition_parts", "verilog"]

_DEFINITIONS: list[Callable[[str], Any]] = [
    Argument.parse,
    Parameter.parse,
    OutputSize.parse,
    Port.parse_input,
    Port.parse_output,
    Chunking.parse,
    parse_element_type,
    units.parse_size,
    units.parse_duration,
    units.parse_boolean,
    parse_frequency,
]


def definition_parts(data: bytes) -> None:
    """Each part of a definition, and the sizes, durations and frequencies in one."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in _DEFINITIONS:
        with contextlib.suppress(AcceleratorException):
            parse(text)


def verilog(data: bytes) -> None:
    """A header of Verilator's, comments of high-level synthesis, ``kernel.xml``, ``rtl.registers``, a file list."""
    text = data.decode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "top.v").write_bytes(data)
        (folder / "kernel.xml").write_bytes(data)
        (folder / "top.f").write_bytes(data)
        with contextlib.suppress(AcceleratorException):
            find_sources(str(folder / "top.f"))
        with contextlib.suppress(AcceleratorException):
            kernel = find_interfaces("top", parse_header(text + "VL_IN8(&ap_clk,0,0)"))
            arguments = [("src", True), ("dst", True), ("count", False)]
            registers = text.partition("\n")[0]
            for sources in (Sources([folder / "top.v"]), Sources(metadata=[folder / "kernel.xml"])):
                for said in ("", registers):
                    with contextlib.suppress(AcceleratorException):
                        find_places(kernel, sources, arguments, said)
