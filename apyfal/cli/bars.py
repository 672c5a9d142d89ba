"""Rates as bars: in a terminal, and as an SVG that is legible on light and dark pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from apyfal.units import format_size

__all__ = ["Bar", "svg_bars", "text_bars"]

_WIDTH = 40  # of the longest bar, in characters
_ROW, _LABELS, _BARS = 28, 380, 400  # of the SVG
_STYLE = (
    "svg{color:#1f2330}.ours{color:#3949ab}@media(prefers-color-scheme:dark){svg{color:#e3e5ef}.ours{color:#9fa8da}}"
)


class Bar(NamedTuple):
    """One rate.

    Attributes
    ----------
    name
        Written before it.
    rate
        Bytes a second.
    limit
        Whether it is what is possible, and not what apyfal does.
    """

    name: str
    rate: float
    limit: bool = False


def text_bars(bars: Sequence[Bar]) -> list[str]:
    """Return a line for each bar; of plain characters if standard output has no others."""
    ours, limit = "\u2588", "\u2591"
    try:
        f"{ours}{limit}".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        ours, limit = "#", "-"
    longest = max(bar.rate for bar in bars)
    width = max(len(bar.name) for bar in bars)
    return [
        f"{bar.name:<{width}}  {(limit if bar.limit else ours) * max(1, round(_WIDTH * bar.rate / longest))} "
        f"{format_size(round(bar.rate))}/s"
        for bar in bars
    ]


def svg_bars(title: str, note: str, bars: Sequence[Bar]) -> str:
    """Return a picture with a title, a bar for each rate, and a note below them."""
    longest = max(bar.rate for bar in bars)
    height = 80 + _ROW * len(bars)
    size = f'viewBox="0 0 {_LABELS + _BARS + 120} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui,sans-serif" font-size="14">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="8" y="26" font-size="17" fill="currentColor">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        top = 44 + _ROW * number
        length = max(2.0, _BARS * bar.rate / longest)
        group = "" if bar.limit else ' class="ours"'
        lines.append(
            f'<g{group} fill="currentColor"><text x="{_LABELS - 10}" y="{top + 15}" text-anchor="end">'
            f'{escape(bar.name)}</text><rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="18" rx="2" '
            f'fill-opacity="{0.35 if bar.limit else 0.85}"/><text x="{_LABELS + length + 8:.1f}" y="{top + 15}">'
            f"{format_size(round(bar.rate))}/s</text></g>"
        )
    lines.append(f'<text x="8" y="{height - 10}" font-size="12" fill="currentColor">{escape(note)}</text></svg>')
    return "\n".join([*lines, ""])
