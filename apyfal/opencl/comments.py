"""Lines of C with and without their comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["without_comments"]

# What a line is made of, as far as comments are concerned. Unterminated text ends with its line.
_TOKEN = re.compile(r"""//.*|/\*.*?(?:\*/|$)|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|[^/"']+|/""", re.DOTALL)


def without_comments(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each line, the same without comments, and whether it is a line of its own.

    It is none if a comment goes on from the line before it or in the next one, or a backslash joins it with these.
    """
    in_block = in_line = joined = False
    lines = text.split("\n")
    if not lines[-1]:
        del lines[-1]
    for line in lines:
        alone = not (in_block or joined)
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
        yield line, code, alone and not (in_block or goes_on)
