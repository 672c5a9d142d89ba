"""Jobs over arrays that are cut along their first axis, with rows of the neighbours around each chunk.

Each chunk is a job of its own over copies of its rows, so that shapes, index spaces and cleared outputs are those of
the chunk as the kernel sees it. The rows that a run computes at the inner edges of its chunk are dropped: there the
kernel takes the edge of the chunk for that of the array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.definition.sizes import SourceSize
from apyfal.device.zero_copy import flat_bytes
from apyfal.exceptions import CopyRefused, ParameterError
from apyfal.memory import charge, empty
from apyfal.pipeline.arrays import array_of, check_target, element_shape, new_array, shape_of
from apyfal.pipeline.chunking import DEFAULT_MEMORY_LIMIT
from apyfal.storage.endpoints.factory import Sink, Source, open_sink, open_source
from apyfal.units import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.definition.bound_call import BoundCall, CallOutput
    from apyfal.device.context import DeviceContext
    from apyfal.device.control import JobControl
    from apyfal.pipeline.reports.report import Report

__all__ = ["RowPipeline"]

#: Bytes of a chunk, if more would fit. Each is copied on the host, and the copies stay in the processor's cache.
_CHUNK = 8 << 20
_COPIED = "rows around a chunk belong to two chunks"


@dataclass
class _RowInput:
    """One input: its rows, in order or at random."""

    name: str
    array: NDArray[Any] | None
    source: Source | None
    nbytes: int
    dtype: np.dtype[Any]
    halo: int | None
    shape: tuple[int, ...] = ()  # of a row
    row: int = 0  # bytes of one
    memory: NDArray[Any] | None = None  # rows of the chunk, or all
    first: int = 0  # the row that `memory` begins with
    rows: int = 0  # and how many are there

    def load(self, first: int, last: int) -> NDArray[Any]:
        """Return rows [first, last) in pinned memory; they never go back by more than the halo."""
        memory = self.memory
        if memory is None:
            raise RuntimeError("an input without memory")
        bytes_of = flat_bytes(memory)
        kept = max(self.first + self.rows - first, 0)
        if kept:  # the end of the chunk before is the beginning of this one
            begin = (first - self.first) * self.row
            bytes_of[: kept * self.row] = bytes_of[begin : begin + kept * self.row].copy()
        begin, end = (first + kept) * self.row, last * self.row
        target = bytes_of[kept * self.row : (last - first) * self.row]
        if self.array is not None:
            if self.array.flags.c_contiguous:
                target[...] = flat_bytes(self.array)[begin:end]
            else:
                target[...] = flat_bytes(np.ascontiguousarray(self.array[first + kept : last]))
        elif self.source is not None:
            _read(self.name, self.source, target.data)
        self.first, self.rows = first, last - first
        return memory[: last - first]


@dataclass
class _RowOutput:
    """One output: where its rows go."""

    port: CallOutput
    nbytes: int
    row: int
    array: NDArray[Any] | None
    sink: Sink | None
    result: NDArray[Any] | None  # the caller's array, if rows are collected elsewhere

    def store(self, first: int, rows: NDArray[np.uint8]) -> None:
        """Take rows from `first` on."""
        if self.sink is not None:
            self.sink.write(rows.data)
        elif self.array is not None:
            begin = first * self.row
            flat_bytes(self.array)[begin : begin + len(rows)] = rows


def _read(name: str, source: Source, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = source.readinto(view[done:])
        if not count:
            raise ParameterError(f"{name}: it ended {len(view) - done} bytes early")
        done += count


class RowPipeline:
    """Runs one job with ``chunking = rows``.

    Parameters
    ----------
    context, call
        The device, and what is run there.
    sources, arrays, dsts
        Of the job, in the call's order; `arrays` has those sources that are arrays.
    memory_limit
        Bytes of a chunk with its outputs at most; ``None``: what the device has, and a default for files.
    stack
        Closes sources, and puts destinations in place if all has worked.
    """

    def __init__(
        self,
        context: DeviceContext,
        call: BoundCall,
        sources: Sequence[object],
        arrays: Sequence[NDArray[Any] | None],
        dsts: Sequence[object],
        memory_limit: int | None,
        stack: ExitStack,
    ) -> None:
        self._context = context
        self._call = call
        self._dsts = dsts
        self._arrays = arrays
        self._stack = stack
        self._memory_limit = memory_limit
        self._inputs = [
            self._input(place, source, array) for place, (source, array) in enumerate(zip(sources, arrays, strict=True))
        ]
        sizes = [
            SourceSize(one.nbytes, None if one.array is None else element_shape(one.array, one.dtype))
            for one in self._inputs
        ]
        self._sized = context.size(call, tuple(sizes)) if call.needs_sources else call
        self._sized.check_sizes([one.nbytes for one in self._inputs])

    def _input(self, place: int, source: object, array: NDArray[Any] | None) -> _RowInput:
        port = self._call.inputs[place]
        halo = self._context.definition.halo_of(self._context.definition.inputs[place])
        opened = None if array is not None else self._stack.enter_context(open_source(source))
        nbytes = array.nbytes if array is not None else opened.size if opened is not None else None
        if nbytes is None:
            raise ParameterError(f"{port.name}: a source in rows needs a size that is known")
        return _RowInput(port.name, array, opened, nbytes, port.dtype, halo)

    def _limit(self) -> int | None:
        """Return the bytes that a run with its outputs may take; ``None``: any."""
        info = self._context.info
        limits = [self._memory_limit] if self._memory_limit is not None else []
        if info["memory"] and "separate-memory" in info["capabilities"]:
            limits.append(info["memory"])
        on_host = all(one.array is not None for one in self._inputs)
        on_host = on_host and all(dst is None or isinstance(dst, np.ndarray) for dst in self._dsts)
        if self._memory_limit is None and not on_host:
            limits.append(DEFAULT_MEMORY_LIMIT)
        return min(limits, default=None)

    def fits(self) -> bool:
        """Return whether the job can be one run."""
        total = self._inputs[0].nbytes
        outputs = [port.nbytes(total) or 0 for port in self._sized.outputs]
        sizes = [*(one.nbytes for one in self._inputs), *outputs]
        largest, limit = self._context.info["max_buffer"], self._limit()
        return (limit is None or sum(sizes) <= limit) and not (largest and max(sizes) > largest)

    def run(
        self,
        run_chunk: Callable[[dict[str, Any], Report], Any],
        control: JobControl,
        report: Report,
        *,
        copy: bool,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Any, int]:
        """Run the job chunk by chunk.

        Parameters
        ----------
        run_chunk
            Runs one job over these sources, and returns its result.
        control, report
            Of the whole job.
        copy
            Whether memory may be copied.
        progress
            Called with the bytes of the first input that are done, and all of them.

        Returns
        -------
        result, nbytes
            As `apyfal.pipeline.run.process`.

        Raises
        ------
        ParameterError
            Inputs or outputs have no whole rows, or not as many, or a chunk of one row is too large.
        CopyRefused
            The job has ``copy=False``.
        """
        if not copy:
            raise CopyRefused(f"{self._inputs[0].name}: {_COPIED}, and copy=False was given")
        count = self._count_rows()
        outputs = self._make_outputs(count)
        rows = self._rows_of_chunk(count, outputs)
        margin = max(one.halo or 0 for one in self._inputs)
        for one in self._inputs:
            if one.halo is None and one.array is not None:
                one.memory = one.array
                continue
            shape = (min(rows + 2 * margin, count), *one.shape) if one.halo is not None else one.shape
            charge(one.nbytes if one.halo is None else shape[0] * one.row)
            one.memory = empty((*shape, *one.dtype.shape), one.dtype.base)
        for number, first in enumerate(range(0, count, rows)):
            last = min(first + rows, count)
            control.seconds_left()
            if control.failed:
                control.check()
            self._run_chunk(run_chunk, report, outputs, number, first, last, count, margin)
            if progress is not None:
                progress(last * self._inputs[0].row, self._inputs[0].nbytes)
        for output in outputs:
            if output.result is not None and output.array is not None:
                output.result[...] = output.array.reshape(output.result.shape)
                report.copied(output.nbytes, f"{output.port.name}: collected apart, its memory is an input too")
        found = [self._result(output, dst) for output, dst in zip(outputs, self._dsts, strict=True)]
        named = {output.port.name: one for output, one in zip(outputs, found, strict=True) if one is not None}
        return (found[0] if len(found) == 1 else named or None), max(report.bytes_in, report.bytes_out)

    @staticmethod
    def _result(output: _RowOutput, dst: object) -> Any:
        if output.sink is not None:
            return None
        return dst if isinstance(dst, np.ndarray) else output.array if output.result is None else output.result

    def _count_rows(self) -> int:
        """Return how many rows all inputs have, and set their sizes."""
        first = self._inputs[0]
        row = self._call_row()
        if first.array is not None and first.array.ndim and row is None:
            count = first.array.shape[0]
        elif row is not None:
            unit = row * first.dtype.itemsize
            if first.nbytes % unit:
                raise ParameterError(
                    f"{first.name}: {first.nbytes} bytes are not a whole number of rows of {unit} bytes"
                )
            count = first.nbytes // unit
        else:
            raise ParameterError(
                f"{first.name}: a file has no rows; expected chunking = rows:<elements of a row> in the definition"
            )
        for one in self._inputs:
            unit = one.dtype.itemsize
            if one.halo is None:
                one.shape = (one.nbytes // unit,)
                continue
            if one.nbytes % (count * unit or 1):
                raise ParameterError(
                    f"{one.name}: {one.nbytes} bytes are no {count} rows, which {first.name} has; expected as many, or "
                    f"'halo = {one.name}: whole'"
                )
            one.row = one.nbytes // count if count else 0
            elements = element_shape(one.array, one.dtype) if one.array is not None else ()
            one.shape = elements[1:] if len(elements) > 1 and elements[0] == count else (one.row // unit,)
            if one.array is not None and elements == (count,):
                one.shape = ()
            if one.array is not None and not one.array.flags.c_contiguous and elements[:1] != (count,):
                one.array = np.ascontiguousarray(one.array)
        return int(count)

    def _call_row(self) -> int | None:
        row = self._context.definition.chunking.row
        if row is None:
            return None
        found = row.evaluate(self._call.values)
        if found < 1:
            raise ParameterError(
                f"accelerator {self._call.name!r}: rows of {found} elements ({row}); expected 1 or more"
            )
        return found

    def _make_outputs(self, count: int) -> list[_RowOutput]:
        made = []
        first = self._inputs[0]
        for port, dst in zip(self._sized.outputs, self._dsts, strict=True):
            nbytes = port.nbytes(first.nbytes) or 0
            if count and (nbytes % count or (port.shape is not None and port.shape[:1] != (count,))):
                what = f"{nbytes} bytes" if port.shape is None else f"shape {port.shape}"
                raise ParameterError(
                    f"{port.name}: {what} for {count} rows of {first.name}; expected as many rows with chunking = rows"
                )
            array = None if dst is None else array_of(dst, written=True)
            sink = result = None
            if array is not None:
                check_target(port, array, nbytes)
                if not array.flags.c_contiguous or any(
                    one is not None and np.shares_memory(one, array) for one in self._arrays
                ):
                    result, array = array, np.empty(array.shape, array.dtype)
            elif dst is not None:
                sink = self._stack.enter_context(open_sink(dst, nbytes))
            else:
                charge(nbytes)
                shape = None if first.array is None else element_shape(first.array, first.dtype)
                array = new_array(port, shape_of(port, nbytes, shape))
            made.append(_RowOutput(port, nbytes, nbytes // count if count else 0, array, sink, result))
        return made

    def _rows_of_chunk(self, count: int, outputs: Sequence[_RowOutput]) -> int:
        """Return how many rows a chunk has, without those around it."""
        cut = [one for one in self._inputs if one.halo is not None]
        whole = sum(one.nbytes for one in self._inputs if one.halo is None)
        margin = max(one.halo or 0 for one in cut)
        each = sum(one.row for one in cut) + sum(output.row for output in outputs)
        around = 2 * margin * each
        limit, largest = self._limit(), self._context.info["max_buffer"]
        # half of it: memory that the run before used may still be there
        available = None if limit is None else limit // 2 - whole - around
        rows = max(_CHUNK // max(each, 1), 1)
        if available is not None:
            rows = min(rows, available // max(each, 1))
        if largest:
            widest = max([one.row for one in cut] + [output.row for output in outputs])
            rows = min(rows, largest // max(widest, 1) - 2 * margin)
        if rows < 1:
            needed = format_size(2 * (whole + around + each))
            raise ParameterError(
                f"accelerator {self._call.name!r}: a chunk of one row takes {needed} with {margin} rows "
                f"on each side; there are {format_size(limit or largest)}"
            )
        return min(rows, max(count, 1))

    def _run_chunk(
        self,
        run_chunk: Callable[[dict[str, Any], Report], Any],
        report: Report,
        outputs: Sequence[_RowOutput],
        number: int,
        first: int,
        last: int,
        count: int,
        margin: int,
    ) -> None:
        """Run rows [first, last), and store what they became."""
        start = report.now()
        begin, end = max(first - margin, 0), min(last + margin, count)
        sources: dict[str, Any] = {}
        for one in self._inputs:
            if one.halo is None:
                if one.array is None and not number and one.source is not None and one.memory is not None:
                    _read(one.name, one.source, flat_bytes(one.memory).data)
                sources[one.name] = one.memory
                continue
            sources[one.name] = one.load(begin, end)
            report.bytes_in += (last - first) * one.row
            report.copied((end - begin) * one.row, f"{one.name}: {_COPIED}")
        report.add("fetch", number, start)
        part = report.of_one(0, 0)
        part.spans = []
        result = run_chunk(sources, part)
        report.bytes_copied += part.bytes_copied
        report.moved(part.to_device, part.from_device)
        report.reasons.update(part.reasons)
        report.spans.extend([span._replace(chunk=number) for span in part.spans])
        start = report.now()
        results: dict[str, Any] = {outputs[0].port.name: result} if len(outputs) == 1 else dict(result)
        for output in outputs:
            rows = flat_bytes(results[output.port.name])
            if len(rows) != (end - begin) * output.row:
                raise ParameterError(
                    f"{output.port.name}: {len(rows)} bytes for {end - begin} rows; expected {output.row} for each row"
                )
            output.store(first, rows[(first - begin) * output.row : (last - begin) * output.row])
            report.bytes_out += (last - first) * output.row
        report.add("store", number, start)
        report.chunks = number + 1
