"""The pictures are those that the scripts draw, and the figures of the plots those of ``bench/README.md``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/site"))
import pictures  # noqa: E402 - from the path above
import plots  # noqa: E402

PICTURES = ROOT / "docs/pictures"
DRAWN = {**pictures.drawn(), **plots.drawn()}
FIGURES = json.loads(plots.FIGURES.read_text())
README = (ROOT / "bench/README.md").read_text().replace("`", "").replace(",", "")


def test_the_pictures_are_drawn_by_the_scripts() -> None:
    assert {file.name for file in PICTURES.iterdir()} == set(DRAWN)
    for file, text in DRAWN.items():
        assert (PICTURES / file).read_text() == text, f"{file} is old; run tools/site/pictures.py and plots.py"


@pytest.mark.parametrize("file", sorted(DRAWN))
def test_a_picture_is_legible_in_both_themes(file: str) -> None:
    tree = ElementTree.fromstring(DRAWN[file])
    colours = {value for element in tree.iter() for name, value in element.attrib.items() if name in ("fill", "stroke")}
    assert colours <= {"currentColor", "none"}
    assert "prefers-color-scheme:dark" in DRAWN[file]
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    for element in tree.iter("{http://www.w3.org/2000/svg}text"):
        size, words = float(element.attrib["font-size"]), element.text or ""
        length = 0.54 * size * len(words)
        x, anchor = float(element.attrib["x"]), element.attrib["text-anchor"]
        left = x - length * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        assert left >= 0, words
        assert left + length <= width, words
        assert size <= float(element.attrib["y"]) <= height, words


@pytest.mark.parametrize("one", FIGURES["plots"], ids=lambda one: one["file"])
def test_the_figures_are_those_of_the_benchmarks(one: dict[str, object]) -> None:
    assert (ROOT / str(one["source"])).is_file()
    for name, value in one["rows"]:  # type: ignore[attr-defined]
        digits = f"{value:g}" if value >= 10 else f"{value:.2f}"
        cell = rf"\| {re.escape(digits)}0?( \(|0? \|)"
        rows = [line for line in README.splitlines() if line.startswith("|") and re.search(cell, line)]
        words = re.findall(r"[A-Za-z0-9]{3,}", name.replace(",", ""))
        best = max((sum(word in line for word in words) / len(words) for line in rows), default=0)
        assert rows, f"no table of bench/README.md has {digits} of {name!r}"
        assert best >= 0.5 or one["file"] in ("drivers", "small-jobs"), (name, rows)


def test_a_benchmarks_own_file_is_drawn() -> None:
    machine = {"processor": "any", "cores": 2, "python": "3.11", "load": 0.1}
    rows = [{"way": "limit: bare", "median": 0.5}, {"way": "apyfal", "median": 0.6}]
    drawn = plots.of_benchmark({"machine": machine, "benches": [{"question": "reading", "rows": rows}]})
    assert "apyfal" in drawn["plot-0.svg"]
    assert "stroke-dasharray" in drawn["plot-0.svg"]  # the limit
