"""The built site: links lead somewhere, pictures are there, and nothing is loaded from other hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class Links(HTMLParser):
    """What a page refers to: links of its reader, and what the browser loads by itself."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses of one element."""
        found = {name: value or "" for name, value in attrs}
        self.anchors.update(found[name] for name in ("id", "name") if found.get(name))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "prefetch"):
            self.loaded.append(found["href"])
        elif tag in ("img", "script", "iframe", "source", "video", "object") and found.get("src", found.get("data")):
            self.loaded.append(found.get("src") or found["data"])


def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {page: read(page) for page in sorted(site.rglob("*.html"))}


def test_links_lead_to_pages_and_sections_that_are_there(site: Path, pages: dict[Path, Links]) -> None:
    dead = []
    for page, links in pages.items():
        for link in links.links:
            parts = urlsplit(link)
            # the page for addresses that are not there has absolute links
            if parts.scheme in ("http", "https") or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            if not target.is_file() or (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
                and not parts.fragment.startswith("__")  # the theme's own
            ):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []
    assert len(pages) > 12


def test_nothing_is_loaded_from_other_hosts(site: Path, pages: dict[Path, Links]) -> None:
    missing = []
    for page, links in pages.items():
        for address in links.loaded:
            parts = urlsplit(address)
            inside = not parts.scheme and not parts.netloc
            if page.name == "404.html":
                place = site / unquote(parts.path).lstrip("/")
            else:
                place = (page.parent / unquote(parts.path)).resolve()
            if not inside or not place.is_file():
                missing.append(f"{page.relative_to(site)}: {address}")
    assert missing == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert [word for word in ("url(http", "url(//", "@import") if word in text] == [], sheet


def test_the_search_works_without_a_server(site: Path) -> None:
    assert (site / "search/search_index.js").read_text().startswith("var __index")
    assert "accelerator" in (site / "search/search_index.js").read_text()
