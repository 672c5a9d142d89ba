"""Removal of many objects by one request (Swift's middleware ``bulk``), where the cluster has it.

The response counts what was removed and names only what failed. An object's name is all that is removed: of a large
object, the segments would stay. So each object is looked up first, as `SwiftHandler.remove` does, too.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from urllib.parse import unquote

from apyfal.exceptions import StorageError, StoreUnavailable, TransferCancelled, UnsupportedByStore
from apyfal.storage.http.answers import read_json, understood
from apyfal.storage.http.status import status_error
from apyfal.storage.stores.rest import quoted, split_path
from apyfal.storage.stores.swift.client import SwiftObjects, target_of

__all__ = ["MOST_REMOVED", "most_of_cluster", "remove_together"]

_LOG = logging.getLogger(__name__)

#: Objects of one request. A cluster may allow fewer; more would make a request that takes long and says nothing.
MOST_REMOVED = 1000
_LARGEST = 4 << 20
_WHAT = "remove objects of"


def most_of_cluster(store: SwiftObjects) -> int:
    """Ask the cluster how many objects one request may remove; 0: it has no such requests."""
    session = store._authenticator.session()
    response = store.client.request("GET", session.origin, "/info", [], ())
    most = 0
    try:
        if response.status == 200:
            with understood("ask for the limits of", "/info"):
                most = int(read_json(response.read()).get("bulk_delete", {}).get("max_deletes_per_request", 0))
    except TransferCancelled:
        raise
    except StorageError as error:  # another kind of server
        _LOG.debug("%s/info is not understood: %s", session.origin, error)
    finally:
        response.close()
    _LOG.debug("%s removes %d objects a request", session.origin, most)
    return min(most, MOST_REMOVED)


def remove_together(store: SwiftObjects, paths: Sequence[str], most: int) -> dict[str, StorageError]:
    """Remove objects of one container with one attempt, at most `most` a request; return the errors by path.

    Raises
    ------
    StoreUnavailable
        The response is damaged, or its numbers are not those of the request.
    StorageError
        The first request was refused as a whole.
    """
    if most < 2:
        raise UnsupportedByStore("swift: the cluster has no bulk deletion")
    errors: dict[str, StorageError] = {}
    for begin in range(0, len(paths), most):
        some = paths[begin : begin + most]
        try:
            errors.update(_remove(store, some))
        except StorageError as error:
            if not begin:
                raise
            errors.update((path, type(error)(f"cannot remove {path!r}: {error}", path=path)) for path in some)
    return errors


def _remove(store: SwiftObjects, paths: Sequence[str]) -> dict[str, StorageError]:
    container = paths[0].partition("/")[0]
    body = memoryview("".join(f"{quoted(path)}\n" for path in paths).encode("ascii"))
    headers = [("Content-Type", "text/plain"), ("Accept", "application/json")]
    # POST, never DELETE: without the middleware, that would be for the account
    response = store._send("POST", "?bulk-delete", container, _WHAT, headers=headers, body=(body,))
    try:
        answer = response.read(_LARGEST)
    except StoreUnavailable:
        raise
    except StorageError as error:  # what it did is not known, so it is no refusal
        raise StoreUnavailable(str(error)) from error
    finally:
        response.close()
    with understood(_WHAT, container):
        document = read_json(answer)
        removed, missing = int(document["Number Deleted"]), int(document["Number Not Found"])
        failed = [(unquote(str(name)).removeprefix("/"), str(status)) for name, status in document["Errors"]]
        whole, reason = str(document["Response Status"]), str(document["Response Body"])[:200]
    if not removed and not missing and not failed:
        raise _refusal(whole, container, _WHAT, reason)
    errors = {path: _refusal(status, path, "remove") for path, status in failed}
    if (
        removed + missing + len(failed) != len(paths)
        or min(removed, missing) < 0
        or len(errors) != len(failed)
        or not errors.keys() <= set(paths)
    ):
        raise StoreUnavailable(
            f"cannot remove objects of {container!r}: of {len(paths)}, the store says that {removed} were removed,"
            f" {missing} not found and {len(failed)} refused ({whole})"[:300]
        )
    if missing:  # it does not say which
        errors.update(_still_there(store, [path for path in paths if path not in errors]))
    return errors


def _still_there(store: SwiftObjects, paths: Collection[str]) -> dict[str, StorageError]:
    """Return an error for each object that exists although the store did not find it, or removed it."""
    errors: dict[str, StorageError] = {}
    for path in paths:
        target = target_of(*split_path(store.scheme, path))
        response, _ = store._ask("HEAD", target, path, "remove", accept=(200, 204, 404))
        if response.status != 404:
            errors[path] = StoreUnavailable(f"cannot remove {path!r}: the store does not say that it did", path=path)
    return errors


def _refusal(status: str, path: str, what: str, reason: str = "") -> StorageError:
    code = int(status[:3]) if status[:3].isascii() and status[:3].isdigit() else 500
    said = f"{' '.join(reason.split())} (status {status[:40]})" if reason else f"status {status[:40]}"
    return status_error(code, f"cannot {what} {path!r}: {said}", path=path, headers={})
