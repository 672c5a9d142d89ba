"""The main job: data in, data out, on the software card; and that no needless byte moved."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import os
import subprocess
import threading
import time

import numpy as np
import pytest
from pinned import pinned

import apyfal
from apyfal import accelerators
from apyfal._core import errors
from apyfal.exceptions import CopyRefused, KernelError, ParameterError, RunTimeout

MIB = 1 << 20


def data_of(nbytes: int, seed: int = 1) -> np.ndarray:
    """Random bytes in pageable, misaligned memory."""
    return np.random.default_rng(seed).integers(0, 256, nbytes + 16, dtype=np.uint8)[16:]


@pytest.fixture(scope="module")
def loopback():
    """One card for the tests that only pass data through."""
    with apyfal.Accelerator("loopback") as accelerator:
        yield accelerator


# -- arrays -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nbytes", [1, 4095, 4096, 4097, 8 * MIB, 8 * MIB + 1, 40 * MIB + 12345])
def test_pinned_arrays_are_never_copied(nbytes):
    src, dst = pinned(data_of(nbytes)), apyfal.empty(nbytes, "u1")
    dst[...] = 0
    info: dict = {}
    with apyfal.Accelerator("loopback") as accelerator:
        assert accelerator.process(src, dst, copy=False, info_dict=info) is dst
        counters = accelerator._context.device.counters()
    assert np.array_equal(src, dst)
    assert info["bytes_copied"] == 0
    assert info["copy_reasons"] == []
    assert (info["bytes_in"], info["bytes_out"]) == (nbytes, nbytes)
    assert (counters["to_device"], counters["from_device"]) == (nbytes, nbytes)
    assert counters["runs"] == info["chunks"]


def test_the_device_reads_the_array_at_its_own_address():
    src = apyfal.empty(4096, "u1")
    src[...] = 1
    # While another job's DMA occupies the lane, what is written into the array still reaches the card.
    with apyfal.Accelerator("loopback", emulator={"latency": "200000"}) as accelerator:
        accelerator.process_submit(apyfal.empty(4096, "u1"))
        time.sleep(0.05)
        future = accelerator.process_submit(src)
        time.sleep(0.05)
        src[...] = 2
        assert set(future.result()) == {2}
        bo, offset = accelerator._context.device.import_memory(src)
        assert bo.address + offset == src.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("src: address not a multiple of 4096", lambda: data_of(5 * MIB)),
        ("src: not contiguous", lambda: data_of(10 * MIB).reshape(-1, 2)[:, 0]),
        ("src: begins inside a pinned buffer, not at a multiple of 64", lambda: pinned(data_of(MIB))[3:]),
    ],
)
def test_what_cannot_be_used_in_place_is_copied_once_and_says_why(loopback, name, make):
    src, info = make(), {}
    result = loopback.process(src, info_dict=info)
    assert np.array_equal(result, src)
    assert info["bytes_copied"] == src.nbytes
    assert info["copy_reasons"] == [name]
    with pytest.raises(CopyRefused, match="copy=False"):
        loopback.process(src, copy=False)


def test_read_only_memory_is_copied(loopback):
    info: dict = {}
    src = pinned(data_of(MIB))
    src.flags.writeable = False
    assert np.array_equal(loopback.process(src, info_dict=info), src)
    assert info["copy_reasons"] == ["src: read-only memory (drivers pin memory for writing)"]
    assert bytes(loopback.process(b"abc", info_dict=info)) == b"abc"
    assert info["bytes_copied"] == 3


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_raw_bytes_have_the_element_type_of_the_definition(kind):
    values = np.arange(1000, dtype=np.int16)
    with apyfal.Accelerator("scale", dtype="int16") as scale:
        assert np.array_equal(scale.process(kind(values.tobytes()), a=3), 3 * values)
        results = scale.process_map([kind(values.tobytes())] * 20, a=3)
        assert all(np.array_equal(result, 3 * values) for result in results)
        with pytest.raises(ParameterError, match="takes int16 elements, not uint8"):
            scale.process(values.view(np.uint8))


def test_misaligned_destination_is_copied(loopback):
    src, dst, info = pinned(data_of(20 * MIB)), data_of(20 * MIB + 1, 2), {}
    dst = dst[1:] if dst.ctypes.data % 4096 == 0 else dst[:-1]  # now and then, numpy's memory begins at a page
    assert loopback.process(src, dst, info_dict=info) is dst
    assert np.array_equal(src, dst)
    assert info["copy_reasons"] == ["dst: address not a multiple of 4096"]
    assert info["bytes_copied"] == dst.nbytes


def test_strided_destination(loopback):
    dst, info = np.zeros((1000, 2), np.uint8), {}
    loopback.process(pinned(data_of(1000)), dst[:, 1], info_dict=info)
    assert np.array_equal(dst[:, 1], data_of(1000))
    assert not dst[:, 0].any()
    assert info["bytes_copied"] == 2000, "put together, then to its places"


def test_a_part_of_a_pinned_array_is_used_in_place(loopback):
    whole, info = pinned(data_of(MIB)), {}
    assert np.array_equal(loopback.process(whole[4096:8192], copy=False, info_dict=info), whole[4096:8192])
    assert info["bytes_copied"] == 0


def test_results_have_the_shape_and_type_of_the_source(loopback):
    src = pinned(np.arange(600, dtype="f4").reshape(20, 30))
    result = loopback.process(src)
    assert (result.shape, result.dtype) == (src.shape, src.dtype)
    assert apyfal.is_pinned(result)


def test_src_and_dst_may_be_the_same_memory_but_not_overlap():
    array = pinned(np.arange(4096, dtype="i4"))
    with apyfal.Accelerator("scale") as scale:
        scale.process(array, array, a=3, b=1)
        assert np.array_equal(array, np.arange(4096) * 3 + 1)
        with pytest.raises(ParameterError, match="overlap"):
            scale.process(array[1024:], array[:-1024])


def test_nothing_at_all_can_be_processed(loopback):
    assert loopback.process(b"").nbytes == 0
    assert loopback.process(np.empty(0, "f8")).shape == (0,)


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nbytes", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 30 * MIB])
@pytest.mark.parametrize("spell", [str, lambda path: path, lambda path: f"file://{path}"], ids=["str", "Path", "URL"])
def test_from_file_to_file(loopback, tmp_path, nbytes, spell):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data_of(nbytes).tobytes())
    info: dict = {}
    assert loopback.process(spell(source), spell(target), info_dict=info) is None
    assert target.read_bytes() == source.read_bytes()
    assert info["bytes_copied"] == 0
    assert (info["bytes_in"], info["bytes_out"]) == (nbytes, nbytes)
    assert os.listdir(tmp_path) in (["in", "out"], ["out", "in"])


def test_file_objects(loopback, tmp_path):
    content = data_of(20 * MIB).tobytes()
    target = io.BytesIO()
    assert loopback.process(io.BytesIO(content), target) is None
    assert target.getvalue() == content
    with open(tmp_path / "f", "w+b") as file:
        loopback.process(io.BytesIO(content), file)
        assert not file.closed
    assert (tmp_path / "f").read_bytes() == content


def test_a_source_of_unknown_length(loopback):
    reader, writer = os.pipe()
    content = data_of(17 * MIB + 3).tobytes()

    def feed() -> None:
        with open(writer, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reader, "rb") as pipe:
        result = loopback.process(pipe)
    thread.join()
    assert result.tobytes() == content


# -- the reference accelerators, each against somebody else's -------------------------------------------------------
@pytest.mark.parametrize("bits", [224, 256, 384, 512])
@pytest.mark.parametrize("nbytes", [0, 1, 71, 72, 135, 136, 137, 20 * MIB + 7])
def test_sha3_is_hashlib(bits, nbytes):
    data = data_of(nbytes).tobytes()
    with apyfal.Accelerator("sha3") as sha3:
        assert sha3.process(data, type=f"sha3-{bits}") == {"digest": hashlib.new(f"sha3_{bits}", data).hexdigest()}


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_scale_is_numpy(dtype):
    source = np.random.default_rng(2).integers(0, 100, 3 * MIB).astype(dtype)
    a, b = np.dtype(dtype).type(3), np.dtype(dtype).type(7)
    with apyfal.Accelerator("scale") as scale:
        assert np.array_equal(scale.process(source, a=3, b=7), source * a + b)


def test_histogram_is_numpy():
    generator = np.random.default_rng(3)
    with apyfal.Accelerator("histogram") as histogram:
        data = generator.integers(0, 256, 30 * MIB, dtype=np.uint8)
        assert np.array_equal(histogram.process(data), np.bincount(data, minlength=256))
        floats = generator.normal(size=200_000)
        expected, _ = np.histogram(floats, 50, (-2, 2))
        assert np.array_equal(histogram.process(floats, bins=50, range=(-2, 2)), expected)


def test_gzip_and_gunzip_are_the_systems(tmp_path):
    text, packed = tmp_path / "t", tmp_path / "t.gz"
    text.write_bytes(b"".join(b"line %d\n" % number for number in range(1_000_000)))
    with apyfal.Accelerator("gzip") as compress, apyfal.Accelerator("gunzip") as expand:
        compress.process(text, packed)
        assert subprocess.run(["gzip", "-dc", packed], check=True, capture_output=True).stdout == text.read_bytes()
        assert packed.stat().st_size < text.stat().st_size // 3
        assert expand.process(packed).tobytes() == text.read_bytes()
        subprocess.run(["gzip", "-kf", text], check=True)
        expand.process(packed, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == text.read_bytes()
        assert gzip.decompress(compress.process(b"", level=9).tobytes()) == b""


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda z: z[:-5], "ends too early"), (lambda z: b"x" + z, "gzip"), (lambda z: b"", "empty")],
)
def test_damaged_gzip_data_is_an_error_and_leaves_nothing(tmp_path, damage, message):
    packed, target = tmp_path / "t.gz", tmp_path / "t"
    packed.write_bytes(damage(gzip.compress(data_of(100_000).tobytes())))
    target.write_bytes(b"old")
    with apyfal.Accelerator("gunzip") as expand, pytest.raises(KernelError, match=message):
        expand.process(packed, target)
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["t", "t.gz"]


def test_trng_takes_nothing_and_gives_something_else_each_time():
    with apyfal.Accelerator("trng") as trng:
        first, second = trng.process(nbytes=1000), trng.process(nbytes=1000)
    assert first.shape == (1000,)
    assert not np.array_equal(first, second)
    assert len(set(first.tolist())) > 200


def test_a_model_of_ones_own():
    @accelerators.model("invert-test", dtype="uint8", chunking="elements", replace=True)
    def invert(src, dst, *, mask=255):
        np.bitwise_xor(src, mask, out=dst)

    data = data_of(20 * MIB)
    with apyfal.Accelerator("invert-test") as accelerator:
        assert np.array_equal(accelerator.process(data, mask=15), data ^ 15)
        assert np.array_equal(accelerator.process(data[:100]), data[:100] ^ 255)


def test_a_model_that_raises_or_keeps_a_view_is_a_kernel_error():
    kept = []

    @accelerators.model("keeper-test", dtype="uint8", replace=True)
    def keeper(src, dst, *, mode=0):
        if mode == 1:
            raise LookupError("nothing here")
        kept.append(src)

    with apyfal.Accelerator("keeper-test") as accelerator:
        with pytest.raises(KernelError, match="LookupError: nothing here"):
            accelerator.process(b"abc", mode=1)
        with pytest.raises(KernelError, match="kept a view of device memory"):
            accelerator.process(b"abc")
    kept.clear()


# -- limits, time, failures -----------------------------------------------------------------------------------------
def test_memory_limit_bounds_a_job(tmp_path):
    source = tmp_path / "in"
    source.write_bytes(data_of(30 * MIB).tobytes())
    info: dict = {}
    with apyfal.Accelerator("loopback", memory_limit="8MiB") as accelerator:
        accelerator.process(source, tmp_path / "out", info_dict=info)
        assert (tmp_path / "out").read_bytes() == source.read_bytes()
        assert info["chunks"] == 30
        with pytest.raises(
            ParameterError, match=r"memory_limit of 1.0 KiB is too small; this job's smallest ring takes"
        ):
            accelerator.process(source, tmp_path / "out", memory_limit=1024)


@pytest.mark.parametrize("nbytes", [1000, 20 * MIB])
def test_a_run_that_hangs_times_out_and_the_next_one_works(nbytes):
    data = data_of(nbytes)
    with apyfal.Accelerator("loopback") as accelerator:
        accelerator.process(data)  # memory is made ready, so that what takes long is the hanging run
        accelerator._context.device.control("hang_run", 1)
        start = time.monotonic()
        with pytest.raises(RunTimeout):
            accelerator.process(data, timeout=0.5)
        assert 0.45 < time.monotonic() - start < 5
        assert np.array_equal(accelerator.process(data, timeout=30), data)


@pytest.mark.parametrize("fault", ["fail_to_device", "fail_from_device", "fail_run", "fail_alloc", "lose_device"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("nbytes", [1000, 20 * MIB])
def test_a_fault_anywhere_is_an_error_and_leaves_the_destination(tmp_path, fault, nth, nbytes):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data_of(nbytes).tobytes())
    target.write_bytes(b"old")
    gc.collect()
    before, runs = threading.active_count(), errors.live()["runs"]
    with apyfal.Accelerator("loopback", emulator={fault: nth}) as accelerator:
        start = time.monotonic()
        for _ in range(4):  # small jobs have few operations
            try:
                accelerator.process(source, target)
            except apyfal.exceptions.DriverError:
                break
            assert target.read_bytes() == source.read_bytes()
            target.write_bytes(b"old")
        else:
            assert fault == "fail_alloc"  # buffers are reused: there may be no third allocation
            return
        assert time.monotonic() - start < 5
        assert target.read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == ["in", "out"]
        if fault != "lose_device":
            accelerator.process(source, target)
            assert target.read_bytes() == source.read_bytes()
    assert threading.active_count() <= before
    assert errors.live()["runs"] == runs


def test_progress_ends_with_everything(loopback):
    seen: list[tuple[int, int | None]] = []
    loopback.process(data_of(20 * MIB), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (20 * MIB, 20 * MIB)


def test_start_loads_what_stays_on_the_card(tmp_path):
    coefficients = tmp_path / "c"
    coefficients.write_bytes(bytes(100))
    info: dict = {}
    with apyfal.Accelerator("loopback") as accelerator:
        accelerator.start(np.arange(5000, dtype="u1"), info_dict=info)
        assert info["bytes_in"] == 5000
        assert accelerator._context.device.counters()["to_device"] == 5000
        assert bytes(accelerator.process(b"x")) == b"x"


def test_submit_and_map_keep_order_and_errors():
    inputs = [bytes([number]) * 1000 for number in range(50)]
    with apyfal.Accelerator("loopback") as accelerator:
        futures = [accelerator.process_submit(data) for data in inputs]
        assert [future.result().tobytes() for future in futures] == inputs
        infos: list[dict] = []
        assert [result.tobytes() for result in accelerator.process_map(iter(inputs), info_list=infos)] == inputs
        assert [info["bytes_in"] for info in infos] == [1000] * 50
        with pytest.raises(ParameterError, match="srcs is longer than dsts"):
            list(accelerator.process_map(inputs, [None]))
        with pytest.raises(apyfal.exceptions.ObjectNotFound):
            accelerator.process_submit("/nonexistent/file").result()


@pytest.mark.parametrize("pinned", [True, False])
def test_arrays_larger_than_the_cards_memory(pinned: bool) -> None:
    nbytes = 100 << 20
    data = apyfal.empty(nbytes, np.uint8) if pinned else np.empty(nbytes, np.uint8)
    data[...] = np.resize(np.random.default_rng(2).integers(0, 256, 1_000_003, np.uint8), nbytes)
    info: dict = {}
    with apyfal.Accelerator("loopback", emulator={"memory": "32MiB"}) as card:
        assert np.array_equal(card.process(data, info_dict=info), data)
        small = card.empty(4 << 20, np.uint8)
        if pinned:
            assert (
                "src: too large to be in the device's memory as a whole, which has 33554432 bytes"
                in info["copy_reasons"]
            )
            with pytest.raises(CopyRefused, match="too large to be in the device's memory"):
                card.process(data, copy=False)
            card.process(small, card.empty(4 << 20, np.uint8), copy=False)
    with apyfal.Accelerator("sha3", emulator={"memory": "32MiB"}) as digest:
        assert digest.process(data) == {"digest": hashlib.sha3_256(data).hexdigest()}


def test_an_output_of_fixed_size_reaches_an_array_that_is_not_contiguous():
    data = np.arange(256, dtype=np.uint8).repeat(3)
    counts = np.zeros((256, 2), np.uint64)
    with apyfal.Accelerator("histogram") as accelerator:
        accelerator.process(data, counts[:, 0])
    assert (counts[:, 0] == 3).all()
    assert not counts[:, 1].any()
