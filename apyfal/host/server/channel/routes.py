"""The route that turns a connection into a channel, and all open channels."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from apyfal.exceptions import ConfigurationError, HostError, ParameterError
from apyfal.host.protocol.frames import OFFERED, Protocol, chosen_protocol
from apyfal.host.server.api.problems import problem
from apyfal.host.server.api.routes import OBJECT, Body, RouteParameter, route
from apyfal.host.server.channel.channel import ServerChannel
from apyfal.host.server.channel.context import ACCESS, ChannelContext
from apyfal.host.server.jobs.job import Conflict
from apyfal.host.server.transport.request import User, caller

__all__ = ["ChannelRoutes", "Channels"]

#: seconds between two checks whether all results are sent, when the daemon stops
_LOOK = 0.02


class Channels:
    """All open channels. Used on the event loop.

    Parameters
    ----------
    context
        What they share.
    stall_timeout
        Seconds without progress after which a channel is closed.
    """

    def __init__(self, context: ChannelContext, stall_timeout: float) -> None:
        self.context = context
        self._stall_timeout = stall_timeout
        self._open: set[ServerChannel] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, transport: Any, user: User, authorization: str | None, peer: str | None, protocol: Protocol
    ) -> ServerChannel:
        """Return a channel over a connection. Raises `Conflict` if the host is stopping."""
        if self._stopping:
            raise Conflict("the host is stopping")
        channel = ServerChannel(self.context, transport, user, authorization, peer, protocol, self.discard)
        self._open.add(channel)
        return channel

    def discard(self, channel: ServerChannel) -> None:
        """Forget a channel whose connection is closed."""
        self._open.discard(channel)

    def close_stalled(self) -> None:
        """Close channels that stall, are idle, or whose token is no longer valid. Called about once a second."""
        now = asyncio.get_running_loop().time()
        valid: dict[str | None, bool] = {}
        for channel in list(self._open):
            if channel.authorization not in valid:
                try:
                    valid[channel.authorization] = self.context.is_valid(channel.authorization)
                except ConfigurationError:  # the token file is broken: nobody is let in
                    valid[channel.authorization] = False
            if valid[channel.authorization]:
                channel.close_if_stalled(now, self._stall_timeout)
            elif not channel.connection.ended:
                channel.end(401, {"error": {"type": "AuthenticationError", "message": "a valid token is needed"}})
            else:
                channel.close_if_stalled(now, self._stall_timeout)

    async def stop(self, timeout: float) -> None:
        """Open no more channels, send the results of jobs that have ended, and close all."""
        self._stopping = True
        until = time.monotonic() + timeout
        while any(channel.is_busy for channel in self._open) and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
        for channel in list(self._open):
            channel.end(503, {"error": {"type": HostError.__name__, "message": "the host is stopping"}})
        while self._open and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
        for channel in list(self._open):
            channel.connection.abort()


class ChannelRoutes:
    """The route that opens a channel.

    Parameters
    ----------
    channels
        All channels.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @route(
        "GET",
        "/v1/channel",
        access=ACCESS,
        summary="Turn the connection into a channel for jobs",
        parameters=(
            RouteParameter("Upgrade", {"type": "string"}, f"The protocols of the client: {OFFERED}.", "header"),
        ),
        answers={
            101: Body("Frames follow; see the documentation of the data channel."),
            426: Body("The protocol is not known, or this is not an upgrade.", OBJECT),
        },
    )
    async def open_channel(self, request: web.Request) -> web.StreamResponse:
        """Answer 101, and take the connection over."""
        protocol = chosen_protocol(request.headers.get("Upgrade", ""))
        tokens = [one.strip().lower() for one in request.headers.get("Connection", "").split(",")]
        if protocol is None or "upgrade" not in tokens or request.version < (1, 1):
            refused = problem(ParameterError(f"Upgrade: expected {OFFERED}"), 426)
            refused.headers.update({"Upgrade": OFFERED, "Connection": "Upgrade"})
            return refused
        retired, transport = request.protocol, request.transport
        if transport is None:
            raise ConnectionError("the connection is closed")
        if request.can_read_body or getattr(retired, "_message_tail", None):
            raise ParameterError("nothing may follow a request for an upgrade before its answer")
        if transport.is_reading():
            transport.pause_reading()  # the following bytes belong to the channel
        authorization = request.headers.get("Authorization")
        channel = self._channels.open(transport, caller(), authorization, request.remote, protocol)
        response = web.StreamResponse(status=101, headers={"Upgrade": protocol.name, "Connection": "Upgrade"})
        try:
            await response.prepare(request)
            await response.write_eof()
            if request.transport is None or transport.is_closing():
                raise ConnectionError("the connection is closed")
        except BaseException:
            self._channels.discard(channel)
            raise
        retired.transport = None  # the connection belongs to the channel, and must not be closed with the handler
        retired.connection_lost(None)
        channel.connection.take_over()
        return response
