"""Draw the plots of the page on performance from figures of ``bench/``.

Usage: ``python tools/site/plots.py`` draws those of figures.json into docs/pictures. ``python tools/site/plots.py
FILE.json OUT`` draws each table of a file that a benchmark wrote (``./do bench NAME --json FILE.json``) into a folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from svg import Drawing

ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path(__file__).with_name("figures.json")
PICTURES = ROOT / "docs/pictures"

#: As wide as a phone shows legibly: a name stands above its bar.
_WIDTH, _LEFT, _BARS, _ROW = 480, 4, 410, 42


def plot(title: str, unit: str, rows: list[tuple[str, float]], where: str) -> str:
    """Return a bar chart; bars of apyfal have the accent, the first row that is a limit has a line through all.

    Parameters
    ----------
    title, unit
        What is measured, and in what.
    rows
        Names and values; a limit's name begins with ``limit``.
    where
        Machine, date, source.
    """
    notes = where.split("; ", 1)
    head = f"{title} ({unit})"
    lengths = [16 * len(head), *(14 * len(name) for name, _ in rows), *(12 * len(note) for note in notes)]
    drawing = Drawing(max(_WIDTH, _LEFT + round(0.56 * max(lengths)) + 4), 50 + _ROW * len(rows) + 16 * len(notes) + 6)
    drawing.text(_LEFT, 24, head, size=16, anchor="start", bold=True)
    largest = max(value for _, value in rows)
    limits = [_LEFT + _BARS * value / largest for name, value in rows if name.startswith("limit")]
    for number, (name, value) in enumerate(rows):
        top = 40 + _ROW * number
        ours = "apyfal" in name or name == "process_map"
        length = max(2.0, _BARS * value / largest)
        drawing.text(_LEFT, top + 14, name, size=14, anchor="start", accent=ours)
        drawing.bar(_LEFT, top + 19, length, 14, accent=ours)
        end = max([_LEFT + length, *(x for x in limits if x < _LEFT + length + 44)])  # the line is not in the number
        drawing.text(end + 6, top + 31, _shown(value), size=14, anchor="start", accent=ours)
    for x in limits:
        for number in range(len(rows)):  # beside the bars, not through the names
            drawing.line(x, 58 + _ROW * number, x, 74 + _ROW * number, dashed=True)
    for number, note in enumerate(notes):
        drawing.text(_LEFT, 60 + _ROW * len(rows) + 16 * number, note, size=12, anchor="start")
    return drawing.svg()


def _shown(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,g}"


def drawn() -> dict[str, str]:
    """Return the pictures of the page by file name."""
    figures = json.loads(FIGURES.read_text())
    made = {}
    for one in figures["plots"]:
        date = one.get("date", figures["date"])
        where = f"{figures['machine']}; {date}; median of {one['rounds']}; {one['source']}"
        made[f"plot-{one['file']}.svg"] = plot(one["title"], one["unit"], [tuple(row) for row in one["rows"]], where)
    return made


def of_benchmark(result: dict[str, Any]) -> dict[str, str]:
    """Return the pictures of a benchmark's own file."""
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, load {machine['load']}"
    made = {}
    for number, bench in enumerate(result["benches"]):
        rows = [(row["way"], round(row["median"], 4)) for row in bench["rows"]]
        made[f"plot-{number}.svg"] = plot(bench["question"], "s", rows, where)
    return made


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURES
    place.mkdir(parents=True, exist_ok=True)
    for file, text in (
        of_benchmark(json.loads(Path(sys.argv[1]).read_text())) if len(sys.argv) > 2 else drawn()
    ).items():
        (place / file).write_text(text)
