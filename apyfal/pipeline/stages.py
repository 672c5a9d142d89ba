"""A job at work: fetch, to the device, compute, from the device, store; all at once where there are several chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from apyfal._core.device import FROM_DEVICE, TO_DEVICE
from apyfal.definition.grammar import STATUS_DONE, STATUS_FULL
from apyfal.device.control import Aborted, Channel, JobControl
from apyfal.device.waiting import GRACE, LOOK, cancel, wait
from apyfal.exceptions import KernelError
from apyfal.memory import current_meter, metered
from apyfal.pipeline.turns import OrderedSection

if TYPE_CHECKING:
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import BoundCall
    from apyfal.device.launcher import KernelLauncher
    from apyfal.device.regions import BufferRegion
    from apyfal.pipeline.inputs import Input, Piece
    from apyfal.pipeline.outputs import Output
    from apyfal.pipeline.report import Report

__all__ = ["StagePipeline"]

#: Threads that move data in each direction. While one starts a run or hands a chunk on, the other's transfer is with
#: the driver already: without that, the link stood still for 0.7 ms after each 16 ms (`bench/jobs/bench_pipeline.py`).
_MOVERS = 2


class _Started(NamedTuple):
    """A run in flight over a piece, begun `at` seconds into the job; ``run=None``: not begun yet."""

    piece: Piece
    outputs: tuple[BufferRegion, ...]
    run: Run | None
    at: float


class _Done(NamedTuple):
    """Output that came back, bytes at the front of slots, for `read` bytes of the first input."""

    chunk: int
    outputs: tuple[tuple[BufferRegion, int], ...]
    read: int


class StagePipeline:
    """Runs a kernel over all of an input into an output.

    Parameters
    ----------
    call, invocation
        What is run.
    source, outputs
        Where the data is and goes.
    control
        Deadline and failure, shared with what feeds the source.
    report
        Collects what was done.
    progress
        Called after each chunk with the bytes of the first input that are through.

    Attributes
    ----------
    through
        Those bytes.
    """

    def __init__(
        self,
        call: BoundCall,
        invocation: KernelLauncher,
        source: Input,
        outputs: Sequence[Output],
        control: JobControl,
        report: Report,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._call = call
        self._invocation = invocation
        self._source = source
        self._outputs = outputs
        self._control = control
        self._report = report
        self._progress = progress
        self._reports = call.reports
        self.through = 0
        self._in_flight: deque[Run] = deque()  # in the order of their starts

    # -- one chunk: in the calling thread, with as few calls into the driver as it takes ------------------------------
    def run_single(self) -> None:
        """Do the job in one run (or as many as its output takes), without threads."""
        for piece in self._source.pieces():
            self._count(piece)
            with self._report.span("compute", piece.chunk):
                outputs = self._room(piece)
                wait(self._invocation.start(piece, outputs, send=True, bring=not self._reports), self._control)
            if self._reports:
                for done in self._reruns(piece, outputs):
                    self._store(done)
            else:
                self._store(_Done(piece.chunk, tuple([(slot, len(slot.bytes)) for slot in outputs]), piece.nbytes))
            self._source.release(piece)

    # -- many chunks: threads for each direction -----------------------------------------------------------------------
    def run_stages(self) -> None:
        """Do the job with all stages at once; the calling thread stores."""
        # Two between any two stages: a thread that is woken late leaves no one without work.
        fetched: Channel[Piece] = Channel(self._control, 2)
        started: Channel[_Started] = Channel(self._control, 2)
        finished: Channel[_Done] = Channel(self._control, 2)
        sending, bringing = OrderedSection(self._control, fetched), OrderedSection(self._control, started)
        threads = [
            *self._threads("fetch", 1, fetched, self._fetch),
            *self._threads("start", _MOVERS, started, lambda put: self._start(sending, put)),
            *self._threads("finish", _MOVERS, finished, lambda put: self._finish(bringing, put)),
        ]
        try:
            for done in finished:
                self._store(done)
        except BaseException as error:
            self._control.fail(error)
        for thread in threads:
            thread.join(GRACE + 2 * LOOK if self._control.failed else None)
        if self._control.failed:
            # Not left to the last reference: the error's own frames may have it.
            while self._in_flight:
                cancel(self._in_flight.popleft())
            for channel in (fetched, started, finished):
                channel.clear()
            self._control.check()

    def _threads(
        self, name: str, count: int, channel: Channel[Any], work: Callable[[Callable[[Any], None]], None]
    ) -> list[threading.Thread]:
        """Start the threads of a stage; the last that ends says so to the next stage."""
        working = [None] * count
        meter = current_meter()

        def body() -> None:
            try:
                with metered(meter):
                    work(channel.put)
                working.pop()
                if not working:
                    channel.end()
            except Aborted:
                pass
            except BaseException as error:
                self._control.fail(error)

        threads = [
            threading.Thread(target=body, name=f"apyfal-{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _fetch(self, put: Callable[[Piece], None]) -> None:
        for piece in self._source.pieces():
            self._count(piece)
            put(piece)

    def _count(self, piece: Piece) -> None:
        self._report.bytes_in += piece.nbytes
        for one in piece.beside:
            self._report.bytes_in += one.nbytes

    def _start(self, fetched: OrderedSection[Piece], put: Callable[[_Started], None]) -> None:
        for number, piece in fetched:
            sent_at = self._report.now()
            for one in (piece, *piece.beside):
                if one.slot is not None:
                    one.slot.sync(TO_DEVICE, one.nbytes)
            sent = self._report.now()
            with fetched.turn(number):
                if piece.slot is not None:
                    self._report.follow("to_device", piece.chunk, sent_at, sent)
                if self._reports:  # the next run may be over this same piece: the stage that reads the report starts it
                    put(_Started(piece, (), None, 0.0))
                    continue
                outputs = self._room(piece)
                at = self._report.now()
                run = self._invocation.start(piece, outputs)
                self._in_flight.append(run)
                put(_Started(piece, outputs, run, at))

    def _finish(self, started: OrderedSection[_Started], put: Callable[[_Done], None]) -> None:
        for number, (piece, outputs, run, at) in started:
            if run is None:
                with started.turn(number):
                    for done in self._runs(piece):
                        put(done)
                    self._source.release(piece)
                continue
            try:
                wait(run, self._control)
                ended = self._report.now()
                self._source.release(piece)
                brought = self._bring(piece, outputs)
                at_end = self._report.now()
            except BaseException:
                with started.turn(number):  # what an earlier run failed with is the cause of what became of this one
                    raise
            with started.turn(number):
                self._in_flight.popleft()
                self._report.follow("compute", piece.chunk, at, ended)
                if any(nbytes for _, nbytes in brought):
                    self._report.follow("from_device", piece.chunk, ended, at_end)
                put(_Done(piece.chunk, brought, piece.nbytes))

    def _room(self, piece: Piece) -> tuple[BufferRegion, ...]:
        """Return memory for the outputs of a run over a piece: exactly as much as it produces, where that is known."""
        room = []
        for port, output in zip(self._call.outputs, self._outputs, strict=True):
            slot = output.slot(piece)
            nbytes = port.nbytes(piece.nbytes)
            room.append(slot if nbytes is None else slot.part(0, nbytes))
        return tuple(room)

    # -- runs ---------------------------------------------------------------------------------------------------------
    def _runs(self, piece: Piece) -> Iterator[_Done]:
        outputs = self._room(piece)
        with self._report.span("compute", piece.chunk):
            wait(self._invocation.start(piece, outputs), self._control)
        yield from self._reruns(piece, outputs)

    def _reruns(self, piece: Piece, outputs: tuple[BufferRegion, ...]) -> Iterator[_Done]:
        """Yield the output of a run that has ended, and run again as long as the kernel says that it was full."""
        consumed = 0
        while True:
            read, produced, status = self._invocation.reported()
            consumed += read
            if status not in (STATUS_DONE, STATUS_FULL):
                raise KernelError(f"kernel {self._call.definition.kernel!r} reported status {status}")
            with self._report.span("from_device", piece.chunk):
                brought = self._bring(piece, outputs, produced)
            yield _Done(piece.chunk, brought, read)
            if status == STATUS_DONE:
                return
            if not read and not produced:
                raise KernelError(f"kernel {self._call.definition.kernel!r} neither reads nor writes any more")
            outputs = self._room(piece)
            with self._report.span("compute", piece.chunk):
                wait(self._invocation.start(piece, outputs, skip=consumed), self._control)

    def _bring(
        self, piece: Piece, outputs: tuple[BufferRegion, ...], produced: int | None = None
    ) -> tuple[tuple[BufferRegion, int], ...]:
        """Move what a run produced (``None``: all that there is room for) from the device."""
        brought = []
        for output, slot in zip(self._outputs, outputs, strict=True):
            nbytes = output.wanted(piece, len(slot.bytes) if produced is None else produced)
            if nbytes:
                slot.sync(FROM_DEVICE, nbytes)
            brought.append((slot, nbytes))
        return tuple(brought)

    def _store(self, done: _Done) -> None:
        for output, (slot, nbytes) in zip(self._outputs, done.outputs, strict=True):
            output.store(done.chunk, slot, nbytes)
            self._report.bytes_out += nbytes
        self._report.chunks = done.chunk + 1
        self.through += done.read
        if self._progress is not None:
            self._progress(self.through)
