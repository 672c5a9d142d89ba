"""One job's kernel arguments: filled in from the call, changed from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments
from apyfal.definition.grammar import REPORT_WORDS
from apyfal.device.regions import BufferRegion

if TYPE_CHECKING:
    from apyfal._core.device import Device, Kernel
    from apyfal._core.run import Run
    from apyfal.definition.bound_call import BoundCall
    from apyfal.pipeline.inputs import Piece

__all__ = ["KernelLauncher"]


class KernelLauncher:
    """Starts the runs of one job.

    Parameters
    ----------
    call
        The job's parameters and types.
    kernel, device
        What runs it.
    loaded
        Device memory that ``start(src=...)`` filled, or ``None``.
    """

    def __init__(self, call: BoundCall, kernel: Kernel, device: Device, loaded: BufferRegion | None = None) -> None:
        self._kernel = kernel
        self._arguments = Arguments(len(call.arguments))
        self._item = call.in_dtype.itemsize
        self._call = call
        self._inputs = [port.index for port in call.inputs]
        self._outputs = [port.index for port in call.outputs]
        self._of_ports = any("." in argument.name for argument in call.arguments)
        self._at: dict[str, tuple[int, str]] = {}  # numbers that change from run to run
        self._report: BufferRegion | None = None
        for index, argument in enumerate(call.arguments):
            name = argument.name
            if argument.dtype is not None and argument.value is not None:
                self._arguments.set_scalar(index, argument.dtype.name, argument.value)
            elif argument.dtype is not None:
                self._at[name] = (index, argument.dtype.name)
            elif name == "state":
                state = device.alloc(call.state_bytes, kernel.bank(index))
                self._arguments.set_buffer(index, state, 0, call.state_bytes)
            elif name == "coefficients":
                if loaded is not None:
                    self._set_buffer(index, loaded, len(loaded.bytes), 0)
            elif name == "report":
                self._report = BufferRegion.new(8 * REPORT_WORDS, device, kernel.bank(index))
                self._set_buffer(index, self._report, 8 * REPORT_WORDS, SYNC_FROM)

    def _set_buffer(self, index: int, slot: BufferRegion, nbytes: int, flags: int) -> None:
        self._arguments.set_buffer(index, slot.bo, slot.offset, nbytes, flags)

    def _set(self, name: str, value: int) -> None:
        place = self._at.get(name)
        if place is not None:
            self._arguments.set_scalar(place[0], place[1], value)

    def start(
        self, piece: Piece, outputs: Sequence[BufferRegion], *, skip: int = 0, send: bool = False, bring: bool = False
    ) -> Run:
        """Start a run over a piece.

        Parameters
        ----------
        piece
            The input.
        outputs
            Where the kernel writes.
        skip
            Bytes of the piece that earlier runs consumed.
        send, bring
            Move the input to the device before, and all of the output from it after, as part of the run.
        """
        pieces = (piece, *piece.beside) if piece.beside else (piece,)
        for index, one in zip(self._inputs, pieces, strict=False):  # none, and a piece of nothing
            if one.slot is not None:
                self._set_buffer(index, one.slot, one.nbytes, SYNC_TO if send else 0)
        for index, output in zip(self._outputs, outputs, strict=True):
            self._set_buffer(index, output, len(output.bytes), SYNC_FROM if bring else 0)
        if outputs:
            self._set("capacity", len(outputs[0].bytes))
        self._set("bytes", piece.nbytes)
        self._set("count", piece.nbytes // self._item)
        self._set("offset", piece.offset)
        self._set("skip", skip)
        self._set("first", piece.chunk == 0)
        self._set("last", piece.last)
        if self._of_ports:
            self._set_of_ports(pieces, outputs)
        return self._arguments.start(self._kernel)

    def _set_of_ports(self, pieces: Sequence[Piece], outputs: Sequence[BufferRegion]) -> None:
        for port, piece in zip(self._call.inputs, pieces, strict=True):
            self._set(f"bytes.{port.name}", piece.nbytes)
            self._set(f"count.{port.name}", piece.nbytes // port.dtype.itemsize)
        for target, output in zip(self._call.outputs, outputs, strict=True):
            self._set(f"capacity.{target.name}", len(output.bytes))

    def forget(self) -> None:
        """Let go of the last run's input and output memory."""
        for index in (*self._inputs, *self._outputs):
            self._arguments.clear(index)

    def reported(self) -> tuple[int, int, int]:
        """Return what the kernel reported of the run that ended last: bytes consumed, bytes produced, status."""
        if self._report is None:
            raise RuntimeError("this kernel reports nothing")
        words = self._report.bytes.view(np.uint64)
        return int(words[0]), int(words[1]), int(words[2])
