"""The conformance suite of `apyfal.storage.handler.Handler`: what the transfer engine relies on, method by method.

A provider's tests subclass `HandlerConformance` and say how to reach a real server::

    class TestMyStore(HandlerConformance):
        @pytest.fixture(scope="class")
        def handler(cls, my_server):
            return MyHandler(endpoint_url=my_server.url, client_id=..., secret_id=...)

Every test works below a prefix of its own, and removes what it made.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from apyfal.exceptions import ObjectChanged, ObjectExists, ObjectNotFound, UnsupportedByStore
from apyfal.storage.checksums import crc_function, digest_bytes, new_hasher
from apyfal.storage.handler import Handler, ObjectInfo

__all__ = ["AWKWARD_KEYS", "HandlerConformance", "pattern"]

#: Names that a store must keep as they are.
AWKWARD_KEYS = (
    "plain.bin",
    "two words",
    "  blanks around  ",
    "ünïcödé/ключ/日本語",
    "emoji-😀",
    "per%cent",
    "already%20encoded%2Fhere",
    "plus+plus",
    "question?mark=1&two",
    "hash#mark",
    "semi;colon,comma:colon",
    "quote'double\"tick`",
    "(round)[square]{curly}",
    "star*dollar$at@bang!",
    "~tilde^caret|pipe<less>",
    "back\\slash",
    ".hidden",
    "dots..inside",
    "deep/" * 20 + "leaf",
    "n" * 200,
)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ at every offset that a mixed-up range could confuse."""
    block = bytes((i * 7 + (i >> 8) * 13 + seed) & 0xFF for i in range(min(size, 65_521)))
    return (block * (size // len(block) + 1))[:size] if size else b""


class HandlerConformance:
    """Tests of one handler; subclass it and give it a `handler` fixture.

    Attributes
    ----------
    bucket
        First component of every path; made by the suite.
    copies, exclusive, exclusive_parts
        Whether the server copies by itself, and writes only where there is nothing (an object in parts, too).
    changes_noticed
        Whether a range of an older version is refused.
    awkward_keys
        `AWKWARD_KEYS`, or without those that the store's documentation rules out.
    part_size
        Of parts in multipart uploads; by default the smallest that the store takes.
    """

    bucket = "apyfal-conformance"
    copies = True
    exclusive = True
    exclusive_parts = True
    changes_noticed = True
    awkward_keys: tuple[str, ...] = AWKWARD_KEYS
    part_size: int | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def handler(cls) -> Handler:
        """Return the handler to test; a subclass must override this."""
        raise NotImplementedError("a subclass of HandlerConformance must define the fixture 'handler'")

    @pytest.fixture(scope="class")
    @classmethod
    def bucket_of(cls, handler: Handler) -> Iterator[str]:
        """Make the bucket once."""
        handler.makedirs(cls.bucket)
        yield cls.bucket
        handler.close()

    @pytest.fixture
    def folder(self, handler: Handler, bucket_of: str) -> Iterator[str]:
        """Give a prefix of the test's own, emptied at its end."""
        name = f"{bucket_of}/{uuid.uuid4().hex[:12]}"
        yield name
        for info in list(handler.list(f"{name}/", recursive=True)):
            if not info.is_directory:
                handler.remove(info.path)

    # -- helpers ------------------------------------------------------------------------------------------------------
    def checksum(self, handler: Handler, data: bytes) -> bytes | None:
        """Give the checksum that this store wants of `data`."""
        algorithm = handler.limits.checksum
        hasher = new_hasher(algorithm) if algorithm else None
        if hasher is None:
            return None
        hasher.update(memoryview(data))
        return hasher.digest()

    def put(self, handler: Handler, path: str, data: bytes, **how: bool) -> ObjectInfo:
        """Write an object in one request."""
        return handler.put(path, memoryview(data), self.checksum(handler, data), **how)

    def get(
        self, handler: Handler, path: str, start: int = 0, stop: int | None = None, of: ObjectInfo | None = None
    ) -> bytes:
        """Read a range to the end of its body."""
        out = bytearray(1 << 16)
        data = bytearray()
        with handler.read(path, start, stop, of) as reader:
            while count := reader.readinto(memoryview(out)):
                data += out[:count]
        return bytes(data)

    def write_parts(
        self, handler: Handler, path: str, parts: list[bytes], *, known: bool = True, exclusive: bool = False
    ) -> ObjectInfo:
        """Write an object in parts, the last one first."""
        whole = b"".join(parts)
        upload = handler.upload(path, size=len(whole) if known else None, exclusive=exclusive)
        try:
            for number in self.order(len(parts)):
                data = parts[number - 1]
                upload.write_part(number, memoryview(data), self.checksum(handler, data))
            return upload.complete(len(whole), self.checksum(handler, whole))
        except BaseException:
            upload.abort()
            raise

    def order(self, count: int) -> list[int]:
        """Give the order in which parts are written: parallel transfers keep none."""
        return list(range(count, 0, -1))

    def smallest_part(self, handler: Handler) -> int:
        """Give the size of parts to test with."""
        return self.part_size or handler.limits.min_part

    # -- whole objects ------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("size", [0, 1, 1000, 100_003])
    def test_an_object_comes_back_as_it_was_put(self, handler: Handler, folder: str, size: int) -> None:
        data = pattern(size)
        put = self.put(handler, f"{folder}/object", data)
        info = handler.describe(f"{folder}/object")
        assert (info.path, info.size, info.is_directory) == (f"{folder}/object", size, False)
        assert put.size == size
        assert put.etag == info.etag or put.etag is None
        assert self.get(handler, f"{folder}/object") == data

    def test_an_object_is_replaced(self, handler: Handler, folder: str) -> None:
        self.put(handler, f"{folder}/object", b"first, and longer")
        before = handler.describe(f"{folder}/object")
        self.put(handler, f"{folder}/object", b"second")
        assert self.get(handler, f"{folder}/object") == b"second"
        if self.changes_noticed:
            assert handler.describe(f"{folder}/object").etag != before.etag

    def test_the_modification_time_is_recent(self, handler: Handler, folder: str) -> None:
        import time

        self.put(handler, f"{folder}/object", b"x")
        mtime = handler.describe(f"{folder}/object").mtime
        assert mtime is not None
        assert abs(mtime - time.time()) < 60

    def test_the_stated_checksums_are_right(self, handler: Handler, folder: str) -> None:
        data = pattern(70_000)
        self.put(handler, f"{folder}/object", data)
        for algorithm, stated in handler.describe(f"{folder}/object").checksums.items():
            hasher = new_hasher(algorithm)
            assert hasher is not None, algorithm
            hasher.update(memoryview(data))
            assert hasher.digest() == stated, algorithm

    def test_awkward_names(self, handler: Handler, folder: str) -> None:
        for number, key in enumerate(self.awkward_keys):
            self.put(handler, f"{folder}/{key}", pattern(10, number))
        for number, key in enumerate(self.awkward_keys):
            assert self.get(handler, f"{folder}/{key}") == pattern(10, number), key
        listed = {info.path for info in handler.list(f"{folder}/", recursive=True) if not info.is_directory}
        assert listed == {f"{folder}/{key}" for key in self.awkward_keys}
        for key in self.awkward_keys:
            handler.remove(f"{folder}/{key}")
        assert not list(handler.list(f"{folder}/", recursive=True))

    # -- ranges -------------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 1), (0, 999), (0, 1000), (1, 2), (500, 700), (999, 1000), (1, None), (0, None), (0, 5000), (998, 5000)],
    )
    def test_a_range(self, handler: Handler, folder: str, start: int, stop: int | None) -> None:
        data = pattern(1000)
        self.put(handler, f"{folder}/object", data)
        info = handler.describe(f"{folder}/object")
        assert self.get(handler, f"{folder}/object", start, stop, info) == data[start:stop]
        assert self.get(handler, f"{folder}/object", start, stop) == data[start:stop]

    def test_a_reader_says_what_it_reads(self, handler: Handler, folder: str) -> None:
        self.put(handler, f"{folder}/object", pattern(1000))
        info = handler.describe(f"{folder}/object")
        with handler.read(f"{folder}/object", 0, None, None) as reader:
            assert (reader.info.size, reader.info.etag) == (1000, info.etag)

    def test_a_reader_can_be_left_early(self, handler: Handler, folder: str) -> None:
        self.put(handler, f"{folder}/object", pattern(1 << 20))
        with handler.read(f"{folder}/object", 0, None, None) as reader:
            assert reader.readinto(memoryview(bytearray(10))) > 0
        assert self.get(handler, f"{folder}/object", 5, 10) == pattern(1 << 20)[5:10]

    def test_versions_are_never_mixed(self, handler: Handler, folder: str) -> None:
        if not self.changes_noticed:
            assert handler.describe(self.path_of_something(handler, folder)).etag is None
            return
        self.put(handler, f"{folder}/object", pattern(1000, 1))
        old = handler.describe(f"{folder}/object")
        assert old.etag is not None
        self.put(handler, f"{folder}/object", pattern(1000, 2))
        with pytest.raises(ObjectChanged):
            self.get(handler, f"{folder}/object", 10, 20, old)

    def path_of_something(self, handler: Handler, folder: str) -> str:
        """Put a small object, and give its path."""
        self.put(handler, f"{folder}/something", b"x")
        return f"{folder}/something"

    # -- missing things -----------------------------------------------------------------------------------------------
    def test_what_is_missing_is_not_found(self, handler: Handler, folder: str) -> None:
        for path in (f"{folder}/missing", f"{self.bucket}-missing/object"):
            with pytest.raises(ObjectNotFound):
                handler.describe(path)
            with pytest.raises(ObjectNotFound):
                self.get(handler, path)
            with pytest.raises(ObjectNotFound):
                self.get(handler, path, 5, 10)
            with pytest.raises(ObjectNotFound):
                handler.remove(path)

    def test_writing_to_a_missing_bucket(self, handler: Handler, bucket_of: str) -> None:
        with pytest.raises(ObjectNotFound):
            self.put(handler, f"{bucket_of}-missing/object", b"x")

    def test_an_error_names_the_object(self, handler: Handler, folder: str) -> None:
        with pytest.raises(ObjectNotFound, match="some-missing-object"):
            handler.describe(f"{folder}/some-missing-object")

    # -- exclusive ----------------------------------------------------------------------------------------------------
    def test_exclusive_writing_spares_what_is_there(self, handler: Handler, folder: str) -> None:
        path = f"{folder}/object"
        if not self.exclusive:
            with pytest.raises(UnsupportedByStore):
                self.put(handler, path, b"first", exclusive=True)
            return
        self.put(handler, path, b"first", exclusive=True)
        with pytest.raises(ObjectExists):
            self.put(handler, path, b"second", exclusive=True)
        if self.exclusive_parts:
            with pytest.raises(ObjectExists):
                self.write_parts(handler, path, [b"third"], exclusive=True)
        assert self.get(handler, f"{folder}/object") == b"first"

    # -- parts --------------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("tail", [0, 1, 1000])
    def test_an_object_in_parts(self, handler: Handler, folder: str, tail: int) -> None:
        part = self.smallest_part(handler)
        parts = [pattern(part, 1), pattern(part, 2), *([pattern(tail, 3)] if tail else [])]
        info = self.write_parts(handler, f"{folder}/object", parts, known=tail != 1)
        whole = b"".join(parts)
        assert info.size == len(whole)
        described = handler.describe(f"{folder}/object")
        assert described.size == len(whole)
        assert info.etag in (None, described.etag)
        assert self.get(handler, f"{folder}/object") == whole
        assert self.get(handler, f"{folder}/object", part - 5, part + 5, described) == whole[part - 5 : part + 5]
        for algorithm, stated in described.checksums.items():
            function = crc_function(algorithm)
            if function is not None:
                assert digest_bytes(algorithm, function(memoryview(whole), 0)) == stated

    def test_one_part(self, handler: Handler, folder: str) -> None:
        self.write_parts(handler, f"{folder}/object", [b"just one"])
        assert self.get(handler, f"{folder}/object") == b"just one"

    def test_a_part_can_be_sent_again(self, handler: Handler, folder: str) -> None:
        upload = handler.upload(f"{folder}/object", size=5)
        try:
            upload.write_part(1, memoryview(b"wrong"), self.checksum(handler, b"wrong"))
            upload.write_part(1, memoryview(b"right"), self.checksum(handler, b"right"))
            upload.complete(5, self.checksum(handler, b"right"))
        except BaseException:
            upload.abort()
            raise
        assert self.get(handler, f"{folder}/object") == b"right"

    def test_completing_twice_is_harmless(self, handler: Handler, folder: str) -> None:
        upload = handler.upload(f"{folder}/object", size=4)
        crc = self.checksum(handler, b"data")
        upload.write_part(1, memoryview(b"data"), crc)
        first = upload.complete(4, crc)
        second = upload.complete(4, crc)
        assert (first.size, second.size) == (4, 4)
        assert self.get(handler, f"{folder}/object") == b"data"

    def test_nothing_is_visible_before_completion(self, handler: Handler, folder: str) -> None:
        self.put(handler, f"{folder}/object", b"old")
        upload = handler.upload(f"{folder}/object", size=3)
        upload.write_part(1, memoryview(b"new"), self.checksum(handler, b"new"))
        assert self.get(handler, f"{folder}/object") == b"old"
        assert [info.path for info in handler.list(f"{folder}/", recursive=True)] == [f"{folder}/object"]
        upload.abort()
        upload.abort()
        assert self.get(handler, f"{folder}/object") == b"old"

    def test_an_aborted_upload_leaves_nothing(self, handler: Handler, folder: str) -> None:
        before = self.traces(handler)
        upload = handler.upload(f"{folder}/object", size=None)
        upload.write_part(1, memoryview(b"data"), self.checksum(handler, b"data"))
        upload.abort()
        assert not list(handler.list(f"{folder}/", recursive=True))
        assert self.traces(handler) == before

    def test_replacing_and_removing_leaves_nothing(self, handler: Handler, folder: str) -> None:
        before = self.traces(handler)
        part = pattern(self.smallest_part(handler))
        for _ in range(2):
            self.write_parts(handler, f"{folder}/object", [part, b"tail"])
        self.put(handler, f"{folder}/object", b"small")
        self.write_parts(handler, f"{folder}/object", [part, b"tail"])
        handler.remove(f"{folder}/object")
        assert self.traces(handler) == before

    def traces(self, handler: Handler) -> set[str]:
        """List whatever else the store keeps of uploads; for subclasses that know where to look."""
        return set()

    # -- copies -------------------------------------------------------------------------------------------------------
    def test_copying_inside_the_store(self, handler: Handler, folder: str) -> None:
        if not self.copies:
            return
        data = pattern(3000)
        self.put(handler, f"{folder}/sourcé +%41", data)
        info = handler.describe(f"{folder}/sourcé +%41")
        copied = handler.copy(info, f"{folder}/copy/ünd %25")
        assert copied.size == 3000
        assert self.get(handler, f"{folder}/copy/ünd %25") == data
        assert handler.describe(f"{folder}/copy/ünd %25").checksums.items() >= info.checksums.items()

    def test_copying_an_object_in_parts(self, handler: Handler, folder: str) -> None:
        if not self.copies:
            return
        parts = [pattern(self.smallest_part(handler), 1), b"tail"]
        info = self.write_parts(handler, f"{folder}/object", parts)
        handler.copy(info, f"{folder}/copy")
        handler.remove(f"{folder}/object")
        assert self.get(handler, f"{folder}/copy") == b"".join(parts)

    def test_copying_what_is_missing(self, handler: Handler, folder: str) -> None:
        if not self.copies:
            return
        self.put(handler, f"{folder}/destination", b"kept")
        gone = self.put(handler, f"{folder}/gone", b"x")
        handler.remove(f"{folder}/gone")
        with pytest.raises((ObjectNotFound, ObjectChanged)):
            handler.copy(gone, f"{folder}/destination")
        assert self.get(handler, f"{folder}/destination") == b"kept"

    # -- names --------------------------------------------------------------------------------------------------------
    def test_listing(self, handler: Handler, folder: str) -> None:
        for name in ("a", "b/c", "b/d/e", "f"):
            self.put(handler, f"{folder}/{name}", pattern(len(name)))
        flat = list(handler.list(f"{folder}/", recursive=True))
        assert sorted((i.path, i.size) for i in flat if not i.is_directory) == [
            (f"{folder}/{name}", len(name)) for name in ("a", "b/c", "b/d/e", "f")
        ]
        level = list(handler.list(f"{folder}/"))
        assert sorted(i.path for i in level if not i.is_directory) == [f"{folder}/a", f"{folder}/f"]
        assert [i.path.rstrip("/") for i in level if i.is_directory] == [f"{folder}/b"]

    def test_listing_what_is_empty(self, handler: Handler, folder: str) -> None:
        assert list(handler.list(f"{folder}/nothing/", recursive=True)) == []

    def test_listing_buckets(self, handler: Handler, bucket_of: str) -> None:
        found = {info.path.rstrip("/"): info.is_directory for info in handler.list("")}
        assert found[bucket_of] is True

    def test_listing_a_missing_bucket(self, handler: Handler, bucket_of: str) -> None:
        with pytest.raises(ObjectNotFound):
            list(handler.list(f"{bucket_of}-missing/"))

    def test_making_a_bucket_again_is_harmless(self, handler: Handler, bucket_of: str) -> None:
        handler.makedirs(bucket_of)

    # -- many at once -------------------------------------------------------------------------------------------------
    def test_concurrent_use(self, handler: Handler, folder: str) -> None:
        def one(number: int) -> bool:
            path, data = f"{folder}/object-{number}", pattern(20_000 + number, number)
            self.put(handler, path, data)
            info = handler.describe(path)
            good = self.get(handler, path, 100, 10_000, info) == data[100:10_000]
            handler.remove(path)
            return good

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(40)))
