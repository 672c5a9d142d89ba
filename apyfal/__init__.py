"""Data from any storage URL, file or numpy array straight into an accelerator's memory and back.

>>> import apyfal
>>> with apyfal.Accelerator("sha3") as sha3:
...     sha3.process(b"abc")["digest"][:8]
'3a985da7'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apyfal import _moved
from apyfal.memory import empty, empty_like, is_pinned

_moved.install()

if TYPE_CHECKING:
    import apyfal.exceptions as exceptions
    import apyfal.storage as storage
    from apyfal.accelerator import Accelerator
    from apyfal.accelerators.catalogue import Catalogue
    from apyfal.device.listing import devices
    from apyfal.log import get_logger
    from apyfal.pipeline.reports.job_report import JobReport
    from apyfal.pool import AcceleratorPoolExecutor
    from apyfal.storage.flow.progress_bar import ProgressBar

    accelerators: Catalogue  # the package itself, which can be called

__all__ = [
    "Accelerator",
    "AcceleratorPoolExecutor",
    "JobReport",
    "ProgressBar",
    "accelerators",
    "devices",
    "empty",
    "empty_like",
    "exceptions",
    "get_logger",
    "is_pinned",
    "storage",
]

__version__ = "0.1.0"

# What is imported when it is first used: `import apyfal` costs little more than numpy.
_LAZY = {
    "Accelerator": "apyfal.accelerator",
    "AcceleratorPoolExecutor": "apyfal.pool",
    "JobReport": "apyfal.pipeline.reports.job_report",
    "ProgressBar": "apyfal.storage.flow.progress_bar",
    "devices": "apyfal.device.listing",
    "get_logger": "apyfal.log",
}
_MODULES = ("accelerators", "exceptions", "storage")  # accelerators is a package that can be called


if not TYPE_CHECKING:  # a checker would take every misspelt name for Any

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"apyfal.{name}")
        if name not in _LAZY:
            raise AttributeError(f"module 'apyfal' has no attribute {name!r}")
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
