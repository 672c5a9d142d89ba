"""The C++ header that tells the harness the ports of one kernel."""

from __future__ import annotations

from apyfal.rtl.ports import Interface, Kernel

__all__ = ["PROTOCOLS", "kernel_header"]

#: AMD UG1393, "control protocols", in the harness's numbers
PROTOCOLS = {"ap_ctrl_hs": 0, "ap_ctrl_chain": 1, "ap_ctrl_none": 2}

# Signals that the harness uses, and what a kernel that lacks one means (IHI 0022, A10 "default signal values").
_MEMORY = {
    "awvalid": 0, "awready": 0, "awaddr": 0, "awid": 0, "awlen": 0, "awsize": None, "awburst": 1,
    "wvalid": 0, "wready": 0, "wdata": 0, "wstrb": -1, "wlast": 0, "bvalid": 0, "bready": 1, "bresp": 0, "bid": 0,
    "arvalid": 0, "arready": 0, "araddr": 0, "arid": 0, "arlen": 0, "arsize": None, "arburst": 1,
    "rvalid": 0, "rready": 0, "rdata": 0, "rid": 0, "rresp": 0, "rlast": 0,
}  # fmt: skip
_CONTROL = {
    "awvalid": 0, "awready": 0, "awaddr": 0, "wvalid": 0, "wready": 0, "wdata": 0, "wstrb": 0,
    "bvalid": 0, "bready": 0, "bresp": 0, "arvalid": 0, "arready": 0, "araddr": 0,
    "rvalid": 0, "rready": 0, "rdata": 0, "rresp": 0,
}  # fmt: skip
_STREAM = {"tvalid": 0, "tready": 0, "tdata": 0, "tkeep": -1, "tstrb": 0, "tlast": 0}


def _struct(name: str, interface: Interface | None, signals: dict[str, int | None], extra: str) -> str:
    """Return a struct whose functions are the signals of an interface; missing ones are fields of its own."""
    shown = interface.name if interface is not None else ""
    beats = (interface.data_bits // 8 if interface is not None else 4).bit_length() - 1
    lines = [f"struct {name} {{", f'    static constexpr const char *name = "{shown}";', extra, "    Top *top;"]
    for signal, default in signals.items():
        port = interface.signals.get(signal) if interface is not None else None
        if port is not None:
            lines.append(f"    auto &{signal}() const {{ return top->{port.name}; }}")
        else:
            value = beats if default is None else default
            lines.append(f"    mutable uint64_t {signal}_ = uint64_t({value});")
            lines.append(f"    uint64_t &{signal}() const {{ return {signal}_; }}")
    return "\n".join([*lines, "};", ""])


def _group(function: str, alias: str, harness: str, structs: list[str]) -> str:
    types = ", ".join(f"apf::{harness}<{name}>" for name in structs)
    values = ", ".join(f"apf::{harness}<{name}>({name}{{top}}, run, memory)" for name in structs)
    return (
        f"using {alias} = std::tuple<{types}>;\n"
        f"inline {alias} {function}(Top *top, apf::Run &run, apf::Memory &memory)\n"
        f"{{\n    (void)top, (void)run, (void)memory;\n    return {alias}({values});\n}}\n"
    )


def kernel_header(kernel: Kernel, model: str, protocol: str) -> str:
    """Return the text of ``kernel.h`` for one design.

    Parameters
    ----------
    kernel
        Its ports.
    model
        Name of Verilator's class for the top module.
    protocol
        One of `PROTOCOLS`.
    """
    parts = [
        "// Made by apyfal.rtl.glue for one kernel.",
        "#pragma once",
        f'#include "{model}.h"',
        "#include <tuple>",
        f"using Top = {model};",
        f"constexpr int control_protocol = {PROTOCOLS[protocol]};",
        f"constexpr bool has_control = {'true' if kernel.control else 'false'};",
        f"constexpr bool has_clock2 = {'true' if kernel.clock2 else 'false'};",
        f"inline void set_clock(Top &top, bool high) {{ top.{kernel.clock.name} = high; }}",
        "inline void set_clock2(Top &top, bool high) { "
        + (f"top.{kernel.clock2.name} = high;" if kernel.clock2 else "(void)top, (void)high;")
        + " }",
        "inline void set_reset(Top &top, bool on)\n{\n    (void)top, (void)on;",
        *(
            f"    top.{port.name} = {'!on' if port.name.lower().removesuffix('_2').endswith('n') else 'on'};"
            for port in kernel.resets
        ),
        "}",
        _struct("Control", kernel.control, dict(_CONTROL), ""),
    ]
    groups = (
        ("make_masters", "Masters", "AxiMemory", "M", kernel.memories),
        ("make_sources", "Sources", "StreamInput", "S", kernel.sources),
        ("make_sinks", "Sinks", "StreamOutput", "K", kernel.sinks),
    )
    for function, alias, harness, letter, interfaces in groups:
        names = []
        for number, interface in enumerate(interfaces):
            names.append(f"{letter}{number}")
            stream = harness != "AxiMemory"
            extra = f"    static constexpr unsigned bytes = {interface.data_bits // 8};"
            if stream:
                for signal in ("last", "keep"):
                    held = "true" if f"t{signal}" in interface.signals else "false"
                    extra += f"\n    static constexpr bool has_{signal} = {held};"
            parts.append(_struct(names[-1], interface, dict(_STREAM if stream else _MEMORY), extra))
        parts.append(_group(function, alias, harness, names))
    return "\n".join(parts)
