"""What jobs take, for type checkers: data and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, SupportsFloat, SupportsIndex

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from apyfal.device.sharing.device_array import DeviceArray

__all__ = ["Data", "JobData", "Parameter"]


class _Readable(Protocol):
    @property
    def read(self) -> Callable[..., Any]: ...


class _Writable(Protocol):
    @property
    def write(self) -> Callable[..., Any]: ...


class _HasArray(Protocol):
    @property
    def __array__(self) -> Callable[..., Any]: ...


class _HasInterface(Protocol):
    @property
    def __array_interface__(self) -> Any: ...


class _HasDLPack(Protocol):
    @property
    def __dlpack__(self) -> Callable[..., Any]: ...


#: A URL or path, a file object, an array, or an object that can be viewed as an array.
Data: TypeAlias = (
    "str | PathLike[Any] | _Readable | _Writable | Buffer | _HasArray | _HasInterface | _HasDLPack | DeviceArray"
)
#: The same, or several by the names of inputs or outputs.
JobData: TypeAlias = "Data | Mapping[str, Data | None] | None"
#: A value of an accelerator's own parameter. Not a mapping or function, so that type checkers find a misspelt
#: ``info_dict`` or ``progress``.
Parameter: TypeAlias = "str | SupportsIndex | SupportsFloat | np.generic | NDArray[Any] | Sequence[Any] | None"
