"""What depends on the sizes of a job's data: index spaces, computed arguments, sizes and shapes of outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from apyfal.definition.expressions import Expression
from apyfal.definition.types.dtypes import SCALAR_TYPES, scalar
from apyfal.exceptions import ConfigurationError, ParameterError, did_you_mean

__all__ = ["CHUNK_NAMES", "SHAPE_NAMES", "IndexSpace", "SizeRules", "SourceSize", "known_names", "source_values"]

#: Names for numbers of a run: elements and bytes of an input in it, and bytes of the job's input before it.
CHUNK_NAMES = ("count", "bytes")
#: Names for the last axes of an input's array, the last one first.
SHAPE_NAMES = ("width", "height", "depth")
_OFFSET = "offset"


class SourceSize(NamedTuple):
    """Bytes of one source of a job, and its shape if it is an array."""

    nbytes: int | None
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class IndexSpace:
    """Work-items of a run, one expression for each of 1 to 3 dimensions.

    Attributes
    ----------
    size, group, offset
        Work-items, those of a work-group (empty: the kernel's attribute, or the driver's choice), and the first index.
    round_up
        Whether `size` is made a multiple of `group`.
    """

    size: tuple[Expression, ...]
    group: tuple[Expression, ...] = ()
    offset: tuple[Expression, ...] = ()
    round_up: bool = False

    def __post_init__(self) -> None:
        """Check the number of dimensions."""
        if not 1 <= len(self.size) <= 3:
            raise ParameterError(f"global = {_listed(self.size)} has {len(self.size)} dimensions; expected 1 to 3")
        for key, other in (("local", self.group), ("global_offset", self.offset)):
            if other and len(other) != len(self.size):
                raise ParameterError(
                    f"{key} = {_listed(other)} has {len(other)} dimensions; expected {len(self.size)}, "
                    f"as many as global = {_listed(self.size)}"
                )

    def of(self, values: Mapping[str, int], what: str) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return offset, size and work-group of a run; `ParameterError` if a number is none of these."""
        size = _numbers("global", self.size, values, what, 0)
        group = _numbers("local", self.group, values, what, 1)
        offset = _numbers("global_offset", self.offset, values, what, 0)
        if group and self.round_up:
            size = [-(-items // of_group) * of_group for items, of_group in zip(size, group, strict=True)]
        for items, of_group in zip(size, group, strict=False):
            if items % of_group:
                raise ParameterError(
                    f"{what}: {'x'.join(map(str, size))} work-items in work-groups of {'x'.join(map(str, group))}: "
                    f"{items} is not a multiple of {of_group}; expected one, or 'round_up = yes' if the kernel "
                    "compares its index with the size"
                )
        return offset, size, group


@dataclass(frozen=True, slots=True)
class SizeRules:
    """All expressions of a definition.

    Attributes
    ----------
    space
        The index space; ``None``: the kernel runs as its driver starts it.
    arguments
        Arguments that are computed, by name.
    outputs
        Elements of outputs, by name.
    shapes
        Shapes of outputs, by name.
    """

    space: IndexSpace | None
    arguments: Mapping[str, Expression]
    outputs: Mapping[str, Expression]
    shapes: Mapping[str, tuple[Expression, ...]]

    def check(self, parameters: Mapping[str, str], inputs: Sequence[str], *, whole: bool) -> set[str]:
        """Check the names in all expressions, and return those of parameters.

        Parameters
        ----------
        parameters
            Name to type.
        inputs
            Names of the inputs.
        whole
            Whether the input is one chunk.

        Raises
        ------
        ConfigurationError
            A name is none of these, a parameter is not a whole number, or a chunk does not have what is named.
        """
        known = known_names(parameters, inputs)
        used = set()
        for key, expression in self._each():
            for name in expression.names:
                if name not in known:
                    if key.startswith("output"):
                        choices = did_you_mean(name, known | {"same", "reported"})
                        raise ConfigurationError(f"unknown output {expression.text!r}{choices}")
                    raise ConfigurationError(f"{key} = {expression}: unknown name {name!r}{did_you_mean(name, known)}")
                kind = SCALAR_TYPES.get(parameters.get(name, "uint64"))
                if kind is None or kind.kind not in "iu":
                    raise ConfigurationError(
                        f"{key} = {expression}: parameter {name!r} is {parameters[name]}; expected an integer type"
                    )
                if name in parameters:
                    used.add(name)
                elif not whole and (name.partition(".")[0] in SHAPE_NAMES or key.startswith(("output", "shape"))):
                    raise ConfigurationError(
                        f"{key} = {expression}: an input in chunks has no {name!r}; expected chunking = whole"
                    )
        return used

    def _each(self) -> Iterable[tuple[str, Expression]]:
        if self.space is not None:
            for key, group in (("global", self.space.size), ("local", self.space.group)):
                yield from ((key, one) for one in group)
            yield from (("global_offset", one) for one in self.space.offset)
        yield from ((f"argument {name!r}", one) for name, one in self.arguments.items())
        yield from ((f"output {name!r}", one) for name, one in self.outputs.items())
        yield from ((f"shape of {name!r}", one) for name, group in self.shapes.items() for one in group)

    @property
    def size_outputs(self) -> bool:
        """Whether an output's size or shape is computed."""
        return bool(self.outputs or self.shapes)

    def elements_of(self, output: str, values: Mapping[str, int], what: str) -> int | None:
        """Return how many elements an output has; ``None``: its size is not computed."""
        shape = self.shape_of(output, values, what)
        expression = self.outputs.get(output)
        if expression is None:
            return None if shape is None else math.prod(shape)
        elements = _numbers(f"output {output!r}", (expression,), values, what, 0)[0]
        if shape is not None and math.prod(shape) != elements:
            raise ParameterError(
                f"{what}: output {output!r} has {elements} elements ({expression}), its shape "
                f"{tuple(shape)} has {math.prod(shape)}; expected as many"
            )
        return elements

    def shape_of(self, output: str, values: Mapping[str, int], what: str) -> tuple[int, ...] | None:
        """Return the shape of an output; ``None``: none is stated."""
        shape = self.shapes.get(output)
        return None if shape is None else tuple(_numbers(f"shape of {output!r}", shape, values, what, 0))

    def scalar_of(self, argument: str, dtype: np.dtype, values: Mapping[str, int]) -> int:
        """Return the value of a computed argument."""
        return int(scalar(self.arguments[argument].evaluate(values), dtype, f"argument {argument!r}"))


def known_names(parameters: Iterable[str], inputs: Sequence[str]) -> set[str]:
    """Return the names that an expression may have: of parameters, and of what these inputs have."""
    known = {*parameters, _OFFSET} if inputs else set(parameters)
    for name in (*CHUNK_NAMES, *SHAPE_NAMES) if inputs else ():
        known |= {name, *(f"{name}.{port}" for port in inputs)}
    return known


def _listed(expressions: Sequence[Expression]) -> str:
    return ", ".join(map(str, expressions))


def _numbers(
    key: str, expressions: Sequence[Expression], values: Mapping[str, int], what: str, least: int
) -> list[int]:
    found = []
    for expression in expressions:
        try:
            number = expression.evaluate(values)
        except ParameterError as error:
            raise ParameterError(f"{what}: {key}: {error}") from None
        if number < least:
            raise ParameterError(f"{what}: {key} = {expression} is {number}; expected {least} or more")
        found.append(number)
    return found


def source_values(names: Sequence[str], dtypes: Sequence[np.dtype], sizes: Sequence[SourceSize]) -> dict[str, int]:
    """Return the values of `CHUNK_NAMES` and `SHAPE_NAMES` for a job's inputs; what is not known is left out."""
    values: dict[str, int] = {}
    for place, (name, dtype, size) in enumerate(zip(names, dtypes, sizes, strict=True)):
        found: dict[str, int] = {}
        if size.nbytes is not None:
            found = {"count": size.nbytes // dtype.itemsize, "bytes": size.nbytes}
        if size.shape is not None:
            found.update(zip(SHAPE_NAMES, reversed(size.shape), strict=False))
        values.update({f"{key}.{name}": value for key, value in found.items()})
        if not place:
            values.update(found)
    return values
