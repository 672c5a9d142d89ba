"""Jobs that send a small array to a host and receive one: only the bytes differ from one job to the next."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from apyfal.host.client.local_files import Readable
from apyfal.host.client.payload import CopyCounter, OutputPayload, check_received
from apyfal.host.client.shared_pool import SharedPool
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import DestinationSpec, JobSpec, SourceSpec
from apyfal.host.protocol.values import value_of
from apyfal.memory import empty

__all__ = ["SmallPayload", "small_payload"]

#: bytes of a source up to which a request costs more than its data
_SMALL: Final = 64 << 10


class SmallPayload:
    """The source and the destination of a small job, as one submission sends and receives them.

    Parameters
    ----------
    src, dst
        The arrays, C-contiguous; borrowed. `dst` is ``None``: the output is a new array.
    spec
        The job's description.

    Attributes
    ----------
    length
        Bytes of the source.
    """

    __slots__ = ("_dst", "_src", "length", "spec")

    def __init__(self, src: np.ndarray[Any, Any], dst: np.ndarray[Any, Any] | None, spec: JobSpec) -> None:
        self._src = src
        self._dst = dst
        self.spec = spec
        self.length = src.nbytes

    def pieces(self) -> list[memoryview]:
        """Return the source's memory."""
        return [_bytes_of(self._src)]

    def receive(self, response: Readable | None, document: dict[str, Any]) -> Any:
        """Receive the output; see `OutputPayload.receive`."""
        described, result = document.get("output"), self._dst
        if described is None or response is None or described.get("region") or described.get("parts"):
            return OutputPayload(result, None, None, CopyCounter(allowed=True)).receive(response, document)
        nbytes = int(described["nbytes"])
        if result is None:
            try:
                kind = _kind(described["dtype"], *described["shape"])
            except TypeError:  # no list of numbers
                kind = ArrayType.parse({"dtype": described["dtype"], "shape": described["shape"]}, "the response")
            result = empty(kind.shape, kind.dtype)
        check_received(nbytes, result, described.get("part") is True)
        if nbytes:
            response.readinto(_bytes_of(result)[:nbytes])
        if document.get("result") is not None:  # result parameters, besides the array
            return value_of(document, "result")
        return result


def small_payload(
    src: object,
    dst: object,
    pool: SharedPool | None,
    copy: bool,
    timeout: float | None,
    parameters: Mapping[str, object],
) -> SmallPayload | None:
    """Return the payload of a small job; ``None``: it is not small, has parameters, or uses memory of the host."""
    if parameters or type(src) is not np.ndarray or not 0 < src.nbytes <= _SMALL or not src.flags.c_contiguous:
        return None
    if pool is not None and pool.locate(src) is not None:
        return None
    if dst is None:
        return SmallPayload(src, None, _described(src.dtype, src.shape, None, None, copy, timeout))
    if type(dst) is not np.ndarray or not dst.flags.c_contiguous or not dst.flags.writeable:
        return None
    if pool is not None and pool.locate(dst) is not None:
        return None
    return SmallPayload(src, dst, _described(src.dtype, src.shape, dst.dtype, dst.shape, copy, timeout))


@functools.lru_cache(maxsize=256)
def _described(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    dst_dtype: np.dtype[Any] | None,
    dst_shape: tuple[int, ...] | None,
    copy: bool,
    timeout: float | None,
) -> JobSpec:
    src = SourceSpec(body=True, array=ArrayType.checked(dtype, shape))
    dst = None
    if dst_dtype is not None and dst_shape is not None:
        dst = DestinationSpec(array=ArrayType.checked(dst_dtype, dst_shape))
    return JobSpec(src=src, dst=dst, copy=copy, timeout=timeout)


@functools.lru_cache(maxsize=256, typed=True)
def _kind(dtype: object, *shape: object) -> ArrayType:
    return ArrayType.parse({"dtype": dtype, "shape": list(shape)}, "the response")


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
