"""Arrays that stay on the software card: every kind of port, every wrong use, and what each says."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.device.sharing.device_array import DeviceArray
from apyfal.exceptions import ClosedError, ConfigurationError, ParameterError


@pytest.fixture
def card() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("scale", dtype="int32") as accelerator:
        yield accelerator


@pytest.mark.parametrize("shape", [(), 0, 1, 7, (3, 5), (2, 0, 4), (4, 3, 2)])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">f4", "c16", "S3", [("a", "i4"), ("b", "f8")]])
def test_what_is_put_is_got(card: apyfal.Accelerator, shape: Any, dtype: Any) -> None:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    values = np.frombuffer(bytes(i % 128 for i in range(size)), dtype).reshape(shape)
    array = card.put(values)
    assert (array.shape, array.dtype, array.nbytes) == (values.shape, values.dtype, values.nbytes)
    assert (array.size, array.ndim) == (values.size, values.ndim)
    found = array.get()
    assert (found.shape, found.dtype, found.tobytes()) == (values.shape, values.dtype, values.tobytes())


@pytest.mark.parametrize(
    "source",
    [
        np.arange(24).reshape(4, 6)[::2, ::-1],
        np.asfortranarray(np.arange(24).reshape(4, 6)),
        np.broadcast_to(np.arange(6), (4, 6)),
        np.arange(6).astype(">i8"),
        memoryview(b"abcdef"),
        b"read-only bytes",
        bytearray(b"bytes"),
    ],
)
def test_sources_of_every_layout(card: apyfal.Accelerator, source: Any) -> None:
    np.testing.assert_array_equal(
        card.put(source).get(), np.asarray(bytearray(source) if isinstance(source, bytes) else source)
    )


def test_it_says_what_it_is(card: apyfal.Accelerator) -> None:
    array = card.device_empty((1024, 768), np.float32)
    assert repr(array) == "<apyfal DeviceArray float32(1024, 768), 3.0 MiB on 'software card 0'>"
    assert array.card == "software card 0"
    assert not array.closed
    array.close()
    assert repr(array) == "<apyfal DeviceArray float32(1024, 768), closed>"


def _save(array: DeviceArray) -> None:
    apyfal.storage.save("/nowhere", array)  # type: ignore[arg-type]  # on purpose


_REFUSED: dict[str, tuple[Callable[[DeviceArray], object], type[Exception]]] = {
    "asarray": (np.asarray, TypeError),
    "sum": (lambda array: np.sum(array), TypeError),
    "operator": (lambda array: np.arange(3) + array, TypeError),
    "dlpack": (lambda array: np.from_dlpack(array), BufferError),  # type: ignore[arg-type]
    "pickle": (pickle.dumps, TypeError),
    "save": (_save, (TypeError, ParameterError)),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("use", _REFUSED)
def test_the_host_does_not_take_it_for_an_array(card: apyfal.Accelerator, use: str) -> None:
    """Wherever memory of the host is needed, one line names `get`; numpy's operators have a line of their own."""
    function, error = _REFUSED[use]
    with pytest.raises(error) as caught:
        function(card.put(np.arange(3)))
    assert use in ("operator", "sum") or ".get()" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros(4, "i4"), r"out: an array of int32\(4,\); expected int32\(3,\), as on the device"),
        (np.zeros(3, "i8"), r"out: an array of int64\(3,\); expected int32\(3,\)"),
        (np.zeros((3, 1), "i4"), r"int32\(3, 1\); expected int32\(3,\)"),
        ([1, 2, 3], "out: list; expected an array"),
        (np.frombuffer(bytes(12), "i4"), "out: the array is read-only"),
    ],
)
def test_wrong_arrays_to_get_into(card: apyfal.Accelerator, out: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        card.put(np.arange(3, dtype="i4")).get(out)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda card: card.put("file.raw"), "str: expected an array; apyfal.storage.load"),
        (lambda card: card.put(None), "NoneType: expected an array"),
        (lambda card: card.put(np.array([None])), "holds Python objects"),
        (lambda card: card.put(np.ma.masked_array([1], [True])), "masked"),
        (lambda card: card.put(np.arange(3), port="scr"), r"no input or output 'scr'.*'src'"),
        (lambda card: card.device_empty((3, -1)), "negative dimensions"),
        (lambda card: card.put(card.put(np.arange(3))), r"expected \.get\(\)"),
    ],
)
def test_what_cannot_be_put(card: apyfal.Accelerator, make: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(card)


def test_destinations_must_fit(card: apyfal.Accelerator) -> None:
    src = card.put(np.arange(8, dtype="i4"))
    for dst, message in (
        (card.device_empty(7, "i4"), "dst: an array of 28 bytes; this job's output has 32"),
        (card.device_empty(8, "f4"), "dst: an array of float32; accelerator 'scale' writes int32"),
    ):
        with pytest.raises(ParameterError, match=message):
            card.process(src, dst)
    assert card.process(src, src, a=2) is src  # element by element, in place
    np.testing.assert_array_equal(src.get(), 2 * np.arange(8))


def test_sizes_that_only_the_kernel_knows() -> None:
    with apyfal.Accelerator("gzip") as gzip:
        array = gzip.put(bytes(1000))
        with pytest.raises(ParameterError, match="the size of the output is not known"):
            gzip.process(b"abc", gzip.device_empty(100, "u1"))
        packed = gzip.process(array)
        with apyfal.Accelerator("gunzip", device=gzip) as gunzip:
            np.testing.assert_array_equal(gunzip.process(gunzip.put(packed)), np.zeros(1000, "u1"))


def test_result_parameters_stay_as_bytes() -> None:
    with apyfal.Accelerator("sha3") as sha3:
        array = sha3.put(b"abc")
        expected = sha3.process(b"abc")
        assert sha3.process(array) == expected
        digest = sha3.device_empty(32, "u1")
        assert sha3.process(array, digest) is digest
        assert digest.get().tobytes().hex() == expected["digest"]


def test_outputs_that_begin_at_zero_or_at_a_value() -> None:
    """The card makes them so, whatever was there before; in place on the same device array."""

    @apyfal.accelerators.model("device_adds", in_dtype="float32", out_dtype="float32")
    def adds(src: Any, dst: Any) -> None:
        dst += src

    with apyfal.Accelerator("device_adds") as card:
        source, target = card.put(np.arange(9, dtype="f4")), card.put(np.full(9, 7, "f4"))
        for _ in range(2):
            card.process(source, target)
            np.testing.assert_array_equal(target.get(), np.arange(9))


def test_many_jobs(card: apyfal.Accelerator) -> None:
    arrays = [card.put(np.full(100, number, "i4")) for number in range(40)]
    futures = [card.process_submit(array, card.device_empty(100, "i4"), a=2) for array in arrays]
    for number, future in enumerate(futures):
        np.testing.assert_array_equal(future.result().get(), np.full(100, 2 * number))
    for number, result in enumerate(card.process_map(arrays, a=3)):
        np.testing.assert_array_equal(result, np.full(100, 3 * number))


def test_coefficients_can_be_on_the_card_already() -> None:
    import drivers.support.software_models  # noqa: F401

    with apyfal.Accelerator("weighted") as card:
        card.start(src=card.put(np.full(50, 3, "u1"), port=None))
        np.testing.assert_array_equal(card.process(np.arange(50, dtype="i4")), np.arange(3, 53))


def test_devices_that_cannot_be_shared(card: apyfal.Accelerator) -> None:
    for keywords, message in (
        (
            {"emulator": {"memory": "1GiB"}},
            "emulator.memory = '1GiB', but the device that it is to share was opened without it",
        ),
        (
            {"driver": "opencl"},
            "is for driver 'opencl'; the device that it is to share, 'software card 0', is open by 'emulator'",
        ),
        ({"host_ip": "127.0.0.1:9"}, "is open here, and a host cannot share it"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            apyfal.Accelerator("scale", device=card, **keywords)
    card.stop()
    with pytest.raises(ClosedError):
        apyfal.Accelerator("scale", device=card)


def test_stopping_one_twice_leaves_the_device_to_the_other(card: apyfal.Accelerator) -> None:
    with apyfal.Accelerator("scale", device=card) as other:
        for _ in range(3):
            card.stop()
        assert other.process(np.arange(3), a=2).tolist() == [0, 2, 4]


def test_bytes_moved_of_jobs_with_the_host(card: apyfal.Accelerator) -> None:
    device = card._context.device
    for source in (np.arange(100, dtype="i4"), np.arange(9 << 20, dtype="i4"), np.arange(0, dtype="i4")):
        info: dict[str, Any] = {}
        before = device.counters()
        card.process(source, info_dict=info)
        after = device.counters()
        assert info["bytes_moved"] == {key: after[key] - before[key] for key in ("to_device", "from_device")}
        assert info["bytes_moved"] == {"to_device": source.nbytes, "from_device": source.nbytes}


def test_kernels_in_rows() -> None:
    """Device arrays are not cut into rows; what the host has is, and its bytes are counted."""

    @apyfal.accelerators.model("device_rows", dtype="int32", chunking="rows", replace=True)
    def rows(src: Any, dst: Any) -> None:
        np.add(src, 1, out=dst)

    values = np.arange(1 << 20, dtype="i4").reshape(1024, 1024)
    with apyfal.Accelerator("device_rows", emulator={"memory": "24MiB"}) as card:
        source, target = card.put(values), card.device_empty(values.shape, "i4")
        for dst in (target, None):
            info: dict[str, Any] = {}
            result = card.process(source, dst, info_dict=info)
            np.testing.assert_array_equal(result.get() if dst is not None else result, values + 1)
            assert info["bytes_moved"] == {"to_device": 0, "from_device": 0 if dst is not None else values.nbytes}
        source.close()
        target.close()
        card.process(values, info_dict=info, memory_limit="2MiB")
        assert info["chunks"] > 1
        assert info["bytes_moved"] == {"to_device": values.nbytes, "from_device": values.nbytes}
