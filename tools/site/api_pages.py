"""Make the reference of the Python interface: a page for each public module, an entry for each public name."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType

INDEX = "reference/api/index.md"


@dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes
    ----------
    path
        As mkdocstrings takes it.
    shown
        As users write it.
    summary
        The first sentence of its docstring.
    """

    path: str
    shown: str
    summary: str


#: Page to its title, what it is for, and the modules whose ``__all__`` it shows.
PAGES = {
    "apyfal": ("apyfal", "What `import apyfal` gives.", ("apyfal", "apyfal.pool")),
    "storage": ("apyfal.storage", "Files and objects by their URL.", ("apyfal.storage",)),
    "accelerators": (
        "apyfal.accelerators",
        "Accelerators by name, and software models. `apyfal.accelerators()` lists all accelerators as `Definition`s.",
        ("apyfal.accelerators", "apyfal.definition"),
    ),
    "exceptions": ("apyfal.exceptions", "Every error that apyfal raises.", ("apyfal.exceptions",)),
    "remote": (
        "apyfal.host.client",
        "What `host_ip=` uses.",
        ("apyfal.host.client.accelerator", "apyfal.host.client.store"),
    ),
    "providers": (
        "apyfal.storage.handler",
        "For those who write a storage provider.",
        ("apyfal.storage.handler", "apyfal.storage.metadata", "apyfal.storage.flow.options"),
    ),
    "testing": (
        "apyfal.testing",
        "Suites for storage providers, and a pytest fixture for RTL. They need `pytest`.",
        ("apyfal.testing.storage", "apyfal.testing.handlers", "apyfal.testing.rtl"),
    ),
    "trace": ("apyfal.cli.trace", "Timelines of jobs for Perfetto.", ("apyfal.cli.trace",)),
}


def summary_of(value: object) -> str:
    """Return the first paragraph of a docstring, as one line."""
    text = inspect.getdoc(value) or ""
    if not (inspect.isclass(value) or callable(value) or isinstance(value, ModuleType)):
        text = ""  # a constant: its type's docstring says nothing
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def entries(module_name: str) -> list[Entry]:
    """Return the public names of a module, in the order of ``__all__``; its submodules have pages of their own."""
    module = importlib.import_module(module_name)
    found = []
    for name in module.__all__:
        value = getattr(module, name)
        if not isinstance(value, ModuleType):
            path = f"{module_name}.{name}"
            found.append(Entry(path, path, summary_of(value)))
    return found


def pages() -> dict[str, str]:
    """Return the pages by their place."""
    made: dict[str, str] = {}
    index = ["# Python interface", "", "Names that are not listed here are internal and may change.", ""]
    for name, (title, purpose, modules) in PAGES.items():
        lines = [f"# {title}", "", purpose, ""]
        seen: set[str] = set()
        index += [f"## [{title}]({name}.md)", "", purpose, "", "| name | |", "|---|---|"]
        for module_name in modules:
            for entry in entries(module_name):
                short = entry.path.rpartition(".")[2]
                if short in seen:
                    continue
                seen.add(short)
                lines += [f"::: {entry.path}", "    options:", "      heading_level: 2", ""]
                index.append(f"| [`{short}`]({name}.md#{entry.path}) | {entry.summary} |")
        index.append("")
        made[f"reference/api/{name}.md"] = "\n".join(lines)
    made[INDEX] = "\n".join(index)
    return made
