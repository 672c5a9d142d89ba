"""Many small jobs as one: their inputs side by side in pinned memory, one transfer to the card, one back.

A card takes about as long to begin a transfer as to move 64 KiB; so jobs of one kind that wait at the same time travel
together. Each keeps its own result and its own error: what fails in the storage fails its own job, and where the card
fails with all of them, each runs again alone. Nothing is stored before its run has ended well, so that this is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from apyfal._core.device import FROM_DEVICE, TO_DEVICE
from apyfal.batching.item import BatchItem
from apyfal.batching.packing import Packer
from apyfal.definition.grammar import STATUS_DONE
from apyfal.device.control import Aborted
from apyfal.device.regions import BufferRegion
from apyfal.device.waiting import cancel, wait
from apyfal.exceptions import DeviceLost, DriverError, RunTimeout
from apyfal.pipeline.arrays import element_type_of
from apyfal.pipeline.inputs import Piece
from apyfal.pipeline.report import Report

if TYPE_CHECKING:
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import CallPort
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.device.launcher import KernelLauncher
    from apyfal.jobs.queue import Task

__all__ = ["Batch"]

#: Runs in flight, where each job is one.
_IN_FLIGHT = 8


class Batch:
    """Runs several jobs of one kind together.

    Parameters
    ----------
    card
        Where.
    tasks
        The jobs, of one kind (`apyfal.batching.policy.BatchKeys`).
    parameters
        The accelerator's, for all of them.
    control
        Deadline and failure, of all of them.

    Raises
    ------
    ParameterError
        The parameters are wrong.
    """

    def __init__(
        self, card: DeviceContext, tasks: Sequence[Task], parameters: Mapping[str, object], control: JobControl
    ) -> None:
        self._card = card
        self._control = control
        self._report = Report()
        self._members = [BatchItem(task) for task in tasks]
        first = self._members[0]
        self._call = card.call((element_type_of(first.task.src, first.array),), parameters)
        self._kernel = card.kernel(self._call)
        self._layout = Packer(self._call, card.info)

    def run(self) -> list[Task]:
        """Run the jobs, and keep the promises of those that ended.

        Returns
        -------
        list of Task
            Those that are still to be run, each alone: too large, refused by the card, or in need of an error of their
            own. Nothing was stored for them.
        """
        kept = self._call.definition.finish is not None and any(member.task.dst is not None for member in self._members)
        if kept or not self._layout.possible:
            return [member.task for member in self._members]
        try:
            self._together()
        except (DriverError, Aborted) as error:
            failure = self._control.take_failure() or error
            if isinstance(failure, DeviceLost) or self._control.failed:
                self._fail(self._members, failure)
        finally:
            info = self._card.info
            for member in reversed(self._members):  # who waits for the first finds all of them, and is woken once
                if member.ended:
                    member.settle(self._report, device=info["name"], driver=self._card.definition.driver)
        return [member.task for member in self._members if not member.ended]

    def _together(self) -> None:
        with self._memory(self._call.inputs[0], self._layout.room) as inputs:
            with self._report.span("fetch", 0):
                self._fetch(inputs)
            placed = [member for member in self._members if member.place is not None and not member.ended]
            if placed:
                self._report.chunks = 1
                # A power of two, so that there are few sizes to be kept for the next group.
                with self._memory(self._call.outputs[0], 1 << (self._layout.out_used - 1).bit_length()) as output:
                    self._compute(inputs, output, placed)
                    with self._report.span("store", 0):
                        self._store(output, placed)

    @property
    def largest(self) -> int:
        """Bytes of the largest input or output."""
        return max((max(m.place.nbytes, m.produced) for m in self._members if m.place is not None), default=0)

    def _memory(self, port: CallPort, nbytes: int) -> AbstractContextManager[BufferRegion]:
        return self._card.lent(nbytes, self._kernel.bank(port.index))

    # -- storage ------------------------------------------------------------------------------------------------------
    def _fetch(self, inputs: BufferRegion) -> None:
        far = []
        for member in self._members:
            if member.array is None:
                far.append(member)
            else:
                member.pack(member.array, self._layout, inputs)
        try:
            self._card.receiving(lambda member: member.receive(self._layout, inputs), far, self._control)
        except RunTimeout as error:
            self._fail([member for member in far if not member.arrived], error)
            raise

    def _store(self, output: BufferRegion, placed: list[BatchItem]) -> None:
        far = [member for member in placed if member.is_stored]
        for member in placed:
            if not member.is_stored:
                member.deliver(self._call, output)
        try:
            self._card.storing(lambda member: member.deliver(self._call, output), far, self._control)
        except RunTimeout as error:
            self._fail(far, error)
            raise

    @staticmethod
    def _fail(members: list[BatchItem], error: BaseException) -> None:
        for member in members:
            if not member.ended:
                member.fail(error)

    # -- the card -----------------------------------------------------------------------------------------------------
    def _compute(self, inputs: BufferRegion, output: BufferRegion, placed: list[BatchItem]) -> None:
        layout = self._layout
        with self._card.invocation(self._call, self._kernel) as invocation:
            if layout.merged:
                with self._report.span("compute", 0):
                    piece = Piece(0, inputs.part(0, layout.used), layout.used, 0, last=True)
                    run = invocation.start(piece, (output.part(0, layout.out_used),), send=True, bring=True)
                    wait(run, self._control)
                for member in placed:
                    member.produced = member.place.out_nbytes if member.place is not None else 0
            else:
                with self._report.span("to_device", 0):
                    inputs.sync(TO_DEVICE, layout.used)
                with self._report.span("compute", 0):
                    self._compute_each(invocation, inputs, output, placed)
                with self._report.span("from_device", 0):
                    self._bring(output, placed)
            invocation.forget()

    def _compute_each(
        self, invocation: KernelLauncher, inputs: BufferRegion, output: BufferRegion, placed: list[BatchItem]
    ) -> None:
        """Give each job a run of its own; where the kernel reports, before the next overwrites that."""
        reports = self._call.reports
        in_flight: deque[Run] = deque()
        try:
            for member in placed:
                if member.place is None:
                    continue
                start, nbytes, out_start, room = member.place
                piece = Piece(0, inputs.part(start, nbytes), nbytes, 0, last=True)
                in_flight.append(invocation.start(piece, (output.part(out_start, room),)))
                member.produced = room
                while len(in_flight) > (0 if reports else _IN_FLIGHT):
                    wait(in_flight[0], self._control)
                    in_flight.popleft()
                if reports:
                    read, member.produced, status = invocation.reported()
                    if status != STATUS_DONE or read != nbytes:
                        member.place = None
            while in_flight:
                wait(in_flight[0], self._control)
                in_flight.popleft()
        except BaseException:
            while in_flight:
                cancel(in_flight.popleft())
            raise

    def _bring(self, output: BufferRegion, placed: list[BatchItem]) -> None:
        if not self._call.reports:
            output.sync(FROM_DEVICE, self._layout.out_used)
            return
        for member in placed:
            if member.place is not None:  # of what the kernel left free, nothing moves
                output.part(member.place.out_start, member.produced).sync(FROM_DEVICE, member.produced)
