"""``apyfal kernels``: what a program holds, and sections of a configuration to paste."""

from __future__ import annotations

import re
from dataclasses import asdict

import click

from apyfal.cli.common import Command, CommonOptions, common_options, print_json, print_rows
from apyfal.definition.declared import C_TYPES, c_type
from apyfal.device.interface import KernelArgument, KernelInterface, read_interface
from apyfal.exceptions import ProgramError
from apyfal.opencl.program import make_program
from apyfal.storage.endpoints.factory import open_source
from apyfal.storage.url import redact
from apyfal.units import format_size

__all__ = ["command", "section_of"]

_MAX_PROGRAM = 1 << 30


@click.command(cls=Command, name="kernels")
@click.argument("program")
@click.option("--device", metavar="NAME", help="The OpenCL device that builds it: an index or a part of its name.")
@click.option("--build", metavar="OPTIONS", default="", help="Options of OpenCL's compiler.")
@common_options
@click.pass_obj
def command(settings: CommonOptions, /, *, program: str, device: str | None, build: str) -> None:
    """Show the kernels of PROGRAM, a storage URL of OpenCL source, of a binary or of an xclbin.

    Several sources are given with commas between them. For each kernel a section for accelerator.conf follows. What the
    program does not say is a guess, marked as such.
    """
    content, program = make_program(program, build, _content), redact(program)
    driver, kernels = read_interface(content, program, device=device, options=build)
    if settings.json:
        print_json([{**asdict(one), "driver": driver, "section": section_of(one, driver, program)} for one in kernels])
        return
    for number, kernel in enumerate(kernels):
        if number:
            click.echo()
        click.echo(f"{kernel.name}{_groups(kernel)}")
        rows = [
            [f"  {one.name}", one.type, " ".join([one.space, *one.banks]), _access(one)] for one in kernel.arguments
        ]
        print_rows(rows, header=("  argument", "type", "memory", "access"))
        click.echo(f"\n{section_of(kernel, driver, program)}")


def _content(program: str) -> bytes:
    with open_source(program) as source:
        content = bytearray()
        block = bytearray(1 << 20)
        while count := source.readinto(memoryview(block)):
            content += block[:count]
            if len(content) > _MAX_PROGRAM:
                raise ProgramError(f"{redact(program)!r} has more than {format_size(_MAX_PROGRAM)}; expected a program")
        return bytes(content)


def _groups(kernel: KernelInterface) -> str:
    if kernel.compute_units:
        return f"  (compute units {', '.join(kernel.compute_units)})"
    if kernel.work_group:
        return f"  (requires work-groups of {'x'.join(map(str, kernel.work_group))})"
    return f"  (work-groups of {kernel.largest_group} work-items at most)" if kernel.largest_group else ""


def _access(argument: KernelArgument) -> str:
    return "" if argument.space not in ("global", "constant") else "may write" if argument.written else "reads"


def _element(argument: KernelArgument) -> str:
    """Return the definition's name for the type that a pointer points to, or for a scalar; empty if there is none."""
    name = c_type(argument.type)
    if name in C_TYPES:
        return str(C_TYPES[name].name)
    if name == "void":
        return "uint8"
    match = re.fullmatch(r"([a-z]+)(2|3|4|8|16)", name)
    return f"{C_TYPES[match[1]].name}x{match[2]}" if match is not None and match[1] in C_TYPES else ""


def section_of(kernel: KernelInterface, driver: str, program: str) -> str:
    """Return a section ``[accelerator.NAME]`` for a kernel, whose guesses have a comment."""
    inputs: list[str] = []
    outputs: list[str] = []
    arguments: list[str] = []
    for one in kernel.arguments:
        kind = _element(one)
        if one.space == "local":
            arguments.append(f"{one.name}: uint64 = 4 * 64")
        elif one.space in ("global", "constant") or "*" in one.type:
            (outputs if one.written and (inputs or driver != "xrt") else inputs).append(
                f"{one.name}: {kind or 'uint8'}"
            )
            arguments.append(one.name)
        else:
            arguments.append(f"{one.name}: {kind or 'int32'}")
    guesses = []
    if driver == "xrt" or any(one.space == "local" or not _element(one) for one in kernel.arguments):
        guesses.append("types, or what is input and output")
    lines = [
        f"[accelerator.{kernel.name}]",
        f"driver     = {driver}",
        f"program    = {program}",
        f"kernel     = {kernel.name}",
    ]
    lines += [f"{key:<10} = {', '.join(names)}" for key, names in (("inputs", inputs), ("outputs", outputs)) if names]
    lines.append(f"arguments  = {', '.join(arguments)}")
    if driver == "opencl":
        several = sum(size > 1 for size in kernel.work_group) > 1
        lines.append(
            f"global     = {'width, height' if several else 'count' if inputs else '1'}    ; a guess: its work-items"
        )
    if guesses:
        lines.append(f"; guesses: {'; '.join(guesses)}")
    return "\n".join(lines)
