"""`Accelerator`: open a card, run jobs on it, close it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.accelerators import resolve
from apyfal.batching.batch import Batch
from apyfal.batching.fan_out import StorageFanOut
from apyfal.config.configuration import Configuration, host_section
from apyfal.device import at_exit
from apyfal.device.context import DeviceContext
from apyfal.device.control import JobControl
from apyfal.exceptions import AcceleratorException, ClosedError, ConfigurationError, RunCancelled, did_you_mean
from apyfal.jobs.submitter import BATCH_MEMORY, JobSubmitter
from apyfal.memory import empty
from apyfal.pipeline.arrays import array_of
from apyfal.pipeline.report import Report
from apyfal.pipeline.run import JobArguments, process
from apyfal.storage.endpoints.factory import open_source
from apyfal.units import parse_duration, parse_size

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.config.configuration import ConfigSource
    from apyfal.definition.definition import Definition
    from apyfal.jobs.queue import Task

__all__ = ["LOCAL", "Accelerator", "host_ip_of"]

#: The `host_ip` of this machine.
LOCAL = "local"

#: Keywords of `process` that are not the accelerator's own parameters.
_OF_PROCESS = frozenset({"copy", "info_dict", "timeout", "progress", "memory_limit"})


class Accelerator:
    """One accelerator, open.

    Parameters
    ----------
    accelerator
        A name: of a section ``[accelerator.NAME]`` of the configuration, of a reference accelerator, or of a registered
        software model.
    config
        A configuration file's path, or a `Configuration`; ``None``: found as `apyfal.config.configuration` says.
    driver, device
        Where to run it; by default as the definition says, and that is the software card where it says nothing.
    memory_limit
        Bytes (or text, ``"256MiB"``) of pinned memory that a job may use for data that is neither in a pinned array nor
        in an array used in place.
    host_ip, token, host_type
        Run it on another machine: see `apyfal.host`. Without `host_ip`, ``host_ip`` of ``[host.HOST_TYPE]`` (and so of
        ``[host]``) in the configuration says so; ``"local"`` is this machine whatever is said there.
    **definition
        Keys of the definition (``program=``, ``kernel=``, ``dtype=`` ...), which win over the configuration's.

    Raises
    ------
    ConfigurationError
        There is no such accelerator, or its definition is wrong.
    DriverUnavailable, DeviceNotFound
        It cannot be run on this machine.

    Notes
    -----
    Usable from any thread. A forked child must open its own: there, every call raises `ForkedProcess`.
    """

    def __new__(
        cls,
        accelerator: str | None = None,
        config: ConfigSource = None,
        *,
        host_ip: str | None = None,
        host_type: str | None = None,
        **keywords: Any,
    ) -> Any:
        """Return a remote accelerator where `host_ip` says so; it has the same methods."""
        address = host_ip_of(config, host_type) if host_ip is None else host_ip
        if address is not None and address != LOCAL:
            from apyfal.host.client.accelerator import open_remote

            # the argument, not the address: who named it decides which token it gets
            return open_remote(accelerator, config, host_ip=host_ip, host_type=host_type, **keywords)
        return super().__new__(cls)

    def __init__(
        self,
        accelerator: str | None = None,
        config: ConfigSource = None,
        *,
        driver: str | None = None,
        device: str | int | None = None,
        memory_limit: int | str | None = None,
        host_ip: str | None = None,
        token: str | None = None,
        host_type: str | None = None,
        **definition: object,
    ) -> None:
        self._closed = True  # until everything below has worked
        configuration = Configuration.load(config)
        given: dict[str, object] = {
            key: value for key, value in (("driver", driver), ("device", device)) if value is not None
        }
        self._definition = resolve(accelerator, configuration, **given, **definition)
        self._defaults = configuration.section(f"process.{self._definition.name}")
        self._start_defaults = configuration.section(f"configuration.{self._definition.name}")
        limit = memory_limit if memory_limit is not None else self._defaults.text("memory_limit", None)
        self._memory_limit = None if limit is None else parse_size(limit)
        self._parameters: dict[str, object] = {}
        self._started = False
        self._lock = threading.RLock()
        self._active: set[JobControl] = set()
        may_group = self._defaults.boolean("copy", True) and (
            self._memory_limit is None or self._memory_limit >= BATCH_MEMORY
        )
        self._background = JobSubmitter(self._definition.name, self.process, self._run_together if may_group else None)
        self._fan_out = StorageFanOut()
        self._context = DeviceContext(self._definition, _program_reader(self._definition))
        self._closed = False
        at_exit.register(self)

    # -- what it is ---------------------------------------------------------------------------------------------------
    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it takes: the keys of ``src={...}`` where there are several."""
        return tuple(port.name for port in self._definition.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it produces: the keys of ``dst={...}`` where there are several."""
        return tuple(port.name for port in self._definition.outputs)

    # -- configuration ------------------------------------------------------------------------------------------------
    def start(self, src: object = None, *, info_dict: dict[str, Any] | None = None, **parameters: object) -> None:
        """Configure the accelerator; called again, it configures it anew.

        Parameters
        ----------
        src
            Data (URL, path, file object or array) that is loaded into the card's memory and stays there until `stop`:
            what the kernel gets as its argument ``coefficients``.
        info_dict
            Receives ``bytes_in``, ``device`` and ``driver``.
        **parameters
            The accelerator's own, as defaults of `process`.
        """
        self._check_open()
        if src is None:
            src = self._start_defaults.text("src", None)
        configured = {key: value.text for key, value in self._start_defaults.items() if key != "src"}
        self._parameters = {**configured, **parameters}
        unknown = self._parameters.keys() - self._definition.parameters.keys()
        if unknown:
            self._definition.validate_parameters(**{name: self._parameters[name] for name in unknown})
        nbytes = 0
        if src is not None:
            data = _load_all(src)
            self._context.load(data)
            nbytes = data.nbytes
        self._started = True
        if info_dict is not None:
            info_dict.update(bytes_in=nbytes, device=self._context.info["name"], driver=self._definition.driver)

    def stop(self) -> None:
        """End jobs that are still running (they raise `RunCancelled`), and close the device. Stopping twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        at_exit.unregister(self)
        for control in list(self._active):
            control.fail(RunCancelled("the accelerator was stopped"))
        self._background.stop()
        deadline = monotonic() + 5
        while self._active and monotonic() < deadline:
            threading.Event().wait(0.005)
        self._context.close()

    # -- jobs ---------------------------------------------------------------------------------------------------------
    def process(
        self,
        src: object = None,
        dst: object = None,
        *,
        copy: bool = True,
        info_dict: dict[str, Any] | None = None,
        timeout: float | str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        memory_limit: int | str | None = None,
        **parameters: object,
    ) -> Any:
        """Run one job.

        Parameters
        ----------
        src
            The input: a storage URL, path, file object, numpy array or any object with the buffer protocol. For an
            accelerator with several inputs: a mapping from their names to such.
        dst
            Where the output goes: the same kinds; ``None``: into a new array. For an accelerator with several outputs:
            a mapping from their names; those that it leaves out become new arrays.
        copy
            ``False``: raise `CopyRefused` instead of copying what cannot be used in place.
        info_dict
            Receives ``bytes_in``, ``bytes_out``, ``bytes_copied``, ``copy_reasons``, ``seconds`` by stage, ``chunks``,
            ``device``, ``driver``, ``timeline`` and ``limit`` (what limited the job, in words: ``fetch 97 %, card idle
            38 %``); also when the job fails. ``limit`` is there already when `progress` is called.
        timeout
            Seconds for the whole job, or text (``"2min"``).
        progress
            Called with the bytes of input that are through, and all of them (``None``: not known).
        memory_limit
            As for the accelerator, for this job.
        **parameters
            The accelerator's own.

        Returns
        -------
        ndarray, dict or None
            Without `dst` a new array, pinned and the caller's; with an array as `dst` that array; the result
            parameters, for accelerators that compute such; else ``None``. Of several outputs, those that are arrays, by
            their names.

        Raises
        ------
        ParameterError
            A parameter, type or size does not fit the accelerator.
        CopyRefused, RunTimeout, RunCancelled, KernelError, DeviceLost, StorageError

        Notes
        -----
        A URL, path or file appears whole or stays as it was. Several are put in their places one after the other, when
        all of the job's work is done. The contents of an array given as `dst` are undefined when
        the job fails.
        """
        with self._active_job(timeout) as control:
            report = Report()
            request = JobArguments(
                src=src,
                dst=dst,
                parameters=self._complete(parameters),
                copy=copy and self._defaults.boolean("copy", True),
                progress=progress,
                memory_limit=self._memory_limit if memory_limit is None else parse_size(memory_limit),
                info=info_dict,
            )
            result = process(self._context, request, control, report)
        self._background.size.learn(max(report.bytes_in, report.bytes_out))
        return result

    @contextmanager
    def _active_job(self, timeout: float | str | None) -> Iterator[JobControl]:
        """Let `stop` know of the job in this block, and begin its time; start the accelerator where nobody has."""
        self._check_open()
        if timeout is None:
            timeout = self._defaults.text("timeout", None)
        seconds = None if timeout is None else parse_duration(timeout)
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

    def _complete(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Add what the configuration and `start` say."""
        known = self._definition.parameters
        configured = {key: value.text for key, value in self._defaults.items() if key in known}
        return {**configured, **self._parameters, **parameters}

    def process_submit(self, src: object = None, dst: object = None, **keywords: Any) -> Future[Any]:
        """Run one job in the background; the arguments are those of `process`.

        Returns
        -------
        concurrent.futures.Future
            Of what `process` returns. Cancelling it before its turn drops the job.
        """
        self._check_open()
        return self._background.submit(src, dst, keywords)

    def _run_together(self, tasks: list[Task]) -> list[Task]:
        """Run small jobs of a kind; return those that have to run alone."""
        given = {key: value for key, value in tasks[0].keywords.items() if key not in _OF_PROCESS}
        try:
            with self._active_job(tasks[0].keywords.get("timeout")) as control:
                batch = Batch(self._context, self._fan_out, tasks, self._complete(given), control)
                left = batch.run()
        except AcceleratorException:
            # Whatever is wrong is said to each of them that did not end before.
            return [task for task in tasks if not task.future.done()]
        self._background.size.learn(batch.largest_nbytes)
        return left

    def process_map(
        self,
        srcs: Iterable[object] | None = None,
        dsts: Iterable[object] | None = None,
        *,
        timeout: float | str | None = None,
        info_list: list[dict[str, Any]] | None = None,
        **parameters: object,
    ) -> Iterator[Any]:
        """Run many jobs, several at once; yield their results in order.

        Parameters
        ----------
        srcs, dsts
            What `process` takes, one for each job, of any length; ``None``: none for any job.
        timeout
            Seconds for each job.
        info_list
            Receives one ``info_dict`` a job, in order.
        **parameters
            The accelerator's own, and keywords of `process`, for all jobs.

        Raises
        ------
        ParameterError
            One of `srcs` and `dsts` is longer than the other.
        """
        self._check_open()
        keywords = parameters if timeout is None else {**parameters, "timeout": timeout}
        return self._background.map(srcs, dsts, info_list, keywords)

    def empty(self, shape: Any, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return an array in pinned memory that this card knows already; see `apyfal.empty`."""
        self._check_open()
        return empty(shape, dtype, device=self._context.device)

    # -- the object ---------------------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"accelerator {self._definition.name!r} was stopped")

    def __enter__(self) -> Accelerator:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._closed else f"on {self._context.info['name']!r}"
        return f"<apyfal Accelerator {self._definition.name!r} {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("an open accelerator cannot be pickled; send its name and open it there")


def _load_all(src: object) -> NDArray[Any]:
    """Return all of a source in pinned, contiguous memory."""
    array = array_of(src)
    if array is not None:
        pinned = empty(array.shape, array.dtype)
        pinned[...] = array
        return pinned
    from apyfal.storage.api.arrays import load

    return load(src)


def _program_reader(definition: Definition) -> Callable[[str], bytes]:
    """Return what makes the bytes that the driver loads from the text of ``program``."""
    if definition.driver != "rtl":
        return _read_program

    def build(_: str) -> bytes:
        from apyfal.rtl.program import make_program  # its tools are for this driver alone

        return make_program(definition)

    return build


def _read_program(url: str) -> bytes:
    with open_source(url) as source:
        content = bytearray()
        block = empty(1 << 20, np.uint8)
        while count := source.readinto(block.data):
            content += block.data[:count]
        return bytes(content)


def host_ip_of(config: ConfigSource, host_type: str | None = None) -> str | None:
    """Return the host that a configuration asks for; ``None``: this machine.

    Raises
    ------
    ConfigurationError
        It says nothing of a `host_type` that was given.
    """
    configuration = Configuration.load(config)
    address = host_section(configuration, host_type).text("host_ip", None)
    if address is None and host_type is not None:
        known = [name.partition(".")[2] for name in configuration.sections("host") if "." in name]
        known += [stated] if (stated := configuration.section("host").text("host_type", None)) else []
        if host_type.lower() not in (name.lower() for name in known):
            near = did_you_mean(host_type, known)
            raise ConfigurationError(f"host_type {host_type!r}: the configuration says nothing of it{near}")
    return address
