"""From a store through a card and back to the store: nothing copied, one version, verified, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from servers.web.hostile import Answer, Fault, Hostile, Request, hostile

import apyfal
from apyfal import storage
from apyfal.exceptions import ChecksumMismatch, KernelError, ObjectChanged, StorageError

MIB = 1 << 20
#: Where the chunks of so many bytes begin: they grow to 8 MiB.
CHUNKS = [0, MIB // 2, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB]
DATA = np.random.default_rng(4).bytes(21 * MIB + 12_345)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    """One hostile store, mounted as s3.card."""
    with hostile() as running:
        storage.mount(
            "s3.card",
            endpoint_url=running.endpoint_url,
            client_id="key",
            secret_id="secret",
            region="us-east-1",
            timeout=5,
            config={},
        )
        yield running
        storage.unmount("s3.card")


@pytest.fixture
def store(server: Hostile) -> Iterator[Hostile]:
    """The store with one object and nothing else."""
    server.reset()
    server.put("b/data", DATA)
    yield server
    assert server.uploads == {} or not server.uploads, "an upload was left"
    server.reset()


@pytest.fixture(scope="module")
def loopback() -> Iterator[apyfal.Accelerator]:
    """One card."""
    with apyfal.Accelerator("loopback") as accelerator:
        yield accelerator


def reads(at: int):
    """Match the read of the range that begins at `at`."""
    return lambda request: request.method == "GET" and request.start == at


def test_from_store_to_store_without_a_copy(store, loopback):
    info: dict = {}
    assert loopback.process("s3.card://b/data", "s3.card://b/out", info_dict=info) is None
    assert store.objects["b/out"].data == DATA
    assert (info["bytes_in"], info["bytes_out"], info["bytes_copied"]) == (len(DATA), len(DATA), 0)
    ranges = [request.start for request in store.requests if request.method == "GET" and request.path.endswith("data")]
    assert sorted(ranges) == CHUNKS, "each byte was asked for once"
    assert info["chunks"] == len(CHUNKS)


def test_a_digest_of_an_object(store):
    with apyfal.Accelerator("sha3") as sha3:
        assert sha3.process("s3.card://b/data") == {"digest": hashlib.sha3_256(DATA).hexdigest()}


@pytest.mark.parametrize("nbytes", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB])
def test_sizes_around_a_chunk(store, loopback, nbytes):
    store.put("b/data", DATA[:nbytes])
    assert loopback.process("s3.card://b/data").tobytes() == DATA[:nbytes]


@pytest.mark.parametrize("at", [0, 8 * MIB, 16 * MIB])
@pytest.mark.parametrize("kind", ["cut", "reset", "lose"])
def test_a_break_is_resumed(store, loopback, at, kind):
    store.faults.append(Fault(kind, when=reads(at), at=100_000))
    assert loopback.process("s3.card://b/data").tobytes() == DATA
    assert store.hit == [kind] or kind in str(store.hit)


@pytest.mark.parametrize("at", [0, 8 * MIB, 16 * MIB])
def test_a_flipped_bit_is_found_before_anything_is_visible(store, loopback, at):
    from awscrt import checksums

    crc = base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()
    store.put("b/data", DATA, **{"x-amz-checksum-crc64nvme": crc})
    store.put("b/out", b"old")
    store.faults.append(Fault("flip", when=reads(at), at=1000))
    with pytest.raises(ChecksumMismatch, match="crc64nvme"):
        loopback.process("s3.card://b/data", "s3.card://b/out")
    assert store.objects["b/out"].data == b"old"


def test_versions_are_never_mixed(store, loopback):
    store.put("b/out", b"old")

    def change(request: Request) -> Answer | None:
        store.put("b/data", DATA[::-1])
        return None

    store.faults.append(Fault("change", when=reads(8 * MIB), act=change))
    with pytest.raises(ObjectChanged):
        loopback.process("s3.card://b/data", "s3.card://b/out")
    assert store.objects["b/out"].data == b"old"


@pytest.mark.parametrize("stage", ["fail_to_device", "fail_run", "fail_from_device"])
@pytest.mark.parametrize("nth", [1, 3, 6])
def test_a_failing_card_ends_the_transfers_within_a_second(store, stage, nth):
    store.put("b/out", b"old")
    with apyfal.Accelerator("loopback", emulator={stage: nth}) as accelerator:
        start = time.monotonic()
        with pytest.raises(apyfal.exceptions.DriverError):
            accelerator.process("s3.card://b/data", "s3.card://b/out")
        assert time.monotonic() - start < 20
        assert store.objects["b/out"].data == b"old"
        assert accelerator.process("s3.card://b/data").tobytes() == DATA, "the next job works"
    assert [thread.name for thread in threading.enumerate() if re.match("apyfal-(?!deadlines)", thread.name)] == []


def test_a_store_that_fails_in_mid_write_leaves_nothing(store, loopback):
    refuse = Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    writes = {"POST", "PUT"}
    store.faults.append(Fault("change", when=lambda r: r.method in writes, times=-1, act=lambda request: refuse))
    with pytest.raises(StorageError):
        loopback.process("s3.card://b/data", "s3.card://b/out")
    assert "b/out" not in store.objects


def test_bad_data_leaves_nothing(store):
    with apyfal.Accelerator("gunzip") as gunzip, pytest.raises(KernelError):
        gunzip.process("s3.card://b/data", "s3.card://b/out")
    assert "b/out" not in store.objects
