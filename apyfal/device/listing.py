"""The devices of this machine: `devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apyfal._core.device import list_devices
from apyfal.device.drivers import driver_names, require_driver
from apyfal.exceptions import DriverUnavailable
from apyfal.units import format_size, html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apyfal._core.device import DeviceInfo

__all__ = ["DeviceListing", "devices"]


class DeviceListing(list[Any]):
    """Devices of one or several drivers; as text, one line for each.

    Attributes
    ----------
    unavailable
        Drivers that cannot be used on this machine, with the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unavailable: dict[str, str] = {}

    def __str__(self) -> str:
        return "\n".join(str(device) for device in self)

    def _repr_html_(self) -> str:
        """Return a table for notebooks, with the drivers that cannot be used below the devices."""
        rows = [
            (f"{one['driver']}:{one['index']}", one["name"], one["vendor"], format_size(one["memory"] or 0), "")
            for one in self
        ]
        rows += [(name, "", "", "", why) for name, why in self.unavailable.items()]
        return html_table(("device", "name", "vendor", "memory", "cannot be used"), rows)


class _Device(dict[str, Any]):
    """What a driver says of one device, with ``driver`` and ``index``."""

    def __str__(self) -> str:
        memory = format_size(self["memory"]) if self["memory"] else "memory not known"
        return f"{self['driver']}:{self['index']}  {self['name']}  ({self['vendor']}, {memory})"


def devices(driver: str | None = None, options: Mapping[str, object] | None = None) -> DeviceListing:
    """List the devices of this machine.

    Parameters
    ----------
    driver
        Only this driver's devices; ``None``: those of all drivers.
    options
        Of the driver, for example ``{"devices": 4}`` of the emulator.

    Returns
    -------
    list of dict
        One for each device: ``driver``, ``index``, ``name``, ``vendor``, ``identity``, ``version``, ``memory`` (bytes),
        ``capabilities`` and the alignments of `apyfal.device.zero_copy`. Its attribute ``unavailable`` names the
        drivers that cannot be used on this machine, with the reason.

    Raises
    ------
    ConfigurationError
        There is no such driver.
    DriverUnavailable
        `driver` was given, and it cannot be used on this machine.
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
