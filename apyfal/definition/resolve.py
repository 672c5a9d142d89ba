"""Resolve a name, a configuration and keyword arguments to a definition."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from apyfal.config.configuration import KINDS, ConfigSource, Configuration, Section, Value
from apyfal.config.ini import shown_path
from apyfal.definition import registry
from apyfal.definition.chain import ChainDefinition
from apyfal.definition.definition import Definition
from apyfal.definition.expressions import Expression, parse_expressions
from apyfal.definition.grammar import FILLED_IN, Argument, Chunking, OutputSize, Parameter, Port, parse_halo
from apyfal.definition.sizes import IndexSpace, known_names
from apyfal.definition.types.composite import Types, element_name, element_type, parse_struct, parse_vector, struct_text
from apyfal.definition.types.dtypes import DTYPE_CODES, PARAMETER_TYPES, number_of
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean
from apyfal.units import parse_size

__all__ = ["available", "resolve"]

_T = TypeVar("_T")

#: Keys that declare structs begin with this.
_STRUCT = "struct."

_DRIVERS = ("emulator", "opencl", "rtl", "xdma", "xrt")
_NEED_PROGRAM = ("opencl", "rtl", "xrt")
#: Drivers with a kernel of apyfal's own for reference accelerators.
_OWN_KERNELS = ("emulator", "opencl", "rtl")
#: What every reference kernel in Verilog needs beside its own file.
_RTL_PARTS = ("apf_control.sv",)
#: The largest element, in bytes, that they compute with; all are integers.
_RTL_ITEMSIZES = {"scale": 8, "histogram": 4}


def resolve(name: str | None = None, config: ConfigSource = None, **keys: object) -> Definition:
    """Return the definition of the accelerator `name`.

    Parameters
    ----------
    name
        A section ``[accelerator.NAME]`` of the configuration, or a registered accelerator. ``None``: the one that
        `keys` or ``[accelerator]`` name as ``kernel``.
    config
        See `apyfal.config.configuration.Configuration.load`.
    **keys
        Keys of the section, which override it; ``emulator={"memory": "4GiB"}`` is the key ``emulator.memory``.

    Raises
    ------
    ConfigurationError
        There is no such accelerator, or its definition is wrong.
    """
    configuration = Configuration.load(config)
    section = _section(name, configuration, _texts(keys))
    if "stages" in section and section["stages"].section != "accelerator":
        return _chain(name or "chain", section, configuration)
    kernel = section.text("kernel", None)
    found = name or kernel
    if found is None:
        raise ConfigurationError(f"no accelerator is named{did_you_mean('', _all_names(configuration))}")
    return _define(found, _base(found, kernel, section, configuration), section)


def _chain(name: str, section: Section, configuration: Configuration) -> Definition:
    """Return the chain of a section with ``stages``; what else it says is for all of its stages."""
    keys: dict[str, object] = {}
    for key, value in section.items():
        if value.section == "accelerator" or key == "stages":
            continue
        if key not in ("driver", "device") and ("." not in key or key.partition(".")[0] in ("shape", "struct")):
            raise value.error(f"{key}: a chain has the definitions of its stages; expected it in one of them")
        keys[key] = value.text
    stages = []
    for part in section.parts("stages"):
        if (of_stage := f"accelerator.{part.text}") in configuration and "stages" in configuration.section(of_stage):
            raise part.error(f"stages: {part.text!r} is a chain itself; expected its stages")
        stages.append(resolve(part.text, configuration, **keys))
    return _checked(section, lambda: ChainDefinition.of(name, stages))


def available(config: ConfigSource = None, *, problems: list[ConfigurationError] | None = None) -> list[Definition]:
    """Return all accelerators, sorted by name; one of the configuration replaces a registered one of its name.

    Parameters
    ----------
    config
        See `apyfal.config.configuration.Configuration.load`.
    problems
        Gets the errors of those that are wrong, which are then left out.

    Raises
    ------
    ConfigurationError
        A section of the configuration is wrong, or a plugin is broken, and there is no list for `problems`.
    """
    configuration = Configuration.load(config)
    found = []
    for name in _all_names(configuration):
        try:
            found.append(resolve(name, configuration) if f"accelerator.{name}" in configuration else registry.get(name))
        except ConfigurationError as error:
            if problems is None:
                raise
            problems.append(error)
    return found


def _all_names(configuration: Configuration) -> list[str]:
    configured = [name.partition(".")[2] for name in configuration.sections("accelerator") if "." in name]
    return sorted({*configured, *registry.names()})


def _section(name: str | None, configuration: Configuration, keys: Mapping[str, object]) -> Section:
    section = configuration.section(f"accelerator.{name}" if name else "accelerator", keys)
    section.check([*(KINDS["accelerator"] or ()), *(key for key in section if "." in key)])
    if name is None or f"accelerator.{name}" in configuration:
        return section
    # For an accelerator without a section, [accelerator] states the device, but not the kernel.
    return section.only(
        lambda value: value.section != "accelerator" or value.key in ("driver", "device") or "." in value.key
    )


def _texts(keys: Mapping[str, object]) -> dict[str, object]:
    """Return keyword arguments in the form that a configuration has."""
    texts: dict[str, object] = {}
    for key, value in keys.items():
        if key == "stages" and isinstance(value, (list, tuple)):
            texts[key] = ", ".join(str(stage) for stage in value)
            continue
        if isinstance(value, Mapping):
            texts.update(
                {
                    f"{key}.{option}": one if key != "struct" or isinstance(one, str) else _struct_text(option, one)
                    for option, one in value.items()
                }
            )
        elif value is not None and key.endswith("dtype") and not isinstance(value, str):
            try:
                dtype = np.dtype(value)  # type: ignore[call-overload]  # TypeError
            except TypeError:
                raise ConfigurationError(f"argument {key!r}: {value!r} is not an element type") from None
            if dtype.names is not None:  # a struct without a name gets that of the key
                texts[f"{_STRUCT}{key}_struct"] = _struct_text(key, dtype)
                texts[key] = f"{key}_struct"
            else:
                texts[key] = element_name(dtype) if dtype.subdtype else dtype.name
        else:
            texts[key] = value
    return texts


def _struct_text(name: object, value: object) -> str:
    """Return the text of a struct that a program gives as numpy's dtype."""
    try:
        return struct_text(np.dtype(value))  # type: ignore[call-overload]  # TypeError
    except (TypeError, ParameterError) as error:
        raise ConfigurationError(f"struct {name!r}: {error}") from None


def _base(name: str, kernel: str | None, section: Section, configuration: Configuration) -> Definition | None:
    """Return the registered accelerator that a section changes; ``None``: the section is a complete definition."""
    emulated = section.text("driver", "emulator") == "emulator"
    for key in ("inputs", "outputs", "inout"):
        if key in section and "arguments" not in section:
            raise section[key].error(f"{key} are names among 'arguments', which is missing here")
    if "arguments" in section:
        if emulated:
            raise section["arguments"].error("the emulator's kernels have arguments of their own; expected none here")
        return None
    if (found := registry.find(kernel or name)) is not None:
        return found
    if kernel is not None:
        hint = "" if emulated else " (a kernel of your own needs 'arguments')"
        raise section["kernel"].error(f"unknown kernel {kernel!r}{did_you_mean(kernel, registry.names())}{hint}")
    if f"accelerator.{name}" not in configuration:
        raise ConfigurationError(f"unknown accelerator {name!r}{did_you_mean(name, _all_names(configuration))}")
    if emulated:
        place = f"{shown_path(section.file)}, " if section.file else ""
        raise ConfigurationError(
            f"{place}[{section.name}]: key 'kernel' is missing: "
            f"unknown accelerator {name!r}{did_you_mean(name, registry.names())}"
        )
    raise section.missing("arguments")


def _define(name: str, base: Definition | None, section: Section) -> Definition:
    changes: dict[str, Any] = {"name": name}
    for key in ("driver", "device", "program", "kernel"):
        if (text := section.text(key, None)) is not None:
            changes[key] = text
    driver = changes.get("driver", base.driver if base else "emulator")
    inherited = base.options if base and base.driver == driver else {}
    changes["options"] = {**inherited, **_options(section, driver)}
    structs = _structs(section)

    def parts(key: str, parse: Callable[[str, Types], _T]) -> tuple[_T, ...]:
        return tuple(_read(part, lambda text: parse(text, structs)) for part in section.parts(key))

    if "arguments" in section:
        changes["arguments"] = parts("arguments", Argument.parse)
        changes["options"] = _with_registers(section["arguments"], driver, changes["arguments"], changes["options"])
        changes["inputs"] = parts("inputs", Port.parse_input)
        changes["outputs"] = parts("outputs", Port.parse_output)
        changed = parts("inout", Port.parse_input)
        changes["inout"] = frozenset(port.name for port in changed)
        for side, plain in (("inputs", "src"), ("outputs", "dst")) if changed else ():
            if not changes[side] and any(argument.name == plain for argument in changes["arguments"]):
                changes[side] = (Port(plain),)
        changes["inputs"] += changed
        changes["outputs"] += changed
    if "output" in section:
        changes["output"] = _read(section["output"], OutputSize.parse)
        changes["size"] = changes["capacity"] = None
    if "chunking" in section:
        changes["chunking"] = _read(section["chunking"], Chunking.parse)
    if (clear := section.boolean("clear_outputs", None)) is not None:
        changes["clear_outputs"] = clear
    if "state" in section:
        changes["state"] = _read(section["state"], parse_size)
    if "halo" in section:
        changes["halo"] = dict(parts("halo", lambda text, _: parse_halo(text)))
    changes.update(_sizes(section, changes, base))
    changes.update(_element_types(section, base, structs))
    if base is not None and base.model is None and driver in _OWN_KERNELS and "program" not in section:
        _check_written_type(section, base, changes)
    changes["parameters"] = _parameters(section, base, changes.get("arguments", ()), structs)
    _check_output_names(section, changes, base)
    if base is None:
        return _with_program(_checked(section, lambda: Definition(**{"kernel": name, **changes})))
    if driver != "emulator":
        changes["model"] = None
    return _with_program(_checked(section, lambda: replace(base, **changes)))


def _sizes(section: Section, changes: Mapping[str, Any], base: Definition | None) -> dict[str, Any]:
    """Return the index space, shapes and initial values that a section states."""
    found: dict[str, Any] = {}

    def expressions(key: str) -> tuple[Expression, ...]:
        return _read(section[key], parse_expressions) if key in section else ()

    for key in ("local", "global_offset", "round_up"):
        if key in section and "global" not in section:
            raise section[key].error(f"{key} belongs to an index space; expected 'global' too")
    if "global" in section:
        round_up = section.boolean("round_up", False)
        try:
            found["space"] = IndexSpace(
                expressions("global"), expressions("local"), expressions("global_offset"), round_up=bool(round_up)
            )
        except ParameterError as error:
            raise section["global"].error(str(error)) from None
    ports = changes.get("outputs", base.outputs if base else ())
    outputs = [port.name for port in ports] or ["dst"]
    shapes = {key.partition(".")[2] or outputs[0]: key for key in section if key.partition(".")[0] == "shape"}
    if "shape" in section and len(outputs) > 1:
        raise section["shape"].error(f"expected shape.NAME, since there are {len(outputs)} outputs")
    if shapes:
        found["shapes"] = {name: expressions(key) for name, key in shapes.items()}
    initial: dict[str, float] = {}
    for part in section.parts("initial"):
        name, colon, value = (text.strip() for text in part.text.partition(":"))
        what, text = (name, value) if colon else (outputs[0], name)
        try:
            initial[what] = number_of(text, "initial value")
        except ParameterError as error:
            raise part.error(str(error)) from None
    return {**found, "initial": initial} if initial else found


def _check_output_names(section: Section, changes: Mapping[str, Any], base: Definition | None) -> None:
    """Raise an error with the line of ``output`` if a name in it has no meaning; a misspelt rule looks like a name."""
    rule: OutputSize | None = changes.get("output")
    if rule is None or rule.expression is None:
        return
    inputs = changes.get("inputs") or (base.inputs if base else ()) or (Port("src"),)
    known = known_names(changes["parameters"], [port.name for port in inputs])
    for name in rule.expression.names - known:
        raise section["output"].error(
            f"unknown output {rule.expression.text!r}{did_you_mean(name, known | {'same', 'reported'})}"
        )


def _checked(section: Section, make: Callable[[], Definition]) -> Definition:
    """Return ``make()``; add the file and section of the configuration to its errors."""
    try:
        return make()
    except (ConfigurationError, ParameterError) as error:
        place = f"{section.file}, [{section.name}]: " if section.file and section.name.count(".") else ""
        raise ConfigurationError(f"{place}{error}") from None


def _read(value: Value, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(value.text)
    except ParameterError as error:
        raise value.error(str(error)) from None


def _structs(section: Section) -> dict[str, np.dtype]:
    """Return the structs that a section declares, by name; one may have others as members, in any order."""
    waiting = {key.partition(".")[2]: section[key] for key in section if key.startswith(_STRUCT)}
    for name, value in waiting.items():
        if not name.isidentifier() or name in PARAMETER_TYPES or parse_vector(name) is not None:
            raise value.error(f"{name!r} cannot be the name of a struct; expected a name that no other type has")
    found: dict[str, np.dtype] = {}
    while waiting:
        failed: ConfigurationError | None = None
        before = len(waiting)
        for name, value in list(waiting.items()):
            try:
                found[name] = parse_struct([part.text for part in value.parts()], found, name)
                del waiting[name]
            except ParameterError as error:
                failed = failed or value.error(str(error))
        if failed is not None and len(waiting) == before:
            raise failed
    return found


def _element_types(section: Section, base: Definition | None, structs: Types) -> dict[str, np.dtype]:
    """Return the element types that a section states. ``dtype`` is for the input, and for an output without input."""

    def read(key: str) -> np.dtype:
        return _read(section[key], lambda text: element_type(text, structs))

    types = {key: read(key) for key in ("in_dtype", "out_dtype") if key in section}
    if "dtype" in section:
        key = "in_dtype" if base is None or base.takes_input else "out_dtype"
        types.setdefault(key, read("dtype"))
    return types


def _check_written_type(section: Section, base: Definition, changes: Mapping[str, Any]) -> None:
    """Raise an error if a section states that a reference kernel writes another type than it does.

    The kernel would write as many bytes as before: of a larger type, the rest of the output is what the memory had. A
    kernel that writes bytes may write those of any type.
    """
    out = changes.get("out_dtype")
    written = base.out_dtype or changes.get("in_dtype", base.in_dtype)
    if out is None or (base.out_dtype is not None and base.out_dtype == np.uint8):
        return
    if written is not None and out == written:  # numpy takes None for float64
        return
    value = section["out_dtype" if "out_dtype" in section else "dtype"]
    what = "the element type that it reads" if base.out_dtype is None else f"{element_name(base.out_dtype)} elements"
    raise value.error(f"accelerator {base.name!r} writes {what}, not {element_name(out)}")


def _options(section: Section, driver: str) -> dict[str, str]:
    """Return the driver's options. A default section may hold those of other drivers too."""
    options = {}
    for key, value in section.items():
        head, dot, option = key.partition(".")
        if not dot or head in ("shape", "struct"):
            continue
        if head == driver or (os.sep in driver and head not in _DRIVERS):  # a library: its name is not known yet
            options[option] = value.text
        elif head not in _DRIVERS:
            raise value.error(f"unknown driver {head!r}{did_you_mean(head, {*_DRIVERS, driver})}")
    return options


def _with_registers(
    stated: Value, driver: str, arguments: Sequence[Argument], options: dict[str, str]
) -> dict[str, str]:
    """Return the options with the registers that arguments state (``a@0x10``), in the form of ``rtl.registers``."""
    texts = [text] if (text := options.get("registers")) else []
    named = {part.partition(":")[0].strip() for part in ",".join(texts).split(",")}
    for argument in arguments:
        if argument.register is None:
            continue
        place = f"{argument.name}@{argument.register:#x}"
        if driver != "rtl":
            raise stated.error(f"{place}: driver {driver!r} has no use for registers; expected {argument.name!r}")
        if argument.name in named:
            raise stated.error(
                f"{place}: rtl.registers states the place of {argument.name!r}, too; expected one of them"
            )
        wide = argument.dtype is not None and argument.dtype.kind != "V" and argument.dtype.itemsize > 4
        texts.append(f"{argument.name}:{argument.register:#x}{':64' if wide else ''}")
    return {**options, "registers": ", ".join(texts)} if texts else options


def _parameters(
    section: Section, base: Definition | None, arguments: Sequence[Argument], structs: Types
) -> dict[str, Parameter]:
    """Return the parameters of the base, with new defaults, and those that the section declares."""
    parameters = dict(base.parameters) if base else {}
    for part in section.parts("parameters"):
        declaration, equals, default = (text.strip() for text in part.text.partition("="))
        name, typed, _ = (text.strip() for text in declaration.partition(":"))
        if (known := parameters.get(name)) is None:
            declared = _read(part, lambda text: Parameter.parse(text, structs))
            parameters[declared.name] = declared
        elif typed or not equals:
            raise part.error(f"parameter {name!r} is already there; expected '{name} = <default>'")
        else:
            try:
                parameters[name] = replace(known, default=known.check(default))
            except ParameterError as error:
                raise part.error(str(error)) from None
    for argument in arguments:
        filled_in = argument.name in FILLED_IN or "." in argument.name
        if argument.dtype is not None and not filled_in and not argument.value and argument.name not in parameters:
            composite = argument.dtype if argument.dtype.kind == "V" else None
            name = argument.dtype.name if composite is None else element_name(composite)
            parameters[argument.name] = Parameter(argument.name, name, composite=composite)
    return parameters


def _with_program(definition: Definition) -> Definition:
    """Add apyfal's OpenCL or Verilog source to a reference accelerator without a program."""
    if definition.program is not None or definition.driver not in _NEED_PROGRAM:
        return definition
    kernels = Path(__file__).parents[1] / "accelerators" / "kernels"
    if definition.driver == "opencl":
        source = kernels / f"{definition.kernel}.cl"
        if source.is_file():
            return replace(definition, program=str(source))
    if definition.driver == "rtl":
        source = kernels / f"{definition.kernel}.sv"
        if definition.kernel in _RTL_ITEMSIZES:
            program = ", ".join(str(kernels / name) for name in (source.name, *_RTL_PARTS))
            most = _RTL_ITEMSIZES[definition.kernel]
            dtypes = frozenset(dtype for dtype in DTYPE_CODES if dtype.kind in "iu" and dtype.itemsize <= most)
            return replace(definition, program=program, dtypes=dtypes)
    raise ConfigurationError(
        f"accelerator {definition.name!r} has no program for driver {definition.driver!r}; "
        "expected program = <storage URL>"
    )
