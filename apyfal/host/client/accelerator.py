"""`RemoteAccelerator`: an accelerator on another machine, with the methods of a local one."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.batching.packing import BATCH_NBYTES
from apyfal.config.configuration import ConfigSource, Configuration, host_section, untrusted
from apyfal.exceptions import (
    AcceleratorException,
    ClosedError,
    ConfigurationError,
    HostError,
    JobRejected,
    ParameterError,
    RunCancelled,
)
from apyfal.host.client.batch import BatchPayload, split
from apyfal.host.client.http import RETRY_FOR, Host, Retry, SessionLost
from apyfal.host.client.local_files import LocalFileFailed
from apyfal.host.client.payload import CopyCounter, InputPayload, OutputPayload
from apyfal.host.client.shared_pool import SharedPool
from apyfal.host.client.small_payload import small_payload
from apyfal.host.client.submission import Receiver, Sendable, Submission
from apyfal.host.protocol.address import parse_address
from apyfal.host.protocol.array_types import ArrayType
from apyfal.host.protocol.messages import JobSpec, error_from
from apyfal.host.protocol.values import encode_parameters, value_of
from apyfal.jobs.base import BaseAccelerator
from apyfal.jobs.queue import Task
from apyfal.jobs.submitter import JobSubmitter
from apyfal.memory import empty
from apyfal.units import parse_duration, parse_size

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["RemoteAccelerator", "open_host", "open_remote"]

_WORKERS = 4
#: keywords of `process` that are not parameters of the accelerator
_OF_PROCESS = frozenset({"copy", "info_dict", "timeout", "progress", "memory_limit", "report"})
#: seconds that a batch of small jobs may take: all of its jobs end together
_LONGEST_BATCH = 0.1
#: keys of a definition that a client may send; ``program`` only if the host's operator lists it
_SAID_BY_CLIENTS = frozenset({"dtype", "in_dtype", "out_dtype", "program"})


def open_host(
    config: ConfigSource = None, *, host_ip: str | None = None, token: str | None = None, host_type: str | None = None
) -> Host:
    """Return the host named by the arguments or the ``[host]`` section. No connection is made yet.

    Parameters
    ----------
    config
        As in `apyfal.Accelerator`.
    host_ip
        Address of the host: see `apyfal.host.protocol.address.parse_address`. Default: ``host_ip`` of ``[host]``.
    token
        Token of the user. Default: ``$APYFAL_TOKEN``, then ``token`` or the file ``token_file`` of ``[host]``.
    host_type
        Selects ``[host.HOST_TYPE]`` of the configuration. Default: ``host_type`` of ``[host]``.

    Raises
    ------
    ConfigurationError, ParameterError
        No host is named, its address is malformed, or the token file cannot be read.
    """
    section = host_section(Configuration.load(config), host_type)
    address = host_ip if host_ip is not None else section.text("host_ip", None)
    if address is None:
        raise ConfigurationError("no host: give host_ip, or host_ip in [host] of the configuration")
    if host_ip is None and not (stated := section["host_ip"]).trusted:
        # an address from a file that others can change gets only the token of that file, never the user's own
        if token is not None or ("token" not in section and os.environ.get("APYFAL_TOKEN")):
            raise untrusted(stated, "where your token goes")
        return Host(parse_address(address), section.text("token", None))
    if token is None:
        token = os.environ.get("APYFAL_TOKEN") or section.text("token", None)
    if token is None and (file := section.text("token_file", None)) is not None:
        try:
            token = Path(os.path.expanduser(file)).read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"[host] token_file: {file!r} cannot be read") from error
    return Host(parse_address(str(address)), token)


def open_remote(
    accelerator: str | None = None,
    config: ConfigSource = None,
    *,
    host_ip: str | None = None,
    token: str | None = None,
    host_type: str | None = None,
    driver: str | None = None,
    device: str | int | None = None,
    memory_limit: int | str | None = None,
    **definition: object,
) -> RemoteAccelerator:
    """Open an accelerator on another machine; the parameters are those of `apyfal.Accelerator`.

    Raises
    ------
    ParameterError
        A key of the definition was given that only the host may define.
    HostError, ConnectionError
        The host cannot be reached, or refuses the token.
    """
    options: dict[str, object] = {"accelerator": accelerator, "driver": driver, "device": device}
    if unknown := sorted(definition.keys() - _SAID_BY_CLIENTS):
        names = ", ".join(unknown)
        raise ParameterError(f"{names}: an accelerator is defined on its host, in [accelerator.{accelerator}] there")
    for name, value in definition.items():
        is_type = name.endswith("dtype") and value is not None and not isinstance(value, str)
        options[name] = np.dtype(value).str if is_type else value  # type: ignore[call-overload]  # TypeError
    host = open_host(config, host_ip=host_ip, token=token, host_type=host_type)
    return RemoteAccelerator(host, options, memory_limit)


class RemoteAccelerator(BaseAccelerator):
    """An open accelerator on another machine.

    URLs are sent to the host by name: their data does not pass through this machine. Arrays, files and file objects are
    sent and received. Each job has its own idempotency key, so that the host runs it once even if a broken connection
    makes the client ask again.

    Parameters
    ----------
    host
        The host; closed with this object.
    options
        Options of the session: ``accelerator``, ``driver``, ``device`` and others of `SessionFields`.
    memory_limit
        Bytes of pinned memory for each job, on the host.

    Notes
    -----
    Usable from any thread.
    """

    def __init__(self, host: Host, options: Mapping[str, object], memory_limit: int | str | None = None) -> None:
        self._host = host
        self._options = dict(options)
        self._memory_limit = None if memory_limit is None else parse_size(memory_limit)
        self._lock = threading.RLock()
        self._closed = False
        self._session = ""
        self._pool: SharedPool | None = None
        self._mounts: dict[str, dict[str, object]] = {}
        self._start: tuple[object, dict[str, object]] | None = None
        self._background: JobSubmitter | None = None
        self._active: set[Submission] = set()
        self._finalizer = weakref.finalize(self, host.close)
        try:
            self._open_session()
        except BaseException:
            self._finalizer()
            raise

    # -- configuration -------------------------------------------------------------------------------------------------
    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: object) -> None:
        """Configure the accelerator; see `apyfal.Accelerator.start`."""
        self._check_open()
        with self._lock:
            self._starts += 1
            self._run("start", src, None, parameters, info_dict=info_dict)
            self._start = (src, parameters)

    def mount(self, storage_type: str, *, provider: str, **parameters: object) -> None:
        """Mount a store with the client's own account, for jobs of this session. The host removes it with the session.

        Parameters
        ----------
        storage_type
            The URL scheme, for this session only.
        provider
            ``s3``, ``swift``, ``oss``, ``gs`` or ``az``.
        **parameters
            As in `apyfal.storage.mount`. An account is required, because the host's own is not used for clients.
        """
        self._check_open()
        given = {name: value for name, value in {"provider": provider, **parameters}.items() if value is not None}
        with self._lock:
            self._host.json("PUT", f"/v1/sessions/{self._session}/mounts/{storage_type}", given)
            self._mounts[storage_type] = given

    def stop(self) -> None:
        """Cancel jobs, and close the session. Stopping it again has no effect."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            submitter = self._background
            active = list(self._active)
        if submitter is not None:
            submitter.cancel_waiting()
        for submission in active:
            submission.cancel()
        if submitter is not None:
            submitter.stop()
        if self._pool is not None:
            self._pool.close()
        # If the session is gone or the host cannot be reached, nothing more to do: the host closes idle sessions.
        with contextlib.suppress(OSError, AcceleratorException):
            self._host.json("DELETE", f"/v1/sessions/{self._session}")
        self._finalizer()

    def _wait(self) -> None:
        super()._wait()
        while self._active:  # jobs that run in other threads
            time.sleep(0.005)

    @property
    def _submitter(self) -> JobSubmitter:
        # Created on first use: it refers to the accelerator, which must be closed as soon as it is no longer
        # referenced.
        with self._lock:
            if self._background is None:
                self._background = JobSubmitter(
                    str(self._options["accelerator"]),
                    self.process,
                    None if self._memory_limit is not None else self._run_batch,
                    workers=_WORKERS,
                )
            return self._background

    # -- jobs ----------------------------------------------------------------------------------------------------------
    def _process(
        self,
        src: object,
        dst: object,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        **parameters: object,
    ) -> Any:
        self._check_open()
        return self._run(
            "process",
            src,
            dst,
            parameters,
            copy=bool(copy),
            info_dict=info_dict,
            timeout=None if timeout is None else parse_duration(timeout),
            progress=progress,
            memory_limit=self._memory_limit if memory_limit is None else parse_size(memory_limit),
        )

    def empty(self, shape: Any, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return an array that reaches the host without a copy if the host is this machine; otherwise as
        `apyfal.empty`.
        """
        self._check_open()
        dimensions = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        kind = ArrayType(np.dtype(dtype), tuple(int(length) for length in dimensions))
        session, pool = self._session, self._pool
        array = None
        if pool is not None:
            try:
                array = pool.empty(kind)
            except SessionLost:
                self._renew(session, restart=True)
                return self.empty(shape, dtype)
        return empty(kind.shape, kind.dtype) if array is None else array

    # -- internals -----------------------------------------------------------------------------------------------------
    def _run(
        self,
        kind: str,
        src: object,
        dst: object,
        parameters: Mapping[str, object],
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
    ) -> Any:
        began = time.monotonic()
        key = secrets.token_hex(16)
        retry = Retry(timeout)
        is_plain = kind == "process" and info_dict is None and progress is None and memory_limit is None
        while True:
            session, pool, copies = self._session, self._pool, CopyCounter(copy)
            try:
                small = small_payload(src, dst, pool, copy, timeout, parameters) if is_plain else None
                if small is not None:
                    submission = Submission(self._host, key, small.spec, retry, None, wants_info=False)
                    document, result = self._run_submission(session, submission, small, small)
                else:
                    with (
                        InputPayload(src, pool, copies) as source,
                        OutputPayload(dst, pool, source.nbytes, copies) as target,
                    ):
                        spec = JobSpec(
                            kind=kind,
                            src=source.origin,
                            dst=target.destination,
                            parameters=encode_parameters(parameters),
                            copy=copy,
                            timeout=timeout,
                            memory_limit=memory_limit,
                        )
                        early = target.early
                        if early is not None and source.overlaps(early):
                            early = None
                        wants_info = info_dict is not None
                        submission = Submission(
                            self._host, key, spec, retry, progress, wants_info=wants_info, early=early
                        )
                        try:
                            document, result = self._run_submission(session, submission, source, target)
                        except SessionLost:
                            target.require_untouched()
                            raise
            except LocalFileFailed as failed:
                raise failed.error from None
            except SessionLost:
                self._renew(session, restart=kind != "start")
                retry.pause("the host does not keep the session", None)
                continue
            if document["state"] == "interrupted" and document.get("ran") is False:
                key = secrets.token_hex(16)  # the host is certain that the job did not run
                continue
            if isinstance(src, np.ndarray) and kind == "process":
                output = result.nbytes if isinstance(result, np.ndarray) else 1
                self._learn(max(src.nbytes, output), time.monotonic() - began)
            if info_dict is not None:
                reported = value_of(document, "info") or {}
                if not isinstance(reported, dict):
                    raise HostError("the host's answer is malformed: expected an object that says what the job did")
                info: dict[str, Any] = {**reported, "host": str(self._host.address)}
                copies.fill(info)
                seconds = info.setdefault("seconds", {})
                seconds["network"] = max(0.0, time.monotonic() - began - float(seconds.get("total", 0.0)))
                info_dict.update(info)
            failure = failure_of(document)
            if failure is not None:
                raise failure
            return result

    def _run_submission(
        self, session: str, submission: Submission, source: Sendable, target: Receiver
    ) -> tuple[dict[str, Any], Any]:
        """Submit a job that `stop` cancels, and wait for its end; see `Submission.run`."""
        with self._lock:
            self._check_open()
            self._active.add(submission)
        try:
            return submission.run(session, source, target)
        finally:
            with self._lock:
                self._active.discard(submission)

    def _run_batch(self, tasks: list[Task]) -> list[Task]:
        """Run small jobs with one batch key together; return those that have to run alone."""
        together, alone = split(tasks)
        if len(together) < 2:
            return tasks
        began = time.monotonic()
        keywords = together[0].keywords
        timeout = keywords.get("timeout")
        batch = BatchPayload(together)
        seconds = None if timeout is None else parse_duration(timeout)
        own = {name: keywords[name] for name in keywords.keys() - _OF_PROCESS}
        spec = batch.spec(encode_parameters(own), seconds)
        key, retry = secrets.token_hex(16), Retry(seconds)
        while True:
            session = self._session
            try:
                document, _ = self._run_submission(
                    session, Submission(self._host, key, spec, retry, None), batch, batch
                )
            except SessionLost:
                self._renew(session, restart=True)
                retry.pause("the host does not keep the session", None)
                continue
            if document["state"] != "interrupted" or document.get("ran") is not False:
                break
            key = secrets.token_hex(16)  # the host is certain that the jobs did not run
        again = batch.settle(document, lambda: failure_of(document))
        self._learn(batch.largest_nbytes if not again else 0, (time.monotonic() - began) / len(together))
        return again + alone

    def _learn(self, nbytes: int, seconds: float) -> None:
        """Learn from a job of `nbytes` (0: it cannot be in a batch) how many small jobs make a batch: none longer than
        `_LONGEST_BATCH`.
        """
        if self._background is not None:
            most = max(1, int(_LONGEST_BATCH / max(seconds, 1e-9)))
            self._background.size.learn(max(nbytes, BATCH_NBYTES // most) if nbytes else BATCH_NBYTES)

    def _open_session(self) -> None:
        retry = Retry(None, RETRY_FOR if self._session else 10.0)
        while True:
            try:
                document = self._host.json("POST", "/v1/sessions", self._options)
                break
            except JobRejected as error:
                retry.pause(str(error), None, error)
            except (ConnectionError, TimeoutError) as error:
                retry.pause(f"{self._host.address} cannot be reached", None, error)
        self._session = document["id"]
        self._pool = SharedPool.of(self._host, document)

    def _renew(self, lost: str, *, restart: bool) -> None:
        """Open a new session in place of one that the host no longer knows, for example after a restart."""
        with self._lock:
            self._check_open()
            if self._session != lost:
                return  # another thread has renewed it
            if self._pool is not None:
                self._pool.close()
            self._open_session()
            for name, parameters in self._mounts.items():
                self._host.json("PUT", f"/v1/sessions/{self._session}/mounts/{name}", parameters)
            if restart and self._start is not None:
                src, parameters = self._start
                self._run("start", src, None, parameters)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"accelerator {self._options['accelerator']!r} was stopped")

    def __repr__(self) -> str:
        state = "stopped" if self._closed else f"on {self._host.address}"
        return f"<apyfal RemoteAccelerator {self._options['accelerator']!r} {state}>"


def failure_of(document: Mapping[str, Any]) -> AcceleratorException | None:
    """Return why a job has no result; ``None``: it has one."""
    state = document["state"]
    if state == "cancelled":
        return RunCancelled("the job was cancelled")
    return None if state == "done" else error_from(document.get("error"))
