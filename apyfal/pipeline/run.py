"""Run one job: bind its arguments, decide which memory is used in place, run the stages, return the result."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apyfal.definition.chain import ChainCall
from apyfal.definition.sizes import SourceSize
from apyfal.device.control import Aborted, JobControl
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.waiting import RunGroup, cancel
from apyfal.exceptions import KernelError, ParameterError, did_you_mean
from apyfal.pipeline.arrays import CONVERTED, as_elements, element_type_of, keeps_memory, source_array
from apyfal.pipeline.binding import InputBinding, JobContext, OutputBinding
from apyfal.pipeline.chunking import Plan, PortPlan, make_plan
from apyfal.pipeline.direct import DirectCall, DirectJob, find, keep, key_of
from apyfal.pipeline.inputs import Input, NoInput, ZippedInput
from apyfal.pipeline.reports.report import Report, Span
from apyfal.pipeline.rows import RowJob
from apyfal.pipeline.stages import StagePipeline

if TYPE_CHECKING:
    from apyfal._core.device import Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.definition import Definition
    from apyfal.definition.grammar import Port
    from apyfal.device.context import DeviceContext

__all__ = ["JobArguments", "StartedJob", "prepare", "process", "start"]

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


def process(
    context: DeviceContext,
    arguments: JobArguments,
    control: JobControl,
    report: Report | None = None,
    *,
    uncut: bool = False,
) -> tuple[Any, int]:
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
        Receives what was done; needed if `arguments` asks for it.
    uncut
        Run it over all rows, although the definition lets it be cut between them.

    Returns
    -------
    result, nbytes
        And the bytes of all inputs or of all outputs, whichever are more.
    """
    try:
        ends = _Ends.of(context, arguments)
        if context.definition.chunking.kind == "rows" and not uncut:
            report = Report() if report is None else report
            in_rows = _run_in_rows(context, arguments, ends, control, report)
            if in_rows is not None:
                return in_rows
        found = ends.direct(context) if arguments.progress is None else None
        placed = None if found is None else found.place(*ends.arrays)
        if placed is not None and found is not None:
            placed.run_once(control, report)
            return placed.result(), max(found.bytes_in, found.bytes_out)
        report = Report() if report is None else report
        with ExitStack() as stack:
            result = _run(context, arguments, ends, control, report, stack)
            start = report.now()
            stack.close()  # destinations are put in place here
            if arguments.dst is not None:
                report.add("store", max(report.chunks - 1, 0), start)
            ends.settle()
            return result, max(report.bytes_in, report.bytes_out)
    except Aborted:
        control.check()  # raises what it was aborted for
        raise
    except KernelError as error:
        if (cause := context.model_errors.take(str(error))) is not None:
            raise error from cause
        raise
    finally:
        if report is not None:
            report.run_details = control.run_details
            if arguments.info is not None:
                report.fill(arguments.info, device=context.info["name"], driver=context.definition.driver)


def _run_in_rows(
    context: DeviceContext, arguments: JobArguments, ends: _Ends, control: JobControl, report: Report
) -> tuple[Any, int] | None:
    """Run a job chunk by chunk along its first axis; ``None``: it fits into one run, or cannot be cut."""
    sources, arrays = ends.sources, ends.arrays[0]
    for source, array in zip(sources, arrays, strict=True):
        if array is None and not isinstance(source, (str, PathLike)):
            return None
    if any(isinstance(dst, DeviceArray) for dst in ends.dsts):
        return None
    with ExitStack() as stack:
        job = RowJob(context, ends.call, sources, arrays, ends.dsts, arguments.memory_limit, stack)
        if job.fits():
            return None

        def run_chunk(chunk: dict[str, Any], part: Report) -> Any:
            one = replace(arguments, src=chunk, dst=None, copy=True, progress=None, memory_limit=None, info=None)
            return process(context, one, control, part, uncut=True)[0]

        return job.run(run_chunk, control, report, copy=arguments.copy, progress=arguments.progress)


def prepare(context: DeviceContext, arguments: JobArguments, control: JobControl) -> DirectJob | None:
    """Check a job as far as that is possible without running it, and decide once what does not change.

    Returns
    -------
    DirectJob or None
        ``None``: it needs more than one run over the caller's arrays in place: `process` does it.

    Raises
    ------
    ParameterError, CopyRefused
        As `process` does, for arrays; of URLs and files, types and parameters are checked.
    """
    ends = _Ends.of(context, arguments)
    if ends.key is None or not all(keeps_memory(source) for source in ends.sources):
        return None
    with ExitStack() as stack:
        decided = _decide(context, arguments, ends, control, Report(), stack)
        decided.leave(ends)
    found = ends.direct(context)
    if found is None or any(dst is None for dst in ends.dsts):
        return None
    placed = found.place(*ends.arrays)
    return None if placed is None else placed.watch([*ends.arrays[0], *ends.arrays[1]])


class StartedJob(NamedTuple):
    """A job whose runs are all in the device's queue.

    Attributes
    ----------
    runs
        The runs, in the order in which they were started.
    sources, dsts
        The device arrays that the runs read, and those that they write.
    value
        What the job returns.
    report
        What is known of the job so far.
    """

    runs: RunGroup
    sources: Sequence[DeviceArray]
    dsts: Sequence[DeviceArray]
    value: Any
    report: Report


def start(context: DeviceContext, arguments: JobArguments) -> StartedJob:
    """Start all runs of a job between device arrays without waiting for any.

    Raises
    ------
    ParameterError
        A source or destination is not a device array; or for the reasons for which `process` raises it (parameters,
        types, sizes).
    """
    ends = _Ends.of(context, arguments)
    definition = context.definition
    both = (("src", definition.inputs, ends.sources), ("dst", definition.outputs, ends.dsts))
    for name, ports, values in both:
        for port, value in zip(ports, values, strict=True):
            if not isinstance(value, DeviceArray):
                which = name if len(ports) == 1 else f"{name}[{port.name!r}]"
                raise ParameterError(
                    f"{which}: {type(value).__name__}; expected an array of put or device_empty, which needs no "
                    "wait of the host; process and process_submit take the others"
                )
    report = Report()
    with ExitStack() as stack:
        decided = _decide(context, arguments, ends, JobControl(), report, stack)
        at = report.now()
        inputs = [one.make(decided.plan, port) for one, port in zip(decided.inputs, decided.input_plans, strict=True)]
        outputs = [
            one.make(decided.plan, port) for one, port in zip(decided.outputs, decided.output_plans, strict=True)
        ]
        call = decided.job.call
        runs: list[Any] = []
        with context.borrow_launcher(call) as launcher:
            try:
                for chunk in _zipped(decided.job, inputs).chunks():
                    regions = [
                        output.region_for(chunk).part(0, port.nbytes(chunk.nbytes) or 0)
                        for port, output in zip(call.outputs, outputs, strict=True)
                    ]
                    run = launcher.start(chunk, regions)
                    runs += run.runs if isinstance(run, RunGroup) else [run]
                    report.chunks += 1
            except BaseException:
                if runs:
                    cancel(RunGroup(runs))
                raise
            finally:
                report.moved(*launcher.take_moved())
            launcher.clear_regions()
        report.bytes_in = sum([one.nbytes or 0 for one in decided.inputs])
        report.bytes_out = sum([one.nbytes for one in ends.dsts if isinstance(one, DeviceArray)])
        report.add("prepare", 0, at)
        value = _result(decided.outputs)
    read, written = ([one for one in side if isinstance(one, DeviceArray)] for side in (ends.sources, ends.dsts))
    return StartedJob(RunGroup(runs), read, written, value, report)


class _Ends(NamedTuple):
    """Sources and destinations of a job, and its bound call."""

    sources: Sequence[object]
    dsts: Sequence[object]
    arrays: tuple[list[Any], list[Any]]
    converted: list[bool]  # of the sources: the array was made by the object's own __array__, for this job
    call: BoundCall
    key: Hashable | None  # None: some are no arrays of the caller's

    @classmethod
    def of(cls, context: DeviceContext, arguments: JobArguments) -> _Ends:
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
        return None if self.key is None else find(context, self.key)


@dataclass(slots=True)
class _Decided:
    """How a job runs."""

    job: JobContext
    inputs: list[InputBinding]
    outputs: list[OutputBinding]
    input_plans: list[PortPlan]
    output_plans: list[PortPlan]
    changed: list[tuple[int, int, str]]
    plan: Plan

    def leave(self, ends: _Ends) -> None:
        """Leave what was decided behind for the next job, if this one is a single run without a copy."""
        job, call = self.job, self.job.call
        if ends.key is None or not self.plan.single or self.changed or call.size_reported:
            return
        if isinstance(call, ChainCall) or len(job.kernels) != 1:
            return  # its runs are started by a launcher of its own
        if all(one.in_place for one in self.inputs) and all(one.in_place for one in self.outputs):
            shapes = [one.array.shape for one in self.outputs if one.array is not None]
            nbytes = [one.nbytes or 0 for one in self.inputs]
            keep(job.context, ends.key, DirectCall(job.context, call, job.kernels[0], shapes, nbytes))


def _decide(
    context: DeviceContext,
    arguments: JobArguments,
    ends: _Ends,
    control: JobControl,
    report: Report,
    stack: ExitStack,
) -> _Decided:
    call, arrays = ends.call, ends.arrays[0]
    bound = report.now()
    kernels = context.kernels(call)
    report.spans.append(Span("prepare", 0, 0.0, bound))
    report.add("build", 0, bound)
    _check_has_output(call, kernels[0])
    job = JobContext(context, call, kernels, control, report, stack, arguments.copy)
    inputs = [
        InputBinding(port, source, array, job)
        for port, source, array in zip(call.inputs, ends.sources, arrays, strict=True)
    ]
    for port, array, is_converted in zip(call.inputs, arrays, ends.converted, strict=True):
        if array is not None and is_converted:
            report.copied(array.nbytes, job.allow(port.name, CONVERTED))
    if call.needs_sources:
        sizes = [SourceSize(one.nbytes, one.shape) for one in inputs]
        call = job.call = context.size(call, tuple(sizes))
    call.check_sizes([binding.nbytes for binding in inputs])
    input_plans = [binding.plan() for binding in inputs]
    outputs = [OutputBinding(port, dst, inputs, job) for port, dst in zip(call.outputs, ends.dsts, strict=True)]
    _check_distinct(outputs)
    changed = _changed(inputs, outputs, job)
    output_plans = [binding.plan() for binding in outputs]
    plan = make_plan(
        call,
        context.info,
        input_plans,
        output_plans,
        memory_limit=arguments.memory_limit,
        device_memory=job.device_memory,
    )
    return _Decided(job, inputs, outputs, input_plans, output_plans, changed, plan)


def _run(
    context: DeviceContext,
    arguments: JobArguments,
    ends: _Ends,
    control: JobControl,
    report: Report,
    stack: ExitStack,
) -> Any:
    decided = _decide(context, arguments, ends, control, report, stack)
    built = report.now()
    job, plan = decided.job, decided.plan
    both = (
        zip(decided.inputs, decided.input_plans, strict=True),
        zip(decided.outputs, decided.output_plans, strict=True),
    )
    inputs = [binding.make(plan, port) for binding, port in both[0]]
    outputs = [binding.make(plan, port) for binding, port in both[1]]
    total = decided.inputs[0].nbytes if decided.inputs else 0
    with context.borrow_launcher(job.call) as launcher:
        source = _zipped(job, inputs)
        progress = _progress(arguments, report, total)
        stages = StagePipeline(job.call, launcher, source, outputs, control, report, progress, decided.changed)
        report.add("prepare", 0, built)
        try:
            if plan.single:
                stages.run_single()
            else:
                stages.run_stages()
        finally:
            report.moved(*launcher.take_moved())
        launcher.clear_regions()
    if total is None:
        job.call.check_size(stages.consumed)
    decided.leave(ends)
    return _result(decided.outputs)


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
            if source.resident is not None and source.resident is not target.resident:
                raise ParameterError(
                    f"{source.port.name}: the kernel changes it in place, and a device array is not copied; expected "
                    "the same device array as destination, or an array of the host as source"
                )
            if target.resident is not None:
                pairs.append((number, place, reason))
                continue
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
