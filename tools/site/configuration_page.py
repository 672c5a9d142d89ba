"""Make the reference of ``accelerator.conf`` from the code: its schema, the daemon's settings, the providers."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

from apyfal.config.authority import rule_of
from apyfal.config.schema import KINDS, Key
from apyfal.host.settings import _DURATIONS, _SIZES, HostSettings
from apyfal.storage.mounting.parameters import _LIMITS, accepted, takes_anything
from apyfal.storage.providers import BUILT_IN, handler_factory
from apyfal.units import format_duration, format_size

PAGE = "reference/configuration-keys.md"

_TITLES = {
    "accelerator": "`[accelerator]` and `[accelerator.NAME]`",
    "process": "`[process]` and `[process.NAME]`",
    "configuration": "`[configuration.NAME]`",
    "security": "`[security]`",
}
_INTRODUCTIONS = {
    "accelerator": "What an accelerator is and where it runs: see [Accelerators](accelerators.md). Options of a "
    "driver are keys `<driver>.<option>`: see [Drivers](drivers.md) and [RTL](../how-to/rtl.md#options).",
    "process": "Defaults of `process`. `[process.NAME]` also takes the parameters of accelerator NAME.",
    "configuration": "Defaults of `start`, and parameters of accelerator NAME.",
    "security": "For the machine that gives out its accelerators and files: see [Remote control](../how-to/remote.md).",
}
#: Providers whose class says that its parameters are those of another one.
_DOCUMENTED = {
    "swift": "apyfal.storage.stores.swift.client:SwiftObjects",
    "az": "apyfal.storage.stores.azure.client:AzureBlobs",
    "fsspec": "apyfal.storage.stores.fsspec.client:FsspecFiles",
    "https": "apyfal.storage.stores.web:HTTPHandler",
}
#: What the docstrings of providers refer to.
_SHARED = {
    "verify": "whether the server's certificate is checked, or the path of a file of authorities (PEM)",
    "proxy": "an HTTP proxy for all requests; `none` goes direct. By default the environment decides",
    "timeout": "seconds without any progress (30)",
    "connect_timeout": "seconds to connect (10)",
    "bandwidth": "bytes a second of all transfers of the mount together",
    "memory_limit": "memory of all transfers of the mount together",
    "max_concurrency": "connections of the mount together (16)",
}
_PARAMETER = re.compile(r"^(\w[\w, ]*)\n((?: {4}.*\n?|\n)+)", re.M)


def described(factory: object) -> dict[str, str]:
    """Return the descriptions of a docstring's section ``Parameters``, by name."""
    text = (inspect.getdoc(factory) or "").partition("Parameters\n----------\n")[2]
    text = re.split(r"^\w+\n-{4,}$", text, flags=re.M)[0] + "\n"
    found = {}
    for names, description in _PARAMETER.findall(text):
        for name in names.split(","):
            found[name.strip()] = " ".join(description.split())
    return found


def parameters_of(provider: str) -> dict[str, str]:
    """Return the parameters of a provider, and what each means; those that all have are left out.

    Raises
    ------
    KeyError
        A parameter is not described in the docstring of its class.
    """
    factory = handler_factory(BUILT_IN[provider])
    texts = described(factory)
    if provider in _DOCUMENTED:
        module, _, name = _DOCUMENTED[provider].partition(":")
        texts |= described(getattr(importlib.import_module(module), name))
    known = [name for name in accepted(factory) if name not in _LIMITS]
    found = {name: _SHARED[name] if name in _SHARED else texts[name] for name in known}
    return found | ({"any other": texts["parameters"]} if takes_anything(factory) else {})


def _cell(text: str) -> str:
    text = re.sub(r"`apyfal\.storage\.stores\.\w+\.\w+\.(\w+)`", r"`\1`", text.replace("``", "`"))
    return text.replace("|", "\\|")


def _default(name: str, key: Key) -> str:
    fields = {field.name: field.default for field in dataclasses.fields(HostSettings)}
    if name == "authorized_host_dirs":
        return "`~/shared`"
    if name == "state_directory":
        return "`~/.local/state/apyfal`"
    if name == "audit_log":
        return "standard error"
    value = fields[name]
    if isinstance(value, tuple):
        return "none"
    if name in _SIZES:
        return f"`{format_size(value)}`"
    return f"`{format_duration(value)}`" if name in _DURATIONS else f"`{value}`"


def _keys(kind: str) -> list[str]:
    untrusted = "a file that is not [trusted](configuration.md#trust)"
    lines = [f"| key | meaning | values | default | {untrusted} |", "|---|---|---|---|---|"]
    for name, key in (KINDS[kind] or {}).items():
        default = _default(name, key) if kind == "security" else key.default
        verdict = rule_of(kind, name).verdict.value
        lines.append(f"| `{name}` | {_cell(key.meaning)} | {_cell(key.values)} | {_cell(default)} | {verdict} |")
    return lines


def page() -> str:
    """Return the page."""
    lines = [
        "# Every key of `accelerator.conf`",
        "",
        "Made from the code that checks the file. [Configuration](configuration.md) explains where the file is looked",
        "for, its form, and which value counts.",
        "",
    ]
    for kind, title in _TITLES.items():
        lines += [f"## {title}", "", _INTRODUCTIONS[kind], "", *_keys(kind), ""]
    lines += [
        "## `[storage.NAME]` and `[host]`",
        "",
        "| key | meaning |",
        "|---|---|",
        "| `provider` | the kind of store, if NAME does not say it |",
        "| `root` | bucket, or bucket and prefix, before every path |",
        "| `host_type` | of `[host]`: the provider of its store, or the NAME of the `[host.NAME]` that counts |",
        "| `host_ip`, `token`, `token_file` | of `[host]` and `[host.NAME]`: the machine that runs accelerators |",
    ]
    lines += [f"| `{name}` | {_SHARED[name]} |" for name in _LIMITS]
    lines.append("")
    for name, provider in BUILT_IN.items():
        found = parameters_of(name)
        if not found or name == "https":
            continue
        names = ", ".join(f"`{one}`" for one in (name, *provider.aliases))
        lines += [f"### Keys of {names}", "", "| key | meaning |", "|---|---|"]
        lines += [f"| `{key}` | {_cell(text)} |" for key, text in found.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    Path("/dev/stdout").write_text(page())
