"""One channel: the jobs that a client submits on it, their bodies, and each result as soon as its job ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from apyfal.exceptions import AcceleratorException, AuthenticationError, HostError, ParameterError
from apyfal.host.protocol import frames
from apyfal.host.protocol.frames import WINDOW, FrameError, FrameHeader, FrameType, JobFrame
from apyfal.host.server.channel.connection import FrameConnection
from apyfal.host.server.channel.context import ChannelContext
from apyfal.host.server.channel.stream import Stream
from apyfal.host.server.jobs.admission import checked_key, parse_spec, text_of
from apyfal.host.server.jobs.early_output import EarlyOutput
from apyfal.host.server.jobs.job import KEPT_IN_JOURNAL, Job
from apyfal.host.server.policy.limits import CHANNEL_IDLE_TIMEOUT, OUTPUTS_OF_USER
from apyfal.host.server.records.journal import JournalEntry
from apyfal.host.server.transport.request import User
from apyfal.log import get_logger

__all__ = ["BY_HTTP", "ServerChannel"]

#: status of a job that has to be submitted, or whose result has to be fetched, by HTTP
BY_HTTP = 421
#: the operation of a job on a channel, in the audit log and the metrics
_OPERATION = "submit_job_on_channel"
#: seconds between two PING frames while jobs are in flight
_PING = 10.0


class _ByHttp(HostError):
    """This job or result does not fit into frames, or goes to a file."""


class ServerChannel:
    """The server's side of one channel. Used on the event loop.

    Parameters
    ----------
    context
        What all channels share.
    transport
        The connection.
    user, authorization, peer
        Who opened it, with which ``Authorization`` field and from which address.
    protocol
        What it speaks.
    on_lost
        Called with the channel when its connection is closed.
    """

    def __init__(
        self,
        context: ChannelContext,
        transport: Any,
        user: User,
        authorization: str | None,
        peer: str | None,
        protocol: frames.Protocol,
        on_lost: Callable[[ServerChannel], None],
    ) -> None:
        self._context = context
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.user = user
        self.authorization = authorization
        self._peer = peer
        self._streams: dict[int, Stream] = {}
        self._dropped: dict[int, int] = {}  # bytes that will still arrive, of bodies whose jobs were refused
        self._late_credit: dict[int, int] = {}  # bytes of outputs that were cut off because their jobs failed
        self._newest = 0
        self._held_back: deque[Stream] = deque()  # streams whose jobs have ended, while the peer does not read
        self._unreleased: dict[int, Job | JournalEntry] = {}
        self._pinged = self._loop.time()
        self.connection = FrameConnection(transport, self, context.scratch, protocol.from_client)

    # -- frames --------------------------------------------------------------------------------------------------------
    def on_frame(self, header: FrameHeader, payload: bytes) -> None:
        """Handle a frame without data."""
        if header.type == FrameType.JOB:
            self._submit(header.stream, frames.parse_job(payload), header.flags)
        elif header.type == FrameType.CREDIT:
            self._grant(header.stream, frames.parse_credit(payload))
        elif header.type == FrameType.RELEASE:
            job = self._unreleased.pop(header.stream, None)
            if job is None:
                raise FrameError(f"RELEASE on stream {header.stream}, which has no output to free")
            self._context.manager.release_output(job)

    def _grant(self, number: int, nbytes: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.grant(nbytes)
        elif self._late_credit.get(number, 0) >= nbytes:
            self._late_credit[number] -= nbytes
        else:
            raise FrameError(f"CREDIT on stream {number}, which has no output under way")

    def place(self, stream: int, nbytes: int) -> memoryview | None:
        """Return where a piece of a body goes."""
        if stream in self._dropped:
            if nbytes > self._dropped[stream]:
                raise FrameError(f"DATA of {nbytes} bytes on stream {stream}: {self._dropped[stream]} are left")
            return None
        under_way = self._streams.get(stream)
        if under_way is None:
            raise FrameError(f"DATA on stream {stream}, which has no body under way")
        return under_way.place(nbytes)

    def on_data(self, stream: int, nbytes: int) -> None:
        """Count a piece of a body, and submit the job with the last one."""
        if stream in self._dropped:
            self._dropped[stream] -= nbytes
            if not self._dropped[stream]:
                del self._dropped[stream]
            return
        under_way = self._streams[stream]
        if not under_way.arrived(nbytes):
            return
        if under_way.is_hashed_at_once:
            self._hand_over(under_way, None)
        else:
            under_way.task = self._loop.create_task(self._hash(under_way))

    def may_submit(self) -> bool:
        """Return whether frames may be handled now."""
        if not self._context.throttle.is_exhausted(self.user.name):
            return True
        self._context.throttle.call_later(self._resume)
        return False

    def _resume(self) -> None:
        if self.may_submit():
            self.connection.resume()

    # -- jobs ----------------------------------------------------------------------------------------------------------
    def _submit(self, number: int, frame: JobFrame, flags: int) -> None:
        """Begin a stream: check its job, and accept its body."""
        if number <= self._newest:
            raise FrameError(f"JOB on stream {number}: expected a number above {self._newest}")
        if len(self._streams) + len(self._dropped) >= frames.STREAMS:
            raise FrameError(f"JOB on stream {number}: {frames.STREAMS} are open, as many as a channel may have")
        self._newest = number
        self._context.throttle.count(self.user.name)
        began = time.perf_counter()
        try:
            stream = self._begin(number, frame, flags)
            if frame.nbytes <= WINDOW:
                self._make_room(stream)
        except AuthenticationError as error:
            self._end(error)
            return
        except Exception as error:
            self._streams.pop(number, None)
            self._refuse(number, frame.text, error, began)
            if 0 < frame.nbytes <= WINDOW:
                self._dropped[number] = frame.nbytes  # these bytes follow, because the client does not wait
        if self._context.throttle.is_exhausted(self.user.name) and not self.connection.ended:
            self.connection.hold()
            self._context.throttle.call_later(self._resume)

    def _begin(self, number: int, frame: JobFrame, flags: int) -> Stream:
        context = self._context
        user = context.readmit(self.authorization, self.user)
        checked_key(frame.key)
        session = context.admission.session(user, frame.session)
        spec = parse_spec(frame.text)
        src = spec.src
        if src is None or not src.body:
            if frame.nbytes:
                raise ParameterError(f"a body of {frame.nbytes} bytes, for a job whose src is none: src: expected body")
        elif context.bodies.goes_to_file(frame.nbytes, src.array):
            raise _ByHttp(f"a body of {frame.nbytes} bytes goes to a file: send it by HTTP")
        stream = Stream(number, frame.key, frame.nbytes, user, session, spec)
        stream.wants_info = not flags & frames.NO_INFO
        dst = spec.dst
        if flags & frames.EARLY and dst is not None and dst.array is not None and dst.array.nbytes > WINDOW:
            stream.early = EarlyOutput(dst.array.nbytes, functools.partial(self._announce, stream))
        self._streams[number] = stream
        if frame.nbytes > WINDOW:
            stream.task = self._loop.create_task(self._make_large_room(stream))
        return stream

    def _make_room(self, stream: Stream) -> None:
        """Accept a small body, which follows at once, or submit a job without a body."""
        src = stream.spec.src
        if src is not None and src.body:
            share = self._context.bodies.memory.share(stream.user.name, stream.nbytes)
            try:
                stream.receive(share, self._memory_for(stream))
            except BaseException:
                share.close()
                raise
        if not stream.nbytes:
            self._hand_over(stream, None)

    def _memory_for(self, stream: Stream) -> np.ndarray[Any, Any]:
        """Return memory for a small body: pinned, unless its job will run on a copy of it."""
        if not stream.wants_info and stream.session.short_runs.find(stream.spec.text) is not None:
            return np.empty(stream.nbytes, np.uint8)
        return self._context.bodies.allocate(stream.nbytes)

    async def _make_large_room(self, stream: Stream) -> None:
        """Reserve memory for a large body, then let the client send it."""
        try:
            share = self._context.bodies.memory.share(stream.user.name, stream.nbytes)
            try:
                memory = await self._context.bodies.allocated(stream.nbytes)
            except BaseException:
                share.close()
                raise
        except Exception as error:
            self._give_up(stream, error)
            return
        stream.receive(share, memory)
        self.connection.received_at = self._loop.time()  # the client must not send before now
        self.connection.write(frames.credit_frame(stream.number, stream.nbytes))

    async def _hash(self, stream: Stream) -> None:
        try:
            mark = await stream.finish()
        except Exception as error:
            self._give_up(stream, error)
            return
        self._hand_over(stream, mark)

    def _hand_over(self, stream: Stream, digest: str | None) -> None:
        """Submit the job of a stream whose body is complete."""
        try:
            job = self._context.admission.submit(
                stream.user,
                stream.session,
                stream.spec,
                stream.key,
                stream.body(digest),
                wants_info=stream.wants_info,
                early=stream.early,
            )
        except Exception as error:
            self._give_up(stream, error)
            return
        stream.job = job
        if isinstance(job, Job) and not job.ended:
            job.add_done_callback(functools.partial(self._ended, stream))
        else:
            self._ended(stream)

    # -- outputs of jobs that run --------------------------------------------------------------------------------------
    def _announce(self, stream: Stream) -> None:
        """Announce the output of a running job, once, and start to send it."""
        job, early, connection = stream.job, stream.early, self.connection
        if not isinstance(job, Job) or job.ended or early is None or stream.is_early or connection.ended:
            return
        if self._held_back or not connection.is_writable:
            return  # with the next piece, or the result
        stream.is_early = True
        connection.write(frames.output_frame(stream.number, early.nbytes))
        stream.announce(early.nbytes, self._loop.time())
        stream.task = self._loop.create_task(self._send_early(stream, job, early))

    async def _send_early(self, stream: Stream, job: Job, early: EarlyOutput) -> None:
        """Send an output while it is produced, then the result. Cancelled if the job fails."""
        connection, sent = self.connection, 0
        try:
            while sent < early.nbytes:
                piece = await early.piece(sent, WINDOW)
                count = await stream.credit(len(piece), self._loop)
                await connection.drain()
                connection.write_behind(frames.data_header(stream.number, count), piece[:count])
                sent += count
            await early.ended()
            await connection.drain()
        except Exception as error:
            if not connection.ended:
                get_logger().error("a channel ends in the middle of an output", exc_info=error)
                connection.abort()
            return
        head = frames.result_frame(stream.number, text_of(job), sent)
        if head is None:
            self._refer(stream, job)
            return
        connection.write(head)
        self._finish(stream, job, sent)

    # -- results -------------------------------------------------------------------------------------------------------
    def _ended(self, stream: Stream) -> None:
        """Send the result of a stream whose job has ended, or hold it back until the client reads."""
        if self.connection.ended:
            return
        if stream.is_early and stream.early is not None and stream.job is not None and stream.job.state == "done":
            stream.early.end()
            return
        if stream.is_early:
            stream.cancel()
            self.connection.detach()
            self._late_credit[stream.number] = stream.ungranted  # the client may just be granting it
            if len(self._late_credit) > frames.STREAMS:
                del self._late_credit[next(iter(self._late_credit))]
        stream.forget_early()
        if self._held_back or not self.connection.is_writable:
            self._held_back.append(stream)
        else:
            self._answer(stream)

    def on_writable(self) -> None:
        """Send the results that were held back."""
        while self._held_back and self.connection.is_writable:
            self._answer(self._held_back.popleft())

    def _answer(self, stream: Stream) -> None:
        job, connection = stream.job, self.connection
        if job is None:
            return
        try:
            with self._context.manager.output(job) as output:
                nbytes = None if output is None else output.nbytes
                head = frames.result_frame(stream.number, text_of(job), nbytes)
                if head is None:
                    self._refer(stream, job)
                    return
                if nbytes and nbytes > WINDOW:
                    connection.write(head)
                    stream.announce(nbytes, self._loop.time())
                    stream.task = self._loop.create_task(self._send(stream, job))
                    return
                if output is not None and nbytes:
                    head += frames.data_header(stream.number, nbytes)
                    connection.write(head, *((output.tobytes(),) if output.is_bytes else output.pieces(WINDOW)))
                else:
                    connection.write(head)
        except Exception as error:
            self._give_up(stream, error)
            return
        self._finish(stream, job, nbytes)

    async def _send(self, stream: Stream, job: Job | JournalEntry) -> None:
        """Send a large output as the client grants credit for it."""
        connection, sent = self.connection, 0
        try:
            with self._context.manager.output(job) as output:
                if output is None:
                    raise ConnectionError("the output is gone")
                async with contextlib.aclosing(self._context.bodies.pieces(output)) as pieces:
                    async for whole in pieces:
                        piece = whole
                        while piece:
                            count = await stream.credit(len(piece), self._loop)
                            await connection.drain()
                            connection.write_behind(frames.data_header(stream.number, count), piece[:count])
                            piece, sent = piece[count:], sent + count
        except (OSError, ValueError) as error:  # freed meanwhile, or the connection is lost
            if not connection.ended:
                get_logger().info("a channel ends in the middle of an output: %s", error)
                connection.abort()
            return
        self._finish(stream, job, sent)

    def _finish(self, stream: Stream, job: Job | JournalEntry, nbytes: int | None) -> None:
        """End a stream whose result was sent."""
        self._streams.pop(stream.number, None)
        stream.forget_early()
        self._context.observe(_OPERATION, 200, time.perf_counter() - stream.began)
        if nbytes and nbytes > KEPT_IN_JOURNAL:
            self._unreleased[stream.number] = job
            if len(self._unreleased) > OUTPUTS_OF_USER:  # it is freed later, like an output that nobody fetched
                del self._unreleased[next(iter(self._unreleased))]

    def _refer(self, stream: Stream, job: Job | JournalEntry) -> None:
        """Tell the client to fetch by HTTP a result whose description is too long for a frame."""
        document = {"error": {"type": "HostError", "message": "the result is large: fetch it by HTTP"}, "job": job.id}
        self._streams.pop(stream.number, None)
        stream.forget_early()
        self.connection.write(frames.error_frame(stream.number, BY_HTTP, document))

    # -- refusals ------------------------------------------------------------------------------------------------------
    def _give_up(self, stream: Stream, error: BaseException) -> None:
        stream.task = None
        stream.close()
        self._streams.pop(stream.number, None)
        self._refuse(stream.number, stream.spec.text, error, stream.began, stream)

    def _refuse(
        self, number: int, client_text: str, error: BaseException, began: float, stream: Stream | None = None
    ) -> None:
        """Answer a job that was not accepted."""
        if not isinstance(error, AcceleratorException):
            get_logger().error("request failed", exc_info=error)
        mounts = None if stream is None else stream.session.mounts
        status, document, wait = self._context.refusal(error, self.user, _OPERATION, self._peer, client_text, mounts)
        if isinstance(error, _ByHttp):
            status = BY_HTTP
        self._context.observe(_OPERATION, status, time.perf_counter() - began)
        self.connection.write(frames.error_frame(number, status, document, wait))

    # -- the end -------------------------------------------------------------------------------------------------------
    def on_broken(self, error: FrameError) -> None:
        """End a channel whose client broke the protocol."""
        self._end(ParameterError(str(error)))

    def _end(self, error: AcceleratorException) -> None:
        status, document, _ = self._context.refusal(error, self.user, _OPERATION, self._peer)
        self.end(status, document)

    def end(self, status: int, document: dict[str, object]) -> None:
        """Send a last frame that says why, and close the connection."""
        self.connection.end(frames.error_frame(0, status, document))

    def on_lost(self) -> None:
        """Free what only this channel holds. Submitted jobs continue: their client can ask for them again."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._held_back.clear()
        self._on_lost(self)

    @property
    def is_busy(self) -> bool:
        """Return whether a result is being sent, or about to be."""
        return bool(self._streams) or not self.connection.is_writable

    def close_if_stalled(self, now: float, stall_timeout: float) -> None:
        """Close a connection that stalls or is idle; send a PING while jobs are in flight."""
        connection = self.connection
        if connection.stalled_for(now) > stall_timeout:
            connection.abort()
            return
        if connection.ended:
            return
        waits = (
            connection.is_mid_frame or bool(self._dropped) or any(one.is_receiving for one in self._streams.values())
        )
        credit = [since for one in self._streams.values() if (since := one.waits_for_credit_since) is not None]
        silent = now - connection.received_at
        if (waits and silent > stall_timeout) or (credit and now - min(credit) > stall_timeout):
            self._close(f"nothing has moved for {stall_timeout:g} s")
        elif not self._streams and silent > CHANNEL_IDLE_TIMEOUT:
            self._close(f"no job for {CHANNEL_IDLE_TIMEOUT:g} s")
        elif self._streams and now - self._pinged >= _PING and connection.is_writable:
            self._pinged = now
            connection.write(frames.ping_frame())

    def _close(self, reason: str) -> None:
        self.end(408, {"error": {"type": HostError.__name__, "message": f"the channel was closed: {reason}"}})
