"""The site in Chromium, wide and as on a phone: nothing is cut off or missing, contrast suffices, the search works.

Needs Debian's ``chromium``, and Node.js's ``npm`` once, for axe-core. Screenshots are written into the folder that
``$APYFAL_SCREENSHOTS`` names, if it is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

AXE = "4.10.3"
CACHE = Path(
    os.environ.get("APYFAL_TEST_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apyfal-tests"
)
SIZES = {"wide": (1400, 900), "phone": (390, 844)}
#: Rules about what only a reader can see; the others of axe-core are about structure that the theme makes.
RULES = (
    "color-contrast",
    "image-alt",
    "svg-img-alt",
    "link-name",
    "document-title",
    "html-has-lang",
    "duplicate-id-aria",
)

#: Pages with pictures, code, tables and long lines, of which screenshots are taken.
LOOKED_AT = (
    *("index.html", "start.html", "performance.html", "security.html", "concepts/zero-copy.html"),
    *("concepts/data-path.html", "tutorials/opencl-kernel.html", "reference/configuration-keys.html"),
    "reference/api/trace.html",
)

OVERFLOW = """() => {
    const width = document.documentElement.clientWidth, all = document.documentElement.scrollWidth;
    const scrolled = "pre, .picture-frame, .md-typeset__scrollwrap";
    return all <= width ? [] : [...document.querySelectorAll(".md-content *")]
        .filter((one) => one.getBoundingClientRect().right > width + 1 && !one.closest(scrolled))
        .slice(0, 5).map((one) => one.outerHTML.slice(0, 120)).concat(`${all} > ${width}`);
}"""
BROKEN = """() => [
    ...[...document.images].filter((one) => !one.complete || one.naturalWidth === 0).map((one) => one.src),
    ...[...document.querySelectorAll("svg.picture")].filter((one) => one.getBoundingClientRect().height < 40)
        .map((one) => one.getAttribute("aria-label")),
]"""


@pytest.fixture(scope="session")
def axe() -> str:
    """Return the script of axe-core, which npm brings once."""
    script = CACHE / f"axe-core-{AXE}" / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        assert npm, "npm is missing (Debian: apt install npm)"
        command = [npm, "install", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", script.parents[2]]
        subprocess.run([*command, f"axe-core@{AXE}"], check=True, capture_output=True, timeout=100)
    return script.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "chromium is missing (Debian: apt install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, size: str, scheme: str = "light") -> Iterator[Page]:
    """Open a window; fail if a script of a page fails, or if anything is asked of another host."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or problems.append(one.url))
    yield page
    context.close()
    assert problems == []


@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_the_window(site: Path, browser: Browser, size: str) -> None:
    wide = {}
    with window(browser, size) as page:
        for file in sorted(site.rglob("*.html")):
            if file.name != "404.html":  # its links are for a server
                page.goto(file.as_uri())
                if found := page.evaluate(OVERFLOW) + page.evaluate(BROKEN):
                    wide[str(file.relative_to(site))] = found
    assert wide == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("wide", "dark"), ("phone", "dark")])
def test_pages_are_legible(site: Path, browser: Browser, axe: str, size: str, scheme: str) -> None:
    shots = os.environ.get("APYFAL_SCREENSHOTS")
    options = {"runOnly": {"type": "rule", "values": list(RULES)}}
    found = {}
    with window(browser, size, scheme) as page:
        assert all((site / name).exists() for name in LOOKED_AT)
        for file in sorted(site.rglob("*.html")):
            name = file.relative_to(site).as_posix()
            # all of them in one way, since it takes a second a page; 404: its links are for a server
            if name == "404.html" or ((size, scheme) != ("wide", "light") and name not in LOOKED_AT):
                continue
            page.goto(file.as_uri())
            used = page.locator("body").get_attribute("data-md-color-scheme")
            assert used == {"light": "default", "dark": "slate"}[scheme]
            if shots and name in LOOKED_AT:
                page.screenshot(path=Path(shots) / f"{size}-{scheme}-{name.replace('/', '-')}.png")
            page.evaluate(axe)
            for problem in page.evaluate("(options) => axe.run(document, options)", options)["violations"]:
                nodes = [(node["html"][:100], node["failureSummary"][:200]) for node in problem["nodes"][:3]]
                found[f"{name}: {problem['id']}"] = nodes
    assert found == {}


@pytest.mark.parametrize("size", SIZES)
def test_the_search_finds_without_a_server(site: Path, browser: Browser, size: str) -> None:
    with window(browser, size) as page:
        page.goto((site / "index.html").as_uri())
        if size == "phone":
            page.locator("header label[for=__search]").first.click()
        page.wait_for_function("document.querySelectorAll('iframe').length > 0")
        found = page.locator(".md-search-result__item a").first
        for _ in range(60):
            page.locator("input.md-search__input").fill("")
            page.locator("input.md-search__input").press_sequentially("authorized_host_dirs")
            page.wait_for_timeout(500)
            if found.count():
                break
        assert "authorized_host_dirs" in page.locator(".md-search-result").inner_text()
