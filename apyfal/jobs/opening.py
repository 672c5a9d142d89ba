"""What `apyfal.Accelerator` needs to open: its definition, program, coefficients, and shared device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apyfal.accelerators import resolve
from apyfal.definition.chain import ChainDefinition
from apyfal.device.chaining.context import ChainContext
from apyfal.device.context import DeviceContext
from apyfal.exceptions import ConfigurationError
from apyfal.memory import empty
from apyfal.opencl.program import make_program as make_opencl
from apyfal.pipeline.arrays import array_of
from apyfal.storage.endpoints.factory import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apyfal.config.configuration import Configuration
    from apyfal.definition.definition import Definition
    from apyfal.device.sharing.shared_device import SharedDevice

__all__ = ["define", "load_all", "open_context", "shared_device_of"]


def shared_device_of(accelerator: Any) -> SharedDevice:
    """Return the open device of an accelerator that is to be shared.

    Raises
    ------
    ConfigurationError
        It is on another machine.
    ClosedError
        It was stopped.
    """
    accelerator._check_open()
    context = getattr(accelerator, "_context", None)
    if context is None:
        raise ConfigurationError(
            f"device: {accelerator!r} is on another machine; expected a local accelerator to share"
        )
    shared: SharedDevice = context.shared
    return shared


def define(
    name: str | None,
    configuration: Configuration,
    keys: Mapping[str, object],
    *,
    driver: str | None,
    device: str | int | None,
    shared: SharedDevice | None,
) -> Definition:
    """Return the definition of an accelerator; see `apyfal.definition.resolve.resolve`.

    Parameters
    ----------
    name, configuration, keys
        As for that function.
    driver, device
        As given by the caller; ``None``: not given.
    shared
        The device to share. Its driver is used unless the caller or the configuration states another.
    """
    where: dict[str, object] = {
        key: value for key, value in (("driver", driver), ("device", device)) if value is not None
    }
    found = resolve(name, configuration, **where, **keys)
    if shared is None or driver is not None or found.driver == shared.driver:
        return found
    if "driver" in configuration.section(f"accelerator.{name}" if name else "accelerator"):
        return found  # the error is raised when it joins the device
    return resolve(name, configuration, driver=shared.driver, **keys)


def open_context(definition: Definition, shared: SharedDevice | None) -> DeviceContext:
    """Return a definition's device, opened unless it is `shared`; for a chain, with all of its kernels."""
    if isinstance(definition, ChainDefinition):
        return ChainContext(definition, _program_reader, shared)
    return DeviceContext(definition, _program_reader(definition), shared)


def load_all(src: object) -> NDArray[Any]:
    """Return the data of a source in pinned, contiguous memory."""
    array = array_of(src)
    if array is not None:
        pinned = empty(array.shape, array.dtype)
        pinned[...] = array
        return pinned
    from apyfal.storage.api.arrays import load

    return load(src)


def _program_reader(definition: Definition) -> Callable[[str], bytes]:
    """Return the function that turns the text of ``program`` into the bytes that the driver loads."""
    if definition.driver == "opencl":
        return lambda program: make_opencl(program, definition.options.get("build", ""), _read_program)
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
