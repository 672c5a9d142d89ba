"""Queue a job between device arrays after the jobs that are on the device already, without waiting for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apyfal.device.chaining.queued_job import QueuedJob
from apyfal.pipeline.arguments import JobArguments
from apyfal.pipeline.reports.report import Report, Span
from apyfal.pipeline.run import start

if TYPE_CHECKING:
    from apyfal.device.context import DeviceContext
    from apyfal.device.waiting import RunGroup

__all__ = ["enqueue"]


def enqueue(context: DeviceContext, arguments: JobArguments) -> QueuedJob:
    """Queue a job; see `apyfal.Accelerator.enqueue`. If it fails, the arrays that it writes raise its error, too."""
    queue = context.shared.queue
    with queue.turn():
        started = start(context, arguments)
        report, at = started.report, started.report.now()

        def end(job: QueuedJob, runs: RunGroup, error: BaseException | None) -> None:
            for array in {*started.sources, *started.dsts}:
                array.left_by(job, error)
            queue.discard(job)
            if arguments.info is not None:
                _fill(context, report, at, runs, arguments.info)

        job = QueuedJob(
            context.definition.name,
            started.runs,
            [array.writer for array in started.sources if array.writer is not None],
            started.value,
            end,
            context.model_errors,
        )
        for array in started.sources:
            array.used_by(job, writes=False)
        for array in started.dsts:
            array.used_by(job, writes=True)
        queue.add(context, job)
    return job


def _fill(context: DeviceContext, report: Report, at: float, runs: RunGroup, info: dict[str, Any]) -> None:
    """Write the report of a job that has ended into a caller's ``info_dict``."""
    report.run_details = [run.details for run in runs.runs if run.details is not None]
    measured = sum([run.seconds for run in runs.runs])
    # by the device's clock, if it has one, because the host did not measure when the runs began and ended
    report.spans.append(Span("compute", 0, at, at + measured if measured else report.now()))
    report.fill(info, device=context.info["name"], driver=context.definition.driver)
