"""An open device, and how many accelerators use it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from apyfal.definition.grammar import KERNEL_OPTIONS
from apyfal.device.sharing.run_queue import RunQueue
from apyfal.exceptions import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from apyfal._core.device import Device

__all__ = ["SharedDevice"]


class SharedDevice:
    """A device that is closed when its last user leaves. All methods may be called from any thread.

    Parameters
    ----------
    device
        The open device. The creator of this object is its first user.
    driver, options
        The driver's name, as definitions have it, and the options with which the device was opened.

    Attributes
    ----------
    device, driver
        As given.
    queue
        The jobs of all users in the device's queue.
    """

    def __init__(self, device: Device, driver: str, options: Mapping[str, str]) -> None:
        self.device = device
        self.driver = driver
        self.queue = RunQueue()
        self._options = options
        self._lock = threading.Lock()
        self._users = 1

    def join(self, name: str, driver: str, options: Mapping[str, str]) -> None:
        """Become a user, for accelerator `name` with this driver and these options.

        Raises
        ------
        ConfigurationError
            It is for another driver, or for a device with other options.
        ClosedError
            The device was closed.
        """
        if driver != self.driver:
            raise ConfigurationError(
                f"accelerator {name!r} is for driver {driver!r}; "
                f"the device that it is to share, {self.device.info['name']!r}, is open by {self.driver!r}"
            )
        own = KERNEL_OPTIONS.get(self.driver, frozenset())
        for option, value in options.items():
            if option not in own and value != (opened := self._options.get(option)):
                with_what = "without it" if opened is None else f"with {opened!r}"
                raise ConfigurationError(
                    f"accelerator {name!r}: {self.driver}.{option} = {value!r}, but the device that it is to share was "
                    f"opened {with_what}; expected the same"
                )
        with self._lock:
            if not self._users:
                raise ClosedError(f"device {self.device.info['name']!r} is closed")
            self._users += 1

    def leave(self) -> None:
        """Stop being a user; the last one closes the device.

        Raises
        ------
        BufferInUse
            Runs are in flight on a device that would be closed. The caller stays its user.
        """
        with self._lock:
            if self._users == 1:
                self.device.close()
            self._users -= 1
