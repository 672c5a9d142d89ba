"""The ports of a Verilated design, and which of them form an interface.

Verilator's header declares each port of the top module with a macro that states direction, name and width. Interfaces
are named as in AMD UG1393 ("RTL kernels"): ``s_axi_control``, ``m_axi_*`` or ``m00_axi``, ``s_axis_*``, ``m_axis_*``.
Signals have Arm's names (IHI 0022, IHI 0051), in upper or lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from apyfal.exceptions import ProgramError

__all__ = ["Interface", "Kernel", "ModulePort", "find_interfaces", "parse_header"]

_DECLARATION = re.compile(
    r"\bVL_(IN|OUT|INOUT)(8|16|64|W|)\(&?(\w+),\s*([0-9]{1,6}),\s*([0-9]{1,6})(?:,\s*([0-9]{1,6}))?\)"
)

# Signals of each kind of interface that a kernel must have, and those that it may have.
_READ_NEEDS = "arvalid arready araddr arlen rvalid rready rdata"
_WRITE_NEEDS = "awvalid awready awaddr awlen wvalid wready wdata wlast bvalid bready"
_MASTER_MAY = (
    "awid awsize awburst awlock awcache awprot awqos awregion awuser wid wuser wstrb bid bresp buser "
    "arid arsize arburst arlock arcache arprot arqos arregion aruser rid rresp ruser rlast"
)
_LITE_NEEDS = (
    "awvalid awready awaddr wvalid wready wdata wstrb bvalid bready bresp "
    "arvalid arready araddr rvalid rready rdata rresp"
)
_STREAM_NEEDS = "tvalid tready tdata"
_STREAM_MAY = "tlast tkeep tstrb tid tdest tuser"
_CLOCKS = ("ap_clk", "aclk", "clk")
_RESETS = ("ap_rst_n", "aresetn", "rst_n", "ap_rst", "reset", "rst")


@dataclass(frozen=True, slots=True)
class ModulePort:
    """One port of the top module.

    Attributes
    ----------
    name
        As the design has it.
    width
        Bits.
    output
        Driven by the design.
    """

    name: str
    width: int
    output: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """Ports with one prefix that speak one protocol.

    Attributes
    ----------
    name
        The prefix.
    kind
        ``control``, ``memory``, ``source`` (the kernel receives) or ``sink`` (the kernel sends).
    signals
        Arm's name of each signal, in small letters, to its port.
    """

    name: str
    kind: str
    signals: dict[str, ModulePort]

    @property
    def data_bits(self) -> int:
        """Width of the data."""
        for signal in ("rdata", "wdata", "tdata"):
            if signal in self.signals:
                return self.signals[signal].width
        raise AssertionError(self.name)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A design as a kernel: its clocks, resets and interfaces."""

    top: str
    clock: ModulePort
    clock2: ModulePort | None
    resets: tuple[ModulePort, ...]
    control: Interface | None
    memories: tuple[Interface, ...]
    sources: tuple[Interface, ...]
    sinks: tuple[Interface, ...]
    others: tuple[ModulePort, ...] = field(default=())


def parse_header(text: str) -> list[ModulePort]:
    """Return the ports that Verilator's header of the top module declares."""
    ports = []
    for match in _DECLARATION.finditer(text):
        direction, _, name, high, low, _ = match.groups()
        ports.append(ModulePort(name, abs(int(high) - int(low)) + 1, direction != "IN"))
    return ports


def _groups(ports: Iterable[ModulePort]) -> dict[str, dict[str, ModulePort]]:
    """Return prefix to signals of everything that may be an interface."""
    known = {
        *_READ_NEEDS.split(),
        *_WRITE_NEEDS.split(),
        *_MASTER_MAY.split(),
        *_LITE_NEEDS.split(),
        *_STREAM_NEEDS.split(),
    }
    known |= set(_STREAM_MAY.split())
    found: dict[str, dict[str, ModulePort]] = {}
    for port in ports:
        prefix, _, signal = port.name.rpartition("_")
        if prefix and signal.lower() in known:
            found.setdefault(prefix, {})[signal.lower()] = port
    return found


def find_interfaces(top: str, ports: list[ModulePort]) -> Kernel:
    """Tell the interfaces of a kernel from its ports.

    Raises
    ------
    ProgramError
        There is no clock, or an interface lacks a signal; the message names it.
    """
    by_name = {port.name.lower(): port for port in ports}
    clock = next((by_name[name] for name in _CLOCKS if name in by_name), None)
    if clock is None:
        inputs = ", ".join(port.name for port in ports if not port.output and port.width == 1)
        raise ProgramError(f"kernel {top!r} has no clock; expected {' or '.join(_CLOCKS)} among its inputs: {inputs}")
    control: Interface | None = None
    memories: list[Interface] = []
    sources: list[Interface] = []
    sinks: list[Interface] = []
    for prefix, signals in sorted(_groups(ports).items()):
        if "tvalid" in signals:
            _complete(top, prefix, signals, _STREAM_NEEDS)
            sends = signals["tvalid"].output
            (sinks if sends else sources).append(Interface(prefix, "sink" if sends else "source", signals))
        elif "awlen" in signals or "arlen" in signals:
            for first, needs in (("arlen", _READ_NEEDS), ("awlen", _WRITE_NEEDS)):
                if first in signals:
                    _complete(top, prefix, signals, needs)
            memories.append(Interface(prefix, "memory", signals))
        elif "awvalid" in signals and not signals["awvalid"].output:
            _complete(top, prefix, signals, _LITE_NEEDS)
            if control is not None:
                raise ProgramError(
                    f"kernel {top!r} has two control interfaces, {control.name} and {prefix}; expected one"
                )
            control = Interface(prefix, "control", signals)
    used = {port.name for each in (*memories, *sources, *sinks) for port in each.signals.values()}
    used |= {port.name for port in control.signals.values()} if control else set()
    clock2 = by_name.get(f"{clock.name.lower()}_2") or by_name.get("ap_clk_2")
    resets = tuple(by_name[name + suffix] for name in _RESETS for suffix in ("", "_2") if name + suffix in by_name)
    used |= {clock.name, *(port.name for port in resets), *([clock2.name] if clock2 else [])}
    others = tuple(port for port in ports if port.name not in used)
    return Kernel(top, clock, clock2, resets, control, tuple(memories), tuple(sources), tuple(sinks), others)


def _complete(top: str, prefix: str, signals: dict[str, ModulePort], needs: str) -> None:
    missing = [signal for signal in needs.split() if signal not in signals]
    if missing:
        raise ProgramError(
            f"kernel {top!r}: interface {prefix} lacks {', '.join(f'{prefix}_{name.upper()}' for name in missing)}"
        )
