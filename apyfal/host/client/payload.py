"""The arguments of a remote job: URLs by name, files and arrays as request bodies or in shared memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np

from apyfal.exceptions import CopyRefused, HostError, ParameterError
from apyfal.host.client.local_files import Readable, ReceivingFile, local_file_errors
from apyfal.host.client.shared_pool import SharedPool
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.frames import WINDOW
from apyfal.host.protocol.messages import BodyPart, DestinationSpec, SourceSpec
from apyfal.host.protocol.shared_memory import Region
from apyfal.host.protocol.values import value_of
from apyfal.memory import empty, plain_array
from apyfal.pipeline.arrays import array_of, element_type_of
from apyfal.storage.endpoints.factory import Source, open_source
from apyfal.storage.url import StoragePath, is_file_object, parse

__all__ = ["CopyCounter", "InputPayload", "OutputPayload", "check_received"]

_CHUNK = 1 << 20
#: below this size, a request on the socket costs less than the management of shared memory
_SHARED_FROM = 256 << 10
#: alignment of several inputs in one body: a page, so that devices can use each in place
_ALIGN = 4096
_INTO_SHARED = "put into memory that is shared with the host, where arrays of Accelerator.empty are already"
_OUT_OF_SHARED = "taken out of memory that is shared with the host, where arrays of Accelerator.empty are already"


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    flat: np.ndarray[Any, Any] = array.reshape(-1).view(np.uint8)
    return flat.data


class CopyCounter:
    """Counts the copies that a client makes of a job's arrays.

    Parameters
    ----------
    allowed
        Whether copies may be made.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self._nbytes = 0
        self._reasons: list[str] = []

    def add(self, nbytes: int, reason: str) -> None:
        """Count a copy that is about to be made. Raises `CopyRefused` if copies are not allowed."""
        if not self.allowed:
            raise CopyRefused(f"{reason}, and copy=False was given")
        self._nbytes += nbytes
        self._reasons.append(reason)

    def count(self, nbytes: int) -> None:
        """Count bytes that a copy has moved which was added with none, as their number was not known."""
        self._nbytes += nbytes

    def fill(self, info: dict[str, Any]) -> None:
        """Add these copies to those that the host reports."""
        info["bytes_copied"] = info.get("bytes_copied", 0) + self._nbytes
        info["copy_reasons"] = [*info.get("copy_reasons", ()), *self._reasons]


def _room(pool: SharedPool, nbytes: int, copies: CopyCounter) -> Region | None:
    """Return free shared memory to copy an array of `nbytes` through; ``None``: not worthwhile, or none is free."""
    return pool.acquire(nbytes) if copies.allowed and nbytes >= _SHARED_FROM else None


def check_received(nbytes: int, array: np.ndarray[Any, Any], is_part: bool) -> None:
    """Raise `HostError` if the host's output of `nbytes` is not that of an array, or (`is_part`) of its beginning."""
    if nbytes > array.nbytes or (nbytes < array.nbytes and (not is_part or nbytes % array.itemsize)):
        raise HostError(f"the host sent {nbytes} bytes for an array of {array.nbytes}")


def _require_no_mapping(value: object) -> None:
    """Raise the error of a card of this machine for a mapping within a mapping, which would be taken for one array."""
    if isinstance(value, Mapping):
        parse(value)


class InputPayload:
    """The input of a remote job. As a context manager, it closes what it has opened.

    Parameters
    ----------
    src
        The `src` argument of `process`.
    pool
        The session's shared memory; ``None``: there is none.
    copies
        Counts copies.

    Attributes
    ----------
    origin
        Description of the input in the job.
    length
        Size of the body in bytes; ``None``: there is no body.
    """

    def __init__(self, src: object, pool: SharedPool | None, copies: CopyCounter) -> None:
        self._stack = ExitStack()
        self._copies = copies
        self.origin: SourceSpec | None = None
        self.length: int | None = None
        self._array: np.ndarray[Any, Any] | None = None
        self._source: Source | None = None
        self._parts: list[tuple[int, InputPayload]] = []
        if src is None:
            return
        if isinstance(src, Mapping):
            self._take_parts(src)
            return
        if isinstance(src, StoragePath):
            src = src.location.url
        if isinstance(src, str) and not parse(src).is_local:
            self.origin = SourceSpec(url=src)
            return
        array = array_of(src)
        if array is not None:
            self._take_array(array, pool, raw=element_type_of(src, array) is None)
            return
        source = self._stack.enter_context(open_source(src))
        if not source.seekable or source.size is None:
            source = self._stack.enter_context(self._spooled(source))
        self._source = source
        self.length = source.size
        self.origin = SourceSpec(body=True)

    def _take_parts(self, src: Mapping[Any, object]) -> None:
        """Lay out all inputs that are not URLs one after the other in the body, each aligned for use in place."""
        parts = {}
        end = 0
        for name, one in src.items():
            _require_no_mapping(one)
            payload = self._stack.enter_context(InputPayload(one, None, self._copies))
            if payload.origin is None:
                raise ParameterError(f"src: {name!r}: expected a URL, path, file object or array, not None")
            if payload.length is None:
                parts[str(name)] = BodyPart(url=payload.origin.url)
                continue
            start = -(-end // _ALIGN) * _ALIGN
            array = None if payload.origin.raw else payload.origin.array
            parts[str(name)] = BodyPart(offset=start, nbytes=payload.length, array=array)
            self._parts.append((start, payload))
            end = start + payload.length
        if not self._parts:
            self.origin = SourceSpec(parts=parts)
            return
        self.length = end
        self.origin = SourceSpec(body=True, array=ArrayType(np.dtype(np.uint8), (end,)), parts=parts)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the pieces of the body. Can be called again for another attempt."""
        done = 0
        for start, part in self._parts:
            yield memoryview(bytes(start - done))
            yield from part.pieces()
            done = start + (part.length or 0)
        if self._array is not None:
            yield _bytes_of(self._array)
        elif self._source is not None and self.length:
            buffer = memoryview(bytearray(min(_CHUNK, self.length)))
            offset = 0
            while offset < self.length:
                with local_file_errors():
                    count = self._source.pread(buffer[: self.length - offset], offset)
                if not count:
                    raise ParameterError(f"{self._source.name} became shorter while it was being sent")
                yield buffer[:count]
                offset += count

    @property
    def nbytes(self) -> int | None:
        """Size of the input in bytes; ``None``: not known here."""
        if self._array is not None:
            return self._array.nbytes
        if self.origin is not None and self.origin.shared is not None:
            return self.origin.shared.array.nbytes
        return self.length

    def overlaps(self, memory: memoryview) -> bool:
        """Return whether the body may be in `memory`: what is received there would change the next attempt."""
        array = self._array
        if array is not None and np.may_share_memory(array, np.frombuffer(memory, np.uint8)):
            return True
        return any(part.overlaps(memory) for _, part in self._parts)

    def close(self) -> None:
        """Close all files that were opened."""
        self._stack.close()

    def __enter__(self) -> InputPayload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take_array(self, array: np.ndarray[Any, Any], pool: SharedPool | None, *, raw: bool) -> None:
        kind = ArrayType.of(array)
        shared = None if pool is None else pool.locate(array)
        if shared is None and pool is not None and (region := _room(pool, array.nbytes, self._copies)) is not None:
            self._stack.callback(pool.release, region)
            self._copies.add(array.nbytes, f"src: {_INTO_SHARED}")
            shared = SharedArray(region.name, 0, kind)
            np.copyto(region.array(shared), array)
        if shared is not None:
            self.origin = SourceSpec(shared=shared, raw=raw)
            return
        if not array.flags.c_contiguous:
            self._copies.add(array.nbytes, "src: not contiguous")
            array = np.ascontiguousarray(array)
        self._array = array
        self.length = array.nbytes
        self.origin = SourceSpec(body=True, array=kind, raw=raw)

    def _spooled(self, source: Source) -> Source:
        """Copy a source that can be read only once to a temporary file, so that it can be sent again."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        self._stack.callback(file.close)
        buffer = memoryview(bytearray(_CHUNK))
        while count := source.readinto(buffer):
            file.write(buffer[:count])
        file.seek(0)
        return open_source(file)


class OutputPayload:
    """The output of a remote job.

    Parameters
    ----------
    dst
        The `dst` argument of `process`.
    pool
        The session's shared memory; ``None``: there is none.
    expected
        Expected size in bytes of a new array: shared memory of this size is offered for it.
    copies
        Counts copies.

    Attributes
    ----------
    destination
        Description of the output in the job.
    """

    def __init__(self, dst: object, pool: SharedPool | None, expected: int | None, copies: CopyCounter) -> None:
        self._dst = dst
        self._copies = copies
        self._pool = pool
        self._array: np.ndarray[Any, Any] | None = None
        self._region: Region | None = None
        self._parts: dict[str, OutputPayload] = {}
        self._file = ReceivingFile(dst)
        self.destination: DestinationSpec | None = None
        if isinstance(dst, StoragePath):
            dst = dst.location.url
        if dst is None:
            if pool is not None and expected is not None and (region := _room(pool, expected, copies)) is not None:
                self._region = region
                self.destination = DestinationSpec(memory=region.name)
        elif isinstance(dst, Mapping):
            for one in dst.values():
                _require_no_mapping(one)
            self._parts = {str(name): OutputPayload(one, None, None, copies) for name, one in dst.items()}
            self.destination = DestinationSpec(parts={name: part._as_part() for name, part in self._parts.items()})
        elif isinstance(dst, np.ndarray):
            self._take_array(plain_array(dst), pool)
        elif isinstance(dst, str) and not parse(dst).is_local:
            self.destination = DestinationSpec(url=dst)
        elif isinstance(dst, str | os.PathLike) or is_file_object(dst):
            self.destination = DestinationSpec(data=True)
        else:
            array = array_of(dst, written=True)
            if array is None:
                raise ParameterError(f"dst: expected a URL, path, file object or array, not {type(dst).__name__}")
            self._take_array(array, pool)

    @property
    def early(self) -> memoryview | None:
        """Where the output can be received while the job still runs: into the caller's array; ``None``: nowhere.

        A smaller output comes together with its result.
        """
        array = self._array
        if array is None or array.nbytes <= WINDOW or not array.flags.c_contiguous:
            return None
        if self.destination is None or self.destination.shared is not None:
            return None
        return _bytes_of(array)

    def _take_array(self, array: np.ndarray[Any, Any], pool: SharedPool | None) -> None:
        if not array.flags.writeable:
            raise ParameterError("dst: the array is read-only")
        self._array = array
        kind = ArrayType.of(array)
        self.destination = DestinationSpec(array=kind)
        shared = None if pool is None else pool.locate(array)
        if shared is None and pool is not None and (region := _room(pool, array.nbytes, self._copies)) is not None:
            self._region = region
            self._copies.add(0, f"dst: {_OUT_OF_SHARED}")
            shared = SharedArray(region.name, 0, kind)
        if shared is not None:
            self.destination = DestinationSpec(shared=shared)
        elif not array.flags.c_contiguous:
            self._copies.add(0, "dst: not contiguous")

    def receive(self, response: Readable | None, document: dict[str, Any]) -> Any:
        """Store the job's output at its destination, and return the result of `process`.

        Parameters
        ----------
        response
            Its body is the output; ``None``: there is no output, or it is in shared memory.
        document
            The job as the host describes it.
        """
        described = document.get("output")
        if (
            self._parts and described is not None and described.get("parts") is None
        ):  # of an accelerator with one output
            (only,) = self._parts.values()
            return only.receive(response, document)
        part = None if described is None or described.get("part") is not True else int(described["nbytes"])
        if described is None and (self._awaits_data or any(one._awaits_data for one in self._parts.values())):
            raise HostError(
                "the job ran, but the host did not send what belongs into dst; expected dst=..., no mapping"
            )
        if described is None or (part is not None and self.destination is not None and self.destination.shared):
            if self._array is not None and self._region is not None:
                shared = self._region.array(SharedArray(self._region.name, 0, ArrayType.of(self._array)))
                self._copy(shared, self._array.nbytes if part is None else part)
            return self._result(document)
        if described.get("region") is not None:
            return self._shared_result(described)
        if response is None:
            raise HostError("the job ran, but the host does not have its output any more")
        if described.get("parts") is not None:
            return self._receive_parts(response, described["parts"])
        nbytes = int(described["nbytes"])
        if self.destination is not None and self.destination.data:
            self._file.receive(response, nbytes)
            return value_of(document, "result")
        if self._array is not None:
            self._fill(response, self._array, nbytes, is_part=part is not None)
            return self._result(document)
        kind = ArrayType.parse({"dtype": described["dtype"], "shape": described["shape"]}, "the response")
        result = empty(kind.shape, kind.dtype)
        self._fill(response, result, nbytes)
        return result

    @property
    def _awaits_data(self) -> bool:
        """Return whether the destination is an array or a file that the response's body fills."""
        destination = self.destination
        return destination is not None and (destination.data or destination.array is not None)

    def _result(self, document: Mapping[str, Any]) -> Any:
        """Return result parameters if there are any, as a card of this machine does; else the caller's array."""
        result = value_of(document, "result")
        return self._dst if result is None and self._array is not None else result

    def _as_part(self) -> BodyPart:
        there = self.destination
        return BodyPart() if there is None else BodyPart(url=there.url, array=there.array)

    def _receive_parts(self, response: Readable, parts: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
        """Store several outputs at their destinations. They arrive one after the other."""
        results = {}
        for name, described in parts.items():
            output = self._parts.get(name) or OutputPayload(None, None, None, self._copies)
            results[name] = output.receive(response, {"output": described})
        return {name: result for name, result in results.items() if result is not None} or None

    def require_untouched(self) -> None:
        """Raise `HostError` if files have got data that they cannot take back, so that the job must not run again."""
        for output in (self, *self._parts.values()):
            if output._file.is_touched:
                raise HostError("the host lost the job's output while it was received, and dst has a part of it")

    def close(self) -> None:
        """Return shared memory that does not belong to the result."""
        region, self._region = self._region, None
        if region is not None and self._pool is not None:
            self._pool.release(region)

    def __enter__(self) -> OutputPayload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _shared_result(self, described: dict[str, Any]) -> np.ndarray[Any, Any]:
        region, pool = self._region, self._pool
        if region is None or pool is None or described["region"] != region.name:
            raise HostError("the host put the output into memory that it was not offered")
        self._region = None  # owned by the array from now on
        kind = ArrayType.parse({"dtype": described["dtype"], "shape": described["shape"]}, "the response")
        return region.array(SharedArray(region.name, 0, kind), on_release=lambda: pool.release(region))

    def _fill(self, response: Readable, array: np.ndarray[Any, Any], nbytes: int, *, is_part: bool = False) -> None:
        check_received(nbytes, array, is_part)
        target = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)
        if nbytes:
            response.readinto(_bytes_of(target)[:nbytes])
        if target is not array:
            self._copy(target, nbytes)

    def _copy(self, source: np.ndarray[Any, Any], nbytes: int) -> None:
        """Copy what has arrived elsewhere into the caller's array."""
        array = self._array
        if array is None:
            return
        check_received(nbytes, array, is_part=True)
        if nbytes == array.nbytes:
            np.copyto(array, source)
        else:
            count = nbytes // array.itemsize
            array.flat[:count] = source.reshape(-1)[:count]
        self._copies.count(nbytes)
