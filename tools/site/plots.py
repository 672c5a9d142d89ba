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

_LABELS, _BARS, _ROW = 420, 400, 30


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
    drawing = Drawing(_LABELS + _BARS + 90, 56 + _ROW * len(rows) + 22)
    drawing.text(8, 24, f"{title} ({unit})", size=17, anchor="start", bold=True)
    largest = max(value for _, value in rows)
    for number, (name, value) in enumerate(rows):
        top = 44 + _ROW * number
        ours = "apyfal" in name or name == "process_map"
        drawing.text(_LABELS - 10, top + 16, name, size=14, anchor="end", accent=ours)
        drawing.bar(_LABELS, top, max(2.0, _BARS * value / largest), 20, accent=ours)
        drawing.text(
            _LABELS + _BARS * value / largest + 8, top + 16, _shown(value), size=14, anchor="start", accent=ours
        )
    for name, value in rows:
        if name.startswith("limit"):
            x = _LABELS + _BARS * value / largest
            drawing.line(x, 38, x, 44 + _ROW * len(rows), dashed=True)
    drawing.text(8, drawing.height - 8, where, size=12, anchor="start")
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
