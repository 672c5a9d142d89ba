"""What MkDocs does for the site beside its own work: pages made from the code and from files at the top of the tree."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
import api_pages  # noqa: E402 - from the path above
import command_page  # noqa: E402
import configuration_page  # noqa: E402
import rooms_picture  # noqa: E402

#: Pages that are files at the top of the tree.
_FROM_THE_TOP = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
#: Links from there to files that the site does not have.
_OUTSIDE = re.compile(r"\[[^]]*\]\(((?:tests|csrc|bench|packaging)/[^)]*)\)")
_MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.M | re.S)
_SVG = re.compile(r'^<p><img alt="([^"]*)" src="([^"]*\.svg)" ?/?></p>$', re.M)
#: Short code with a hyphen, of which browsers put one half on the next line: ``-o``, ``--jobs N``.
_OPTION = re.compile(r"<code>(?=[^<]{1,20}</code>)([^<]*-[^<]*)</code>")
_WIDTH = re.compile(r'viewBox="0 0 (\d+)')
_STYLE = re.compile(r"<style>.*?</style>", re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files below docs/."""
    for page, name in _FROM_THE_TOP.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        for other, file in _FROM_THE_TOP.items():
            text = text.replace(f"]({file}", f"]({other}")
        files.append(File.generated(config, page, content=_OUTSIDE.sub(r"`\1`", text)))
    made = api_pages.pages()
    made |= {generator.PAGE: generator.page() for generator in (command_page, configuration_page)}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Draw the folders, for which GitHub has a diagram of its own."""
    if page.file.src_uri == "architecture.md":
        return _MERMAID.sub(lambda _: f'<div class="picture-frame">{rooms_picture.picture()}</div>', markdown)
    return markdown


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Put pictures into the page itself, so that they take its colours, and keep options in one piece."""
    here = ROOT / "docs" / page.file.src_uri

    def inline(match: re.Match[str]) -> str:
        # The page's address has as many folders as its file, since directory URLs are off.
        svg = _STYLE.sub("", (here.parent / match[2]).resolve().read_text())
        narrow = " narrow" if float(_WIDTH.findall(svg)[0]) <= 500 else ""
        head = f'<svg class="picture{narrow}" role="img" aria-label="{match[1]}" '
        return f'<div class="picture-frame">{svg.replace("<svg ", head, 1)}</div>'

    return _OPTION.sub(r'<code class="option">\1</code>', _SVG.sub(inline, html))
