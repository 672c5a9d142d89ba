"""Checks that the parts of a definition fit together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apyfal.definition.declaration import Declaration
from apyfal.definition.grammar import FILLED_IN, PROCESS_KEYWORDS, OutputSize
from apyfal.definition.sizes import SizeRules
from apyfal.definition.types.composite import element_name
from apyfal.definition.types.dtypes import SCALAR_TYPES
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["check", "check_elements"]

#: Names that a parameter cannot have: those of the arguments of `process` and `process_map`.
_RESERVED = PROCESS_KEYWORDS | {"info_list", "self"}


def check(stated: Declaration) -> tuple[SizeRules, set[str]]:
    """Check everything except element types, which `check_elements` checks.

    Returns
    -------
    SizeRules, set of str
        The expressions, and the names of the parameters in them.

    Raises
    ------
    ConfigurationError
        The parts do not fit together.
    """
    names = [argument.name for argument in stated.arguments]
    for name in names:
        if names.count(name) > 1:
            raise stated.error(f"argument {name!r} is there twice")
    argument_names = set(names)
    _check_ports(stated, argument_names)
    rules, used = _check_sizes(stated)
    _check_outputs(stated, argument_names)
    if bool(stated.state) != ("state" in argument_names):
        raise stated.error("state = <bytes> and 'state' among the arguments need each other")
    first = stated.first_dtype
    if first is not None and stated.chunking.record % first.itemsize:
        raise stated.error(f"chunking = {stated.chunking} cuts through {element_name(first)} elements")
    _check_scalars(stated, argument_names | used)
    composite = any(one.composite is not None for one in stated.parameters.values())
    if composite and stated.driver == "emulator" and stated.model is None:
        raise stated.error(
            "the software card's own kernels take numbers only, no vectors or structs; expected a Python model"
        )
    if stated.model is not None and stated.driver != "emulator":
        raise stated.error(f"a Python model runs on driver 'emulator' only, not on {stated.driver!r}")
    return rules, used


def _check_ports(stated: Declaration, argument_names: set[str]) -> None:
    if not stated.inputs and not stated.outputs:
        raise stated.error("arguments: expected 'src', 'dst' or both among them, or inputs or outputs by their names")
    names = [port.name for port in (*stated.inputs, *stated.outputs)]
    for argument in stated.arguments:
        if argument.dtype is not None and argument.name in names:
            raise stated.error(f"argument {argument.name!r} is a buffer and has no scalar type")
    for name in names:
        if names.count(name) > 1 + (name in stated.inout):
            raise stated.error(f"input or output {name!r} is there twice")
        if name not in argument_names:
            raise stated.error(
                f"input or output {name!r} is not among the arguments{did_you_mean(name, argument_names)}"
            )
        if name in FILLED_IN - {"src", "dst"}:
            raise stated.error(f"an input or output cannot be called {name!r}: apyfal fills it in")
        if name in stated.parameters:
            raise stated.error(f"{name!r} is an input or output; a parameter cannot have its name")
    for plain, side in (("src", "inputs"), ("dst", "outputs")):
        if plain in argument_names and plain not in names:
            raise stated.error(f"{plain!r} among the arguments, but {side} are given by name; expected it there too")


def _check_sizes(stated: Declaration) -> tuple[SizeRules, set[str]]:
    """Collect the expressions, and check that they fit the rest; see `check`."""
    outputs = {port.name: port for port in stated.outputs}
    for key, names in (("shape", stated.shapes), ("initial", stated.initial)):
        for name in names:
            if name not in outputs:
                raise stated.error(f"{key}: no output {name!r}{did_you_mean(name, outputs)}")
            if (key == "initial" or (outputs[name].output or stated.output).kind != "same") and name in stated.inout:
                raise stated.error(f"{key}: {name!r} has that of its input, since the kernel changes it in place")
    rules = {name: port.output or stated.output for name, port in outputs.items()}
    computed = {name: rule.expression for name, rule in rules.items() if rule.expression is not None}
    for name in stated.shapes:
        if rules[name].kind in ("factor", "reported"):
            raise stated.error(f"shape: output {name!r} is {rules[name]}; expected same, or its elements")
    for name in stated.initial:
        if rules[name].kind == "reported":
            raise stated.error(f"initial: the kernel reports the size of output {name!r}; expected one that is known")
    for name in stated.inout:
        if rules[name].kind != "same":
            raise stated.error(f"inout: {name!r} has the size of its input; expected no other")
    values = {argument.name: argument.value for argument in stated.arguments if argument.value is not None}
    for name in values.keys() & {*outputs, *(port.name for port in stated.inputs)}:
        raise stated.error(f"argument {name!r} is an input or output and cannot be computed")
    for name in values.keys() & stated.parameters.keys():
        raise stated.error(f"argument {name!r} is computed; a parameter cannot have its name")
    sizes = SizeRules(stated.space, values, computed, stated.shapes)
    kinds = {name: parameter.dtype for name, parameter in stated.parameters.items()}
    try:
        used = sizes.check(
            kinds, [port.name for port in stated.inputs], whole=stated.chunking.kind in ("whole", "rows")
        )
    except ConfigurationError as error:
        raise stated.error(str(error)) from None
    row = stated.chunking.row
    return sizes, used if row is None else used | (row.names & stated.parameters.keys())


def _check_outputs(stated: Declaration, argument_names: set[str]) -> None:
    rules = [port.output or stated.output for port in stated.outputs] or [stated.output]
    if stated.chunking.kind == "rows":
        _check_rows(stated, rules)
    elif stated.halo:
        raise stated.error(f"halo: rows around a chunk need chunking = rows, not {stated.chunking}")
    for rule in rules:
        fixed = rule.kind in ("bytes", "elements")
        if rule.kind == "same" and not stated.inputs and stated.shapes:
            continue
        if not stated.inputs and not fixed:
            raise stated.error(f"output = {rule} needs 'src' among the arguments; expected a number of bytes")
        if not stated.outputs and (not fixed or rule.amount or rule.expression or stated.size):
            raise stated.error(f"output = {rule} needs 'dst' among the arguments; without it expected 0")
        begun = all(port.name in stated.initial for port in stated.outputs)
        if fixed and stated.inputs and stated.chunking.kind not in ("whole", "rows") and not (stated.state or begun):
            raise stated.error(
                f"a fixed output over an input in chunks needs a state, or an 'initial' value that the kernel adds "
                f"to; expected chunking = whole, not {stated.chunking}"
            )
        if rule.kind == "reported" and len(rules) > 1:
            raise stated.error("output = reported is for kernels with one output; expected sizes that are known")
    if any(rule.kind == "reported" for rule in rules) != ("report" in argument_names):
        raise stated.error("output = reported and 'report' among the arguments need each other")
    if len(rules) > 1 and (stated.finish or stated.size):
        raise stated.error("results and sizes made by functions are for accelerators with one output")


def _check_rows(stated: Declaration, rules: Sequence[OutputSize]) -> None:
    names = [port.name for port in stated.inputs]
    for name in stated.halo:
        if name and name not in names:
            raise stated.error(f"halo: no input {name!r}{did_you_mean(name, names)}")
    if not names or not stated.outputs:
        raise stated.error("chunking = rows needs an input and an output; expected whole")
    if stated.halo.get(names[0], 0) is None:
        raise stated.error(f"halo: the first input, {names[0]!r}, is the one that is cut; expected a number of rows")
    for rule in rules:
        if rule.kind in ("bytes", "reported"):
            raise stated.error(f"chunking = rows gives an output as many rows as its input has, not {rule}")
    if stated.state:
        raise stated.error("chunking = rows and a state do not go together: rows around a chunk are read twice")
    row = stated.chunking.row
    for name in () if row is None else row.names:
        parameter = stated.parameters.get(name)
        if parameter is None or parameter.dtype not in SCALAR_TYPES or SCALAR_TYPES[parameter.dtype].kind not in "iu":
            known = [one for one, kind in stated.parameters.items() if kind.dtype in SCALAR_TYPES]
            raise stated.error(
                f"chunking = {stated.chunking}: {name!r} is not a whole number{did_you_mean(name, known)}"
            )


def _check_scalars(stated: Declaration, used: set[str]) -> None:
    ins, outs = ({port.name for port in side} for side in (stated.inputs, stated.outputs))
    for argument in stated.arguments:
        if argument.name in FILLED_IN or argument.name in stated.parameters or stated.prepare or argument.value:
            continue
        if argument.name in ins | outs:
            continue
        number, dot, port = argument.name.partition(".")
        if dot:
            of = outs if number == "capacity" else ins
            if port in of:
                continue
            raise stated.error(f"argument {argument.name!r}: unknown port {port!r}{did_you_mean(port, of)}")
        raise stated.error(
            f"argument {argument.name!r} is neither a parameter ('{argument.name}: <type>') nor one of the names "
            f"that apyfal fills in{did_you_mean(argument.name, FILLED_IN)}"
        )
    for name, parameter in stated.parameters.items():
        if name in FILLED_IN:
            raise stated.error(f"a parameter cannot be called {name!r}: apyfal fills it in")
        if name in _RESERVED:
            raise stated.error(f"a parameter cannot be called {name!r}: `process` has an argument of that name")
        if name not in used and not stated.prepare and parameter.dtype != "object":
            raise stated.error(f"parameter {name!r} is not among the arguments")


def check_elements(stated: Declaration, dtype: np.dtype, error: type[ConfigurationError | ParameterError]) -> None:
    """Raise `error` if the kernel cannot take elements of this type."""
    if dtype.hasobject:
        raise error(f"accelerator {stated.name!r} cannot take elements of type {dtype}: they are Python objects")
    if not dtype.itemsize:
        raise error(f"accelerator {stated.name!r} cannot take elements of type {dtype}: they have no bytes")
    if stated.dtypes and dtype not in stated.dtypes:
        names = ", ".join(sorted(str(known) for known in stated.dtypes))
        given = element_name(dtype)
        raise error(f"accelerator {stated.name!r} cannot take elements of type {given}; expected one of {names}")
