"""From a definition with ``driver = rtl`` to what the driver loads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from apyfal.definition.grammar import BUFFERS
from apyfal.exceptions import ConfigurationError, did_you_mean
from apyfal.rtl.build import build
from apyfal.rtl.glue import PROTOCOLS
from apyfal.rtl.ports import Kernel
from apyfal.rtl.registers import ArgumentRegister, find_places, protocol_of
from apyfal.rtl.sources import find_sources

if TYPE_CHECKING:
    from apyfal.definition.definition import Definition

__all__ = ["make_program"]

_PARAMETER = re.compile(r"[A-Za-z_]\w*=[\w'\".+-]+")


def make_program(definition: Definition) -> bytes:
    """Translate, compile and describe the design of a definition.

    Parameters
    ----------
    definition
        Its ``program`` names the sources, its ``kernel`` the top module. Options: ``registers``, ``protocol``,
        ``parameters``, ``optimize``, ``trace`` and ``coverage`` (see docs/how-to/rtl.md).

    Returns
    -------
    bytes
        The description that ``csrc/drivers/rtl`` reads.

    Raises
    ------
    ProgramError, ConfigurationError, DriverUnavailable
    """
    options = definition.options
    optimize = options.get("optimize", "2")
    if optimize not in ("0", "1", "2", "3"):
        raise ConfigurationError(f"rtl.optimize = {optimize!r}: expected 0, 1, 2 or 3")
    trace = options.get("trace", "").rpartition(".")[2].lower()
    if trace not in ("", "fst", "vcd"):
        raise ConfigurationError(f"rtl.trace = {options['trace']!r}: expected a file that ends in .fst or .vcd")
    sources = find_sources(definition.program or "")
    protocol = options.get("protocol") or protocol_of(definition.kernel, sources.metadata) or "ap_ctrl_hs"
    if protocol not in PROTOCOLS:
        raise ConfigurationError(
            f"rtl.protocol = {protocol!r}: expected one of {', '.join(PROTOCOLS)}{did_you_mean(protocol, PROTOCOLS)}"
        )
    parameters = [text.strip() for text in options.get("parameters", "").split(",") if text.strip()]
    for text in parameters:
        if not _PARAMETER.fullmatch(text):
            raise ConfigurationError(f"rtl.parameters: {text!r} is wrong; expected NAME=VALUE")
    buffers = {*BUFFERS, *(port.name for port in (*definition.inputs, *definition.outputs))}
    arguments = [(argument.name, argument.name in buffers) for argument in definition.arguments]
    structs = {name: one.composite.itemsize for name, one in definition.parameters.items() if one.composite is not None}

    def places_in(kernel: Kernel) -> list[ArgumentRegister]:
        return find_places(kernel, sources, arguments, options.get("registers", ""), structs)

    simulator, kernel = build(
        definition.kernel,
        sources,
        protocol=protocol,
        parameters=parameters,
        check=places_in,
        optimize=int(optimize),
        trace=trace,
        coverage=bool(options.get("coverage")),
    )
    arguments_at = (f"argument {place}" for place in places_in(kernel))
    lines = ["apyfal-rtl 1", f"simulator {simulator}", *arguments_at]
    return "\n".join([*lines, ""]).encode()
