"""Authentication and authorization: one middleware in front of every route.

A route without a declaration is refused for every caller. Nothing is disclosed about a path before the caller is known.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from apyfal import exceptions
from apyfal.exceptions import AcceleratorException, JobRejected
from apyfal.host.protocol.audit import AuditLog
from apyfal.host.protocol.proof import CHALLENGE_HEADER, PROOF_HEADER, Challenge, address_of
from apyfal.host.server.api.problems import problem, problem_document, status_of
from apyfal.host.server.api.refusal_log import RefusalLog
from apyfal.host.server.api.routes import PUBLIC, Route
from apyfal.host.server.jobs.disclosure import Disclosure
from apyfal.host.server.jobs.fair_queue import RateLimiter, RoundRobin
from apyfal.host.server.policy.limits import (
    COUNTED_JSON,
    FAILURE_RATE,
    FAILURES_AT_ONCE,
    MAX_JSON,
    MAX_TARPIT,
    PUBLIC_AT_ONCE,
    PUBLIC_RATE,
    TARPIT,
)
from apyfal.host.server.policy.quotas import Quota
from apyfal.host.server.policy.refusals import Limited, Stalled, TooLarge, TooMany
from apyfal.host.server.policy.tokens import EVERYTHING, Token, TokenStore
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.host.server.transport.connections import Connections, address_key
from apyfal.host.server.transport.request import User, set_caller, subject
from apyfal.host.server.transport.zero_copy_body import hand_over, may_wait_for_continue
from apyfal.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware

__all__ = ["AuthMiddleware"]

#: seconds after a request during which its user counts as active; seconds after which a request delays no others: see
#: `apyfal.host.server.jobs.fair_queue.RoundRobin`
_PRESENT = 0.05
_PATIENCE = 0.005

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


class AuthMiddleware:
    """Authenticates, authorizes, limits and audits requests, and turns errors into responses.

    Parameters
    ----------
    routes
        All routes, with their access rules.
    tokens
        The host's tokens.
    audit
        Log of decisions.
    connections
        Records the user of each connection; makes a new handler for a connection whose handler was replaced.
    request_rate
        Requests per second of one user.
    observe
        Called with (operation, status, seconds) after each request.
    disclosure
        Decides which parts of an error a client may read.
    memory
        Quota that JSON bodies count against, unless they are small.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        tokens: TokenStore,
        audit: AuditLog,
        connections: Connections,
        request_rate: float,
        observe: Callable[[str, int, float], None],
        memory: Quota,
        disclosure: Disclosure,
    ) -> None:
        self._rules = {route.handler: route for route in routes}
        self._tokens = tokens
        self._refusals = RefusalLog(audit)
        self._requests = RateLimiter(request_rate, 10 * request_rate)
        self._failures = RateLimiter(FAILURE_RATE, FAILURES_AT_ONCE)
        self._public = RateLimiter(PUBLIC_RATE, PUBLIC_AT_ONCE)
        self._held_back: collections.Counter[str] = collections.Counter()
        self._turns = RoundRobin(_PRESENT, _PATIENCE)
        self._users: dict[str, tuple[Token, User]] = {}  # by token
        self._connections = connections
        self._observe = observe
        self._disclosure = disclosure
        self._memory = memory

    def middleware(self) -> Middleware:
        """Return the middleware for `aiohttp.web.Application`."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            started = time.perf_counter()
            rule = self._rules.get(handler)
            status = 500
            response: web.StreamResponse
            try:
                if request.version < (1, 0):  # HTTP/0.9 has no head that could say where the body ends
                    response = problem(exceptions.ParameterError("expected HTTP/1.0 or later"), 505)
                    response.force_close()
                else:
                    response = await self._admit(request, handler, rule)
                status = response.status
                if may_wait_for_continue(request) and not response.prepared:
                    response.force_close()
                await hand_over(request, response, self._connections.successor)
                return response
            except asyncio.CancelledError:
                status = 499
                raise
            finally:
                operation = rule.operation if rule is not None else "unknown"
                self._observe(operation, status, time.perf_counter() - started)

        return guard

    async def _admit(self, request: web.Request, handler: Handler, rule: Route | None) -> web.StreamResponse:
        from aiohttp import web

        user: User | None = None
        address = address_key(request.remote or "local")
        try:
            if rule is None or rule.access != PUBLIC:
                user = self._identify(request)
                if user is None:
                    await self._count_with_delay(self._failures, address)
                    return self._refuse(request, 401, "a valid token is needed", None)
                set_caller(user)
                self._connections.authenticated(request.protocol, user.name)
                self._requests.acquire(user.name)
                if rule is None:
                    return self._unknown(request, user)
                if rule.access not in user.scopes:
                    return self._refuse(request, 403, f"the token's scopes do not include {rule.access}", user)
                number = await self._turns.begin(user.name)
                try:
                    with contextlib.closing(self._memory.share(user.name, _counted(request))):
                        return await handler(request)
                finally:
                    self._turns.end(user.name, number)
            challenge = request.headers.get(CHALLENGE_HEADER)
            if challenge is None:
                await self._count_with_delay(self._public, address)
                return await handler(request)
            proof = self._prove(request, challenge)
            if proof is None:
                await self._count_with_delay(self._failures, address)
                return self._refuse(request, 401, "a valid token is needed", None)
            response = await handler(request)
            response.headers[PROOF_HEADER] = proof
            return response
        except web.HTTPException as error:
            return problem(exceptions.ParameterError(error.reason), error.status)
        except Stalled:
            return self._refuse(request, 408, "the request stalled", user)
        except AcceleratorException as error:
            self._log(error, address, user, None if rule is None else rule.operation, request.remote)
            status = 401 if isinstance(error, exceptions.AuthenticationError) else None
            return problem(error, status, self._described(request, error))
        except ConnectionError:
            raise  # the client's own connection; an error of a store is an AcceleratorException
        except Exception as error:  # for any error, the client gets a response and the log gets the traceback
            get_logger().exception("request failed")
            return problem(error, 500)

    def readmit(self, authorization: str | None, user: User, access: str) -> User:
        """Check a request on a connection that `user` opened like a separate request: its token, scope and rate.

        Parameters
        ----------
        authorization
            The ``Authorization`` field with which the connection was opened; ``None``: there was none, and the
            socket identifies the user.
        user
            The user at that time.
        access
            The scope that the request needs.

        Raises
        ------
        AuthenticationError, AccessDenied, TooMany
        """
        now = user if authorization is None else self._user_of(authorization)
        if now is None or now.name != user.name:
            raise exceptions.AuthenticationError("a valid token is needed")
        self._requests.acquire(now.name)
        if access not in now.scopes:
            raise exceptions.AccessDenied(f"the token's scopes do not include {access}")
        return now

    def is_valid(self, authorization: str | None) -> bool:
        """Return whether the token of an open connection is still valid. It does not count as a request."""
        return authorization is None or self._user_of(authorization) is not None

    def refusal(
        self,
        error: BaseException,
        user: User,
        operation: str,
        peer: str | None,
        client_text: str = "",
        mounts: Mapping[str, SessionMount] | None = None,
    ) -> tuple[int, dict[str, object], float]:
        """Return the status, the document and the seconds to wait for a request that was refused, and log it."""
        self._log(error, user.name, user, operation, peer)
        status = 401 if isinstance(error, exceptions.AuthenticationError) else status_of(error)
        document = problem_document(error, self._disclosure.error(error, client_text, mounts))
        return status, document, max(1.0, error.retry_after) if isinstance(error, Limited) else 0.0

    def _log(self, error: BaseException, who: str, user: User | None, operation: str | None, peer: str | None) -> None:
        """Write an audit line if the error is a refusal, not a mistake in the request."""
        refusals = exceptions.AccessDenied | exceptions.AuthenticationError | JobRejected | TooLarge
        if isinstance(error, refusals):
            self._refusals.write(
                who if user is None else user.name,
                user=None if user is None else user.name,
                operation=operation,
                status=status_of(error),
                reason=error,
                peer=peer,
            )

    async def _count_with_delay(self, limiter: RateLimiter, address: str) -> None:
        """Count a request without a valid token. Above the rate, delay the response; the delay grows with the number of
        delayed responses to the same address, so that each address causes a bounded number of responses per second.
        """
        try:
            limiter.acquire(address)
        except TooMany:
            self._held_back[address] += 1
            await asyncio.sleep(min(TARPIT * self._held_back[address], MAX_TARPIT))
            self._held_back[address] -= 1
            if not self._held_back[address]:
                del self._held_back[address]
            raise

    def _described(self, request: web.Request, error: BaseException) -> dict[str, str]:
        named = subject()
        return self._disclosure.error(
            error, f"{request.url.human_repr()}\n{named.client_text}", named.mounts, named.operators
        )

    def _unknown(self, request: web.Request, user: User) -> web.StreamResponse:
        """Answer a request whose path or method has no route. A route that was added without a rule ends here too."""
        if request.match_info.http_exception is None:
            return self._refuse(request, 403, "no rule allows this", user)
        raise request.match_info.http_exception

    def _identify(self, request: web.Request) -> User | None:
        header = request.headers.get("Authorization")
        if header is None:
            return _local_user(request)
        return self._user_of(header)

    def _user_of(self, authorization: str) -> User | None:
        scheme, _, presented = authorization.partition(" ")
        token = self._tokens.authenticate(presented.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            return None
        known = self._users.get(token.id)
        if known is None or known[0] is not token:  # the file of tokens was read again
            known = self._users[token.id] = (token, User(token.user, token.grant(), token.id))
        return known[1]

    def _prove(self, request: web.Request, challenge: str) -> str | None:
        """Return the proof that this host knows a token; ``None``: it does not know it.

        Raises
        ------
        AuthenticationError
            The client is connected to another address, so its connection is being forwarded.
        """
        asked = Challenge.fullmatch(challenge)
        name = None if request.transport is None else request.transport.get_extra_info("sockname")
        if asked is None or name is None:
            return None
        if asked["address"] != address_of(name):
            raise exceptions.AuthenticationError(
                "the connection is passed on, from another address than this host's own: use https:// for that"
            )
        return self._tokens.prove(asked["token"], asked["nonce"], asked["address"])

    def _refuse(self, request: web.Request, status: int, reason: str, user: User | None) -> web.Response:
        self._refusals.write(
            address_key(request.remote or "local") if user is None else user.name,
            user=None if user is None else user.name,
            token=None if user is None else user.token,
            method=request.method,
            path=request.path,
            status=status,
            reason=reason,
            peer=request.remote,
        )
        kind = exceptions.AuthenticationError if status == 401 else exceptions.AccessDenied
        response = problem(kind(reason), status)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="apyfal"'
        return response


def _counted(request: web.Request) -> int:
    """Return the number of bytes that a JSON body may take; 0 if too small to count."""
    if request.content_type != "application/json":
        return 0
    nbytes = request.content_length
    if nbytes is None:
        return MAX_JSON if request.can_read_body else 0
    return min(nbytes, MAX_JSON) if nbytes > COUNTED_JSON else 0


def _local_user(request: web.Request) -> User | None:
    """Return the user on a Unix socket if it is the user who runs this daemon, who is allowed everything anyway."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return User(f"uid-{uid}", EVERYTHING) if uid == os.geteuid() else None
