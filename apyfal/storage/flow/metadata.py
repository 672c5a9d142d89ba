"""Metadata on its way through a transfer: handed to stores that keep it, an error for those that do not."""

from __future__ import annotations

from typing import TypedDict

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import Handler, MetadataHandler, ObjectInfo
from apyfal.storage.metadata import ObjectMetadata

__all__ = ["kept_metadata", "metadata_argument"]


class MetadataArgument(TypedDict, total=False):
    """What `put`, `upload` and `copy` of a `MetadataHandler` take in addition."""

    metadata: ObjectMetadata


def metadata_argument(handler: Handler, path: str, metadata: ObjectMetadata | None) -> MetadataArgument:
    """Return the argument that hands metadata to a store; none where none is stated.

    Raises
    ------
    UnsupportedByStore
        The store keeps no metadata at all. (One that keeps some of it refuses the rest itself.)
    """
    if metadata is None or not metadata.stated:
        return {}
    if not isinstance(handler, MetadataHandler):
        shown = handler.shown(path)
        raise UnsupportedByStore(f"cannot write {shown!r}: {handler.scheme} keeps no metadata", path=shown)
    return {"metadata": metadata}


def kept_metadata(
    handler: Handler, info: ObjectInfo, metadata: ObjectMetadata | None, options: TransferOptions
) -> ObjectMetadata | None:
    """Return the metadata of an object that is written anew in its store: its own, but for what `metadata` states."""
    if not isinstance(handler, MetadataHandler):
        return metadata
    what = f"cannot look up the metadata of {handler.shown(info.path)!r}"
    kept = retry_call(handler, lambda: handler.metadata_of(info), what, limit=options.attempts)
    return kept if metadata is None else metadata.over(kept)
