"""Draw the folders of apyfal by level, for the page on architecture."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/unit"))
from test_layers import ROOMS  # noqa: E402 - from the path above

_XMLNS = "http://www.w3.org/2000/svg"
_ROW, _GAP, _WIDTH = 34, 14, 1000


def picture() -> str:
    """Return an SVG with a row a level, the lowest at the bottom."""
    rows = [sorted(row.split()) for row in reversed(ROOMS)]
    height = len(rows) * (_ROW + _GAP) + _GAP
    label = "Folders of apyfal by level: each imports folders of the rows below it"
    size = f"0 0 {_WIDTH} {height}"
    parts = [f'<svg class="picture" xmlns="{_XMLNS}" viewBox="{size}" role="img" aria-label="{label}">']
    for line, names in enumerate(rows):
        top = _GAP + line * (_ROW + _GAP)
        level = len(rows) - 1 - line
        parts.append(f'<text x="8" y="{top + 22}" font-size="14" fill="currentColor">{level}</text>')
        width = (_WIDTH - 40 - _GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            left = 40 + column * (width + _GAP)
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_ROW}" rx="5" fill="none" '
                'stroke="currentColor"/>'
                f'<text x="{left + width / 2:.1f}" y="{top + 22}" font-size="14" text-anchor="middle" '
                f'fill="currentColor">{escape(name)}</text>'
            )
    return "".join([*parts, "</svg>"])
