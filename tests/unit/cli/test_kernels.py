"""``apyfal kernels`` over xclbins, whole and damaged; OpenCL programs are in tests/drivers/test_opencl.py."""

from __future__ import annotations

import contextlib
import json
import random
import re
import struct
from pathlib import Path

import pytest
from fixtures.xrt import xclbin

from apyfal.cli import main
from apyfal.config.configuration import Configuration
from apyfal.device.interface import read_interface
from apyfal.exceptions import ProgramError


def test_an_xclbin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.xclbin").write_bytes(xclbin.xclbin())
    assert main(["kernels", "--json", str(tmp_path / "x.xclbin")]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found.keys() == {kernel.name for kernel in xclbin.KERNELS}
    for kernel in xclbin.KERNELS:
        one = found[kernel.name]
        assert [argument["name"] for argument in one["arguments"]] == list(kernel.arguments)
        expected = [xclbin.TYPES[letter][0] for letter in kernel.signature]
        assert [argument["type"] for argument in one["arguments"]] == expected
        spaces = ["global" if letter == "b" else "private" for letter in kernel.signature]
        assert [argument["space"] for argument in one["arguments"]] == spaces
        assert one["compute_units"] == list(kernel.units)
    assert "inputs     = src: int32\noutputs    = dst: int32\n" in found["fscale"]["section"]
    assert "arguments  = src, dst, count: uint32, a: float32, b: float64" in found["fscale"]["section"]


def test_what_is_printed_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.xclbin").write_bytes(xclbin.xclbin())
    assert main(["kernels", str(tmp_path / "x.xclbin")]) == 0
    printed = capsys.readouterr().out
    assert "join  (compute units join_1, join_2)" in printed
    sections = re.findall(r"^\[accelerator.*?(?=\n\n|\Z)", printed, re.S | re.M)
    assert len(sections) == len(xclbin.KERNELS)
    (tmp_path / "accelerator.conf").write_text("\n".join(sections))
    configuration = Configuration.load(tmp_path / "accelerator.conf")
    assert configuration.section("accelerator.join")["kernel"].text == "join"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"xclbin2\0", "is damaged: an xclbin of 8 bytes"),
        (
            b"xclbin2\0" + bytes(296) + (456).to_bytes(8, "little") + bytes(144),
            "has no metadata that names its kernels",
        ),
        (xclbin.xclbin()[:600], "it has 600 bytes, its header says"),
        (xclbin.xclbin().replace(b"<project", b"<projekt", 1), "its metadata is not XML"),
        (xclbin.xclbin().replace(b"<?xml version", b"<!DOCTYPE x [", 1), "its metadata declares entities"),
    ],
)
def test_damaged_xclbins(program: bytes, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        read_interface(program, "x.xclbin")


def test_no_damage_is_worse_than_an_error() -> None:
    source, whole = random.Random(7), xclbin.xclbin()
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(source.randint(1, 8)):
            data[source.randrange(456, len(data))] = source.randrange(256)
        with contextlib.suppress(ProgramError):
            read_interface(bytes(data), "x")


def test_banks_of_an_xclbin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = xclbin.xclbin()
    found = {one.name: one for one in read_interface(content, "x.xclbin")[1]}
    tags = [tag.decode() for _, _, _, tag in xclbin.BANKS]
    for kernel in xclbin.KERNELS:
        banks = iter(kernel.banks)
        expected = [(tags[next(banks)],) if letter == "b" else () for letter in kernel.signature]
        assert [one.banks for one in found[kernel.name].arguments] == expected, kernel.name
    (tmp_path / "x.xclbin").write_bytes(content)
    assert main(["kernels", str(tmp_path / "x.xclbin")]) == 0
    assert "global DDR[1]" in capsys.readouterr().out


def test_damaged_connections_name_no_banks() -> None:
    content = bytearray(xclbin.xclbin())
    for place in range(struct.unpack_from("<I", content, 448)[0]):
        at = 456 + 40 * place
        if struct.unpack_from("<I", content, at)[0] in (6, 7, 8):
            for offset, length in ((2**63, 8), (0, 2**40), (456, 13)):
                damaged = bytearray(content)
                struct.pack_into("<QQ", damaged, at + 24, offset, length)
                for one in read_interface(bytes(damaged), "x.xclbin")[1]:
                    for argument in one.arguments:
                        assert set(argument.banks) <= {tag.decode() for _, _, _, tag in xclbin.BANKS}
