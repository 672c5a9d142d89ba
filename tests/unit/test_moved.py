"""Import paths of version 0.1 lead to the modules' new places."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import apyfal
from apyfal._moved import MOVED

_OPTIONAL = (  # they need fsspec
    "storage.fsspec_adapter",
    "storage.api.fsspec_adapter",
    "storage.api.upath_adapter",
    "storage.schemes.fsspec",
    "storage.schemes._fsspec_files",
)


@pytest.mark.parametrize("old", sorted(set(MOVED) - set(_OPTIONAL)))
def test_an_old_path_gives_the_module_itself_and_a_warning(old: str) -> None:
    sys.modules.pop(f"apyfal.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"apyfal\.{old} has moved to apyfal\.{MOVED[old]}"):
        module = importlib.import_module(f"apyfal.{old}")
    assert module is importlib.import_module(f"apyfal.{MOVED[old]}")
    assert module.__spec__ is not None
    assert module.__spec__.name == module.__name__ == f"apyfal.{MOVED[old]}"


def test_documented_paths_without_a_warning() -> None:
    code = "from apyfal.storage.handler import Handler; from apyfal.definition import Definition; import apyfal.cli"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        importlib.import_module("apyfal.nowhere")
    assert not hasattr(apyfal, "nowhere")


def test_entry_points_of_plugins_keep_their_groups() -> None:
    from apyfal.definition import registry
    from apyfal.device import drivers
    from apyfal.storage import providers

    groups = (registry.PLUGIN_GROUP, drivers.PLUGIN_GROUP, providers.ENTRY_POINTS)
    assert groups == ("apyfal.accelerators", "apyfal.drivers", "apyfal.storage")


def test_the_documented_classes_of_stores_keep_their_names() -> None:
    sys.modules.pop("apyfal.storage.connections", None)
    with pytest.warns(DeprecationWarning, match=r"apyfal\.storage\.connections has moved"):
        from apyfal.storage.connections import Client  # type: ignore[import-not-found,unused-ignore]
    from apyfal.storage.http.pool import ConnectionPool

    assert Client is ConnectionPool
