"""What is at a URL, how large and old it is, as in `os.path`; and an address by which others reach it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from apyfal.exceptions import (
    IsADirectory,
    NotADirectory,
    ObjectNotFound,
    ParameterError,
    UnsupportedByStore,
    did_you_mean,
)
from apyfal.storage.api.namespace import child, entries, stat
from apyfal.storage.flow.retry import retry_call
from apyfal.storage.handler import ObjectInfo
from apyfal.storage.mounting.table import resolve
from apyfal.storage.url import parse
from apyfal.units import parse_duration

__all__ = ["Entry", "getmtime", "getsize", "isdir", "isfile", "scandir", "sign"]

#: What a signed address can be for.
_METHODS = ("GET", "PUT", "HEAD", "DELETE")


@dataclass(frozen=True)
class Entry:
    """One name in a directory, as `os.DirEntry`.

    Attributes
    ----------
    name
        Its name there.
    path
        Its URL or path, as every function of `apyfal.storage` takes it.
    info
        What the listing says: size and time of a file, if the store tells them there.
    """

    name: str
    path: str
    info: ObjectInfo

    def is_dir(self) -> bool:
        """Whether it is a directory or bucket, links followed. Asks nobody."""
        return self.info.is_directory

    def is_file(self) -> bool:
        """Whether it is a file or object; a broken link is none. See `isfile`; asks the store of no object."""
        return not self.info.is_directory and (not parse(self.path).is_local or os.path.isfile(self.path))

    def is_symlink(self) -> bool:
        """Whether it is a link of this machine's disks."""
        location = parse(self.path)
        return location.is_local and os.path.islink(location.path)

    def stat(self) -> ObjectInfo:
        """Look it up; see `apyfal.storage.stat`."""
        return stat(self.path)


def scandir(url: object = ".") -> Iterator[Entry]:
    """Yield what is directly below, sorted by name, with what the listing says of each, as `os.scandir`.

    Raises
    ------
    ObjectNotFound, NotADirectory, AccessDenied, UnsupportedByStore, StorageError
        When it cannot be listed.
    """
    location = parse(url)
    for name, info in entries(location):
        yield Entry(name, child(location, name).url, info)


def isfile(url: object) -> bool:
    """Whether there is such a file or object, links followed; a local pipe, socket or device is none.

    Where an object and a directory have the same name in a store, it is true of the name, as `stat` gives the object.

    Raises
    ------
    InvalidURL, MountError, AccessDenied, StorageError
        When that cannot be told; `os.path.isfile` would say False.
    """
    info = _found(url)
    if info is None or info.is_directory:
        return False
    location = parse(url)
    return not location.is_local or os.path.isfile(location.path)


def isdir(url: object) -> bool:
    """Whether there is such a directory or bucket (in a store: a name that goes on with ``/``), links followed.

    Raises
    ------
    InvalidURL, MountError, AccessDenied, StorageError
        When that cannot be told; `os.path.isdir` would say False.
    """
    info = _found(url)
    return info is not None and info.is_directory


def getsize(url: object) -> int:
    """Return how many bytes a file or object has.

    Raises
    ------
    IsADirectory
        For a directory or bucket, which has no size here.
    UnsupportedByStore
        Where the store does not tell it.
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    info = stat(url)
    if info.is_directory:
        raise IsADirectory(f"cannot tell the size of {str(parse(url))!r}: it is a directory", path=info.path)
    if info.size is None:
        raise UnsupportedByStore(f"cannot tell the size of {str(parse(url))!r}: its store does not say")
    return info.size


def getmtime(url: object) -> float:
    """Return when a file or object was last written, in seconds since the epoch.

    Raises
    ------
    UnsupportedByStore
        Where the store does not tell it, as of directories.
    ObjectNotFound, AccessDenied, NotADirectory, StorageError
        When it cannot be looked up.
    """
    info = stat(url)
    if info.mtime is None:
        raise UnsupportedByStore(f"cannot tell when {str(parse(url))!r} was written: its store does not say")
    return info.mtime


def sign(url: object, *, expires: str | float = "15min", method: str = "GET") -> str:
    """Return a signed address (a presigned URL): anybody who has it can read or write one object for a limited time.

    The address is a secret. It cannot be revoked before it expires, except by changing the key that signed it. If the
    credentials are temporary, it expires with them.

    Parameters
    ----------
    url
        URL of an object in a store. It need not exist: it is not looked up.
    expires
        Validity of the address: seconds, or text such as ``"15min"``, ``"2h"``. At least 1 s; at most 7 days in S3 and
        stores that speak its protocol, Google Cloud Storage and Alibaba Cloud OSS.
    method
        The request that the address permits: ``GET``, ``HEAD``, ``PUT`` or ``DELETE``. `save`, `copy`, `open` and
        `process` can write to an address for ``PUT``. Another client that writes to Azure with it must send the header
        field ``x-ms-blob-type: BlockBlob``.

    Returns
    -------
    str
        The address, for any HTTP client and for apyfal.

    Raises
    ------
    UnsupportedByStore
        The store has no signed addresses (a file, the web, SFTP), or the mount has no key to sign with.
    ParameterError
        `expires` is not a duration in the permitted range, or `method` is unknown.
    InvalidURL, MountError
        `url` is malformed, or its mount is unknown.
    StorageError
        `url` does not name an object.
    """
    wanted = method.upper() if isinstance(method, str) else str(method)
    if wanted not in _METHODS:
        raise ParameterError(f"sign: unknown method {method!r}{did_you_mean(wanted, _METHODS)}")
    seconds = int(parse_duration(expires))
    if seconds < 1:
        raise ParameterError(f"sign: an address that is good for {expires!r} is good for nothing; expected 1 s or more")
    location = parse(url)
    if location.is_local:
        raise UnsupportedByStore(f"cannot sign {str(location)!r}: a local file has no web address")
    with resolve(location) as target:
        target.require_object("sign")
        return retry_call(
            target.handler, lambda: target.handler.sign(target.path, wanted, seconds), f"cannot sign {str(location)!r}"
        )


def _found(url: object) -> ObjectInfo | None:
    try:
        return stat(url)
    except (ObjectNotFound, NotADirectory):
        return None
