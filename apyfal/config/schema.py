"""Sections of ``accelerator.conf`` and their keys, each with its values and its meaning.

The reference of the configuration is made from it (``tools/site/configuration_page.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["KINDS", "Key"]


class Key(NamedTuple):
    """One key of a section.

    Attributes
    ----------
    meaning
        What it says, in one line of Markdown.
    values
        What can be given; empty: a text.
    default
        Used if no section has the key; empty: nothing is.
    """

    meaning: str
    values: str = ""
    default: str = ""


_ACCELERATOR = {
    "driver": Key("what runs it", "`emulator`, `opencl`, `xrt`, `xdma`, `rtl`, or a plugin's", "`emulator`"),
    "device": Key("the card", "an index, or a part of a device's name", "the first that fits"),
    "program": Key("OpenCL sources or a binary, xclbin, sources in Verilog or VHDL", "any storage URL"),
    "kernel": Key("the kernel in the program; without `arguments`, an accelerator that apyfal knows", "", "NAME"),
    "stages": Key("accelerators that run as one, each on what the one before it leaves on the card", "names"),
    "arguments": Key("the kernel's arguments, in its order", "`name`, `name: type` or `name: type = expression`"),
    "inputs": Key("those of them that are inputs, if there are several", "`name: type, ...`", "`src`"),
    "outputs": Key(
        "those of them that are outputs, if there are several", "`name: type, ...` or `name: type = size`", "`dst`"
    ),
    "inout": Key("those of them that the kernel changes in place", "`name: type, ...`"),
    "parameters": Key("what callers pass by name", "`name: type = default, ...`; of a known kernel, `name = default`"),
    "state": Key("memory that the card keeps between the chunks of a job", "a size", "none"),
    "dtype": Key("element type of inputs and outputs", "numpy's name of a type", "the source's"),
    "in_dtype": Key("element type of inputs", "numpy's name of a type", "`dtype`"),
    "out_dtype": Key("element type of outputs", "numpy's name of a type", "`dtype`"),
    "output": Key("size of the output", "`same`, bytes, `<factor>x`, an expression in elements, `reported`", "`same`"),
    "chunking": Key("where the input may be cut", "`whole`, `elements`, `records:<bytes>`, `rows`", "`whole`"),
    "clear_outputs": Key("whether outputs begin at zero", "yes or no", "`yes`"),
    "global": Key("work-items of an OpenCL kernel in each dimension", "one to three expressions"),
    "local": Key("work-items of a work-group", "as many expressions", "the kernel's attribute, or the platform's"),
    "global_offset": Key("first index in each dimension", "as many expressions", "0"),
    "halo": Key(
        "rows around a chunk that its run needs, with `chunking = rows`; see [accelerators](accelerators.md#rows)",
        "a number, `input: number`, `input: whole`",
        "0",
    ),
    "round_up": Key("make `global` a multiple of `local`", "yes or no", "`no`"),
    "shape": Key("shape of the output; `shape.NAME` of output NAME", "expressions", "one dimension"),
    "initial": Key("what the elements of an output are before the first run", "a value, or `NAME: value`"),
}
_SECURITY = {
    "authorized_host_dirs": Key("directories of `host://`", "paths, one a line"),
    "private_endpoints": Key(
        "private addresses that clients may make this host connect to", "`host` or `host:port`, one a line"
    ),
    "client_drivers": Key("drivers that clients may choose besides those of the definitions", "names"),
    "client_programs": Key("programs that clients may choose besides those of the definitions", "URLs"),
    "state_directory": Key("tokens, journal, certificate, spooled data", "a path"),
    "audit_log": Key("one JSON line a decision", "a path"),
    "max_body": Key("largest request body", "a size"),
    "spool_above": Key("from this size on, a body waits in a file", "a size"),
    "memory_limit": Key("memory for the data of all jobs; a user may hold three quarters", "a size"),
    "disk_limit": Key("disk space for spooled data; a user may hold three quarters", "a size"),
    "disk_reserve": Key("what stays free on a file system", "a size"),
    "host_quota": Key("files that one user keeps below `host://`", "a size"),
    "journal_limit": Key("disk space for answers and small outputs; a user may hold three quarters", "a size"),
    "max_jobs": Key("jobs that wait", "a number"),
    "max_jobs_of_user": Key("jobs of one user that wait", "a number"),
    "max_sessions": Key("open sessions", "a number"),
    "max_sessions_of_user": Key("open sessions of one user", "a number"),
    "max_connections": Key("open connections", "a number"),
    "request_rate": Key("requests a second of one user; ten times as many at once", "a number"),
    "workers": Key("jobs that run at once", "a number"),
    "session_timeout": Key("an unused session is closed after this time", "a duration"),
    "stall_timeout": Key("a connection that does not move is closed after this time", "a duration"),
    "stop_timeout": Key("time that running jobs have when the daemon stops", "a duration"),
    "keep_jobs": Key("how long ended jobs are remembered", "a duration"),
    "keep_outputs": Key("how long outputs that nobody fetched are kept", "a duration"),
}
_PROCESS = {
    "timeout": Key("for the whole job", "a duration", "none"),
    "memory_limit": Key("pinned memory that a job may use for its rings", "a size", "`256MiB`"),
    "copy": Key("`no`: raise an error instead of copying", "yes or no", "`yes`"),
}
_CONFIGURATION = {"src": Key("what `start` loads: the kernel's argument `coefficients`", "any storage URL", "none")}

#: Sections by the first part of their name, and the keys of each. ``None``: checked by the code that uses the section,
#: because a mount's keys depend on its provider.
KINDS: Mapping[str, Mapping[str, Key] | None] = MappingProxyType(
    {
        "accelerator": MappingProxyType(_ACCELERATOR),
        "host": None,
        "storage": None,
        "security": MappingProxyType(_SECURITY),
        "process": MappingProxyType(_PROCESS),
        "configuration": MappingProxyType(_CONFIGURATION),
    }
)
