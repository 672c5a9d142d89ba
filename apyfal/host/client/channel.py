"""The client's side of a data channel: one job at a time on each, bodies from and to their final address."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, NoReturn

from apyfal.exceptions import AuthenticationError, HostError, StoreUnavailable
from apyfal.host.client.response import Refused, network_errors
from apyfal.host.protocol import frames
from apyfal.host.protocol.frame_reader import Framing
from apyfal.host.protocol.frames import EARLY, HEADER_NBYTES, WINDOW, FrameError, FrameType
from apyfal.host.protocol.messages import error_from
from apyfal.storage.http.connection import Connection

__all__ = ["BY_HTTP", "ChannelPool", "ChannelReply", "ClientChannel"]

#: status of a job that has to be submitted, or whose result has to be fetched, by HTTP
BY_HTTP: Final = 421
#: outputs of this size and more stay in the host's memory until they are released
_RELEASE_FROM = 64 << 10
#: bytes of pieces that are sent in one system call
_GATHERED = 240 << 10
_PIECES = 512
#: seconds of idleness after which a channel is not used again: the host may be closing it
_MAX_IDLE = 60.0
#: seconds for which a channel that was in use is taken without a check. If the host has closed it, the job is sent
#: again on another one
_FRESH = 0.05
_KEPT = 16
_LAST = (1 << 32) - 1


class ClientChannel:
    """One channel to a host. Used by one thread at a time.

    Parameters
    ----------
    connection
        A connection whose HTTP has ended with status 101; owned by this object from now on.
    protocol
        What both sides speak on it.
    """

    def __init__(self, connection: Connection, protocol: frames.Protocol) -> None:
        self.connection = connection
        self._protocol = protocol
        self._errors = _ProtocolErrors(connection.name)
        self._stream = 0
        self.used_at = time.monotonic()

    @property
    def is_spent(self) -> bool:
        """Return whether all streams of this channel were used."""
        return self._stream >= _LAST

    def submit(
        self,
        key: str,
        session: str,
        text: str,
        pieces: Iterable[memoryview],
        nbytes: int,
        alive: Callable[[], None],
        flags: int = 0,
        early: memoryview | None = None,
    ) -> ChannelReply | None:
        """Submit a job and wait for its end.

        Parameters
        ----------
        key, session, text
            Idempotency key, session, and the job as JSON.
        pieces, nbytes
            The pieces of its body, and their size in bytes.
        alive
            Called whenever the host shows that it is alive while the job has not ended.
        flags
            Flags of the JOB frame.
        early
            Where the whole output belongs, if it may arrive while the job still runs. What is there after an error is
            not defined. ``None``: the output comes after the result.

        Returns
        -------
        ChannelReply or None
            ``None``: the job's description is too long for a frame. Nothing was sent.

        Raises
        ------
        Refused
            The host did not accept the job. The channel can be used again.
        ConnectionError, TimeoutError
            The connection broke, or the host closed the channel.
        AuthenticationError
            The token is no longer valid.
        HostError
            The host broke the protocol.
        """
        stream = self._stream + 1
        if early is not None and self._protocol.has_early_output:
            flags |= EARLY
        head = frames.job_frame(stream, key, session, text, nbytes, flags)
        if head is None:
            return None
        self._stream = stream
        if isinstance(pieces, list) and len(pieces) == 1 and len(pieces[0]) == nbytes <= WINDOW:
            return self._submit_small(stream, head, pieces, alive)
        with network_errors:
            if nbytes > WINDOW:
                self.connection.send(head)
                self._await_credit(stream, nbytes, alive)
                head = b""
            try:
                self._send_body(stream, head, pieces, nbytes)
            except StoreUnavailable:
                self._explain()
                raise
        return self._await_result(stream, alive, early if flags & EARLY else None)

    def _await_result(self, stream: int, alive: Callable[[], None], early: memoryview | None) -> ChannelReply:
        """Wait for the result of a job, and receive the output that comes before it."""
        kind, payload = self._next(stream, alive)
        if kind == FrameType.OUTPUT and early is not None:
            with network_errors, self._errors:
                return self._receive_early(stream, frames.parse_output(payload), alive, early)
        if kind != FrameType.RESULT:
            raise HostError(f"{self.connection.name}: a frame of type {kind} came, and no result")
        with self._errors:
            result = frames.parse_result(payload)
        return ChannelReply(self, stream, result)

    def _receive_early(self, stream: int, nbytes: int, alive: Callable[[], None], out: memoryview) -> ChannelReply:
        """Receive an output of `nbytes` while its job runs, then its result, which cuts the output of a failed job."""
        if nbytes != len(out):
            raise FrameError(f"OUTPUT of {nbytes} bytes: expected {len(out)}")
        connection, done = self.connection, 0
        connection.send(frames.credit_frame(stream, nbytes))
        while True:
            header = frames.parse_header(connection.read_exactly(HEADER_NBYTES), self._protocol.from_server)
            if header.type == FrameType.DATA and header.stream == stream:
                if header.nbytes > nbytes - done:
                    raise FrameError(f"DATA of {header.nbytes} bytes: {nbytes - done} of the output are left")
                done += self._fill(out[done : done + header.nbytes])
                continue
            payload = connection.read_exactly(header.nbytes) if header.nbytes else b""
            if header.type == FrameType.PING:
                alive()
            elif header.type == FrameType.ERROR and header.stream in (0, stream):
                self._raise(header.stream, frames.parse_error(payload))
            elif header.type == FrameType.RESULT and header.stream == stream:
                break
            else:
                raise FrameError(f"a frame of type {header.type}, stream {header.stream}: expected DATA or RESULT")
        result = frames.parse_result(payload)
        if result.document.get("state") != "done":
            return ChannelReply(self, stream, result)
        if done != nbytes or result.nbytes != nbytes:
            raise FrameError(f"RESULT with {result.nbytes} bytes: {done} of an output of {nbytes} came before it")
        return ChannelReply(self, stream, result, received=True)

    def _fill(self, out: memoryview) -> int:
        """Receive all of `out`; return its size."""
        done = 0
        while done < len(out):
            count = self.connection.receive_into(out[done:])
            if not count:
                raise ConnectionError("the output ended early")
            done += count
        return done

    def _submit_small(
        self, stream: int, head: bytes, pieces: list[memoryview], alive: Callable[[], None]
    ) -> ChannelReply:
        """Submit a job whose body is one piece that is sent at once; the same as `submit`, in fewer steps."""
        try:
            try:
                self.connection.send(head + frames.data_header(stream, len(pieces[0])), pieces)
            except StoreUnavailable:
                self._explain()
                raise
            kind, payload = self._next_frame(stream, alive)
            if kind == FrameType.RESULT:
                return ChannelReply(self, stream, frames.parse_result(payload))
        except (OSError, FrameError):
            with network_errors, self._errors:  # entered for errors only: each job would pay for it
                raise
        raise HostError(f"{self.connection.name}: a frame of type {kind} came, and no result")

    def _await_credit(self, stream: int, nbytes: int, alive: Callable[[], None]) -> None:
        """Wait until the host has memory for the whole body."""
        granted = 0
        while granted < nbytes:
            kind, payload = self._next(stream, alive)
            if kind != FrameType.CREDIT:
                raise HostError(f"{self.connection.name}: a frame of type {kind} came, and no credit")
            with self._errors:
                granted += frames.parse_credit(payload)

    def _send_body(self, stream: int, head: bytes, pieces: Iterable[memoryview], nbytes: int) -> None:
        """Send a body in frames as long as possible. The pieces of a list are sent together if they are small; other
        iterables may use the memory of a piece for the next one.
        """
        together: list[memoryview] = [memoryview(head)] if head else []
        size, keeps, framing = len(head), isinstance(pieces, list), Framing(stream, nbytes)
        for piece in pieces:
            if together and (size + len(piece) > _GATHERED or len(together) >= _PIECES):
                self._send(together)
                together, size = [], 0
            together += framing.of(piece)
            size += len(piece)
            if not keeps and together:
                self._send(together)
                together, size = [], 0
        if together:
            self._send(together)
        framing.end()

    def _send(self, pieces: list[memoryview]) -> None:
        self.connection.send(pieces[0], pieces[1:])

    def _next(self, stream: int, alive: Callable[[], None]) -> tuple[int, bytes]:
        """Return the type and the payload of the next frame of a stream. Raises what an ERROR says."""
        with network_errors, self._errors:
            return self._next_frame(stream, alive)

    def _next_frame(self, stream: int, alive: Callable[[], None]) -> tuple[int, bytes]:
        connection = self.connection
        while True:
            header = frames.parse_header(connection.read_exactly(HEADER_NBYTES), self._protocol.from_server)
            if header.type == FrameType.DATA:
                raise FrameError(f"DATA on stream {header.stream} came before its result")
            payload = connection.read_exactly(header.nbytes) if header.nbytes else b""
            if header.type == FrameType.PING:
                alive()
                continue
            if header.stream not in (0, stream):
                raise FrameError(f"a frame of stream {header.stream}: expected {stream}")
            if header.type == FrameType.ERROR:
                self._raise(header.stream, frames.parse_error(payload))
            return header.type, payload

    def _raise(self, stream: int, error: frames.ErrorFrame) -> NoReturn:
        described = error_from(error.document.get("error"))
        if error.status == 401:
            raise AuthenticationError(f"{self.connection.name}: {described}")
        if stream:
            raise Refused(error.status, error.document, float(error.retry_after) or None)
        raise ConnectionError(f"{self.connection.name}: {described}")

    def _explain(self) -> None:
        """After a broken pipe: raise what the host has sent as the reason, if it has."""
        try:
            self._next(self._stream, lambda: None)
        except (ConnectionError, TimeoutError, HostError):
            return

    def read_body(self, stream: int, out: memoryview, left: int) -> int:
        """Receive into `out`, which is not empty; return how many bytes of the current DATA frame are left.

        `left` says how many there are before; 0: a header is next.
        """
        done, connection = 0, self.connection
        try:
            while done < len(out):
                while not left:
                    header = frames.parse_header(connection.read_exactly(HEADER_NBYTES), self._protocol.from_server)
                    if header.type == FrameType.PING:
                        continue
                    if header.type == FrameType.ERROR:
                        self._raise(header.stream, frames.parse_error(connection.read_exactly(header.nbytes)))
                    if header.type != FrameType.DATA or header.stream != stream:
                        raise FrameError(f"a frame of type {header.type}, stream {header.stream}: expected DATA")
                    left = header.nbytes
                count = connection.receive_into(out[done : done + left])
                if not count:
                    raise ConnectionError("the output ended early")
                done += count
                left -= count
        except (OSError, FrameError):
            with network_errors, self._errors:
                raise
        return left

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class ChannelReply:
    """The result of a job, whose output has not been read. As a context manager, it frees the output on the host if the
    block succeeded, and the channel for another job if everything was read.

    Parameters
    ----------
    channel, stream, result
        The end of the job.
    received
        Whether the output came before `result`, and is already at its destination. Then `readinto` does nothing.

    Attributes
    ----------
    status
        That of HTTP: 200, because the job has ended.
    """

    status = 200

    def __init__(
        self, channel: ClientChannel, stream: int, result: frames.ResultFrame, *, received: bool = False
    ) -> None:
        self._channel = channel
        self._stream = stream
        self._result = result
        self._received = received
        self._left = 0 if received else result.nbytes
        self._in_frame = 0
        self._asked = result.nbytes <= WINDOW
        self._on_release: Callable[[bool], None] = _nothing

    def on_release(self, call: Callable[[bool], None]) -> None:
        """Call `call` at the end; its argument tells whether the channel can be used again."""
        self._on_release = call

    def job(self) -> tuple[dict[str, Any], bool]:
        """Return the job as the host describes it, and whether there is an output to read."""
        return self._result.document, self._result.has_output

    def readinto(self, out: memoryview) -> None:
        """Fill `out` with the next bytes of the output. Raises `ConnectionError` if it ends before."""
        if self._received:
            if len(out) != self._result.nbytes:
                raise ConnectionError("the output was already received at its destination")
            return
        if len(out) > self._left:
            raise ConnectionError("the output ended early")
        if not len(out):
            return
        if not self._asked:
            self._asked = True
            with network_errors:
                self._channel.connection.send(frames.credit_frame(self._stream, self._left))
        self._in_frame = self._channel.read_body(self._stream, out, self._in_frame)
        self._left -= len(out)

    def close(self, succeeded: bool = False) -> None:
        """Return the channel. `succeeded`: the host need not keep the output."""
        usable = not self._left
        if usable and succeeded and self._result.nbytes > _RELEASE_FROM:
            try:
                with network_errors:
                    self._channel.connection.send(frames.release_frame(self._stream))
            except (ConnectionError, TimeoutError):
                usable = False  # the host frees the output after some time
        on_release, self._on_release = self._on_release, _nothing
        on_release(usable)

    def __enter__(self) -> ChannelReply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(kind is None)


def _nothing(usable: bool) -> None:
    """Do nothing at the end of a reply."""


class ChannelPool:
    """Channels to one host that are not in use. Usable from any thread; after a fork the child starts with none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._idle: list[ClientChannel] = []
        self._closed = False
        self._process = os.getpid()

    def acquire(self) -> ClientChannel | None:
        """Return a channel that is still open; ``None``: there is none."""
        while True:
            with self._lock:
                if self._process != os.getpid():
                    self._process = os.getpid()
                    self._close_idle()
                channel = self._idle.pop() if self._idle else None
            if channel is None:
                return None
            idle = time.monotonic() - channel.used_at
            if idle < _FRESH or (idle < _MAX_IDLE and channel.connection.is_quiet()):
                return channel
            channel.close()

    def release(self, channel: ClientChannel, usable: bool) -> None:
        """Keep a channel for the next job, or close it; after `close`, close it."""
        channel.used_at = time.monotonic()
        with self._lock:
            if usable and not self._closed and len(self._idle) < _KEPT and not channel.is_spent:
                self._idle.append(channel)
                return
        channel.close()

    def close(self) -> None:
        """Close the channels that are not in use, and the others as they are given back."""
        with self._lock:
            self._closed = True
            self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()


class _ProtocolErrors:
    """Converts `FrameError` to `HostError`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(value, FrameError):
            raise HostError(f"{self._name}: it does not keep to the protocol: {value}") from value
