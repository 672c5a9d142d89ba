"""The timeline of a job: what limits it in words, and the trace that viewers open."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import apyfal
from apyfal.cli.trace import trace_events, write_trace
from apyfal.pipeline.reports.report import STAGES, Span, bottleneck_of

MIB = 1 << 20


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ([], ""),
        ([("fetch", 0, 6.2), ("compute", 3.8, 10)], "fetch 62 %, card idle 38 %"),
        # Ranges that arrive at the same time count once; the card is at work while any part of it is.
        ([("fetch", 0, 4), ("fetch", 1, 5), ("fetch", 2, 3), ("to_device", 5, 6)], "fetch 50 %, card idle 90 %"),
        ([("to_device", 0, 5), ("compute", 4, 10), ("from_device", 9, 10)], "compute 60 %, card idle 0 %"),
        ([("store", 0, 12)], "store 100 %, card idle 100 %"),
    ],
)
def test_what_limits_a_job(spans: list[tuple[str, float, float]], text: str) -> None:
    assert bottleneck_of([Span(stage, 0, start, end) for stage, start, end in spans], 10.0) == text


@pytest.mark.parametrize(
    ("slow", "stage"),
    [("to_device_bandwidth", "to_device"), ("compute_bandwidth", "compute"), ("from_device_bandwidth", "from_device")],
)
def test_the_slow_part_of_a_card_is_named(slow: str, stage: str) -> None:
    info: dict[str, object] = {}
    seen: list[object] = []
    with apyfal.Accelerator("loopback", emulator={slow: "20MiB"}) as accelerator:
        data, result = (accelerator.empty(32 * MIB, "u1") for _ in range(2))  # making these takes long, too
        accelerator.process(data, result, info_dict=info, progress=lambda done, total: seen.append(info["limit"]))
    assert str(info["limit"]).startswith(f"{stage} ")
    assert str(seen[-1]).startswith(f"{stage} "), "it is known while the job goes on"


def test_a_slow_source_is_named() -> None:
    import io
    import time

    class Slow(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            time.sleep(0.01)
            return super().readinto(memoryview(buffer)[:MIB])  # type: ignore[arg-type]  # any buffer

    info: dict[str, object] = {}
    with apyfal.Accelerator("loopback") as accelerator:
        accelerator.process(Slow(bytes(40 * MIB)), info_dict=info)
    assert str(info["limit"]).startswith("fetch ")


def test_the_trace_is_valid_and_its_lanes_sum_to_the_measured_times(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(np.random.default_rng(1).bytes(50 * MIB))
    info: dict[str, object] = {}
    with apyfal.Accelerator("loopback", emulator={"to_device_bandwidth": "1GiB"}) as accelerator:
        accelerator.process(source, tmp_path / "out", info_dict=info)
    assert [span.stage for span in info["timeline"]][:3] == ["prepare", "build", "prepare"]  # type: ignore[attr-defined]
    write_trace(tmp_path / "trace.json", info["timeline"])  # type: ignore[arg-type]  # a dict of all kinds
    document = json.loads((tmp_path / "trace.json").read_text(), parse_constant=pytest.fail)
    assert document["displayTimeUnit"] == "ms"
    lanes: dict[int, str] = {}
    slices: dict[int, list[tuple[float, float]]] = {}
    sums = dict.fromkeys(STAGES, 0.0)
    for event in document["traceEvents"]:
        assert event["pid"] == 1
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] == "thread_name"
            lanes[event["tid"]] = event["args"]["name"]
            continue
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        slices.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
        sums[lanes[event["tid"]].partition(" (")[0]] += event["dur"] / 1e6
    assert set(lanes.values()) >= set(STAGES)
    seconds = info["seconds"]
    assert isinstance(seconds, dict)
    for stage in STAGES:
        assert sums[stage] == pytest.approx(seconds[stage], rel=1e-6, abs=1e-9)
        assert sums[stage] > 0
    for spans in slices.values():  # in one lane nothing overlaps
        ordered = sorted(spans)
        assert all(before[1] <= after[0] + 1e-3 for before, after in itertools.pairwise(ordered))
    assert max(end for spans in slices.values() for _, end in spans) / 1e6 <= seconds["total"]


def test_chunks_that_arrive_at_once_get_lanes_of_their_own() -> None:
    events = trace_events(
        [("fetch", 0, 0.0, 2.0), ("fetch", 1, 1.0, 3.0), ("fetch", 2, 2.0, 4.0), ("store", 0, 2.0, 3.0)]
    )
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}  # type: ignore[index]
    assert sorted(names.values()) == ["fetch", "fetch (2)", "store"]
    assert [names[event["tid"]] for event in events if event["ph"] == "X"] == ["fetch", "fetch (2)", "store", "fetch"]
