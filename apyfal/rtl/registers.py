"""Where the arguments of a kernel are: registers of its control interface, or streams.

The definition (``rtl.registers``) says it, else AMD's ``kernel.xml`` (UG1393), else the comments that high-level
synthesis writes into the control module (``// 0x10 : Data signal of a``).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from apyfal.definition.types.composite import MAX_VALUE_BYTES
from apyfal.exceptions import ConfigurationError, ParameterError, ProgramError, did_you_mean
from apyfal.rtl.ports import Kernel
from apyfal.rtl.sources import Sources

__all__ = ["ArgumentRegister", "find_places", "protocol_of"]

_COMMENT = re.compile(r"^\s*//\s*0x([0-9a-fA-F]+)\s*:\s*Data signal of (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ArgumentRegister:
    """Where one argument goes.

    Attributes
    ----------
    kind
        ``buffer``, ``scalar32``, ``scalar64``, ``bytes``, ``source`` or ``sink``.
    where
        Offset of the register, or number of the stream among those of its direction.
    nbytes
        For ``bytes``, a struct or vector: its size. It fills registers that follow each other.
    """

    kind: str
    where: int
    nbytes: int = 0

    @property
    def words(self) -> int:
        """Registers of 32 bits that it fills."""
        return {"scalar32": 1, "bytes": -(-self.nbytes // 4)}.get(self.kind, 2)

    def __str__(self) -> str:
        return f"{self.kind} {self.where}{f' {self.nbytes}' if self.nbytes else ''}"


def find_places(
    kernel: Kernel,
    sources: Sources,
    arguments: Sequence[tuple[str, bool]],
    registers: str,
    structs: Mapping[str, int] = MappingProxyType({}),
) -> list[ArgumentRegister]:
    """Return the place of each argument.

    Parameters
    ----------
    kernel
        The design.
    sources
        Where its metadata and comments are.
    arguments
        Name, and whether it is a buffer, in the definition's order.
    registers
        Text of ``rtl.registers``: ``NAME:OFFSET[:TYPE]`` or ``NAME:STREAM``, separated by commas. TYPE is ``buffer``,
        ``32``, ``64`` or, for a struct, any multiple of 32; STREAM is the name of an ``s_axis_*`` or ``m_axis_*``
        interface.
    structs
        Names of the arguments that are structs or vectors, with their sizes in bytes.

    Raises
    ------
    ConfigurationError
        `registers` is not of that form, or names what is not there.
    ParameterError
        The kernel has registers for a struct of another size.
    ProgramError
        An argument's place is not said anywhere.
    """
    said = _configured(kernel, registers)
    known = _of_metadata(kernel, sources.metadata) or _of_comments(sources.files)
    places = []
    for name, is_buffer in arguments:
        place = said.get(name) or _stream(kernel, name) or known.get(name)
        if place is None:
            others = {**known, **said}
            raise ProgramError(
                f"kernel {kernel.top!r}: no register is known for argument {name!r}"
                f"{did_you_mean(name, others)}; "
                f"set rtl.registers = {name}:0x10{':buffer' if is_buffer else ':32'} (at its offset)"
            )
        if name in structs:  # its registers follow each other
            places.append(_of_struct(kernel, name, place, structs[name]))
            continue
        if place.kind == "any":
            place = ArgumentRegister("scalar32", place.where)
        if place.kind == "bytes":
            raise ConfigurationError(
                f"kernel {kernel.top!r} has registers of {32 * place.words} bits for argument {name!r}; expected a "
                f"struct or vector of {4 * place.words} bytes in the definition"
            )
        if is_buffer and place.kind.startswith("scalar"):
            place = ArgumentRegister("buffer", place.where)
        elif not is_buffer and place.kind == "buffer":
            place = ArgumentRegister("scalar64", place.where)
        elif not is_buffer and place.kind in ("source", "sink"):
            raise ConfigurationError(f"argument {name!r} is a number, and cannot be the stream of that name")
        places.append(place)
    _check_registers(kernel, [name for name, _ in arguments], places)
    return places


def _of_struct(kernel: Kernel, name: str, place: ArgumentRegister, nbytes: int) -> ArgumentRegister:
    """Return the place of a struct, if the registers that are known for it hold it."""
    if place.kind in ("source", "sink"):
        raise ConfigurationError(f"argument {name!r} is a struct or vector, and cannot be the stream of that name")
    found = ArgumentRegister("bytes", place.where, nbytes)
    if place.kind != "any" and place.words != found.words:
        raise ParameterError(
            f"kernel {kernel.top!r} has registers of {32 * place.words} bits for argument {name!r}; the definition has "
            f"a struct or vector of {nbytes} bytes, which takes {32 * found.words}"
        )
    return found


def _check_registers(kernel: Kernel, names: Sequence[str], places: Sequence[ArgumentRegister]) -> None:
    """Raise an error if a register cannot be written, or belongs to two arguments."""
    owners: dict[int, str] = {}
    for name, place in zip(names, places, strict=True):
        if place.kind in ("source", "sink"):
            continue
        if kernel.control is None:
            streams = ", ".join(each.name for each in (*kernel.sources, *kernel.sinks)) or "none"
            raise ProgramError(
                f"kernel {kernel.top!r} has no control interface (s_axi_control_*) for argument {name!r} at "
                f"{place.where:#x}; its streams: {streams}"
            )
        offsets = range(place.where, place.where + 4 * place.words, 4)
        end = 1 << kernel.control.signals["awaddr"].width
        if offsets[-1] >= end:
            raise ConfigurationError(
                f"argument {name!r} is at {place.where:#x}, and {kernel.control.name} ends at {end:#x}"
            )
        for offset in offsets:
            if (other := owners.setdefault(offset, name)) != name:
                raise ConfigurationError(f"arguments {other!r} and {name!r} share the register at {offset:#x}")


def _stream(kernel: Kernel, name: str) -> ArgumentRegister | None:
    for kind, interfaces in (("source", kernel.sources), ("sink", kernel.sinks)):
        for number, interface in enumerate(interfaces):
            if interface.name == name:
                return ArgumentRegister(kind, number)
    # A kernel with one stream of a direction needs no name for it.
    if name == "src" and len(kernel.sources) == 1 and not kernel.memories:
        return ArgumentRegister("source", 0)
    if name == "dst" and len(kernel.sinks) == 1 and not kernel.memories:
        return ArgumentRegister("sink", 0)
    return None


def _configured(kernel: Kernel, registers: str) -> dict[str, ArgumentRegister]:
    found: dict[str, ArgumentRegister] = {}
    for text in filter(None, (part.strip() for part in registers.split(","))):
        name, _, rest = text.partition(":")
        where, _, kind = rest.partition(":")
        name, where, kind = name.strip(), where.strip(), kind.strip()
        if (stream := _stream(kernel, where)) is not None and not kind:
            found[name] = stream
            continue
        try:
            offset = int(where, 0)
            found[name] = (
                _of_bits(int(kind), offset) if kind not in ("", "buffer") else ArgumentRegister(kind or "any", offset)
            )
        except ValueError:
            streams = ", ".join(each.name for each in (*kernel.sources, *kernel.sinks)) or "none"
            raise ConfigurationError(
                f"rtl.registers: {text!r} is wrong; expected NAME:OFFSET, NAME:OFFSET:buffer|32|64 (96, 128 ... for a "
                "struct), "
                f"or NAME:STREAM with a stream of the kernel ({streams})"
            ) from None
        if offset % 4 or not 0x10 <= offset < 1 << 32:
            raise ConfigurationError(
                f"rtl.registers: {text!r}: expected an offset that is a multiple of 4, from 0x10 on"
            )
    return found


def _of_bits(bits: int, offset: int) -> ArgumentRegister:
    """Return the place of a scalar; `ValueError` if no register has so many bits."""
    if bits % 32 or not 32 <= bits <= 8 * MAX_VALUE_BYTES:
        raise ValueError(bits)
    return _of_words(bits // 32, offset)


def _of_words(words: int, offset: int) -> ArgumentRegister:
    if words > 2:
        return ArgumentRegister("bytes", offset, 4 * words)
    return ArgumentRegister("scalar64" if words == 2 else "scalar32", offset)


def protocol_of(kernel: str, files: Sequence[Path]) -> str | None:
    """Return the protocol that ``kernel.xml`` states for a kernel (``hwControlProtocol``, UG1393).

    Raises
    ------
    ProgramError
        A file is not XML.
    """
    for path in files:
        for each in _read_metadata(path).iter("kernel"):
            if each.get("name") == kernel and (protocol := each.get("hwControlProtocol")):
                return protocol
    return None


def _read_metadata(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an unknown encoding
        raise ProgramError(f"{path}: {error}") from None


def _of_metadata(kernel: Kernel, files: Sequence[Path]) -> dict[str, ArgumentRegister]:
    """Return the arguments of ``kernel.xml``; addressQualifier 0 is a scalar, 1 memory, 4 a stream (UG1393)."""
    found: dict[str, ArgumentRegister] = {}
    for path in files:
        for argument in _read_metadata(path).iter("arg"):
            name, qualifier = argument.get("name", ""), argument.get("addressQualifier", "0")
            if qualifier == "4":
                stream = _stream(kernel, argument.get("port", "")) or _stream(kernel, argument.get("port", "").lower())
                if stream is not None:
                    found[name] = stream
                continue
            try:
                offset, size = int(argument.get("offset", "x"), 0), int(argument.get("size", "0x4"), 0)
            except ValueError:
                continue
            found[name] = ArgumentRegister("buffer", offset) if qualifier == "1" else _of_words(-(-size // 4), offset)
    return found


def _of_comments(files: Sequence[Path]) -> dict[str, ArgumentRegister]:
    """Return the registers of a module that high-level synthesis wrote: a name comes once for each 32 bits."""
    found: dict[str, ArgumentRegister] = {}
    times: Counter[str] = Counter()
    for path in files:
        text = path.read_text(errors="replace")
        if "Data signal of" not in text:
            continue
        for match in _COMMENT.finditer(text):
            offset, name = int(match[1], 16), match[2]
            times[name] += 1
            found[name] = _of_words(times[name], found[name].where if name in found else offset)
    return found
