"""The interface of a program: kernels, arguments and work-groups, from its driver or from an xclbin's metadata."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from apyfal._core.device import Device
from apyfal.device.sharing.program_cache import with_cache
from apyfal.exceptions import ProgramError, did_you_mean

__all__ = [
    "KernelArgument",
    "KernelInterface",
    "check_compute_units",
    "interface_of_text",
    "interface_of_xclbin",
    "read_interface",
]

#: Offsets in an xclbin (struct axlf of <xrt/xclbin.h>), the size of a section's head, and the kind with the metadata.
_LENGTH_AT, _SECTIONS_COUNT_AT, _SECTIONS_AT, _SECTION_SIZE, _METADATA = 304, 448, 456, 40, 2
#: Sections with the memory banks, which argument of which compute unit is connected to which, and the units.
_BANKS, _CONNECTIONS, _UNITS = 6, 7, 8
_SPACES = {0: "private", 1: "global", 2: "constant", 3: "local", 4: "stream"}
#: Largest metadata that is read, in bytes; that of real programs has less than 1 MiB.
_MAX_METADATA = 64 << 20


@dataclass(frozen=True)
class KernelArgument:
    """One argument of a kernel: its name, type and address space (empty: not known), whether it may be written, and the
    memory banks that it is connected to, in an xclbin.
    """

    name: str
    type: str
    space: str
    written: bool
    banks: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelInterface:
    """One kernel.

    Attributes
    ----------
    name, arguments
        Those of the program.
    work_group
        Work-items that the source requires in each dimension; empty: any.
    largest_group
        Largest number of work-items in a work-group on this device; 0: not known.
    compute_units
        Names, for an xclbin.
    """

    name: str
    arguments: tuple[KernelArgument, ...]
    work_group: tuple[int, ...] = ()
    largest_group: int = 0
    compute_units: tuple[str, ...] = ()


def read_interface(
    program: bytes, name: str, *, device: str | None = None, options: str = ""
) -> tuple[str, list[KernelInterface]]:
    """Return the driver of a program, and its kernels.

    Parameters
    ----------
    program, name
        Its bytes, and where they are from, for messages.
    device
        The OpenCL device that builds it; ``None``: the first.
    options
        Of OpenCL's compiler.

    Raises
    ------
    ProgramError
        It does not build, or is damaged.
    DriverUnavailable, DeviceNotFound
        There is no OpenCL here.
    """
    if program[:7] == b"xclbin2":
        return "xrt", interface_of_xclbin(program, name)
    opened = Device("opencl", device, with_cache("opencl", {}))
    return "opencl", interface_of_text(opened.interface(program, name, options))


def interface_of_text(text: str) -> list[KernelInterface]:
    """Return the kernels in a driver's description of a program, see ``interface`` in driver.h."""
    return [_of_document(one) for one in json.loads(text)]


def _of_document(document: dict[str, Any]) -> KernelInterface:
    arguments = tuple(
        KernelArgument(one["name"], one["type"], one.get("space", ""), one["written"]) for one in document["arguments"]
    )
    group = tuple(document["work_group"]) if document["work_group"][0] else ()
    return KernelInterface(document["name"], arguments, group, document["largest_group"])


def interface_of_xclbin(program: bytes, name: str) -> list[KernelInterface]:
    """Return the kernels in the metadata of an xclbin; `ProgramError` if it is damaged."""
    xml = _metadata(program, name)
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise ProgramError(f"{name!r} is damaged: its metadata declares entities")
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ProgramError(f"{name!r} is damaged: its metadata is not XML: {error}") from None
    kernels = []
    connected = _connections(program)
    for kernel in root.iter("kernel"):
        of_kernel = connected.get(kernel.get("name", ""), {})
        arguments = [
            KernelArgument(
                one.get("name", ""),
                one.get("type", ""),
                _SPACES.get(_number(one.get("addressQualifier", "")), ""),
                True,
                tuple(of_kernel.get(_number(one.get("id", "")), ())),
            )
            for one in sorted(kernel.findall("arg"), key=lambda one: _number(one.get("id", "")))
        ]
        units = tuple(one.get("name", "") for one in kernel.findall("instance"))
        kernels.append(KernelInterface(kernel.get("name", ""), tuple(arguments), compute_units=units))
    return kernels


def check_compute_units(program: bytes, name: str, kernel: str) -> None:
    """Check the compute units that ``kernel = name:{unit,unit}`` chooses in an xclbin.

    A missing kernel and a damaged program are reported by the driver instead.

    Parameters
    ----------
    program, name
        Its bytes, and where they are from, for messages.
    kernel
        As the definition gives it.

    Raises
    ------
    ProgramError
        There is no such unit, or it is named twice, or the text has another form.
    """
    base, colon, chosen = kernel.partition(":")
    if not colon:
        return
    if len(chosen) < 2 or chosen[0] != "{" or chosen[-1] != "}":
        raise ProgramError(f"kernel = {kernel}: expected {base} or {base}:{{UNIT,UNIT}}, with names of compute units")
    try:
        units = next((one.compute_units for one in interface_of_xclbin(program, name) if one.name == base), ())
    except ProgramError:
        return
    if not units:
        return
    names = chosen[1:-1].split(",")
    for index, unit in enumerate(names):
        if unit not in units:
            raise ProgramError(
                f"kernel {base!r} of {name!r} has no compute unit {unit!r}{did_you_mean(unit.strip(), units)}"
            )
        if unit in names[:index]:
            raise ProgramError(f"kernel = {kernel}: compute unit {unit!r} is named twice")


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return -1


def _connections(program: bytes) -> dict[str, dict[int, list[str]]]:
    """Return the banks of each argument, by kernel and position; empty if the sections are missing or damaged."""
    found: dict[str, dict[int, list[str]]] = {}
    try:
        banks = [
            tag.partition(b"\0")[0].decode("ascii", "replace")
            for (tag,) in struct.iter_unpack("<24x16s", _section(program, _BANKS)[8:])
        ]
        units = [
            name.partition(b":")[0].decode("ascii", "replace")
            for (name,) in struct.iter_unpack("<16x64s", _section(program, _UNITS)[8:])
        ]
        for argument, unit, bank in struct.iter_unpack("<iii", _section(program, _CONNECTIONS)[4:]):
            if 0 <= unit < len(units) and 0 <= bank < len(banks):
                names = found.setdefault(units[unit], {}).setdefault(argument, [])
                if banks[bank] not in names:
                    names.append(banks[bank])
    except (struct.error, ValueError):
        return {}
    return found


def _section(program: bytes, wanted: int) -> bytes:
    """Return a section of an xclbin whose header `_metadata` has checked; empty if it is missing or lies outside."""
    (count,) = struct.unpack_from("<I", program, _SECTIONS_COUNT_AT)
    for section in range(min(count, (len(program) - _SECTIONS_AT) // _SECTION_SIZE)):
        at = _SECTIONS_AT + section * _SECTION_SIZE
        (kind,) = struct.unpack_from("<I", program, at)
        offset, length = struct.unpack_from("<QQ", program, at + 24)
        if kind == wanted and offset + length <= len(program) and length <= _MAX_METADATA:
            return program[offset : offset + length]
    return b""


def _metadata(program: bytes, name: str) -> bytes:
    try:
        (stated,) = struct.unpack_from("<Q", program, _LENGTH_AT)
        if stated != len(program):
            raise ProgramError(f"{name!r} is damaged: it has {len(program)} bytes, its header says {stated}")
        (count,) = struct.unpack_from("<I", program, _SECTIONS_COUNT_AT)
        for section in range(min(count, (len(program) - _SECTIONS_AT) // _SECTION_SIZE)):
            at = _SECTIONS_AT + section * _SECTION_SIZE
            (kind,) = struct.unpack_from("<I", program, at)
            offset, length = struct.unpack_from("<QQ", program, at + 24)
            if kind == _METADATA:
                if offset + length > len(program) or length > _MAX_METADATA:
                    raise ProgramError(f"{name!r} is damaged: its metadata lies outside of it")
                return program[offset : offset + length].rstrip(b"\0")
    except struct.error:
        raise ProgramError(f"{name!r} is damaged: an xclbin of {len(program)} bytes") from None
    raise ProgramError(f"{name!r} has no metadata that names its kernels")
