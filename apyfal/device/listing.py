"""What accelerators can run on: `devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apyfal._core.device import list_devices
from apyfal.device.drivers import driver_names, require_driver
from apyfal.exceptions import DriverUnavailable
from apyfal.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apyfal._core.device import DeviceInfo

__all__ = ["DeviceListing", "devices"]


class DeviceListing(list[Any]):
    """The devices of all drivers; prints one line each.

    Attributes
    ----------
    unavailable
        Drivers that cannot be used here, with the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unavailable: dict[str, str] = {}

    def __str__(self) -> str:
        return "\n".join(str(device) for device in self)


class _Device(dict[str, Any]):
    """One device: what its driver says of it, with ``driver`` and ``index``."""

    def __str__(self) -> str:
        memory = format_size(self["memory"]) if self["memory"] else "memory not known"
        return f"{self['driver']}:{self['index']}  {self['name']}  ({self['vendor']}, {memory})"


def devices(driver: str | None = None, options: Mapping[str, object] | None = None) -> DeviceListing:
    """List the devices of all drivers, or of one (with its options, such as ``{"devices": 4}`` for the emulator).

    Returns
    -------
    list of dict
        One for each device: ``driver``, ``index``, ``name``, ``vendor``, ``identity``, ``version``, ``memory`` (bytes),
        ``capabilities`` and the alignments of `apyfal.device.zero_copy`. Drivers that are not usable here are left out,
        and named with their reason in its attribute ``unavailable``.

    Raises
    ------
    ConfigurationError
        There is no `driver`.
    DriverUnavailable
        `driver` was named, and it is not usable here.
    """
    listing = DeviceListing()
    for name in driver_names() if driver is None else [driver]:
        found: list[DeviceInfo] = []
        try:
            name = require_driver(name)
            found = list_devices(name, options)
        except DriverUnavailable as error:
            if driver is not None:
                raise
            listing.unavailable[name] = str(error)
        else:
            if not found:
                listing.unavailable[name] = "it found no device here"
        listing.extend(_Device(info, driver=name, index=index) for index, info in enumerate(found))
    return listing
