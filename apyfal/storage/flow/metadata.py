"""Metadata on its way through a transfer: handed to stores that keep it, an error for those that do not."""

from __future__ import annotations

import re
from typing import TypedDict

from apyfal.exceptions import UnsupportedByStore
from apyfal.storage.flow.options import TransferOptions
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import Handler, MetadataHandler, ObjectInfo
from apyfal.storage.metadata import HTTP_FIELDS, ObjectMetadata

__all__ = ["carried_metadata", "kept_metadata", "metadata_argument"]


#: What stores say of objects whose type nobody stated.
_UNKNOWN_TYPES = ("application/octet-stream", "binary/octet-stream")
#: What says what the bytes are, and what the user added.
_CARRIED = (*HTTP_FIELDS, "user")
#: Names of user metadata that every store can keep: those of Azure are identifiers.
_COMMON = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)


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


def carried_metadata(
    source: Handler, info: ObjectInfo, destination: Handler, metadata: ObjectMetadata | None, options: TransferOptions
) -> ObjectMetadata | None:
    """Return the metadata of an object's copy in another store: what says what the bytes are, and of the user's.

    Tags, storage class, access rules and encryption belong to a store. Between different kinds of stores, user metadata
    is carried under the names that all of them can keep.

    Parameters
    ----------
    source, info
        The object.
    destination
        The other store.
    metadata
        What is stated for the copy, which counts more.
    options
        Of the transfer.
    """
    if not isinstance(source, MetadataHandler) or not isinstance(destination, MetadataHandler):
        return metadata
    found = info.metadata
    if found is None or found.user is None:  # an answer with content does not tell all everywhere
        found = kept_metadata(source, info, None, options)
    if found is None:
        return metadata
    fields = {name: getattr(found, name) for name in _CARRIED if name in destination.metadata_fields}
    if fields.get("content_type") in _UNKNOWN_TYPES:
        del fields["content_type"]  # the name of the copy may say more
    if info.encoding is not None:
        fields.pop("content_encoding", None)  # it is decoded on the way
    if fields.get("user") and type(source) is not type(destination):
        user = fields["user"].items()
        fields["user"] = {name: text for name, text in user if _COMMON.fullmatch(name) and text.isascii()}
    carried = ObjectMetadata(**fields)
    return carried if metadata is None else metadata.over(carried)


def kept_metadata(
    handler: Handler, info: ObjectInfo, metadata: ObjectMetadata | None, options: TransferOptions
) -> ObjectMetadata | None:
    """Return the metadata of an object that is written anew in its store: its own, but for what `metadata` states."""
    if not isinstance(handler, MetadataHandler):
        return metadata
    what = f"cannot look up the metadata of {handler.shown(info.path)!r}"
    kept = retry_call(handler, lambda: handler.metadata_of(info), what, limit=options.attempts)
    return kept if metadata is None else metadata.over(kept)
