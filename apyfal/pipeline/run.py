"""Run one job: bind its arguments, decide which memory is used in place, run the stages, return the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.definition.sizes import SourceSize
from apyfal.device.control import Aborted
from apyfal.exceptions import KernelError, ParameterError, did_you_mean
from apyfal.pipeline.arrays import CONVERTED, element_type_of, source_array
from apyfal.pipeline.binding import InputBinding, JobContext, OutputBinding
from apyfal.pipeline.chunking import make_plan
from apyfal.pipeline.inputs import Input, NoInput, ZippedInput
from apyfal.pipeline.report import Span
from apyfal.pipeline.stages import StagePipeline

if TYPE_CHECKING:
    from apyfal._core.device import Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.definition import Definition
    from apyfal.definition.grammar import Port
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.pipeline.report import Report

__all__ = ["JobArguments", "process"]


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


def process(context: DeviceContext, arguments: JobArguments, control: JobControl, report: Report) -> Any:
    """Run one job, as `apyfal.Accelerator.process` describes.

    Parameters
    ----------
    context
        The device.
    arguments
        The job.
    control
        Its deadline; ``control.fail`` ends it from another thread.
    report
        Receives what was done.
    """
    try:
        with ExitStack() as stack:
            result = _run(context, arguments, control, report, stack)
            start = report.now()
            stack.close()  # destinations are put in place here
            if arguments.dst is not None:
                report.add("store", max(report.chunks - 1, 0), start)
            return result
    except Aborted:
        control.check()  # raises what it was aborted for
        raise
    except KernelError as error:
        if (cause := context.model_errors.take(str(error))) is not None:
            raise error from cause
        raise
    finally:
        report.run_details = control.run_details
        if arguments.info is not None:
            report.fill(arguments.info, device=context.info["name"], driver=context.definition.driver)


def _run(context: DeviceContext, arguments: JobArguments, control: JobControl, report: Report, stack: ExitStack) -> Any:
    definition = context.definition
    sources = _sources(definition, arguments.src)
    seen = [source_array(source) for source in sources]
    arrays = [array for array, _ in seen]
    dtypes = [element_type_of(source, array) for source, array in zip(sources, arrays, strict=True)]
    call = context.bind(tuple(dtypes), arguments.parameters)
    bound = report.now()
    kernel = context.kernel(call)
    built = report.now()
    _check_has_output(call, kernel)
    job = JobContext(context, call, kernel, control, report, stack, arguments.copy)
    input_bindings = [
        InputBinding(port, source, array, job) for port, source, array in zip(call.inputs, sources, arrays, strict=True)
    ]
    for port, (array, is_converted) in zip(call.inputs, seen, strict=True):
        if array is not None and is_converted:
            report.copied(array.nbytes, job.allow(port.name, CONVERTED))
    if call.needs_sources:
        shapes = [None if array is None else array.shape for array in arrays]
        sizes = [SourceSize(one.nbytes, shape) for one, shape in zip(input_bindings, shapes, strict=True)]
        call = job.call = context.size(call, tuple(sizes))
    call.check_sizes([binding.nbytes for binding in input_bindings])
    input_plans = [binding.plan() for binding in input_bindings]
    output_bindings = [
        OutputBinding(port, dst, input_bindings, job)
        for port, dst in zip(call.outputs, _destinations(definition, arguments.dst), strict=True)
    ]
    _check_distinct(output_bindings)
    changed = _changed(input_bindings, output_bindings, job)
    output_plans = [binding.plan() for binding in output_bindings]
    plan = make_plan(
        call,
        context.info,
        input_plans,
        output_plans,
        memory_limit=arguments.memory_limit,
        device_memory=job.device_memory,
    )
    inputs = [binding.make(plan, port) for binding, port in zip(input_bindings, input_plans, strict=True)]
    outputs = [binding.make(plan, port) for binding, port in zip(output_bindings, output_plans, strict=True)]
    total = input_bindings[0].nbytes if input_bindings else 0
    with context.borrow_launcher(call, job.kernel) as launcher:
        source = _zipped(job, inputs)
        progress = _progress(arguments, report, total)
        stages = StagePipeline(call, launcher, source, outputs, control, report, progress, changed)
        report.spans.append(Span("prepare", 0, 0.0, bound))
        report.spans.append(Span("build", 0, bound, built))
        report.add("prepare", 0, built)
        if plan.single:
            stages.run_single()
        else:
            stages.run_stages()
        launcher.clear_regions()
    if total is None:
        call.check_size(stages.consumed)
    return _result(output_bindings)


def _changed(
    inputs: Sequence[InputBinding], outputs: Sequence[OutputBinding], job: JobContext
) -> list[tuple[int, int, str]]:
    """Return which input goes into which output before the kernel changes it there, with the reason of that copy."""
    pairs = []
    for number, source in enumerate(inputs):
        for place, target in enumerate(outputs):
            if not source.port.changed or target.port.index != source.port.index:
                continue
            reason = "the kernel changes it in place, and the source stays as it is"
            if source.array is None or target.array is None or not np.shares_memory(source.array, target.array):
                reason = job.allow(source.port.name, reason)
            pairs.append((number, place, reason))
    return pairs


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
    if isinstance(value, Mapping):
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


def _check_has_output(call: BoundCall, kernel: Kernel) -> None:
    if call.outputs:
        return
    for port in call.inputs:
        if kernel.may_write(port.index):
            raise ParameterError(
                f"accelerator {call.name!r} has no output, and what its kernel may write to {port.name} would be lost; "
                "expected an argument of its own for the output, or const in the kernel's source"
            )


def _check_distinct(bindings: Sequence[OutputBinding]) -> None:
    """Refuse two outputs with one destination: the second would overwrite the first."""
    for one, other in combinations(bindings, 2):
        if one.collides(other):
            raise ParameterError(f"{one.port.name} and {other.port.name} would have the same place; expected one each")


def _zipped(job: JobContext, inputs: Sequence[Input]) -> Input:
    if not inputs:
        return NoInput()
    if len(inputs) == 1:
        return inputs[0]
    return ZippedInput(job.call.inputs, inputs, job.control, uncut=job.call.granularity is None)


def _progress(arguments: JobArguments, report: Report, total: int | None) -> Callable[[int], None] | None:
    progress, info = arguments.progress, arguments.info
    if progress is None:
        return None

    def report_progress(done: int) -> None:
        if info is not None:
            info["limit"] = report.current_bottleneck()
        progress(done, total)

    return report_progress


def _result(bindings: Sequence[OutputBinding]) -> Any:
    """Return the result of a single output; of several, a mapping from their names to those that are arrays."""
    if len(bindings) == 1:
        return bindings[0].result()
    results = {binding.port.name: binding.result() for binding in bindings}
    return {name: result for name, result in results.items() if result is not None} or None
