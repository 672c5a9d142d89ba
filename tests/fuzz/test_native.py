"""Replays seeds of the drivers' parsers and mutations of them, the same in each run, under the sanitizers."""

from __future__ import annotations

from pathlib import Path

from c.building import VARIANTS, Variant, run
from fixtures.xrt import xclbin

HERE = Path(__file__).parent
MUTATIONS = 4000

#: each begins with the byte that chooses the parser: 0 an xclbin, 2 the same with a right length, 1 OpenCL's options,
#: 4 the head of a response
SEEDS = [
    b"\1--global=count -DX=1 --local=64\0__kernel void k() {}",
    b"\1\0// apyfal: --global=count/4 --local=8\n__kernel void k() {}",
    b"\1 -O3\t\n--global=" + b"9" * 200 + b"\0apyfal: --global=",
    b"\1--global=\0apyfal: --",
    b"\1-x\0apyfal: --local=" + b"1" * 96 + b" --global=dst/0",
    b'\4HTTP/1.1 200 OK\r\nContent-Length: 65536\r\nETag: "a"\r\nConnection: keep-alive\r\n\r\n',
    b"\4HTTP/1.1 200 OK\r\nx-amz-checksum-crc64nvme: rosUhgp5mIg=\r\nContent-Length:0\r\nETag: W/\r\n\r\n",
    b"\4HTTP/1.1 200 OK\r\nx-amz-checksum-type: FULL_OBJECT\r\nx-amz-checksum-crc32c: 4waSgw==\r\n\r\n",
    b"\4HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nContent-Length: 999999999999999\r\nTrailer: x\r\n\r\n",
]


def seeds(folder: Path) -> list[Path]:
    texts = [*SEEDS, *(bytes([kind]) + xclbin.xclbin(xclbin.KERNELS[4:5]) for kind in (0, 2))]
    files = [folder / str(number) for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text)
    return [*files, *sorted((HERE / "corpus" / "native").glob("*"))]


def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    program = Variant(VARIANTS["address"], tmp_path).program("parsers", [HERE / "native" / "parsers.c"])
    files = seeds(tmp_path)
    said = run(program, str(MUTATIONS), *map(str, files))
    assert int(said.split()[0]) >= MUTATIONS * len(SEEDS)
