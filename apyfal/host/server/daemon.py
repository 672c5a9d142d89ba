"""The daemon: creates its parts, listens, and stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apyfal.config.configuration import Configuration
from apyfal.exceptions import ConfigurationError
from apyfal.host.protocol.audit import AuditLog
from apyfal.host.protocol.shared_memory import Region, TicketServer
from apyfal.host.server.api import openapi
from apyfal.host.server.api.context import RouteContext
from apyfal.host.server.api.info import InfoRoutes
from apyfal.host.server.api.jobs import JobRoutes
from apyfal.host.server.api.middleware import AuthMiddleware
from apyfal.host.server.api.request_fields import SessionFields
from apyfal.host.server.api.routes import Route, declared
from apyfal.host.server.api.sessions import SessionRoutes
from apyfal.host.server.api.storage import StorageRoutes
from apyfal.host.server.channel.context import ChannelContext, Gate
from apyfal.host.server.channel.routes import ChannelRoutes, Channels
from apyfal.host.server.housekeeping import Step, run_periodically
from apyfal.host.server.jobs.admission import Admission
from apyfal.host.server.jobs.disclosure import Disclosure, urls_of
from apyfal.host.server.jobs.execution import Executor
from apyfal.host.server.jobs.job import Job
from apyfal.host.server.jobs.manager import JobManager
from apyfal.host.server.jobs.outputs import SavedOutputs
from apyfal.host.server.jobs.sessions import OpenAccelerator, Session, Sessions
from apyfal.host.server.listener import Listener
from apyfal.host.server.local_jobs import allocate, devices, prepare_run, run_calls
from apyfal.host.server.metrics import metrics_of
from apyfal.host.server.policy.allowed_directories import AllowedDirectories
from apyfal.host.server.policy.egress import EgressPolicy
from apyfal.host.server.policy.host_store import HostStore
from apyfal.host.server.policy.limits import ring_limit
from apyfal.host.server.policy.quotas import Quota
from apyfal.host.server.policy.tokens import TokenStore
from apyfal.host.server.policy.url_policy import UrlPolicy, restricted_handler
from apyfal.host.server.records.journal import Journal
from apyfal.host.server.records.mapped_log import open_log
from apyfal.host.server.records.usage_ledger import UsageLedger
from apyfal.host.server.transport.bodies import Bodies
from apyfal.host.server.transport.connections import Acceptor, Connections
from apyfal.host.server.transport.threads import Threads
from apyfal.host.server.transport.user_threads import UserThreads
from apyfal.host.settings import HostSettings
from apyfal.log import get_logger
from apyfal.storage import providers
from apyfal.storage.mounting import table
from apyfal.storage.mounting.mount import MountSpec

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Daemon", "Listener"]

_HOUSEKEEPING = 1.0
_FORGET_INTERVAL = 0.01
_IDLE_TIMEOUT = 75.0
#: seconds for the handlers of the newest connections to start: a handler that is closed before that still waits for a
#: request, and would delay the end by `stop_timeout`
_SETTLE = 0.1
#: bytes; larger than aiohttp's, so that one read takes all that the socket holds of a body
_READ_BUFFER = 1 << 20


class Daemon:
    """Shares the accelerators of this machine. Created and used on one event loop.

    Parameters
    ----------
    settings
        The operator's settings.
    listeners
        Addresses to listen on.
    config
        Configuration that defines the accelerators; read again by `reload`.
    open_accelerator
        Opens an accelerator, for tests. Default: `apyfal.Accelerator`.

    Attributes
    ----------
    listeners
        As given; a port 0 is replaced by the port in use.
    routes
        All routes, with their access rules.
    ports
        Port of each listener, once the daemon listens; 0 for Unix sockets.
    """

    def __init__(
        self,
        settings: HostSettings,
        listeners: list[Listener],
        *,
        config: Any = None,
        open_accelerator: OpenAccelerator | None = None,
    ) -> None:
        self.settings = settings
        self.listeners = listeners
        self._config = config
        self._configuration = Configuration.load(config)
        self._open_accelerator = open_accelerator or self._open
        self._stop_requested = asyncio.Event()
        self._state = "starting"
        self.ports: list[int] = []

    # -- parts ---------------------------------------------------------------------------------------------------------
    def _assemble(self) -> web.Application:
        from aiohttp import web

        settings = self.settings
        settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._audit = AuditLog(settings.audit_log)
        self._tokens = TokenStore(settings.state_directory / "tokens.json")
        self._directories = AllowedDirectories(settings.authorized_host_dirs)
        self._ledger = UsageLedger(settings.state_directory / "host_files.sqlite", settings.host_quota)
        self._egress = EgressPolicy(settings.private_endpoints, [listener.port for listener in self.listeners])
        self._table = table.table
        self._table.configure(self._configuration)
        self._attach_stores()
        self._url_policy = UrlPolicy(self._directories, self._egress, self._table, self._serve_directories)
        self._fields = _fields_of(self._configuration, settings)
        self._disclosure = Disclosure(self._configuration)
        self._memory = Quota("bytes of memory", settings.memory_limit)
        bodies = Bodies(settings, self._memory, Quota("bytes of disk", settings.disk_limit), allocate)
        journal = settings.state_directory / "jobs.sqlite"
        self._journal = Journal(journal, settings.journal_limit, open_log(journal.with_suffix(".log")))
        self._stopping_sessions: Threads[Session] = Threads(Session.stop, self._stopped)
        self._sessions = Sessions(settings.max_sessions, settings.max_sessions_of_user)
        self._manager = JobManager(
            journal=self._journal,
            saved=SavedOutputs(settings.state_directory / "outputs"),
            executor=Executor(
                self._url_policy,
                self._open_accelerator,
                allocate,
                self._memory,
                bodies.spool,
                ring_limit(settings.memory_limit, settings.workers),
                run_calls,
                prepare_run,
            ),
            workers=settings.workers,
            limit=settings.max_jobs,
            limit_of_user=settings.max_jobs_of_user,
            describe_error=self._describe_error,
        )
        memory_socket = next(
            (listener.unix.with_suffix(".memory") for listener in self.listeners if listener.unix), None
        )
        self._ticket_server = None if memory_socket is None else TicketServer(memory_socket, self._region)
        shared = None if memory_socket is None else str(memory_socket)
        self._threads = UserThreads()
        admission = Admission(self._sessions, self._manager)
        self._channels = Channels(ChannelContext(admission, bodies), settings.stall_timeout)
        self._metrics = metrics_of(self._manager, self._sessions, self._channels, self._memory)
        context = RouteContext(
            settings, self._audit, self._sessions, self._url_policy, lambda: self._fields, bodies, self._threads
        )
        info = InfoRoutes(
            self._url_policy,
            self._accelerators,
            devices,
            lambda: self._state,
            self._metrics.text,
            self._threads,
            self._disclosure.text,
        )
        self.routes: list[Route] = declared(
            # the router tries them in this order: the routes that are called most come first
            JobRoutes(context, self._manager, admission),
            SessionRoutes(context, shared, self.close_session),
            StorageRoutes(context, self._table, self._ledger),
            info,
            ChannelRoutes(self._channels),
        )
        from apyfal import __version__

        info.describe(openapi.document(self.routes, __version__))
        self._connections = Connections(settings.max_connections)
        self._gatekeeper = AuthMiddleware(
            self.routes,
            self._tokens,
            self._audit,
            self._connections,
            settings.request_rate,
            self._metrics.observe,
            self._memory,
            self._disclosure,
        )
        keeper = self._gatekeeper
        self._channels.context.gate = Gate(keeper.readmit, keeper.is_valid, keeper.refusal, self._metrics.observe)
        application = web.Application(
            middlewares=[self._gatekeeper.middleware()],
            handler_args={
                "read_bufsize": _READ_BUFFER,
                "keepalive_timeout": _IDLE_TIMEOUT,
                "access_log": None,
                "logger": _quiet_logger(),
                "auto_decompress": False,  # refuse compressed bodies: their length does not bound their content
            },
        )
        for route in self.routes:
            application.router.add_route(
                route.method,
                route.path,
                route.handler,  # type: ignore[arg-type]  # set by `declared`
                expect_handler=_send_no_continue,
            )
        return application

    def _attach_stores(self) -> None:
        """Mount ``host://``, and the web within the egress policy, in this process."""
        self._table.attach(providers.HOST_SCHEME, self._serve_directories(self._directories))
        for scheme in ("http", "https"):
            self._table.attach(scheme, restricted_handler(MountSpec(scheme, scheme), self._egress))

    def _serve_directories(self, directories: AllowedDirectories, user: str | None = None) -> HostStore:
        account = None if user is None else self._ledger.account(user)
        return HostStore(directories, self.settings.max_body, self.settings.disk_reserve, account)

    def _describe_error(self, job: Job, failure: BaseException) -> dict[str, str]:
        urls, mounts = urls_of(job.spec), job.session.mounts
        options = (str(value) for value in job.session.options.values())
        client_text = "\n".join([*urls, *options, *(mount.client_text for mount in mounts.values())])
        operators = [url for url in urls if self._url_policy.names_operator_mount(url, mounts)]
        return self._disclosure.error(failure, client_text, mounts, operators)

    def _open(self, accelerator: str | None = None, **options: Any) -> Any:
        from apyfal.accelerator import LOCAL, Accelerator

        return Accelerator(accelerator, self._configuration, host_ip=LOCAL, **options)

    def _accelerators(self) -> list[Any]:
        import apyfal

        return list(apyfal.accelerators(self._configuration))

    # -- run -----------------------------------------------------------------------------------------------------------
    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called or SIGTERM or SIGINT arrives, then stop in order. SIGHUP calls `reload`.

        Parameters
        ----------
        ready
            Called when the daemon listens on all addresses.
        """
        from aiohttp import web

        runner = web.AppRunner(self._assemble(), handle_signals=False, shutdown_timeout=self.settings.stop_timeout)
        await runner.setup()
        acceptors: list[Acceptor] = []
        housekeeping: asyncio.Task[None] | None = None
        try:
            for entry in self._journal.recover():
                self._audit.write("job interrupted", user=entry.user, job=entry.id, ran=(entry.answer or {}).get("ran"))
            for entry in self._manager.lost_outputs():
                self._audit.write("output lost", user=entry.user, job=entry.id)
            if self._ticket_server is not None:
                self._ticket_server.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._ticket_server.start()
            for listener in self.listeners:
                acceptors += await self._listen(runner, listener)
            self._handle_signals()
            housekeeping = asyncio.create_task(run_periodically(self._housekeeping(), _HOUSEKEEPING))
            self._state = "ok"
            self._audit.write("started", listeners=len(acceptors), landlock=self._directories.landlocked)
            ready()
            await self._stop_requested.wait()
            await self._wind_down()
        finally:
            if housekeeping is not None:
                housekeeping.cancel()
            for acceptor in acceptors:
                acceptor.close()
            await asyncio.sleep(_SETTLE)
            await self._channels.stop(self.settings.stop_timeout)
            await runner.cleanup()
            await self._save_outputs()
            for session in self._sessions.of(None):
                self.close_session(session)
            if self._ticket_server is not None:
                self._ticket_server.stop()
            self._manager.close()
            self._journal.close()
            self._table.configure(None)
            self._url_policy.close()
            self._directories.close()
            self._ledger.close()
            self._audit.close()

    def stop(self) -> None:
        """Ask the daemon to stop: it accepts no more jobs, and running jobs may end within `stop_timeout`."""
        self._state = "stopping"
        self._stop_requested.set()

    async def _wind_down(self) -> None:
        left = await self._manager.stop(self.settings.stop_timeout)
        for job in left:
            self._audit.write("job left", user=job.user, job=job.id, state=job.state)
        if left:
            get_logger().warning("%d jobs did not end; they are reported when this host starts again", len(left))
        self._audit.write("stopped", jobs_left=len(left))

    async def _save_outputs(self) -> None:
        lost = await asyncio.get_running_loop().run_in_executor(
            None, self._manager.save_outputs, self.settings.stop_timeout
        )
        if lost:
            get_logger().warning("the outputs of %d jobs are lost: there was no time or room to save them", len(lost))

    async def _listen(self, runner: web.AppRunner, listener: Listener) -> list[Acceptor]:
        self._connections.server = runner.server
        listening = await listener.bind()
        if listener.unix is None:
            self._egress.own_ports |= {listener.port}
        self.ports.append(listener.port)
        return [Acceptor(one, self._connections, listener.tls) for one in listening]

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: a test's daemon
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read the configuration again. Its accelerators, mounts, allowed directories and private endpoints apply to
        later requests. If it has an error, nothing changes.
        """
        try:
            configuration = Configuration.load(self._config)
            settings = HostSettings.load(configuration)
            directories = AllowedDirectories(settings.authorized_host_dirs)
            egress = EgressPolicy(settings.private_endpoints, self._egress.own_ports)
        except ConfigurationError as error:
            self._audit.write("reload failed", reason=error)
            get_logger().error("the configuration was not reloaded: %s", error)
            return
        self._configuration = configuration
        self._table.configure(configuration)
        old, self._directories, self._egress = self._directories, directories, egress
        self._attach_stores()
        self._url_policy.replace(directories, egress)
        self._fields = _fields_of(configuration, settings)
        self._disclosure.configure(configuration)
        old.close()
        self._audit.write("reloaded", directories=len(directories.directories))

    # -- housekeeping --------------------------------------------------------------------------------------------------
    def _housekeeping(self) -> dict[str, Step]:
        return {
            "idle sessions": self._end_idle_sessions,
            "channels": self._channels.close_stalled,
            "outputs": lambda: self._manager.expire_outputs(self.settings.keep_outputs),
            "old jobs": self._forget_jobs,
            "journal": self._tidy_journal,
        }

    def _end_idle_sessions(self) -> None:
        for session in self._sessions.idle(self.settings.session_timeout):
            self.close_session(session)
            self._audit.write("session expired", user=session.user, session=session.id)

    async def _forget_jobs(self) -> None:
        now = time.time()
        while self._manager.forget(now - self.settings.keep_outputs, now - self.settings.keep_jobs):
            await asyncio.sleep(_FORGET_INTERVAL)

    async def _tidy_journal(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._journal.database.checkpoint)

    def close_session(self, session: Session) -> None:
        """Close a session: it can no longer be found, and its accelerator stops when its jobs have ended."""
        if not self._sessions.remove(session):
            return
        for mount in session.mounts.values():
            self._url_policy.unmount(mount)
        session.mounts.clear()
        self._memory.release(session.user, sum(region.nbytes for region in session.regions.values()))
        self._stopping_sessions.begin(session)

    def _stopped(self, session: Session, failure: BaseException | None) -> None:
        if failure is not None:
            get_logger().warning("session %s could not be closed cleanly: %s", session.id, failure)

    def _region(self, name: str) -> Region | None:
        return next((session.regions[name] for session in self._sessions.of(None) if name in session.regions), None)


async def _send_no_continue(request: web.Request) -> None:
    """Send no ``100 Continue``: the handler does that when it wants the body."""


def _fields_of(configuration: Configuration, settings: HostSettings) -> SessionFields:
    return SessionFields(configuration, settings.client_drivers, settings.client_programs)


def _quiet_logger() -> logging.Logger:
    """Return a logger that discards aiohttp's messages about malformed requests, which could flood the system's log."""
    logger = logging.getLogger("apyfal.host.malformed")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger
