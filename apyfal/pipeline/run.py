"""From what the caller gave to a job: which memory is used in place, what goes through rings, what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from apyfal.device.control import Aborted
from apyfal.exceptions import ParameterError, did_you_mean
from apyfal.pipeline.arrays import array_of, element_type_of
from apyfal.pipeline.binding import InputBinding, JobContext, OutputBinding
from apyfal.pipeline.chunking import make_plan
from apyfal.pipeline.inputs import Input, NoInput, ZippedInput
from apyfal.pipeline.stages import StagePipeline

if TYPE_CHECKING:
    from apyfal.definition.definition import Definition
    from apyfal.definition.grammar import Port
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.pipeline.report import Report

__all__ = ["JobArguments", "process"]


@dataclass
class JobArguments:
    """What `Accelerator.process` was asked for."""

    src: object
    dst: object
    parameters: Mapping[str, object]
    copy: bool
    progress: Callable[[int, int | None], None] | None
    memory_limit: int | None
    info: dict[str, Any] | None


def process(card: DeviceContext, request: JobArguments, control: JobControl, report: Report) -> Any:
    """Run one job; see `apyfal.Accelerator.process`."""
    try:
        with ExitStack() as stack:
            return _run(card, request, control, report, stack)
    except Aborted:
        control.check()  # what it was aborted for
        raise
    finally:
        if request.info is not None:
            report.fill(request.info, device=card.info["name"], driver=card.definition.driver)


def _run(card: DeviceContext, request: JobArguments, control: JobControl, report: Report, stack: ExitStack) -> Any:
    definition = card.definition
    sources = _sources(definition, request.src)
    arrays = [array_of(source) for source in sources]
    dtypes = [element_type_of(source, array) for source, array in zip(sources, arrays, strict=True)]
    call = card.call(tuple(dtypes), request.parameters)
    around = JobContext(card, call, card.kernel(call), control, report, stack, request.copy)
    origins = [
        InputBinding(port, source, array, around)
        for port, source, array in zip(call.inputs, sources, arrays, strict=True)
    ]
    call.check_sizes([origin.nbytes for origin in origins])
    in_ends = [origin.decide() for origin in origins]
    destinations = [
        OutputBinding(port, dst, origins, around)
        for port, dst in zip(call.outputs, _targets(definition, request.dst), strict=True)
    ]
    _check_apart(destinations)
    out_ends = [destination.end() for destination in destinations]
    plan = make_plan(call, card.info, in_ends, out_ends, memory_limit=request.memory_limit, room=around.room)
    inputs = [origin.make(plan, end) for origin, end in zip(origins, in_ends, strict=True)]
    outputs = [destination.make(plan, end) for destination, end in zip(destinations, out_ends, strict=True)]
    total = origins[0].nbytes if origins else 0
    with card.invocation(call, around.kernel) as invocation:
        source = _together(around, inputs)
        job = StagePipeline(call, invocation, source, outputs, control, report, _progress(request, report, total))
        if plan.single:
            job.run_single()
        else:
            job.run_stages()
        invocation.forget()
    if total is None:
        call.check_size(job.through)
    return _result(destinations)


def _sources(definition: Definition, src: object) -> Sequence[object]:
    """Return what was given for each input."""
    ports = definition.inputs
    if not ports:
        if src is not None:
            raise ParameterError(f"accelerator {definition.name!r} takes no input; expected src=None")
        return ()
    given = _by_port(definition, "src", "input", ports, src)
    for port, one in zip(ports, given, strict=True):
        if one is None:
            which = "src" if len(ports) == 1 else f"src={{{port.name!r}: ...}}"
            raise ParameterError(f"accelerator {definition.name!r} needs {which}: a URL, path, file object or array")
    return given


def _targets(definition: Definition, dst: object) -> Sequence[object]:
    """Return what was given for each output; ``None``: a new array."""
    if not definition.outputs:
        if dst is not None:
            raise ParameterError(f"accelerator {definition.name!r} has no output data; expected dst=None")
        return ()
    return _by_port(definition, "dst", "output", definition.outputs, dst)


def _by_port(definition: Definition, name: str, what: str, ports: Sequence[Port], given: object) -> Sequence[object]:
    if isinstance(given, Mapping):
        known = [port.name for port in ports]
        for key in given:
            if key not in known:
                raise ParameterError(
                    f"{name}: accelerator {definition.name!r} has no {what} {key!r}{did_you_mean(str(key), known)}"
                )
        return [given.get(port) for port in known]
    if len(ports) == 1:
        return (given,)
    if given is None:
        return [None] * len(ports)
    example = ", ".join(f"{port.name!r}: ..." for port in ports)
    raise ParameterError(f"accelerator {definition.name!r} has {len(ports)} {what}s; expected {name}={{{example}}}")


def _check_apart(destinations: Sequence[OutputBinding]) -> None:
    """Refuse two outputs in one place: the later would destroy the earlier."""
    for one, other in combinations(destinations, 2):
        if one.collides(other):
            raise ParameterError(f"{one.port.name} and {other.port.name} would have the same place; expected one each")


def _together(around: JobContext, inputs: Sequence[Input]) -> Input:
    if not inputs:
        return NoInput()
    if len(inputs) == 1:
        return inputs[0]
    call = around.call
    return ZippedInput(call.inputs, inputs, around.control, whole=call.granularity is None)


def _progress(request: JobArguments, report: Report, total: int | None) -> Callable[[int], None] | None:
    progress, info = request.progress, request.info
    if progress is None:
        return None

    def tell(done: int) -> None:
        if info is not None:
            info["limit"] = report.limit_now()
        progress(done, total)

    return tell


def _result(destinations: Sequence[OutputBinding]) -> Any:
    """Return what one output became; of several, those that are arrays, by name."""
    if len(destinations) == 1:
        return destinations[0].result()
    results = {destination.port.name: destination.result() for destination in destinations}
    return {name: result for name, result in results.items() if result is not None} or None
