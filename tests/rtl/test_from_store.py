"""An S3 object through Verilog to an S3 object in one call, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.stores.moto import Moto

import apyfal
from apyfal import storage

pytestmark = [pytest.mark.vendor, pytest.mark.server]

COUNT = 8_000_003  # 32 MB in and 32 MB out
LIMIT = 2 << 20
#: what both processes may grow by in a second job, together; what connections and uploads keep is there after the first
GROWTH = 20 << 20


def peak(pid: int | str) -> int:
    """The most bytes of memory that a process had since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def forget_peak(pid: int | str) -> int:
    """Begin to measure anew; what the process has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return peak(pid)


def simulators() -> list[int]:
    """The processes of simulated designs that this one has started."""
    children = [child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()]
    return [int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "simulator"]


def test_from_s3_through_verilog_to_s3(moto_server: Moto) -> None:
    storage.mount(
        "s3.rtl",
        endpoint_url=moto_server.endpoint_url,
        client_id=moto_server.access_key,
        secret_id=moto_server.secret_key,
        region="us-east-1",
        config={},
    )
    try:
        storage.makedirs("s3.rtl://rtl-bucket/")
        values = np.random.default_rng(5).integers(-(1 << 31), 1 << 31, COUNT).astype("int32")
        storage.save("s3.rtl://rtl-bucket/in", values)
        info: dict[str, Any] = {}
        with apyfal.Accelerator("scale", driver="rtl", dtype="int32", rtl={"optimize": 1}) as card:
            device = card._context.device
            del values
            card.process("s3.rtl://rtl-bucket/in", "s3.rtl://rtl-bucket/warm", a=3, b=-1, memory_limit=LIMIT)
            used = device.counters()["memory_used"]
            processes = ["self", *simulators()]
            assert len(processes) == 2
            before = sum(forget_peak(pid) for pid in processes)
            card.process(
                "s3.rtl://rtl-bucket/in", "s3.rtl://rtl-bucket/out", a=3, b=-1, info_dict=info, memory_limit=LIMIT
            )
            assert device.counters()["memory_used"] - used <= 2 * LIMIT
            grown = sum(peak(pid) for pid in processes) - before
            assert grown <= GROWTH, grown
        np.testing.assert_array_equal(
            storage.load("s3.rtl://rtl-bucket/out", dtype="int32"),
            storage.load("s3.rtl://rtl-bucket/in", dtype="int32") * np.int32(3) - np.int32(1),
        )
    finally:
        storage.unmount("s3.rtl")
    port = info["rtl"]["ports"]["m_axi_gmem"]
    assert (port["read"], port["written"]) == (4 * COUNT + 4, 4 * COUNT)  # the last word is read whole
    assert info["bytes_copied"] == 0
    assert info["chunks"] >= 4 * COUNT // LIMIT
