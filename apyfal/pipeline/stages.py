"""A job's stages: fetch, copy to the device, compute, copy from the device, store; all at once for several chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from apyfal._core.device import FROM_DEVICE, TO_DEVICE
from apyfal.definition.grammar import STATUS_DONE, STATUS_FULL
from apyfal.device.control import Aborted, JobControl, StageQueue
from apyfal.device.waiting import GRACE_SECONDS, POLL_SECONDS, Waitable, cancel, wait
from apyfal.exceptions import KernelError
from apyfal.memory import current_meter, metered
from apyfal.storage.flow.cancel import current_cancel
from apyfal.threads import start_threads

if TYPE_CHECKING:
    from apyfal.definition.bound_call import BoundCall
    from apyfal.device.launcher import Launcher
    from apyfal.device.regions import BufferRegion, Chunk
    from apyfal.pipeline.inputs import Input
    from apyfal.pipeline.outputs import Output
    from apyfal.pipeline.reports.report import Report

__all__ = ["OrderedSection", "StagePipeline"]

_Item = TypeVar("_Item")

#: Threads that move data in each direction. While one starts a run or passes a chunk on, the driver already has the
#: other's transfer. With one thread the link was idle for 0.7 ms after each 16 ms (`bench/jobs/bench_pipeline.py`).
_MOVERS = 2
#: Items that wait between two stages: with two, a thread that wakes up late does not leave the next stage idle.
_QUEUED = 2


class OrderedSection(Generic[_Item]):
    """Lets several threads work on the items of a channel, and then continue one by one, in the order of the items.

    Parameters
    ----------
    control
        Ends the waiting if the job fails.
    channel
        Where the items come from.
    """

    def __init__(self, control: JobControl, channel: StageQueue[_Item]) -> None:
        self._control = control
        self._channel = channel
        self._numbering = threading.Lock()
        self._taken = 0
        self._done = 0

    def __iter__(self) -> Iterator[tuple[int, _Item]]:
        """Yield number and item, for the items that the calling thread gets."""
        while True:
            with self._numbering:
                try:
                    item = self._channel.get()
                except StopIteration:
                    return
                number = self._taken
                self._taken += 1
            yield number, item
            del item

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Run the block when the blocks of all earlier items have ended; raise `Aborted` if the job fails before."""
        changed = self._control.changed
        with changed:
            while self._done != number and not self._control.failed:
                changed.wait(self._control.seconds_left())
            if self._control.failed:
                raise Aborted
        yield
        with changed:
            self._done = number + 1
            changed.notify_all()


class _Started(NamedTuple):
    """A run in flight over a chunk, started `at` seconds into the job; ``run=None``: it is still to be started."""

    chunk: Chunk
    outputs: tuple[BufferRegion, ...]
    run: Waitable | None
    at: float


class _Finished(NamedTuple):
    """Output on the host side: for each output a region and its bytes of data; `read` bytes of input became that."""

    number: int
    outputs: tuple[tuple[BufferRegion, int], ...]
    read: int


class StagePipeline:
    """Runs a kernel over all chunks of an input into the outputs.

    Parameters
    ----------
    call, launcher
        What is run.
    source, outputs
        Where the data comes from and where it goes.
    control
        Deadline and failure of the job.
    report
        Receives what was done.
    progress
        Called after each chunk with the bytes of the first input that are done; ``None``: nobody asked.
    changed
        Inputs that the kernel changes in place: number of the input, number of the output that it works on, and why
        the data is copied from one to the other.
    stored
        Called after each chunk was stored; ``None``: nobody asked.

    Attributes
    ----------
    consumed
        Bytes of the first input that are done.
    """

    def __init__(
        self,
        call: BoundCall,
        launcher: Launcher,
        source: Input,
        outputs: Sequence[Output],
        control: JobControl,
        report: Report,
        progress: Callable[[int], None] | None,
        changed: Sequence[tuple[int, int, str]] = (),
        stored: Callable[[], None] | None = None,
    ) -> None:
        self._changed = changed
        self._unsent = {number for number, _, _ in changed}
        self._call = call
        self._launcher = launcher
        self._source = source
        self._outputs = outputs
        self._control = control
        self._report = report
        self._progress = progress
        self._stored = stored
        self.consumed = 0
        self._in_flight: deque[Waitable] = deque()  # in the order in which they were started

    # -- one chunk: in the calling thread, with as few calls into the driver as possible ------------------------------
    def run_single(self) -> None:
        """Do the job in one run (or as many as its output takes), without threads."""
        size_reported = self._call.size_reported
        for chunk in self._source.chunks():
            self._count(chunk)
            with self._report.span("compute", chunk.number):
                outputs = self._output_regions(chunk)
                self._copy_changed(chunk, outputs)
                run = self._launcher.start(chunk, outputs, sync_to=True, sync_from=not size_reported)
                wait(run, self._control)
            if size_reported:
                for finished in self._rerun_until_done(chunk, outputs):
                    self._store(finished)
            else:
                full = tuple([(region, region.nbytes) for region in outputs])
                self._store(_Finished(chunk.number, full, chunk.nbytes))
            self._source.release(chunk)

    # -- many chunks: threads for each stage --------------------------------------------------------------------------
    def run_stages(self) -> None:
        """Do the job with all stages at once; the calling thread stores."""
        fetched: StageQueue[Chunk] = StageQueue(self._control, _QUEUED)
        started: StageQueue[_Started] = StageQueue(self._control, _QUEUED)
        finished: StageQueue[_Finished] = StageQueue(self._control, _QUEUED)
        to_start, to_finish = OrderedSection(self._control, fetched), OrderedSection(self._control, started)
        threads: list[threading.Thread] = []
        try:
            self._start_stage("fetch", 1, fetched, self._fetch, threads)
            self._start_stage("start", _MOVERS, started, lambda put: self._start(to_start, put), threads)
            self._start_stage("finish", _MOVERS, finished, lambda put: self._finish(to_finish, put), threads)
            for output in finished:
                self._store(output)
        except BaseException as error:
            self._control.fail(error)
        for thread in threads:
            thread.join(GRACE_SECONDS + 2 * POLL_SECONDS if self._control.failed else None)
        if self._control.failed:
            # Emptied here: the frames in the error's traceback keep these objects alive.
            while self._in_flight:
                cancel(self._in_flight.popleft())
            for channel in (fetched, started, finished):
                channel.clear()
            self._control.check()

    def _start_stage(
        self,
        name: str,
        count: int,
        channel: StageQueue[Any],
        work: Callable[[Callable[[Any], None]], None],
        threads: list[threading.Thread],
    ) -> None:
        """Start the threads of a stage. The last one that ends marks the end of the channel to the next stage."""
        working = [None] * count
        meter, token = current_meter(), current_cancel()

        def body() -> None:
            try:
                with metered(meter), nullcontext() if token is None else token.scope():
                    work(channel.put)
                working.pop()
                if not working:
                    channel.end()
            except Aborted:
                pass
            except BaseException as error:
                self._control.fail(error)

        start_threads(name, count, body, threads)

    def _fetch(self, put: Callable[[Chunk], None]) -> None:
        for chunk in self._source.chunks():
            self._count(chunk)
            put(chunk)

    def _count(self, chunk: Chunk) -> None:
        self._report.bytes_in += chunk.nbytes
        for companion in chunk.companions:
            self._report.bytes_in += companion.nbytes

    def _start(self, fetched: OrderedSection[Chunk], put: Callable[[_Started], None]) -> None:
        for number, chunk in fetched:
            copied_from = self._report.now()
            for position, one in enumerate((chunk, *chunk.companions)):
                if one.region is not None and position not in self._unsent:
                    self._report.moved(one.region.sync(TO_DEVICE, one.nbytes), 0)
            copied_until = self._report.now()
            with fetched.turn(number):
                if chunk.region is not None and not chunk.region.resident:
                    self._report.follow("to_device", chunk.number, copied_from, copied_until)
                if self._call.size_reported:  # the stage that reads the report starts the run, and runs it again
                    put(_Started(chunk, (), None, 0.0))
                    continue
                outputs = self._output_regions(chunk)
                for place in self._copy_changed(chunk, outputs):
                    self._report.moved(outputs[place].sync(TO_DEVICE, outputs[place].nbytes), 0)
                at = self._report.now()
                run = self._launcher.start(chunk, outputs)
                self._in_flight.append(run)
                put(_Started(chunk, outputs, run, at))

    def _finish(self, started: OrderedSection[_Started], put: Callable[[_Finished], None]) -> None:
        for number, (chunk, outputs, run, at) in started:
            if run is None:
                with started.turn(number):
                    for finished in self._run_until_done(chunk):
                        put(finished)
                    self._source.release(chunk)
                continue
            try:
                wait(run, self._control)
                computed = self._report.now()
                self._source.release(chunk)
                read_back = self._read_back(chunk, outputs)
                copied = self._report.now()
            except BaseException:
                with started.turn(number):  # the failure of an earlier run is the cause of this one, and comes first
                    raise
            with started.turn(number):
                self._in_flight.popleft()
                self._report.follow("compute", chunk.number, at, computed)
                if any(nbytes and not region.resident for region, nbytes in read_back):
                    self._report.follow("from_device", chunk.number, computed, copied)
                put(_Finished(chunk.number, read_back, chunk.nbytes))

    def _output_regions(self, chunk: Chunk) -> tuple[BufferRegion, ...]:
        """Return memory for the outputs of a run over a chunk: of the exact size if that is known before the run."""
        regions = []
        for port, output in zip(self._call.outputs, self._outputs, strict=True):
            region = output.region_for(chunk)
            nbytes = port.nbytes(chunk.nbytes)
            regions.append(region if nbytes is None else region.part(0, nbytes))
        return tuple(regions)

    def _copy_changed(self, chunk: Chunk, outputs: Sequence[BufferRegion]) -> list[int]:
        """Copy inputs to the outputs that the kernel changes in place; return which these are."""
        for number, place, reason in self._changed:
            one = (chunk, *chunk.companions)[number]
            if one.region is None or not one.nbytes or one.region.resident:
                continue  # on the device, source and target are the same array
            source = one.region.bytes[: one.nbytes]
            if outputs[place].resident:
                self._report.moved(outputs[place].write(source), 0)
                continue
            target = outputs[place].bytes
            if source.ctypes.data != target.ctypes.data:
                target[...] = source
                self._report.copied(one.nbytes, reason)
        return [place for _, place, _ in self._changed]

    # -- runs ---------------------------------------------------------------------------------------------------------
    def _run_until_done(self, chunk: Chunk) -> Iterator[_Finished]:
        outputs = self._output_regions(chunk)
        with self._report.span("compute", chunk.number):
            wait(self._launcher.start(chunk, outputs), self._control)
        yield from self._rerun_until_done(chunk, outputs)

    def _rerun_until_done(self, chunk: Chunk, outputs: tuple[BufferRegion, ...]) -> Iterator[_Finished]:
        """Yield the output of a run that has ended, and run again as long as the kernel reports a full output."""
        consumed = 0
        while True:
            read, produced, status = self._launcher.read_report()
            fault = self._fault_of(read, produced, status, chunk.nbytes - consumed, outputs[0].nbytes)
            if fault is not None:
                raise KernelError(f"kernel {self._call.kernel!r} {fault}")
            consumed += read
            with self._report.span("from_device", chunk.number):
                read_back = self._read_back(chunk, outputs, produced)
            yield _Finished(chunk.number, read_back, read)
            if status == STATUS_DONE:
                return
            outputs = self._output_regions(chunk)
            with self._report.span("compute", chunk.number):
                wait(self._launcher.start(chunk, outputs, skip=consumed), self._control)

    def _fault_of(self, read: int, produced: int, status: int, left: int, capacity: int) -> str | None:
        """Say what is wrong with the report of a run over `left` bytes, with room for `capacity`; ``None``: nothing."""
        if status not in (STATUS_DONE, STATUS_FULL):
            return f"reported status {status}"
        if read > left:
            return f"reported {read} bytes consumed, and had {left}"
        if produced > capacity:
            return f"reported {produced} bytes produced, and had room for {capacity}"
        if status == STATUS_DONE:
            return None if read == left else f"reported that it is done, and {read} bytes consumed of {left}"
        if all(argument.name != "skip" for argument in self._call.arguments):
            return "reported that dst is full, and takes no argument 'skip' to go on"
        return None if read or produced else "neither reads nor writes any more"

    def _read_back(
        self, chunk: Chunk, outputs: tuple[BufferRegion, ...], produced: int | None = None
    ) -> tuple[tuple[BufferRegion, int], ...]:
        """Copy the `produced` bytes of a run from the device; ``None``: all that its regions hold."""
        read_back = []
        for output, region in zip(self._outputs, outputs, strict=True):
            nbytes = output.nbytes_to_read(chunk, region.nbytes if produced is None else produced)
            self._report.moved(0, region.sync(FROM_DEVICE, nbytes))
            read_back.append((region, nbytes))
        return tuple(read_back)

    def _store(self, finished: _Finished) -> None:
        for output, (region, nbytes) in zip(self._outputs, finished.outputs, strict=True):
            output.store(finished.number, region, nbytes)
            self._report.bytes_out += nbytes
        self._report.chunks = finished.number + 1
        self.consumed += finished.read
        if self._progress is not None:
            self._progress(self.consumed)
        if self._stored is not None:
            self._stored()
