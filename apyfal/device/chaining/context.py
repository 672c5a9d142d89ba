"""An open device with the kernels of a chain's stages on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from apyfal.definition.chain import ChainCall
from apyfal.device.chaining.launcher import ChainLauncher
from apyfal.device.context import DeviceContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from apyfal._core.device import Kernel
    from apyfal.definition.bound_call import BoundCall
    from apyfal.definition.chain import ChainDefinition
    from apyfal.definition.definition import Definition
    from apyfal.device.launcher import Launcher
    from apyfal.device.sharing.shared_device import SharedDevice

__all__ = ["ChainContext"]


class ChainContext(DeviceContext):
    """One device for all stages of a chain. Equal stages share one kernel.

    Parameters
    ----------
    definition
        The chain.
    reader
        Returns, for a stage's definition, the function that reads its program.
    shared
        A device that is open already; ``None``: open one.

    Raises
    ------
    ConfigurationError, DriverUnavailable, DeviceNotFound, AccessDenied
        The device cannot be opened here, or the stages need devices that are opened differently.
    """

    def __init__(
        self,
        definition: ChainDefinition,
        reader: Callable[[Definition], Callable[[str], bytes]],
        shared: SharedDevice | None = None,
    ) -> None:
        super().__init__(definition, reader(definition.stages[0]), shared)
        self._contexts: dict[str, DeviceContext] = {}
        try:
            for stage in definition.stages:
                if stage.name not in self._contexts:
                    context = self._contexts[stage.name] = DeviceContext(stage, reader(stage), self.shared)
                    context.model_errors = self.model_errors
        except BaseException:
            self.close()
            raise
        self._stages = tuple(self._contexts[stage.name] for stage in definition.stages)

    def kernels(self, call: BoundCall) -> tuple[Kernel, ...]:
        """Return the kernels of the stages, in their order."""
        stages = cast(ChainCall, call).stages
        return tuple(context.kernel(stage) for context, stage in zip(self._stages, stages, strict=True))

    def _new_launcher(self, call: BoundCall) -> Launcher:
        chain = cast(ChainCall, call)
        launchers = [
            context.new_kernel_launcher(stage) for context, stage in zip(self._stages, chain.stages, strict=True)
        ]
        return ChainLauncher(chain, launchers, self.kernels(call), self.device)

    def bank_of(self, name: str) -> int:
        """Return the memory bank that an input of the first stage, or an output of the last, must be in."""
        of_first = any(port.name == name for port in self.definition.inputs)
        return self._stages[0 if of_first else -1].bank_of(name)

    def close(self) -> None:
        """Close the device, unless others use it; see `DeviceContext.close`."""
        for context in self._contexts.values():
            context.close()
        super().close()
