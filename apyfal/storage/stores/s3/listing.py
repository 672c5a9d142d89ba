"""List objects and buckets, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from apyfal.storage.handler import ObjectInfo
from apyfal.storage.http.paging import PageGuard
from apyfal.storage.stores.s3.client import S3Client, split_path
from apyfal.storage.stores.s3.xml import parse_buckets, parse_listing

__all__ = ["list_buckets", "list_objects"]

#: Bytes of the largest page that is read.
_MOST_BYTES = 64 << 20


def list_objects(s3: S3Client, path: str, *, recursive: bool) -> Iterator[ObjectInfo]:
    """Yield the objects and directories below `path`, which names a bucket at least."""
    bucket, prefix = split_path(path)
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
    if not recursive:
        query["delimiter"] = "/"
    guard = PageGuard(path, prefix, recursive=recursive)
    while True:
        response = s3.request("GET", bucket, query, what="list")
        page = parse_listing(response.read(_MOST_BYTES))
        keys = [entry[0] for entry in page.objects]
        guard.page(keys, page.prefixes)
        # a page can list the prefix of the page before again, or have only keys that are deeper than this directory
        for name in (*page.prefixes, *filter(None, map(guard.directory_of, keys))):
            if guard.is_new(f"{bucket}/{name}"):
                yield ObjectInfo(f"{bucket}/{name.rstrip('/')}", None, is_directory=True)
        for key, size, etag, mtime in page.objects:
            if guard.directory_of(key) is None and guard.is_new(found := f"{bucket}/{key}") and key != prefix:
                yield ObjectInfo(found, size, etag, mtime)  # all except the mark of the directory itself
        guard.end_of_page(more=page.truncated)
        if not page.truncated:
            return
        if page.continuation is not None:
            query = {**query, "continuation-token": guard.next_page(page.continuation)}
            continue
        # The store knows only version 1 of the request, which goes on behind a name.
        if page.marker is None:
            guard.in_order(keys, page.prefixes)
        last = page.marker or max((*keys, *page.prefixes), default=None)
        query = {name: value for name, value in query.items() if name not in ("list-type", "continuation-token")}
        query["marker"] = guard.next_page(last)


def list_buckets(s3: S3Client) -> Iterator[ObjectInfo]:
    """Yield the buckets of the account, as directories."""
    guard = PageGuard("/")
    query: dict[str, str] = {}
    while True:
        response = s3.request("GET", "", query, what="list")
        found, token = parse_buckets(response.read(_MOST_BYTES))
        guard.page([name for name, _ in found])
        for name, created in found:
            if guard.is_new(name):
                yield ObjectInfo(name, None, mtime=created, is_directory=True)
        guard.end_of_page(more=token is not None)
        if token is None:
            return
        query = {"continuation-token": guard.next_page(token)}
