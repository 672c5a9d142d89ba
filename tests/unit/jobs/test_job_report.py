"""`process(..., report=True)` and its relatives return a `JobReport`: on a card, a pool, a cluster; blocks nest."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apyfal
from apyfal import cluster_worker
from apyfal.exceptions import ClosedError, HostError, ParameterError, StorageError

COUNT = 1000


@pytest.fixture(params=["accelerator", "pool", "cluster"])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(cluster_worker, "_open", workers := {})
    executor = ThreadPoolExecutor(2)
    if request.param == "accelerator":
        opened: Any = apyfal.Accelerator("scale")
    elif request.param == "pool":
        opened = apyfal.AcceleratorPoolExecutor("scale", 2, emulator={"devices": 2})
    else:
        opened = apyfal.AcceleratorPoolExecutor("scale", 2, executor=executor)
    with opened:
        yield opened
    executor.shutdown()
    for worker in workers.values():
        worker.stop()


WAYS: dict[str, Callable[..., Any]] = {
    "process": lambda card, src, dst, **keywords: card.process(src, dst, a=3, **keywords),
    "process_submit": lambda card, src, dst, **keywords: card.process_submit(src, dst, a=3, **keywords).result(),
    "process_map": lambda card, src, dst, **keywords: list(card.process_map([src] * 3, [dst] * 3, a=3, **keywords))[-1],
    "many": lambda card, src, dst, **keywords: list(card.process_map([src] * 300, [dst] * 300, a=3, **keywords))[-1],
    "prepare": lambda card, src, dst, **keywords: card.prepare(src, dst, a=3)(**keywords),
    "prepare.submit": lambda card, src, dst, **keywords: card.prepare(src, dst, a=3).submit(**keywords).result(),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_run_a_job_reports_it(card: Any, way: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    np.arange(COUNT, dtype="i4").tofile(source)
    report = WAYS[way](card, str(source), str(target), report=True)
    assert type(report) is apyfal.JobReport
    assert report.result is None
    assert target.read_bytes() == (np.fromfile(source, "u1") * 3).astype("u1").tobytes()
    assert (report.bytes_in, report.bytes_out) == (4 * COUNT, 4 * COUNT)
    assert report.driver == "emulator"
    assert report.bytes_moved.keys() == {"to_device", "from_device"}
    assert report.seconds["total"] > 0
    assert WAYS[way](card, str(source), str(target), report=False) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("odd", [1, 0.0, None, "yes", [True]])
def test_report_is_true_or_false(way: str, odd: object) -> None:
    with apyfal.Accelerator("scale") as card:
        source = np.arange(COUNT, dtype="i4")
        if not odd:  # as for any flag
            assert isinstance(WAYS[way](card, source, np.empty_like(source), report=odd), np.ndarray)
            return
        with pytest.raises(ParameterError, match=r"report: .*expected True or False"):
            WAYS[way](card, source, np.empty_like(source), report=odd)


def test_the_report_is_what_info_dict_receives() -> None:
    info: dict[str, Any] = {"host": "of another job", "mine": 1}
    with apyfal.Accelerator("scale") as card:
        source = np.arange(COUNT, dtype="i4")[1:]
        report = card.process(source, a=2, info_dict=info, report=True)
    np.testing.assert_array_equal(report.result, source * 2)
    for name in ("bytes_in", "bytes_out", "bytes_copied", "bytes_moved", "seconds", "chunks", "device", "limit"):
        assert getattr(report, name) == info[name]
    assert list(report.copy_reasons) == info["copy_reasons"] != []
    assert list(report.timeline) == info["timeline"] != []
    assert report.host is None
    assert info["mine"] == 1


def test_a_job_that_fails_raises_and_fills_info_dict(tmp_path: Path) -> None:
    info: dict[str, Any] = {}
    with apyfal.Accelerator("scale") as card, pytest.raises((StorageError, OSError)):
        card.process(tmp_path / "none", report=True, info_dict=info)
    assert "bytes_in" in info


def test_prepare_refuses_report_and_no_parameter_has_its_name() -> None:
    with apyfal.Accelerator("scale") as card, pytest.raises(ParameterError, match="report: expected in the call"):
        card.prepare(np.zeros(3, "i4"), report=True)
    with pytest.raises(apyfal.exceptions.ConfigurationError, match="report"):
        apyfal.Accelerator("loopback", parameters="report: int32 = 1")


class _Cells(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


ODD = {
    "device": "<script>alert(1)</script>\x1b[2J\nnext & \u202elast", "driver": "d<b>", "host": "https://h'\"<i>",
    "bytes_in": 4096, "bytes_out": 0, "bytes_copied": 1, "copy_reasons": ["<u>why</u>"],
    "bytes_moved": {"to_device": 1 << 20, "from_device": 0}, "seconds": {"fetch": 0.5, "total": 2.0, "<s>": 1.0},
    "chunks": 2, "limit": "<em>fetch 97 %", "cycles": 1234567,
}  # fmt: skip


def test_its_texts_are_one_line_and_escaped() -> None:
    report = apyfal.JobReport.of("result", ODD)
    text = repr(report)
    assert text.isprintable()
    for part in ("4.0 KiB in", "0 B out", "1 B copied", "1.0 MiB moved", "2.0 s", "fetch 97 %"):
        assert part in text
    cells = _Cells()
    cells.feed(report._repr_html_())
    assert cells.tags == {"table", "tr", "th", "td"}
    for part in ("<script>alert(1)</script>", "<u>why</u>", "<s> 1.0 s", "1,234,567", "1.0 MiB to device"):
        assert part in cells.text
    assert "\x1b" not in cells.text
    again = pickle.loads(pickle.dumps(report))
    assert again._repr_html_() == report._repr_html_()


@pytest.mark.parametrize("name", ["bytes_in", "bytes_moved", "seconds", "copy_reasons", "cycles", "d<b>"])
@pytest.mark.parametrize("odd", ["many", 3.5j, [[1]], float("inf")])
def test_values_of_a_host_that_are_none_are_named(name: str, odd: object) -> None:
    try:
        assert isinstance(repr(apyfal.JobReport.of(None, {**ODD, name: odd})), str)
    except HostError as error:
        assert "report cannot be read" in str(error)  # noqa: PT017 - some values have a meaning


def test_an_empty_report_has_texts() -> None:
    assert repr(apyfal.JobReport.of(None, {})) == "<JobReport : 0 B in, 0 B out, 0 B copied, 0 B moved, 0 us>"
    assert "<table>" in apyfal.JobReport.of(None, {})._repr_html_()


# -- blocks that nest -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [None, KeyError("inside")])
def test_only_the_last_block_closes(card: Any, error: Exception | None, tmp_path: Path) -> None:
    source = tmp_path / "in"
    np.arange(COUNT, dtype="i4").tofile(source)  # the fixture's block is the outer one
    for _ in range(2):
        try:
            with card as inner, card:
                assert inner is card
                future = card.process_submit(str(source), str(tmp_path / "out"))
                if error is not None:
                    raise error
        except KeyError as raised:
            assert raised is error  # noqa: PT017 - raised in one of two rows
        assert future.result(20) is None
        assert card.process(str(source), str(tmp_path / "out")) is None


def test_stop_closes_whatever_block_is_open() -> None:
    card = apyfal.Accelerator("scale")
    with card:
        with card:
            card.stop()
        with pytest.raises(ClosedError), card:
            pass
    with card_again() as opened:
        opened.process(np.zeros(3, "i4"))
    with pytest.raises(ClosedError):
        opened.process(np.zeros(3, "i4"))


def card_again() -> apyfal.Accelerator:
    return apyfal.Accelerator("scale")
