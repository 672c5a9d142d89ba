"""Lines of C with and without their comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Line", "without_comments"]

# The parts of a line that matter for comments. An unterminated string ends with its line.
_TOKEN = re.compile(r"""//.*|/\*.*?(?:\*/|$)|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|[^/"']+|/""", re.DOTALL)


class Line(NamedTuple):
    """One line of a file.

    Attributes
    ----------
    text, code
        The line as it is, and without comments.
    begins, ends
        Whether the line begins a logical line, and whether it ends one: a comment or a backslash can join lines.
    commented
        Whether a comment continues after the line.
    """

    text: str
    code: str
    begins: bool
    ends: bool
    commented: bool


def without_comments(text: str) -> Iterator[Line]:
    """Yield the lines of a text."""
    in_block = in_line = joined = False
    lines = text.split("\n")
    if not lines[-1]:
        del lines[-1]
    for line in lines:
        begins = not (in_block or joined)
        goes_on = line.rstrip("\r").endswith("\\")
        code, rest = "", line
        if in_block:
            end = line.find("*/")
            in_block, rest = end < 0, "" if end < 0 else line[end + 2 :]
        elif in_line:
            in_line, rest = goes_on, ""
        for token in _TOKEN.findall(rest):
            if token.startswith("//"):
                in_line = goes_on
            elif token.startswith("/*"):
                in_block = len(token) < 4 or not token.endswith("*/")
                code += " "
            else:
                code += token
        joined = goes_on
        yield Line(line, code, begins, not (in_block or goes_on), in_block)
