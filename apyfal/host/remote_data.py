"""How the arguments of a remote job travel: URLs as they are, files and arrays as bodies or through shared memory."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np

from apyfal.exceptions import HostError, ParameterError
from apyfal.host.http_client import Answer, Host
from apyfal.host.shared_memory import Region, attach, machine_id
from apyfal.host.wire import ArrayType, Destination, Origin, SharedArray
from apyfal.memory import empty
from apyfal.pipeline.arrays import array_of
from apyfal.storage.endpoints import Source, open_sink, open_source
from apyfal.storage.url import is_file_object, parse

__all__ = ["Input", "Output", "SharedPool"]

_CHUNK = 1 << 20
#: below this, a request on the socket costs less than the bookkeeping of shared memory
_SHARED_FROM = 256 << 10
_SHARED_KEPT = 4


class SharedPool:
    """Regions of memory that one session shares with a daemon on this machine. Usable from any thread.

    Parameters
    ----------
    host, session
        Whose.
    socket_path
        Where the daemon hands descriptors out.
    """

    def __init__(self, host: Host, session: str, socket_path: str) -> None:
        self._host = host
        self._session = session
        self._socket_path = socket_path
        self._lock = threading.Lock()
        self._free: list[Region] = []
        self._mapped: dict[str, Region] = {}

    @classmethod
    def of(cls, host: Host, document: dict[str, Any]) -> SharedPool | None:
        """Make the pool of a session, where its daemon runs on this very machine."""
        memory = document.get("memory")
        if not host.address.is_loopback or not isinstance(memory, dict) or memory.get("machine") != machine_id():
            return None
        path = str(memory.get("socket"))
        if not os.access(path, os.W_OK):
            return None
        return cls(host, document["id"], path)

    def take(self, nbytes: int) -> Region:
        """Return a region of at least `nbytes` that nobody else uses, until it is given back."""
        with self._lock:
            fitting = sorted(
                (region for region in self._free if region.nbytes >= nbytes), key=lambda found: found.nbytes
            )
            if fitting and fitting[0].nbytes <= 2 * nbytes:
                self._free.remove(fitting[0])
                return fitting[0]
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        made = self._host.json("POST", f"/v1/sessions/{self._session}/memory", {"nbytes": size})
        region = attach(self._socket_path, made["name"], made["ticket"], made["nbytes"])
        with self._lock:
            self._mapped[region.name] = region
        return region

    def give(self, region: Region) -> None:
        """Give a region back; a few are kept for the next ones."""
        with self._lock:
            self._free.append(region)
            surplus = self._free.pop(0) if len(self._free) > _SHARED_KEPT else None
            if surplus is not None:
                self._mapped.pop(surplus.name, None)
        if surplus is not None:
            surplus.close()
            self._host.json("DELETE", f"/v1/sessions/{self._session}/memory/{surplus.name}")

    def locate(self, array: np.ndarray[Any, Any]) -> SharedArray | None:
        """Say where `array` lies, if it is a contiguous one in a region of this pool."""
        if not array.flags.c_contiguous or not array.nbytes:
            return None
        with self._lock:
            for region in self._mapped.values():
                offset = array.ctypes.data - region.address
                if offset >= 0 and offset + array.nbytes <= region.nbytes:
                    return SharedArray(region.name, offset, ArrayType.of(array))
        return None

    def close(self) -> None:
        """Unmap everything; arrays that are still alive keep their memory."""
        with self._lock:
            for region in self._mapped.values():
                region.close()
            self._mapped.clear()
            self._free.clear()

    def empty(self, array: ArrayType) -> np.ndarray[Any, Any]:
        """Return a new array in shared memory, which is given back when its last view dies."""
        region = self.take(array.nbytes)
        return region.array(SharedArray(region.name, 0, array), on_release=lambda: self.give(region))


class Input:
    """One source of a remote job. A context manager: at its end, what was opened for it is closed.

    Parameters
    ----------
    src
        As `process` takes it.
    pool
        Shared memory of the session, or ``None``.

    Attributes
    ----------
    origin
        What the job says of it.
    length
        Bytes of the body; ``None``: there is none.
    """

    def __init__(self, src: object, pool: SharedPool | None) -> None:
        self._stack = ExitStack()
        self.origin: Origin | None = None
        self.length: int | None = None
        self._array: np.ndarray[Any, Any] | None = None
        self._source: Source | None = None
        if src is None:
            return
        if isinstance(src, str) and not parse(src).is_local:
            self.origin = Origin(url=src)
            return
        array = array_of(src)
        if array is not None:
            self._take_array(np.require(array, requirements="C"), pool)
            return
        source = self._stack.enter_context(open_source(src))
        if not source.seekable or source.size is None:
            source = self._stack.enter_context(self._spooled(source))
        self._source = source
        self.length = source.size
        self.origin = Origin(body=True)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the body, anew at each call."""
        if self._array is not None:
            flat: np.ndarray[Any, Any] = self._array.reshape(-1).view(np.uint8)
            yield flat.data
        elif self._source is not None and self.length:
            buffer = memoryview(bytearray(min(_CHUNK, self.length)))
            offset = 0
            while offset < self.length:
                count = self._source.pread(buffer[: self.length - offset], offset)
                if not count:
                    raise ParameterError(f"{self._source.name} became shorter while it was being sent")
                yield buffer[:count]
                offset += count

    @property
    def nbytes(self) -> int | None:
        """Bytes of the source, where they are known here."""
        if self._array is not None:
            return self._array.nbytes
        if self.origin is not None and self.origin.shared is not None:
            return self.origin.shared.array.nbytes
        return self.length

    def close(self) -> None:
        """Close what was opened."""
        self._stack.close()

    def __enter__(self) -> Input:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take_array(self, array: np.ndarray[Any, Any], pool: SharedPool | None) -> None:
        kind = ArrayType.of(array)
        if pool is not None:
            shared = pool.locate(array)
            if shared is None and array.nbytes >= _SHARED_FROM:
                region = pool.take(array.nbytes)
                self._stack.callback(pool.give, region)
                shared = SharedArray(region.name, 0, kind)
                np.copyto(region.array(shared), array)
            if shared is not None:
                self.origin = Origin(shared=shared)
                return
        self._array = array
        self.length = array.nbytes
        self.origin = Origin(body=True, array=kind)

    def _spooled(self, source: Source) -> Source:
        """Put what can be read once only into a file, so that it can be sent again."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        self._stack.callback(file.close)
        buffer = memoryview(bytearray(_CHUNK))
        while count := source.readinto(buffer):
            file.write(buffer[:count])
        file.seek(0)
        return open_source(file)


class Output:
    """One destination of a remote job.

    Parameters
    ----------
    dst
        As `process` takes it.
    pool
        Shared memory of the session, or ``None``.
    expected
        Bytes that a new array may have: room for them is offered in shared memory.

    Attributes
    ----------
    destination
        What the job says of it.
    """

    def __init__(self, dst: object, pool: SharedPool | None, expected: int | None) -> None:
        self._stack = ExitStack()
        self._dst = dst
        self._pool = pool
        self._array: np.ndarray[Any, Any] | None = None
        self._region: Region | None = None
        self.destination: Destination | None = None
        if dst is None:
            if pool is not None and expected is not None and expected >= _SHARED_FROM:
                self._region = pool.take(expected)
                self.destination = Destination(memory=self._region.name)
        elif isinstance(dst, np.ndarray):
            self._take_array(dst, pool)
        elif isinstance(dst, str) and not parse(dst).is_local:
            self.destination = Destination(url=dst)
        elif isinstance(dst, str | os.PathLike) or is_file_object(dst):
            self.destination = Destination(data=True)
        else:
            array = array_of(dst)
            if array is None:
                raise ParameterError(f"dst: expected a URL, path, file object or array, not {type(dst).__name__}")
            self._take_array(array, pool)

    def _take_array(self, array: np.ndarray[Any, Any], pool: SharedPool | None) -> None:
        if not array.flags.writeable:
            raise ParameterError("dst: the array is read-only")
        self._array = array
        kind = ArrayType.of(array)
        self.destination = Destination(array=kind)
        if pool is None:
            return
        shared = pool.locate(array)
        if shared is None and array.nbytes >= _SHARED_FROM:
            self._region = pool.take(array.nbytes)
            shared = SharedArray(self._region.name, 0, kind)
        if shared is not None:
            self.destination = Destination(shared=shared)

    def receive(self, answer: Answer | None, document: dict[str, Any]) -> Any:
        """Put the job's output where it belongs, and return what `process` returns.

        Parameters
        ----------
        answer
            Whose body is the output; ``None``: there is none, or it is in shared memory.
        document
            The job.
        """
        described = document.get("output")
        if described is None:
            if self._array is not None and self._region is not None:
                np.copyto(self._array, self._region.array(SharedArray(self._region.name, 0, ArrayType.of(self._array))))
            return self._dst if self._array is not None else document.get("result")
        if described.get("region") is not None:
            return self._shared_result(described)
        if answer is None:
            raise HostError("the job ran, but the host does not have its output any more")
        nbytes = int(described["nbytes"])
        if self.destination is not None and self.destination.data:
            self._store(answer, nbytes)
            return document.get("result")
        if self._array is not None:
            self._fill(answer, self._array, nbytes)
            return self._dst
        kind = ArrayType.parse({"dtype": described["dtype"], "shape": described["shape"]}, "the answer")
        result = empty(kind.shape, kind.dtype)
        self._fill(answer, result, nbytes)
        return result

    def close(self) -> None:
        """Give back what was taken and is not the result."""
        region, self._region = self._region, None
        if region is not None and self._pool is not None:
            self._pool.give(region)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _shared_result(self, described: dict[str, Any]) -> np.ndarray[Any, Any]:
        region, pool = self._region, self._pool
        if region is None or pool is None or described["region"] != region.name:
            raise HostError("the host put the output into memory that it was not offered")
        self._region = None  # it is the array's now
        kind = ArrayType.parse({"dtype": described["dtype"], "shape": described["shape"]}, "the answer")
        return region.array(SharedArray(region.name, 0, kind), on_release=lambda: pool.give(region))

    @staticmethod
    def _fill(answer: Answer, array: np.ndarray[Any, Any], nbytes: int) -> None:
        if array.nbytes != nbytes:
            raise HostError(f"the host sent {nbytes} bytes for an array of {array.nbytes}")
        target = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)
        if nbytes:
            flat: np.ndarray[Any, Any] = target.reshape(-1).view(np.uint8)
            answer.readinto(flat.data)
        if target is not array:
            np.copyto(array, target)

    def _store(self, answer: Answer, nbytes: int) -> None:
        buffer = memoryview(bytearray(min(_CHUNK, max(1, nbytes))))
        with open_sink(self._dst, nbytes) as sink:
            left = nbytes
            while left:
                piece = buffer[: min(len(buffer), left)]
                answer.readinto(piece)
                sink.write(piece)
                left -= len(piece)
