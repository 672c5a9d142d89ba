"""Run one job: bind its arguments, decide how it runs, run the stages, return the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from apyfal.device.control import Aborted, JobControl
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.device.waiting import RunGroup, cancel
from apyfal.exceptions import KernelError, ParameterError, RunTimeout, StorageError
from apyfal.pipeline.arguments import Ends, JobArguments
from apyfal.pipeline.arrays import keeps_memory
from apyfal.pipeline.binding import JobContext, OutputBinding
from apyfal.pipeline.decision import decide
from apyfal.pipeline.direct import PlacedCall
from apyfal.pipeline.inputs import Input, NoInput, ZippedInput
from apyfal.pipeline.outputs import Output, current_watch
from apyfal.pipeline.reports.report import Report
from apyfal.pipeline.rows import RowPipeline
from apyfal.pipeline.stages import StagePipeline
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.deadlines import deadlines

if TYPE_CHECKING:
    from apyfal.device.context import DeviceContext

__all__ = ["StartedRuns", "prepare", "process", "start"]


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
        resident = arguments.resident(context) if report is None and arguments.progress is None else None
        if resident is not None and (decided := resident.plan) is not None:
            decided.run(context, resident.sources, resident.dsts, control)
            return decided.value(resident.dsts), decided.largest
        ends = Ends.of(context, arguments)
        if context.definition.chunking.kind == "rows" and not uncut:
            report = Report() if report is None else report
            with _waiting_for_storage(ends, control):
                in_rows = _run_in_rows(context, arguments, ends, control, report)
            if in_rows is not None:
                return in_rows
        found = ends.direct(context) if arguments.progress is None else None
        copy = arguments.copy and arguments.memory_limit is None  # a copy may be larger than the limit
        placed = None if found is None else found.place(*ends.arrays, copy=copy)
        if placed is not None and found is not None:
            placed.run_once(control, report)
            return placed.result(), max(found.bytes_in, found.bytes_out)
        report = Report() if report is None else report
        with _waiting_for_storage(ends, control), ExitStack() as stack:
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


@contextmanager
def _waiting_for_storage(ends: Ends, control: JobControl) -> Iterator[None]:
    """End what the block waits for in storage if the job fails, is stopped, or has reached its deadline."""
    both = zip((*ends.sources, *ends.dsts), (*ends.arrays[0], *ends.arrays[1]), strict=True)
    if all(array is not None or one is None or isinstance(one, DeviceArray) for one, array in both):
        yield
        return
    token = CancelToken(current_cancel())
    watched = None
    try:
        with token.scope(), control.on_failure(token.set):
            if control.deadline is not None:
                late = RunTimeout("the job did not end within its timeout")
                watched = deadlines.add(control.deadline, partial(control.fail, late))
            yield
    except StorageError:
        if token.is_set():
            control.check()  # raises what it was cancelled for
        raise
    finally:
        if watched is not None:
            deadlines.discard(watched)
        token.detach()


def _run_in_rows(
    context: DeviceContext, arguments: JobArguments, ends: Ends, control: JobControl, report: Report
) -> tuple[Any, int] | None:
    """Run a job chunk by chunk along its first axis; ``None``: it fits into one run, or cannot be cut."""
    sources, arrays = ends.sources, ends.arrays[0]
    for source, array in zip(sources, arrays, strict=True):
        if array is None and not isinstance(source, (str, PathLike)):
            return None
    if any(isinstance(dst, DeviceArray) for dst in ends.dsts):
        return None
    with ExitStack() as stack:
        rows = RowPipeline(context, ends.call, sources, arrays, ends.dsts, arguments.memory_limit, stack)
        if rows.fits():
            return None

        def run_chunk(chunk: dict[str, Any], part: Report) -> Any:
            one = replace(arguments, src=chunk, dst=None, copy=True, progress=None, memory_limit=None, info=None)
            return process(context, one, control, part, uncut=True)[0]

        return rows.run(run_chunk, control, report, copy=arguments.copy, progress=arguments.progress)


def prepare(context: DeviceContext, arguments: JobArguments, control: JobControl) -> PlacedCall | None:
    """Check a job as far as that is possible without running it, and decide once what does not change.

    Returns
    -------
    PlacedCall or None
        ``None``: it needs more than one run over the caller's arrays in place: `process` does it.

    Raises
    ------
    ParameterError, CopyRefused
        As `process` does, for arrays; of URLs and files, types and parameters are checked.
    """
    ends = Ends.of(context, arguments)
    if ends.key is None or not all(keeps_memory(source) for source in ends.sources):
        return None
    with ExitStack() as stack:
        decided = decide(context, arguments, ends, control, Report(), stack)
        decided.leave(ends)
    found = ends.direct(context)
    if found is None or any(dst is None for dst in ends.dsts):
        return None
    placed = found.place(*ends.arrays, copy=False)
    return None if placed is None else placed.watch([*ends.arrays[0], *ends.arrays[1]])


class StartedRuns(NamedTuple):
    """The runs of a job, all in the device's queue.

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


def start(context: DeviceContext, arguments: JobArguments) -> StartedRuns:
    """Start all runs of a job between device arrays without waiting for any.

    Raises
    ------
    ParameterError
        A source or destination is not a device array; or for the reasons for which `process` raises it (parameters,
        types, sizes).
    """
    resident = arguments.resident(context) if arguments.info is None else None
    if resident is not None and resident.plan is not None:
        queued = resident.plan.start(context, resident.sources, resident.dsts)
        return StartedRuns(queued, resident.sources, resident.dsts, resident.plan.value(resident.dsts), Report())
    ends = Ends.of(context, arguments)
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
        decided = decide(context, arguments, ends, JobControl(), report, stack)
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
                report.moved(*launcher.take_bytes_moved())
            launcher.clear_regions()
            decided.leave_resident(arguments, launcher)
        report.bytes_in = sum([one.nbytes or 0 for one in decided.inputs])
        report.bytes_out = sum([one.nbytes for one in ends.dsts if isinstance(one, DeviceArray)])
        report.add("prepare", 0, at)
        value = _result(decided.outputs)
    read, written = ([one for one in side if isinstance(one, DeviceArray)] for side in (ends.sources, ends.dsts))
    return StartedRuns(RunGroup(runs), read, written, value, report)


def _run(
    context: DeviceContext,
    arguments: JobArguments,
    ends: Ends,
    control: JobControl,
    report: Report,
    stack: ExitStack,
) -> Any:
    decided = decide(context, arguments, ends, control, report, stack)
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
        stored = _watcher(decided.outputs, outputs)
        stages = StagePipeline(job.call, launcher, source, outputs, control, report, progress, decided.changed, stored)
        report.add("prepare", 0, built)
        try:
            if plan.single:
                stages.run_single()
            else:
                stages.run_stages()
        finally:
            report.moved(*launcher.take_bytes_moved())
        launcher.clear_regions()
        decided.leave_resident(arguments, launcher)
    if total is None:
        job.call.check_size(stages.consumed)
        for binding in decided.outputs:
            binding.check_whole(stages.consumed)
    decided.leave(ends)
    return _result(decided.outputs)


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


def _watcher(bindings: Sequence[OutputBinding], outputs: Sequence[Output]) -> Callable[[], None] | None:
    """Return what reports the final bytes of the array that the calling thread watches; ``None``: no output has it."""
    watch = current_watch()
    if watch is None:
        return None
    for binding, output in zip(bindings, outputs, strict=True):
        if watch.is_memory_of(binding.array):
            return partial(_report_final, output, watch.produced)
    return None


def _report_final(output: Output, produced: Callable[[int], None]) -> None:
    if output.final:
        produced(output.final)


def _result(bindings: Sequence[OutputBinding]) -> Any:
    """Return the result of a single output; of several, a mapping from their names to those that are arrays."""
    if len(bindings) == 1:
        return bindings[0].result()
    results = {binding.port.name: binding.result() for binding in bindings}
    return {name: result for name, result in results.items() if result is not None} or None
