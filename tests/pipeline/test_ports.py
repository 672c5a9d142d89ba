"""Accelerators with several named inputs and outputs, on the software card (tests/drivers has them on all cards)."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal.definition import registry
from apyfal.definition.definition import Definition
from apyfal.definition.grammar import Argument, Port
from apyfal.exceptions import ConfigurationError, CopyRefused, ParameterError

MIB = 1 << 20


class Unsized(io.RawIOBase):
    """A file that does not know its size, like a pipe."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})  # what is registered here is gone afterwards

    @apyfal.accelerators.model(
        "blend",
        inputs=("image: int16", "mask"),
        outputs=("kept: int16", "dropped: int16", "seen: uint64 = 16"),
        in_dtype="uint8",
        chunking="elements",
        state=16,
    )
    def blend(
        image: np.ndarray,
        mask: np.ndarray,
        kept: np.ndarray,
        dropped: np.ndarray,
        seen: np.ndarray,
        state: np.ndarray,
        first: int,
        last: int,
        *,
        limit: int = 0,
    ) -> None:
        """Part an image by a mask, and count both parts."""
        chosen = mask > limit
        kept[:] = np.where(chosen, image, 0)
        dropped[:] = np.where(chosen, 0, image)
        counts = state.view(np.uint64)
        if first:
            counts[:] = 0
        counts += np.array([chosen.sum(), (~chosen).sum()], np.uint64)
        if last:
            seen[:] = counts

    @apyfal.accelerators.model("matmul", dtype="float32", inputs=("a", "b"), outputs=("c = 3x",), rows="uint32")
    def matmul(a: np.ndarray, b: np.ndarray, c: np.ndarray, *, rows: int) -> None:
        """Multiply two matrices, each seen whole."""
        inner = a.size // rows
        c[:] = (a.reshape(rows, inner) @ b.reshape(inner, -1)).reshape(-1)


@pytest.fixture
def card() -> Iterator[apyfal.Accelerator]:
    with apyfal.Accelerator("blend") as opened:
        yield opened


def image_and_mask(count: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(count).integers(-(1 << 15), 1 << 15, count, np.int16)
    return image, np.random.default_rng(count + 1).integers(0, 3, count, np.uint8)


def check(results: dict[str, np.ndarray], image: np.ndarray, mask: np.ndarray) -> None:
    np.testing.assert_array_equal(results["kept"], np.where(mask > 0, image, 0))
    np.testing.assert_array_equal(results["dropped"], np.where(mask > 0, 0, image))
    assert results["seen"].tolist() == [int((mask > 0).sum()), int((mask == 0).sum())]


def test_its_listing_names_what_it_takes_and_gives(card: apyfal.Accelerator) -> None:
    assert (card.inputs, card.outputs) == (("image", "mask"), ("kept", "dropped", "seen"))
    [line] = [str(one) for one in apyfal.accelerators() if one.name == "blend"]
    assert line == "blend(image, mask, limit=0) -> kept, dropped, seen: Part an image by a mask, and count both parts."


@pytest.mark.parametrize("count", [0, 1, 4095, 3 * MIB, 9 * MIB + 5])
def test_new_arrays_by_name(card: apyfal.Accelerator, count: int) -> None:
    """One output has its own size, and is brought once, after the last chunk."""
    image, mask = image_and_mask(count)
    info: dict[str, Any] = {}
    check(card.process({"image": image, "mask": mask}, info_dict=info), image, mask)
    assert info["bytes_in"] == 3 * count
    assert info["bytes_out"] == 4 * count + 16


@pytest.mark.parametrize("size_is_known", [True, False])
def test_every_kind_of_place_at_once(card: apyfal.Accelerator, tmp_path: Path, *, size_is_known: bool) -> None:
    image, mask = image_and_mask(9 * MIB + 5)
    source: object = Unsized(mask.tobytes())
    if size_is_known:
        (tmp_path / "mask").write_bytes(mask.tobytes())
        source = tmp_path / "mask"
    pinned = apyfal.empty(image.shape, np.int16)
    pinned[:] = image
    kept, seen = apyfal.empty(image.shape, np.int16), io.BytesIO()
    result = card.process(
        {"mask": source, "image": pinned},
        {"kept": kept, "dropped": tmp_path / "dropped", "seen": seen},
        memory_limit="64MiB",
        copy=False,
    )
    assert list(result) == ["kept"]
    assert result["kept"] is kept
    results = {"kept": kept, "dropped": np.fromfile(tmp_path / "dropped", np.int16)}
    check({**results, "seen": np.frombuffer(seen.getvalue(), np.uint64)}, image, mask)


def test_nothing_is_returned_where_everything_is_stored(card: apyfal.Accelerator, tmp_path: Path) -> None:
    image, mask = image_and_mask(100)
    places = {name: tmp_path / name for name in card.outputs}
    assert card.process({"image": image, "mask": mask}, places) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dropped", "kept", "seen"]


def test_inputs_that_are_seen_whole_may_differ_in_size() -> None:
    a, b = np.arange(6, dtype=np.float32), np.arange(12, dtype=np.float32)
    with apyfal.Accelerator("matmul") as matmul:
        c = matmul.process({"a": a, "b": b}, rows=3)
    np.testing.assert_array_equal(c, (a.reshape(3, 2) @ b.reshape(2, 6)).reshape(-1))


@pytest.mark.parametrize(
    ("src", "message"),
    [
        (None, "accelerator 'blend' needs src={'image': ...}: a URL"),
        (b"12", "accelerator 'blend' has 2 inputs; expected src={'image': ..., 'mask': ...}"),
        ({"image": b"12"}, "accelerator 'blend' needs src={'mask': ...}"),
        ({"image": b"12", "mask": b"1", "maks": b"1"}, "has no input 'maks'; did you mean 'mask'"),
        ({"image": np.zeros(2, np.int16), "mask": b"123"}, "mask: 3 elements; expected as many as in image, 2"),
        ({"image": np.zeros(2, np.int8), "mask": b"12"}, "takes int16 elements as 'image', not int8"),
        ({"image": io.BytesIO(b"123"), "mask": b"1"}, "3 bytes of input are not a whole number of int16 elements"),
    ],
)
def test_wrong_inputs(card: apyfal.Accelerator, src: object, message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        card.process(src)


@pytest.mark.parametrize(
    ("dst", "message"),
    [
        (np.zeros(2, np.int16), "has 3 outputs; expected dst={'kept': ..., 'dropped': ..., 'seen': ...}"),
        ({"kapt": None}, "dst: accelerator 'blend' has no output 'kapt'; did you mean 'kept'"),
        ({"kept": np.zeros(3, np.int16)}, "kept: an array of 6 bytes; this job's output has 4"),
        ({"seen": np.zeros(2, np.int64)}, "seen: an array of int64; accelerator 'blend' writes uint64"),
        ({"kept": "one", "dropped": "one"}, "kept and dropped would have the same place; expected one each"),
    ],
)
def test_wrong_outputs(
    card: apyfal.Accelerator, dst: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=re.escape(message)):
        card.process({"image": np.zeros(2, np.int16), "mask": b"12"}, dst)
    assert not list(tmp_path.iterdir())


def test_outputs_in_the_same_memory_are_refused(card: apyfal.Accelerator) -> None:
    memory = apyfal.empty(100, np.int16)
    src = {"image": np.zeros(80, np.int16), "mask": bytes(80)}
    with pytest.raises(ParameterError, match="kept and dropped would have the same place"):
        card.process(src, {"kept": memory[:80], "dropped": memory[20:]})


@pytest.mark.parametrize("more", [1, -1])
def test_a_mask_whose_size_shows_only_at_its_end(card: apyfal.Accelerator, tmp_path: Path, more: int) -> None:
    """The job fails at once, nothing is stored, and the next one works."""
    image, mask = image_and_mask(9 * MIB)
    longer = np.resize(mask, mask.size + more * 5 * MIB)
    began = time.monotonic()
    word = "more" if more > 0 else "fewer"
    with pytest.raises(ParameterError, match=f"mask: it has {word} elements than image; expected as many"):
        card.process({"image": image, "mask": Unsized(longer.tobytes())}, {"kept": tmp_path / "kept"})
    assert time.monotonic() - began < 10
    assert not list(tmp_path.iterdir())
    check(card.process({"image": image, "mask": mask}), image, mask)


def test_one_input_that_fails_leaves_no_output(card: apyfal.Accelerator, tmp_path: Path) -> None:
    class Breaks(Unsized):
        def readinto(self, buffer: Any) -> int:
            if self._file.tell() > 4 * MIB:
                raise OSError("the cable was pulled")
            return super().readinto(buffer)

    image, mask = image_and_mask(9 * MIB)
    with pytest.raises(OSError, match="the cable was pulled"):
        card.process({"image": image, "mask": Breaks(mask.tobytes())}, {name: tmp_path / name for name in card.outputs})
    assert not list(tmp_path.iterdir())


def test_no_copy_is_said_of_the_one_that_needs_it(card: apyfal.Accelerator) -> None:
    image, mask = image_and_mask(4096)
    pinned = apyfal.empty(image.shape, np.int16)
    with pytest.raises(CopyRefused, match="mask: not contiguous"):
        card.process({"image": pinned, "mask": np.repeat(mask, 2)[::2]}, copy=False)


def test_jobs_in_the_background_and_on_a_pool(card: apyfal.Accelerator) -> None:
    pairs = [image_and_mask(1000 + number) for number in range(8)]
    sources = [{"image": image, "mask": mask} for image, mask in pairs]
    with apyfal.AcceleratorPoolExecutor("blend", workers_count=2, emulator={"devices": 2}) as pool:
        for results in (card.process_map(sources), pool.process_map(sources)):
            for (image, mask), result in zip(pairs, results, strict=True):
                check(result, image, mask)


# -- definitions ------------------------------------------------------------------------------------------------------
SECTION = """
[accelerator.both]
driver    = opencl
program   = both.cl
inputs    = x: int32, y: uint8
outputs   = total: int64, low: uint8 = {rule}
arguments = {arguments}
chunking  = {chunking}
"""


def section(tmp_path: Path, **changes: str) -> Any:
    values = {"rule": "same", "arguments": "x, y, total, low, count, bytes.y, count.y:uint16", "chunking": "elements"}
    (tmp_path / "accelerator.conf").write_text(SECTION.format(**{**values, **changes}))
    return apyfal.accelerators.resolve("both", tmp_path / "accelerator.conf")


def test_a_section_of_the_configuration(tmp_path: Path) -> None:
    call = section(tmp_path).bind()
    assert [(port.name, str(port.dtype), port.index) for port in call.inputs] == [("x", "int32", 0), ("y", "uint8", 1)]
    assert [port.nbytes(4000) for port in call.outputs] == [8000, 1000]
    assert call.chunk_limit == (2**16 - 1) * 4, "what count.y can count"
    assert section(tmp_path, rule="1/4x").bind().outputs[1].nbytes(4000) == 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": "x, y, total, count"}, "input or output 'low' is not among the arguments"),
        ({"arguments": "x, y, total, low, src"}, "'src' among the arguments, but inputs are given by name"),
        ({"arguments": "x, y, total, low, count.z"}, "argument 'count.z': unknown port 'z'; expected one of x, y"),
        ({"arguments": "x, y, total, low, capacity.x"}, "unknown port 'x'; expected one of low, total"),
        ({"arguments": "x:int32, y, total, low"}, "argument 'x' is a buffer and has no scalar type"),
        ({"arguments": "x, y, total, low, x"}, "argument 'x' is there twice"),
        ({"rule": "32"}, "a fixed output over an input in chunks needs a state"),
        ({"rule": "reported"}, "output = reported is for kernels with one output"),
        ({"rule": "lots"}, "unknown output 'lots'"),
    ],
)
def test_sections_that_cannot_be(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        section(tmp_path, **changes)
    assert "accelerator.conf" in str(caught.value)


def test_ports_without_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="inputs are names among 'arguments', which is missing here"):
        apyfal.Accelerator("loopback", inputs="x")


def test_numbers_of_each_port_reach_the_kernel() -> None:
    seen: list[tuple[int, ...]] = []

    def kernel(x: np.ndarray, y: np.ndarray, z: np.ndarray, *numbers: int) -> None:
        z[:] = 0
        seen.append(numbers)

    names = ("x", "y", "z", "count", "count.x", "bytes.x", "count.y", "bytes.y", "capacity", "capacity.z")
    registry.register(
        Definition(
            name="numbers",
            kernel="numbers",
            arguments=tuple(Argument(name) for name in names),
            inputs=(Port("x", np.dtype("int32")), Port("y", np.dtype("float64"))),
            outputs=(Port("z", np.dtype("int16")),),
            model=kernel,
        )
    )
    with apyfal.Accelerator("numbers") as card:
        assert card.process({"x": np.zeros(5, np.int32), "y": np.zeros(3)}).size == 5
    assert seen == [(5, 5, 20, 3, 24, 10, 10)]


def test_a_model_with_a_wrong_port() -> None:
    with pytest.raises(ConfigurationError, match="'x = 2x' is not an input"):
        apyfal.accelerators.model("again", inputs=("x = 2x",))(lambda x: None)
