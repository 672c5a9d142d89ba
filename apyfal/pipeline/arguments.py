"""The arguments of a job, for each input and output of its accelerator, and the call that they are bound to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.device.chaining.resident import ResidentArguments
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.exceptions import ParameterError, did_you_mean
from apyfal.pipeline.arrays import as_elements, element_type_of, source_array
from apyfal.pipeline.direct import DirectCall, find, key_of

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.definition import Definition
    from apyfal.definition.grammar import Port
    from apyfal.device.context import DeviceContext

__all__ = ["Ends", "JobArguments"]

#: Types of destinations of jobs that can be direct: plain arrays, and new ones.
_DIRECT = (np.ndarray, type(None))


@dataclass
class JobArguments:
    """The arguments of `apyfal.Accelerator.process`, with defaults filled in and sizes in bytes."""

    src: object
    dst: object
    parameters: Mapping[str, object]
    copy: bool
    progress: Callable[[int, int | None], None] | None
    memory_limit: int | None
    info: dict[str, Any] | None

    def resident(self, context: DeviceContext) -> ResidentArguments | None:
        """Return the job if all of its data is in arrays of this device; ``None``: some is elsewhere."""
        return ResidentArguments.of(context, self.src, self.dst, self.parameters, self.memory_limit)


class Ends(NamedTuple):
    """Sources and destinations of a job, one for each input and output, and its bound call.

    Attributes
    ----------
    sources, dsts
        As the caller gave them; a destination of ``None`` is a new array.
    arrays
        Those of them that are arrays of the host: of the sources, and of the destinations. ``None`` stands for others.
    converted
        Whether a source's array was made by the object's own ``__array__``, for this job.
    call
        The definition with the job's parameters and types.
    key
        What `direct` finds this kind of job by; ``None``: some are not the caller's arrays.
    """

    sources: Sequence[object]
    dsts: Sequence[object]
    arrays: tuple[list[Any], list[Any]]
    converted: list[bool]
    call: BoundCall
    key: Hashable | None

    @classmethod
    def of(cls, context: DeviceContext, arguments: JobArguments) -> Ends:
        """Sort a job's arguments, and bind them."""
        definition = context.definition
        sources = _sources(definition, arguments.src)
        seen = [(None, False) if isinstance(source, DeviceArray) else source_array(source) for source in sources]
        arrays = [array for array, _ in seen]
        dtypes = [
            as_elements(source.dtype, source, definition.dtype_of(port))
            if isinstance(source, DeviceArray)
            else as_elements(element_type_of(source, array), array, definition.dtype_of(port))
            for source, array, port in zip(sources, arrays, definition.inputs, strict=True)
        ]
        call = context.bind(tuple(dtypes), arguments.parameters)
        dsts = _destinations(definition, arguments.dst)
        targets = [dst if type(dst) is np.ndarray else None for dst in dsts]
        key = None
        own = not [array for array, is_converted in seen if array is None or is_converted]
        if own and not [dst for dst in dsts if type(dst) not in _DIRECT]:
            key = key_of(call, arrays, targets)
        return cls(sources, dsts, (arrays, targets), [converted for _, converted in seen], call, key)

    def settle(self) -> None:
        """Raise the error of a queued job that wrote a source. What this job wrote itself is valid."""
        for source in self.sources:
            if isinstance(source, DeviceArray):
                source.settle()
        for dst in self.dsts:
            if isinstance(dst, DeviceArray):
                dst.written()

    def direct(self, context: DeviceContext) -> DirectCall | None:
        """Return what an earlier job of this kind decided; ``None``: there is nothing that this one can use."""
        return None if self.key is None else find(context, self.key)


def _sources(definition: Definition, src: object) -> Sequence[object]:
    """Return the source of each input."""
    ports = definition.inputs
    if not ports:
        if src is not None:
            raise ParameterError(f"accelerator {definition.name!r} takes no input; expected src=None")
        return ()
    sources = _by_port(definition, "src", "input", ports, src)
    for port, source in zip(ports, sources, strict=True):
        if source is None:
            which = "src" if len(ports) == 1 else f"src={{{port.name!r}: ...}}"
            raise ParameterError(f"accelerator {definition.name!r} needs {which}: a URL, path, file object or array")
    return sources


def _destinations(definition: Definition, dst: object) -> Sequence[object]:
    """Return the destination of each output; ``None``: a new array."""
    if not definition.outputs:
        if dst is not None:
            raise ParameterError(f"accelerator {definition.name!r} has no output data; expected dst=None")
        return ()
    return _by_port(definition, "dst", "output", definition.outputs, dst)


def _by_port(definition: Definition, name: str, what: str, ports: Sequence[Port], value: object) -> Sequence[object]:
    if not isinstance(value, np.ndarray) and isinstance(value, Mapping):
        known = [port.name for port in ports]
        for key in value:
            if key not in known:
                raise ParameterError(
                    f"{name}: accelerator {definition.name!r} has no {what} {key!r}{did_you_mean(str(key), known)}"
                )
        return [value.get(port) for port in known]
    if len(ports) == 1:
        return (value,)
    if value is None:
        return [None] * len(ports)
    example = ", ".join(f"{port.name!r}: ..." for port in ports)
    raise ParameterError(f"accelerator {definition.name!r} has {len(ports)} {what}s; expected {name}={{{example}}}")
