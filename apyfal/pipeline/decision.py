"""How a job runs: which memory is used in place, what is copied, and the size of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from apyfal.definition.chain import ChainCall
from apyfal.definition.sizes import SourceSize
from apyfal.device.chaining.resident import ResidentPlan
from apyfal.device.control import JobControl
from apyfal.exceptions import ParameterError
from apyfal.pipeline.arguments import Ends, JobArguments
from apyfal.pipeline.arrays import CONVERTED
from apyfal.pipeline.binding import InputBinding, JobContext, OutputBinding
from apyfal.pipeline.chunking import ChunkPlan, PortPlan, make_plan
from apyfal.pipeline.direct import MOST_COPIED, DirectCall, find, keep
from apyfal.pipeline.reports.report import Report, Span

if TYPE_CHECKING:
    from apyfal._core.device import Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.device.context import DeviceContext
    from apyfal.device.launcher import Launcher

__all__ = ["Decision", "decide"]


@dataclass(slots=True)
class Decision:
    """How a job runs.

    Attributes
    ----------
    job
        What its inputs and outputs share.
    inputs, outputs, input_plans, output_plans
        The binding of each, and what it needs of the plan.
    changed
        Numbers of the inputs that go into an output before the kernel changes them there, that output's, and why.
    plan
        How it is cut into chunks.
    """

    job: JobContext
    inputs: list[InputBinding]
    outputs: list[OutputBinding]
    input_plans: list[PortPlan]
    output_plans: list[PortPlan]
    changed: list[tuple[int, int, str]]
    plan: ChunkPlan

    def leave(self, ends: Ends) -> None:
        """Leave what was decided behind for the next job, if this one is a single run over arrays."""
        job, call = self.job, self.job.call
        if ends.key is None or not self.plan.single or self.changed or call.size_reported:
            return
        if find(job.context, ends.key) is not None or "import" not in job.context.info["capabilities"]:
            return
        copied = [one.copied_nbytes for one in self.inputs] + [one.copied_nbytes for one in self.outputs]
        if sum(copied) > MOST_COPIED:
            return
        if isinstance(call, ChainCall) or len(job.kernels) != 1:
            return  # its runs are started by a launcher of its own
        if all(one.is_direct for one in self.inputs) and all(one.is_direct for one in self.outputs):
            shapes = [one.array.shape for one in self.outputs if one.array is not None]
            nbytes = [one.nbytes or 0 for one in self.inputs]
            keep(job.context, ends.key, DirectCall(job.context, call, job.kernels[0], shapes, nbytes))

    def leave_resident(self, arguments: JobArguments, launcher: Launcher) -> None:
        """Leave it behind for the next job between device arrays, if this one was a single run of such."""
        job, call = self.job, self.job.call
        if not self.plan.single or not launcher.is_plain or call.size_reported:
            return
        resident = arguments.resident(job.context)
        if resident is None or resident.plan is not None:
            return
        bytes_in = [one.nbytes or 0 for one in self.inputs]
        bytes_out = [port.nbytes(bytes_in[0] if bytes_in else 0) or 0 for port in call.outputs]
        plan = ResidentPlan(call, [port.name for port in call.outputs], bytes_in, bytes_out)
        keep(job.context, resident.key, plan)


def decide(
    context: DeviceContext,
    arguments: JobArguments,
    ends: Ends,
    control: JobControl,
    report: Report,
    stack: ExitStack,
) -> Decision:
    """Decide how a job runs, without running anything.

    Raises
    ------
    ParameterError, CopyRefused
        Its sources and destinations do not fit the accelerator or each other, or it needs a copy that was refused.
    """
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
    return Decision(job, inputs, outputs, input_plans, output_plans, changed, plan)


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
