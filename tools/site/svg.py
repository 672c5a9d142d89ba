"""Draw SVG that is legible on light and dark pages: every line and letter has the text's colour."""

from __future__ import annotations

import math
from html import escape

__all__ = ["Drawing"]

#: For a reader who opens the file by itself; the site leaves it out, and gives the page's own colours.
_STYLE = (
    "<style>svg{color:#1f2330}.accent{color:#3949ab}"
    "@media (prefers-color-scheme:dark){svg{color:#e3e5ef}.accent{color:#9fa8da}}</style>"
)


class Drawing:
    """A picture in the making. Lengths are in its own units; letters are 15 high.

    Parameters
    ----------
    width, height
        Size of the picture.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 15,
        anchor: str = "middle",
        accent: bool = False,
        bold: bool = False,
    ) -> None:
        """Write one line; `y` is its base line."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-family="system-ui,sans-serif" font-size="{size}"{weight} '
            f'text-anchor="{anchor}" fill="currentColor"{_class(accent)}>{escape(words)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str = "",
        *,
        accent: bool = False,
        dashed: bool = False,
        filled: bool = False,
        top: bool = False,
    ) -> None:
        """Draw a rectangle with lines of text (separated by line ends) in its middle, or at its top."""
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        fill = 'fill="currentColor" fill-opacity="0.14"' if filled else 'fill="none"'
        stroke = 2 if accent else 1.3
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" {fill} stroke="currentColor" '
            f'stroke-width="{stroke}"{dash}{_class(accent)}/>'
        )
        lines = words.split("\n") if words else []
        first = y + 20 if top else y + height / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.text(x + width / 2, first + 18 * number, line, accent=accent, bold=top and number == 0)

    def arrow(
        self,
        x: float,
        y: float,
        to_x: float,
        to_y: float,
        words: str = "",
        *,
        accent: bool = False,
        dashed: bool = False,
        above: float = 8,
    ) -> None:
        """Draw an arrow with a text above its middle."""
        length = math.hypot(to_x - x, to_y - y)
        across, down = (to_x - x) / length, (to_y - y) / length
        base_x, base_y = to_x - 10 * across, to_y - 10 * down
        corners = [(to_x, to_y), (base_x - 5 * down, base_y + 5 * across), (base_x + 5 * down, base_y - 5 * across)]
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top in corners)
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<g{_class(accent)}><path d="M{x:g} {y:g}L{base_x:.1f} {base_y:.1f}" stroke="currentColor" '
            f'stroke-width="1.6" fill="none"{dash}/><polygon points="{points}" fill="currentColor"/></g>'
        )
        if words:
            self.text((x + to_x) / 2, (y + to_y) / 2 - above, words, size=14, accent=accent)

    def line(self, x: float, y: float, to_x: float, to_y: float, *, dashed: bool = False) -> None:
        """Draw a line."""
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="currentColor" stroke-width="1.2" fill="none"{dash}/>'
        )

    def bar(self, x: float, y: float, width: float, height: float, *, accent: bool) -> None:
        """Draw a filled bar; one without accent is paler."""
        opacity = "0.85" if accent else "0.35"
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:g}" rx="2" fill="currentColor" '
            f'fill-opacity="{opacity}"{_class(accent)}/>'
        )

    def svg(self) -> str:
        """Return the file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}">'
        return "\n".join([head, _STYLE, *self._parts, "</svg>", ""])


def _class(accent: bool) -> str:
    return ' class="accent"' if accent else ""
