"""The conformance suite of `apyfal.storage` as its users see it: every function and mode, on one store.

A provider's tests subclass `StorageConformance` and say where to write::

    class TestMyStore(StorageConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def place(cls, my_server):
            apyfal.storage.mount("mystore-test", provider="mystore", endpoint_url=my_server.url, ...)
            apyfal.storage.makedirs("mystore-test://bucket", exist_ok=True)
            yield "mystore-test://bucket"
            apyfal.storage.unmount("mystore-test")

The first line of each test's docstring is the feature that it proves; a store that has not got it says so in the class
attributes, and is then expected to refuse it. ``tools/storage_support.py`` makes the table in the documentation of
that. `apyfal.testing.handlers` has the suite for the level below.
"""

from __future__ import annotations

from apyfal.testing.storage.access import Access
from apyfal.testing.storage.base import PART, OneStore
from apyfal.testing.storage.copies import CopiedObjects
from apyfal.testing.storage.names import NamedObjects
from apyfal.testing.storage.objects import WholeObjects
from apyfal.testing.storage.opened import OpenedObjects
from apyfal.testing.storage.threads import ConcurrentUse

__all__ = ["PART", "OneStore", "StorageConformance"]


class StorageConformance(WholeObjects, OpenedObjects, NamedObjects, CopiedObjects, Access, ConcurrentUse):
    """Tests of one store; subclass it and give it a `place` fixture, the URL of a bucket or directory.

    Attributes
    ----------
    writable, lists, exclusive
        What the store can do; what it cannot must raise `UnsupportedByStore`.
    awkward_keys
        Names to be kept as they are, without those that the store's documentation rules out.
    large
        Bytes of the largest object.
    """
