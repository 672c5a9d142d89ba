"""`load`, `save`, `load_many` and `save_many` as coroutines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from apyfal.storage.aio.awaiting import awaited
from apyfal.storage.api.arrays import load, save
from apyfal.storage.batch.many import load_many, save_many

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from apyfal.storage.metadata import ObjectMetadata

__all__ = ["aload", "aload_many", "asave", "asave_many"]


async def aload(
    url: object,
    dtype: DTypeLike = "uint8",
    shape: int | Sequence[int] | None = None,
    out: NDArray[Any] | None = None,
    *,
    version: str | None = None,
) -> NDArray[Any]:
    """Read a whole file or object as an array, while the event loop goes on; see `load`.

    If the task is cancelled, the transfer is: it has ended when the task has, and writes no more to `out`.
    """
    return await awaited(partial(load, url, dtype, shape, out, version=version))


async def asave(
    url: object, array: NDArray[Any], *, metadata: ObjectMetadata | Mapping[str, Any] | None = None
) -> None:
    """Write an array as a whole file or object, while the event loop goes on; see `save`.

    `array` must not change until this has returned. If the task is cancelled, the transfer is: then the destination is
    as it was, or whole if that came too late.
    """
    await awaited(partial(save, url, array, metadata=metadata))


async def aload_many(
    urls: Iterable[object],
    out: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    *,
    dtype: DTypeLike = "uint8",
    return_exceptions: bool = False,
) -> list[Any]:
    """Read many files or objects as arrays, several at once, while the event loop goes on; see `load_many`.

    If the task is cancelled, so are all transfers.
    """
    return await awaited(partial(load_many, urls, out, dtype=dtype, return_exceptions=return_exceptions))


async def asave_many(
    urls: Iterable[object],
    arrays: Iterable[NDArray[Any]],
    *,
    metadata: ObjectMetadata | Mapping[str, Any] | None = None,
    return_exceptions: bool = False,
) -> list[Exception | None]:
    """Write many arrays as files or objects, several at once, while the event loop goes on; see `save_many`.

    If the task is cancelled, so are all transfers: each object is whole or as it was.
    """
    return await awaited(partial(save_many, urls, arrays, metadata=metadata, return_exceptions=return_exceptions))
