"""`Accelerator`: open a device, run jobs on it, close it."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from apyfal.batching.batch import Batch
from apyfal.batching.fan_out import StorageFanOut
from apyfal.config.configuration import Configuration, host_ip_of
from apyfal.definition.chain import ChainDefinition
from apyfal.definition.grammar import PROCESS_KEYWORDS
from apyfal.device import at_exit
from apyfal.device.control import JobControl
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.exceptions import (
    AcceleratorException,
    BufferInUse,
    ClosedError,
    ConfigurationError,
    ParameterError,
    RunCancelled,
    did_you_mean,
)
from apyfal.jobs.base import BaseAccelerator
from apyfal.jobs.defaults import JobDefaults
from apyfal.jobs.direct_runs import DirectRuns
from apyfal.jobs.enqueued import enqueue
from apyfal.jobs.opening import define, load_all, open_context, shared_device_of
from apyfal.jobs.submitter import BATCH_MEMORY, JobSubmitter
from apyfal.memory import empty
from apyfal.pipeline.arguments import JobArguments
from apyfal.pipeline.arrays import array_of
from apyfal.pipeline.reports.report import Report
from apyfal.pipeline.run import prepare, process
from apyfal.threads import start_threads
from apyfal.units import parse_duration, parse_size

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.config.configuration import ConfigSource
    from apyfal.device.chaining.queued_job import QueuedJob
    from apyfal.jobs.queue import Task

__all__ = ["LOCAL", "Accelerator"]

#: The `host_ip` of this machine.
LOCAL = "local"

_LOG = logging.getLogger("apyfal.accelerator")

#: Seconds that `Accelerator.stop` waits for cancelled jobs.
_STOP_SECONDS = 5.0
#: Seconds between attempts to close a device whose run does not end.
_CLOSE_INTERVAL = 0.5


class Accelerator(BaseAccelerator):
    """An open accelerator, on this machine or another one.

    Parameters
    ----------
    accelerator
        Name of a section ``[accelerator.NAME]`` of the configuration, of a reference accelerator, or of a registered
        software model.
    config
        Path of a configuration file, or a `Configuration`; ``None``: the file that `apyfal.config.configuration` finds.
    driver, device
        Where to run it; by default what the definition says, and the emulator if it says nothing. `device` can be an
        open accelerator, whose device is then shared: arrays of `put` and `device_empty` are for all that share it. The
        device is closed with the last of them.
    memory_limit
        Bytes (or text, ``"256MiB"``) of pinned memory that a job may use for data that is neither in a pinned array nor
        in an array used in place.
    host_ip, token, host_type
        Run it on another machine: see `apyfal.host`. Without `host_ip`, ``host_ip`` of ``[host.HOST_TYPE]`` or
        ``[host]`` in the configuration is used; ``"local"`` is this machine, whatever the configuration says.
    **definition
        Keys of the definition (``program=``, ``kernel=``, ``dtype=`` ...), which override the configuration.

    Raises
    ------
    ConfigurationError
        There is no such accelerator, or its definition is wrong.
    DriverUnavailable, DeviceNotFound
        It cannot be run on this machine.

    Notes
    -----
    All methods may be called from any thread. A forked child must open its own: there, every call raises
    `ForkedProcess`. At the end of a ``with`` block, submitted jobs are waited for; if the block raises, they are
    cancelled. Blocks of one accelerator nest: the last that ends closes it. A remote accelerator is an instance of this
    class, too.
    """

    def __new__(
        cls,
        accelerator: str | None = None,
        config: ConfigSource = None,
        *,
        host_ip: str | None = None,
        host_type: str | None = None,
        **keywords: Any,
    ) -> Accelerator:
        """Return a remote accelerator if `host_ip` or the configuration says so."""
        address = host_ip_of(config, host_type) if host_ip is None else host_ip
        if address is not None and address != LOCAL:
            if isinstance(device := keywords.get("device"), BaseAccelerator):
                raise ConfigurationError(
                    f"device: {device!r} is open here, and a host cannot share it; expected no host_ip"
                )
            from apyfal.host.client.accelerator import RemoteAccelerator, open_remote

            Accelerator.register(RemoteAccelerator)  # so that isinstance() holds
            # the argument, not the address: who named it decides which token it gets
            opened: Any = open_remote(accelerator, config, host_ip=host_ip, host_type=host_type, **keywords)
            return opened  # type: ignore[no-any-return]  # in all that is public it is an Accelerator
        return super().__new__(cls)

    def __init__(
        self,
        accelerator: str | None = None,
        config: ConfigSource = None,
        *,
        driver: str | None = None,
        device: str | int | BaseAccelerator | None = None,
        memory_limit: int | str | None = None,
        host_ip: str | None = None,
        token: str | None = None,
        host_type: str | None = None,
        **definition: object,
    ) -> None:
        self._closed = True  # until all of this has worked
        self._device_closed = True
        configuration = Configuration.load(config)
        shared = None
        if isinstance(device, BaseAccelerator):
            shared, device = shared_device_of(device), None
        self._definition = define(accelerator, configuration, definition, driver=driver, device=device, shared=shared)
        self._defaults = defaults = JobDefaults(self._definition, configuration, memory_limit)
        self._started = False
        self._lock = threading.RLock()
        self._active: set[JobControl] = set()
        may_batch = (
            not isinstance(self._definition, ChainDefinition)
            and defaults.copy
            and (defaults.memory_limit is None or defaults.memory_limit >= BATCH_MEMORY)
        )
        self._jobs = JobSubmitter(self._definition.name, self.process, self._run_batch if may_batch else None)
        self._fan_out = StorageFanOut()
        self._context = open_context(self._definition, shared)
        self._closed = self._device_closed = False
        self._closing: threading.Thread | None = None  # closes the device when a run that hangs has ended
        at_exit.register(self)

    @property
    def _submitter(self) -> JobSubmitter:
        return self._jobs

    # -- what it is ---------------------------------------------------------------------------------------------------
    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs: the keys of ``src={...}`` if there are several."""
        return tuple(port.name for port in self._definition.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs: the keys of ``dst={...}`` if there are several."""
        return tuple(port.name for port in self._definition.outputs)

    @property
    def reports_size(self) -> bool:
        """Whether only its kernel knows the size of the output, so that an array as `dst` may be larger."""
        return any((port.output or self._definition.output).kind == "reported" for port in self._definition.outputs)

    # -- configuration ------------------------------------------------------------------------------------------------
    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: object) -> None:
        """Configure the accelerator. It can be called again, with other values.

        Parameters
        ----------
        src
            Data (URL, path, file object, array or device array) that is loaded into the device's memory and stays there
            until `stop`: the kernel's argument ``coefficients``.
        info_dict
            Receives ``bytes_in``, ``device`` and ``driver``.
        **parameters
            The accelerator's own: defaults for `process`.
        """
        self._check_open()
        if src is None:
            src = self._defaults.data
        chosen = self._defaults.for_start(parameters)
        data = src if src is None or isinstance(src, DeviceArray) else load_all(src)
        nbytes = 0
        with self._lock:  # so that parameters and data are of one call, if other threads call `start`, too
            if data is not None:
                self._context.load(data)
                nbytes = data.nbytes
            self._defaults.start(chosen)
            self._started = True
            self._starts += 1
        if info_dict is not None:
            info_dict.update(bytes_in=nbytes, device=self._context.info["name"], driver=self._definition.driver)

    def stop(self) -> None:
        """Cancel jobs (those that run raise `RunCancelled`), and close the device. Stopping again is fine.

        Raises
        ------
        BufferInUse
            A run has not ended although it was cancelled, so that the device is still open. It is closed when the run
            ends, or when `stop` is called after that.
        """
        with self._lock:
            was_open, self._closed = not self._closed, True
            if self._device_closed:
                return
        if was_open:
            for control in list(self._active):
                control.fail(RunCancelled("the accelerator was stopped"))
            for job in reversed(self._context.shared.queue.of(self._context)):
                job.cancel()
            self._submitter.stop()
        deadline = monotonic() + _STOP_SECONDS
        while self._active and monotonic() < deadline:
            sleep(0.005)
        try:
            self._close_device()
        except BufferInUse as error:
            with self._lock:
                if self._closing is None and not at_exit.is_exiting():
                    _LOG.warning("%s; it is closed when they end", error)
                    self._closing = start_threads("close", 1, self._close_later)[0]
            raise BufferInUse(f"{error}; it is closed when they end, or by the next stop() after that") from error

    def _close_device(self) -> None:
        self._context.close()
        with self._lock:
            if self._device_closed:
                return
            self._device_closed = True
        at_exit.unregister(self)
        _LOG.debug("closed accelerator %r", self._definition.name)

    def _close_later(self) -> None:
        while not self._device_closed:
            sleep(_CLOSE_INTERVAL)
            try:
                self._close_device()
            except BufferInUse:
                pass
            except AcceleratorException:
                _LOG.warning("accelerator %r cannot be closed", self._definition.name, exc_info=True)
                return

    def _wait(self) -> None:
        super()._wait()
        while self._active:  # jobs that other threads run themselves
            sleep(0.005)
        for job in self._context.shared.queue.of(self._context):
            job.ended(None)

    # -- jobs ---------------------------------------------------------------------------------------------------------
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
        report = Report() if info_dict is not None or _LOG.isEnabledFor(logging.DEBUG) else None
        began = monotonic()
        with self._active_job(timeout) as control:
            request = self._arguments(src, dst, copy, info_dict, progress, memory_limit, parameters)
            result, nbytes = process(self._context, request, control, report)
        self._jobs.size.learn(nbytes, monotonic() - began)
        if report is not None:
            _LOG.debug(
                "%s: %d bytes in, %d bytes out, %d copied, %.3f s",
                self._definition.name,
                report.bytes_in,
                report.bytes_out,
                report.bytes_copied,
                report.now(),
            )
        return result

    def _arguments(
        self,
        src: object,
        dst: object,
        copy: bool,
        info: dict[str, Any] | None,
        progress: Callable[[int, int | None], None] | None,
        memory_limit: int | str | None,
        parameters: Mapping[str, object],
    ) -> JobArguments:
        return JobArguments(
            src=src,
            dst=dst,
            parameters=self._defaults.complete(parameters),
            copy=copy and self._defaults.copy,
            progress=progress,
            memory_limit=self._defaults.memory_limit if memory_limit is None else parse_size(memory_limit),
            info=info,
        )

    def _direct(
        self,
        src: object,
        dst: object,
        *,
        copy: bool = True,
        timeout: float | str | None = None,
        memory_limit: int | str | None = None,
        **parameters: object,
    ) -> DirectRuns | None:
        seconds = self._defaults.timeout if timeout is None else parse_duration(timeout)
        with self._active_job(None) as control:
            starts = self._starts
            request = self._arguments(src, dst, copy, None, None, memory_limit, parameters)
            job = prepare(self._context, request, control)
        if job is None:
            return None
        again = functools.partial(self._process, src, dst, copy=copy, memory_limit=memory_limit)
        return DirectRuns(job, self, again, request.parameters, seconds, starts)

    def _runs_at_once(self, src: object, dst: object, **keywords: Any) -> DirectRuns | None:
        """Return a job over these arrays for a thread that must not wait, as that of an event loop; see `prepare`.

        ``None``: starting it may wait for a card or a vendor's library, or take long.
        """
        if not self._context.starts_at_once:
            return None
        runs = self._direct(src, dst, **keywords)
        return runs if runs is not None and runs.make_ready() else None

    def enqueue(
        self,
        src: DeviceArray | Mapping[str, DeviceArray] | None = None,
        dst: DeviceArray | Mapping[str, DeviceArray] | None = None,
        *,
        info_dict: dict[str, Any] | None = None,
        **parameters: object,
    ) -> QueuedJob:
        """Put a job between device arrays into the device's queue, and return without waiting for it.

        Jobs that use the same array run one after another, in the order of the calls, on all accelerators that share
        the device. The driver keeps that order. With the xrt driver, queued jobs go on only while a thread waits for
        one of them.

        Parameters
        ----------
        src, dst
            Device arrays, made by `put` or `device_empty`, or mappings from the names of inputs and outputs to them.
            Shapes and dtypes are those that `process` accepts. The job keeps the arrays alive until it has ended.
        info_dict
            Receives the keys that `process` writes, when apyfal notices that the job has ended.
        **parameters
            The accelerator's parameters.

        Returns
        -------
        QueuedJob
            ``result()`` waits for the job. ``get()`` of an array that the job writes waits, too; both raise its error.

        Raises
        ------
        ParameterError
            A source or destination is not a device array, or does not fit the accelerator.
        ClosedError
            The accelerator was stopped.

        Notes
        -----
        64 jobs can be in flight on one device; one more call waits for the oldest job. If an output begins at zero or
        at an initial value, this call writes that value, and first waits for earlier jobs that use the array. The end
        of a ``with`` block waits for the jobs; if the block raises, they are cancelled.
        """
        with self._active_job(None):
            return enqueue(self._context, self._arguments(src, dst, False, info_dict, None, None, parameters))

    @contextlib.contextmanager
    def _active_job(self, timeout: float | str | None) -> Iterator[JobControl]:
        """Register the job of this block for `stop`, with its deadline; start the accelerator if nobody has."""
        seconds = self._defaults.timeout if timeout is None else parse_duration(timeout)
        control = JobControl(None if seconds is None else monotonic() + seconds)
        with self._lock:
            self._check_open()
            if not self._started:
                self.start()
            self._active.add(control)
        try:
            yield control
        finally:
            self._active.discard(control)

    def _run_batch(self, tasks: list[Task]) -> list[Task]:
        """Run small jobs with one batch key; return those that have to run alone."""
        parameters = {key: value for key, value in tasks[0].keywords.items() if key not in PROCESS_KEYWORDS}
        try:
            with self._active_job(tasks[0].keywords.get("timeout")) as control:
                batch = Batch(self._context, self._fan_out, tasks, self._defaults.complete(parameters), control)
                alone = batch.run()
        except AcceleratorException:
            # Run alone, each that has not ended gets an error of its own.
            return [task for task in tasks if not task.future.done()]
        self._submitter.size.learn_of_batch(batch.largest_nbytes, batch.seconds_each)
        return alone

    def empty(self, shape: Any, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return an array in pinned memory that is already imported on this device; see `apyfal.empty`."""
        self._check_open()
        return empty(shape, dtype, device=self._context.device)

    def put(self, array: object, *, port: str | None = None) -> DeviceArray:
        """Bring an array to the device, where it stays until it is closed or nothing refers to it.

        Parameters
        ----------
        array
            An array of the host, of any layout, or what can be seen as one.
        port
            The input or output whose memory bank it goes to, on cards with several; ``None``: the first input.

        Raises
        ------
        ParameterError
            It is not an array, or there is no such port.
        DeviceMemoryExhausted
        """
        source = array_of(array)
        if source is None:
            raise ParameterError(f"{type(array).__name__}: expected an array; apyfal.storage.load reads one")
        self._check_open()
        self._context.shared.queue.collect()  # frees memory that only jobs which have ended still refer to
        return DeviceArray.of(source, self._context.device, self._bank_of(port, self.inputs or self.outputs))

    def device_empty(
        self, shape: int | Sequence[int], dtype: DTypeLike = float, *, port: str | None = None
    ) -> DeviceArray:
        """Return a new array on the device, with undefined contents, for jobs that leave their results there.

        Parameters
        ----------
        shape, dtype
            As for `numpy.empty`.
        port
            As for `put`; ``None``: the first output.

        Raises
        ------
        ParameterError
            No array can have that shape or dtype, or there is no such port.
        DeviceMemoryExhausted
        """
        self._check_open()
        self._context.shared.queue.collect()
        return DeviceArray(self._context.device, shape, dtype, self._bank_of(port, self.outputs or self.inputs))

    def _bank_of(self, port: str | None, default: tuple[str, ...]) -> int:
        known = (*self.inputs, *self.outputs)
        if port is not None and port not in known:
            raise ParameterError(
                f"accelerator {self._definition.name!r} has no input or output {port!r}{did_you_mean(port, known)}"
            )
        return self._context.bank_of(default[0] if port is None else port)

    # -- the object ---------------------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"accelerator {self._definition.name!r} was stopped")

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            with contextlib.suppress(BufferInUse):
                self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._closed else f"on {self._context.info['name']!r}"
        return f"<apyfal Accelerator {self._definition.name!r} {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("an open accelerator cannot be pickled; send its name and open it there")
