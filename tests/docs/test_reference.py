"""The reference is whole: every public name, every command and option, every key of the configuration is in it."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import click
import pytest

from apyfal.cli import COMMANDS
from apyfal.config.schema import KINDS
from apyfal.storage import providers
from apyfal.storage.mounting.parameters import accepted

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/site"))
from api_pages import PAGES  # noqa: E402 - from the path above

MODULES = [module for _, _, modules in PAGES.values() for module in modules]


def text_of(site: Path, page: str) -> str:
    """Return a page's text, as a browser shows it."""
    return unescape(re.sub(r"<[^>]*>", "", (site / page).read_text()))


def members(path: str, value: type) -> list[str]:
    """Return the public methods and properties of a class that apyfal defines, with their path."""
    found = []
    for name in dir(value):
        owner = next((base for base in value.__mro__ if name in vars(base)), None)
        if owner is None or name.startswith("_") or not owner.__module__.startswith("apyfal"):
            continue
        if inspect.isroutine(getattr(value, name)) or isinstance(vars(owner)[name], property):
            found.append(f"{path}.{name}")
    return found


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_name_has_an_entry(site: Path, module_name: str) -> None:
    module = importlib.import_module(module_name)
    page = next(name for name, (_, _, modules) in PAGES.items() if module_name in modules)
    first = importlib.import_module(PAGES[page][2][0])
    anchors = set(re.findall(r'id="([^"]+)"', (site / f"reference/api/{page}.html").read_text()))
    expected = []
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            assert value.__name__ in MODULES
            continue
        if module is not first and name in first.__all__:  # it has one entry
            assert value is getattr(first, name)
            continue
        expected.append(f"{module_name}.{name}")
        if isinstance(value, type):
            expected += members(f"{module_name}.{name}", value)
    lost = [path for path in expected if path not in anchors]
    assert lost == []


def test_the_modules_that_users_import_are_listed() -> None:
    for name in ("apyfal", "apyfal.storage", "apyfal.exceptions", "apyfal.accelerators"):
        assert name in MODULES


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_listed(site: Path, name: str) -> None:
    text = text_of(site, "reference/command-line.html")
    command = importlib.import_module(COMMANDS[name][0]).command
    waiting = [(f"apyfal {name}", command)]
    while waiting:
        path, one = waiting.pop()
        assert path in text
        for option in one.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert max(option.opts, key=len) in text, (path, option.opts)
        if isinstance(one, click.Group):
            waiting += [(f"{path} {inner}", each) for inner, each in one.commands.items()]


def test_examples_of_commands_keep_their_lines(site: Path) -> None:
    page = (site / "reference/command-line.html").read_text()
    assert "\b" not in page
    lines = text_of(site, "reference/command-line.html").splitlines()
    assert "apyfal process -a sha3 README.md" in lines


@pytest.mark.parametrize("kind", [kind for kind, keys in KINDS.items() if keys])
def test_every_key_is_listed(site: Path, kind: str) -> None:
    page = (site / "reference/configuration-keys.html").read_text()
    section = next(part for part in page.split("<h2")[1:] if f"[{kind}" in part.partition("</h2>")[0])
    for key in KINDS[kind] or ():
        assert f"<td><code>{key}</code></td>" in section


@pytest.mark.parametrize("provider", [name for name in providers.BUILT_IN if name != "file"])
def test_every_parameter_of_a_mount_is_listed(site: Path, provider: str) -> None:
    page = (site / "reference/configuration-keys.html").read_text()
    shown = "http" if provider == "https" else provider  # https has the parameters of http
    head, _, section = page.partition(f"Keys of <code>{shown}</code>")
    assert section
    common = head.rpartition("<h2")[2]
    for name in accepted(providers.handler_factory(providers.BUILT_IN[provider])):
        assert f"<td><code>{name}</code></td>" in section.partition("<h3")[0] + common, name


def test_a_key_without_a_meaning_fails_the_build() -> None:
    from configuration_page import parameters_of

    class Undescribed:
        """A provider whose parameter nobody describes."""

        def __init__(self, *, secret_sauce: str | None = None) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("configuration_page.handler_factory", lambda provider: Undescribed)
        with pytest.raises(KeyError, match="secret_sauce"):
            parameters_of("s3")
