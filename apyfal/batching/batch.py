"""Several small jobs at once: their inputs in one pinned buffer, one transfer to the device, one transfer back.

Starting a transfer costs about as much as moving 64 KiB, so jobs with the same parameters that wait at the same time
are batched. Each keeps its own result and error: a storage error fails one job, and if the device refuses the
batch, each job runs again alone. That is safe, because nothing is stored before the run has succeeded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from apyfal._core.device import FROM_DEVICE, TO_DEVICE
from apyfal.batching.item import Batchable, BatchItem
from apyfal.batching.objects import receive_together, split, store_together
from apyfal.batching.packing import Packer
from apyfal.definition.grammar import STATUS_DONE
from apyfal.device.control import Aborted
from apyfal.device.regions import BufferRegion, Chunk
from apyfal.device.waiting import cancel, wait
from apyfal.exceptions import DeviceLost, DriverError, RunTimeout
from apyfal.pipeline.arrays import element_type_of
from apyfal.pipeline.reports.report import Report

if TYPE_CHECKING:
    from apyfal.batching.fan_out import StorageFanOut
    from apyfal.definition.bound_call import CallPort
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.device.launcher import Launcher
    from apyfal.device.waiting import Waitable

__all__ = ["Batch"]

_Task = TypeVar("_Task", bound=Batchable)

#: Largest number of runs in flight if each job is a separate run.
_IN_FLIGHT = 8


class Batch(Generic[_Task]):
    """Runs several jobs with the same batch key at once.

    Parameters
    ----------
    context
        The device.
    fan_out
        How files and objects are fetched and stored.
    tasks
        The jobs, of one key (`apyfal.batching.policy.BatchKeys`).
    parameters
        Of the accelerator, for all jobs.
    control
        Deadline and failure of all jobs.

    Raises
    ------
    ParameterError
        The parameters are wrong.
    """

    def __init__(
        self,
        context: DeviceContext,
        fan_out: StorageFanOut,
        tasks: Sequence[_Task],
        parameters: Mapping[str, object],
        control: JobControl,
    ) -> None:
        self._context = context
        self._fan_out = fan_out
        self._control = control
        self._report = Report()
        self._report.run_details = control.run_details
        self._tasks = tasks
        self._items = [BatchItem(task) for task in tasks]
        first = self._items[0]
        self._call = context.bind((element_type_of(first.task.src, first.array),), parameters)
        with self._report.span("build", 0):
            self._kernel = context.kernel(self._call)
        self._packer = Packer(self._call, context.info)

    def run(self) -> list[_Task]:
        """Run the jobs, and set the futures of those that ended.

        Returns
        -------
        list of tasks
            Jobs that have to run alone: too large, refused by the device, or in need of an error message of their own.
            Nothing was stored for them.
        """
        stores_results = self._call.make_result is not None and any(task.dst is not None for task in self._tasks)
        if stores_results or not self._packer.possible:
            return list(self._tasks)
        try:
            self._run()
        except (DriverError, Aborted) as error:
            failure = self._control.take_failure() or error
            if isinstance(failure, DeviceLost) or self._control.failed:
                self._fail(self._items, failure)
        finally:
            info = self._context.info
            for item in reversed(self._items):  # a reader of results in order is woken once, by the first
                if item.ended:
                    item.settle(self._report, device=info["name"], driver=self._context.definition.driver)
        return [task for task, item in zip(self._tasks, self._items, strict=True) if not item.ended]

    def _run(self) -> None:
        with self._buffer(self._call.inputs[0], self._packer.capacity) as inputs:
            with self._report.span("fetch", 0):
                self._fetch(inputs)
            placed = [item for item in self._items if item.place is not None and not item.ended]
            if placed:
                self._report.chunks = 1
                # A power of two, so that buffers of few sizes have to be kept for the next batches.
                with self._buffer(self._call.outputs[0], 1 << (self._packer.out_used - 1).bit_length()) as output:
                    self._compute(inputs, output, placed)
                    with self._report.span("store", 0):
                        self._store(output, placed)

    @property
    def largest_nbytes(self) -> int:
        """Bytes of the largest input or output."""
        sizes = [max(item.place.nbytes, item.produced) for item in self._items if item.place is not None]
        return max(sizes, default=0)

    @property
    def seconds_each(self) -> float:
        """Seconds that the card worked on each job."""
        placed = sum(item.place is not None for item in self._items)
        return sum(span.end - span.start for span in self._report.spans if span.stage == "compute") / max(placed, 1)

    def _buffer(self, port: CallPort, nbytes: int) -> AbstractContextManager[BufferRegion]:
        return self._context.borrow_region(nbytes, self._kernel.bank(port.index))

    # -- storage ------------------------------------------------------------------------------------------------------
    def _fetch(self, inputs: BufferRegion) -> None:
        to_receive = []
        for item in self._items:
            if item.array is None:
                to_receive.append(item)
            else:
                item.pack(item.array, self._packer, inputs)
        together, alone = split(to_receive, lambda item: item.task.src)
        try:
            if together:
                fetch = partial(receive_together, packer=self._packer, inputs=inputs, fan_out=self._fan_out)
                self._fan_out.together(fetch, [together], self._control)
            self._fan_out.fetch(lambda item: item.receive(self._packer, inputs), alone, self._control)
        except RunTimeout as error:
            self._fail([item for item in to_receive if not item.arrived], error)
            raise

    def _store(self, output: BufferRegion, placed: list[BatchItem]) -> None:
        to_store = [item for item in placed if item.is_stored and item.place is not None]
        for item in placed:
            if not item.is_stored:
                item.deliver(self._call, output)
        together, alone = split(to_store, lambda item: item.task.dst)
        try:
            if together:
                self._fan_out.together(partial(store_together, output=output), [together], self._control)
            self._fan_out.store(lambda item: item.deliver(self._call, output), alone, self._control)
        except RunTimeout as error:
            self._fail(to_store, error)
            raise

    @staticmethod
    def _fail(items: list[BatchItem], error: BaseException) -> None:
        for item in items:
            if not item.ended:
                item.fail(error)

    # -- the device ---------------------------------------------------------------------------------------------------
    def _compute(self, inputs: BufferRegion, output: BufferRegion, placed: list[BatchItem]) -> None:
        packer = self._packer
        with self._context.borrow_launcher(self._call) as launcher:
            if packer.merged:
                with self._report.span("compute", 0):
                    chunk = Chunk(0, inputs.part(0, packer.used), packer.used, 0, last=True)
                    run = launcher.start(chunk, (output.part(0, packer.out_used),), sync_to=True, sync_from=True)
                    wait(run, self._control)
                for item in placed:
                    item.produced = item.place.out_nbytes if item.place is not None else 0
            else:
                with self._report.span("to_device", 0):
                    inputs.sync(TO_DEVICE, packer.used)
                with self._report.span("compute", 0):
                    self._compute_each(launcher, inputs, output, placed)
                with self._report.span("from_device", 0):
                    self._read_back(output, placed)
            launcher.clear_regions()

    def _compute_each(
        self, launcher: Launcher, inputs: BufferRegion, output: BufferRegion, placed: list[BatchItem]
    ) -> None:
        """Run the jobs one by one. If the kernel reports, read each report before the next run overwrites it."""
        size_reported = self._call.size_reported
        in_flight: deque[Waitable] = deque()
        try:
            for item in placed:
                if item.place is None:
                    continue
                start, nbytes, out_start, out_nbytes = item.place
                chunk = Chunk(0, inputs.part(start, nbytes), nbytes, 0, last=True)
                in_flight.append(launcher.start(chunk, (output.part(out_start, out_nbytes),)))
                item.produced = out_nbytes
                while len(in_flight) > (0 if size_reported else _IN_FLIGHT):
                    wait(in_flight[0], self._control)
                    in_flight.popleft()
                if size_reported:
                    read, item.produced, status = launcher.read_report()
                    if status != STATUS_DONE or read != nbytes or item.produced > out_nbytes:
                        item.place = None  # it goes on, or fails, alone
            while in_flight:
                wait(in_flight[0], self._control)
                in_flight.popleft()
        except BaseException:
            while in_flight:
                cancel(in_flight.popleft())
            raise

    def _read_back(self, output: BufferRegion, placed: list[BatchItem]) -> None:
        if not self._call.size_reported:
            output.sync(FROM_DEVICE, self._packer.out_used)
            return
        for item in placed:
            if item.place is not None:  # copy only what the kernel wrote
                output.part(item.place.out_start, item.produced).sync(FROM_DEVICE, item.produced)
