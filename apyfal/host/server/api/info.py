"""Routes that describe this host: health, metrics, accelerators, devices and mounts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from apyfal.host.server.api.routes import OBJECT, PUBLIC, Body, route
from apyfal.host.server.policy.url_policy import UrlPolicy
from apyfal.host.server.transport.request import caller
from apyfal.host.server.transport.user_threads import UserThreads

__all__ = ["InfoRoutes"]


class InfoRoutes:
    """Health, metrics, the API's document, and lists of accelerators, devices and mounts.

    Parameters
    ----------
    url_policy
        Provides the mounts that clients may use.
    list_accelerators, list_devices
        Return the accelerators and the devices of this host.
    state
        Returns ``"ok"``, or ``"stopping"``.
    metrics
        Returns the metrics in Prometheus's text format.
    threads
        Run the functions that list devices and mounts, since a vendor's library may take long, or hang.
    shown
        Returns a line about this host without what a client must not read.
    """

    def __init__(
        self,
        url_policy: UrlPolicy,
        list_accelerators: Callable[[], list[Any]],
        list_devices: Callable[[], list[Any]],
        state: Callable[[], str],
        metrics: Callable[[], bytes],
        threads: UserThreads,
        shown: Callable[[str], str],
    ) -> None:
        self._url_policy = url_policy
        self._list_accelerators = list_accelerators
        self._list_devices = list_devices
        self._state = state
        self._metrics = metrics
        self._threads = threads
        self._shown = shown
        self._document = b""

    def describe(self, document: dict[str, Any]) -> None:
        """Serve this OpenAPI document. It is encoded once, since anybody may ask for it."""
        self._document = json.dumps(document).encode()

    @route(
        "GET",
        "/health",
        access=PUBLIC,
        summary="Whether the host accepts jobs",
        answers={200: Body("It accepts jobs.", OBJECT), 503: Body("It is stopping.", OBJECT)},
    )
    async def get_health(self, request: web.Request) -> web.StreamResponse:
        """Return whether jobs are accepted."""
        state = self._state()
        return web.json_response({"state": state}, status=200 if state == "ok" else 503)

    @route("GET", "/openapi.json", access=PUBLIC, summary="This document", answers={200: Body("OpenAPI 3.1.", OBJECT)})
    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        """Serve the API's document."""
        return web.Response(body=self._document, content_type="application/json")

    @route(
        "GET",
        "/metrics",
        access="admin",
        summary="Metrics for Prometheus",
        answers={200: Body("Metrics in Prometheus's text format.", {"text/plain": {"type": "string"}})},
    )
    async def get_metrics(self, request: web.Request) -> web.StreamResponse:
        """Serve the metrics."""
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    @route(
        "GET",
        "/v1/user",
        access="process",
        summary="The authenticated user",
        answers={200: Body("Your name and scopes.", OBJECT)},
    )
    async def get_user(self, request: web.Request) -> web.StreamResponse:
        """Return the caller's name and scopes."""
        user = caller()
        return web.json_response({"user": user.name, "scopes": sorted(user.scopes)})

    @route(
        "GET",
        "/v1/accelerators",
        access="process",
        summary="Accelerators of this host",
        answers={200: Body("One entry for each accelerator.", OBJECT)},
    )
    async def get_accelerators(self, request: web.Request) -> web.StreamResponse:
        """List the accelerators."""
        allowed = caller().grant.accelerators
        found = await self._threads.run(request, caller().name, self._list_accelerators)
        return web.json_response(
            {"accelerators": [self._shown(str(one)) for one in found if allowed is None or one.name in allowed]}
        )

    @route(
        "GET",
        "/v1/devices",
        access="process",
        summary="Devices of this host",
        answers={200: Body("One entry for each device.", OBJECT)},
    )
    async def get_devices(self, request: web.Request) -> web.StreamResponse:
        """List the devices."""
        found = await self._threads.run(request, caller().name, self._list_devices)
        return web.json_response({"devices": [self._shown(str(device)) for device in found]})

    @route(
        "GET",
        "/v1/mounts",
        access="storage:read",
        summary="Mounts that clients can use",
        answers={200: Body("Names and providers, never accounts.", OBJECT)},
    )
    async def get_mounts(self, request: web.Request) -> web.StreamResponse:
        """List the mounts that a client may use, by name and provider, without their parameters."""
        mounts = await self._threads.run(request, caller().name, self._url_policy.operator_mounts)
        seen = {name: provider for name, provider in mounts.items() if caller().grant.sees_mount(name)}
        return web.json_response({"mounts": {"host": "host", **seen}})
