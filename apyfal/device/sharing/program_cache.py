"""The cache of built OpenCL programs in ``$XDG_CACHE_HOME/apyfal/opencl``: its directory and its size limit.

The driver reads and writes the entries (``csrc/drivers/opencl/kernel/cache.c``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from apyfal.config.cache import CacheUnusable, cache_folder, evict
from apyfal.exceptions import ParameterError
from apyfal.units import parse_boolean

__all__ = ["LIMIT", "trim_cache", "with_cache"]

#: Size limit of all cached programs, in bytes.
LIMIT = 256 << 20

_LOG = logging.getLogger(__name__)


def with_cache(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return a driver's options with the directory of its programs in place of ``cache = yes``, which is the default.

    Raises
    ------
    ParameterError
        ``cache`` is neither yes nor no.
    """
    found = dict(options)
    if driver != "opencl":
        return found
    text = found.pop("cache", "yes")
    try:
        wanted = parse_boolean(text)
    except ParameterError:
        raise ParameterError(f"opencl.cache = {text}: expected yes or no") from None
    if wanted:
        try:
            found["cache"] = str(cache_folder("opencl"))
        except CacheUnusable as error:
            _LOG.info("built programs are not kept: %s", error)
    return found


def trim_cache(driver: str, options: Mapping[str, str]) -> None:
    """Remove programs above `LIMIT`, if a device with these options has a cache."""
    if (folder := with_cache(driver, options).get("cache")) is not None and driver == "opencl":
        evict(Path(folder), nbytes=LIMIT)
