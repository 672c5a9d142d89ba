from collections.abc import Mapping
from os import PathLike
from typing import TypedDict

from apyfal._core.buffer import BufferLike

TO_DEVICE: int
FROM_DEVICE: int
CAPABILITIES: dict[str, int]

class DeviceInfo(TypedDict):
    name: str
    vendor: str
    identity: str
    version: str
    memory: int
    max_buffer: int
    import_align: int
    size_align: int
    offset_align: int
    compute_units: int
    capabilities: frozenset[str]

def drivers() -> dict[str, str]: ...
def load_driver(path: str | PathLike[str]) -> str: ...
def list_devices(driver: str, options: Mapping[str, object] | None = None) -> list[DeviceInfo]: ...

class Device:
    def __init__(
        self, driver: str, selector: str | int | None = None, options: Mapping[str, object] | None = None
    ) -> None: ...
    def close(self) -> None: ...
    @property
    def driver(self) -> str: ...
    @property
    def info(self) -> DeviceInfo: ...
    def counters(self) -> dict[str, int]: ...
    def control(self, key: str, value: object) -> None: ...
    def load(
        self,
        kernel: str,
        program: BufferLike | None = None,
        name: str = "",
        options: str = "",
        arguments: str = "",
    ) -> Kernel: ...
    def alloc(self, nbytes: int, bank: int = 0) -> BufferObject: ...
    def import_memory(self, data: BufferLike, writable: bool = True, bank: int = 0) -> tuple[BufferObject, int]: ...

class Kernel:
    @property
    def device(self) -> Device: ...
    @property
    def name(self) -> str: ...
    def bank(self, index: int) -> int: ...

class BufferObject:
    @property
    def device(self) -> Device: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int | None: ...
    def sync(self, direction: int, offset: int = 0, nbytes: int | None = None) -> None: ...
