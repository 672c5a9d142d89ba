"""Third parties' drivers: by the path of a library, by an entry point, and what is said of wrong ones."""

from __future__ import annotations

import importlib.metadata
import subprocess
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import apyfal
from apyfal.device import drivers
from apyfal.exceptions import ConfigurationError, DriverUnavailable, UnsupportedByDriver

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example driver, built as its documentation says."""
    target = tmp_path_factory.mktemp("driver") / "libexample_driver.so"
    source = ROOT / "examples" / "plugin_driver" / "example_driver.c"
    command = ["cc", "-std=c11", "-O2", "-fPIC", "-shared", f"-I{ROOT / 'csrc/include'}", "-o", target, source]
    subprocess.run(command, check=True, timeout=60)
    return target


@pytest.mark.parametrize("header", ["driver.h", "driver_support.h"])
@pytest.mark.parametrize("folder", ["csrc/include", "csrc"])
def test_a_header_is_found_where_it_is_and_where_it_was(folder: str, header: str) -> None:
    command = ["cc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", f"-I{ROOT / folder}", "-x", "c", "-"]
    text = f'#include "{header}"\n#include "driver.h"\nconst apf_driver *apf_driver_v1(void);\n'
    subprocess.run(command, input=text, text=True, check=True, timeout=60)


def _install(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    found = [EntryPoint(name, value, drivers.PLUGIN_GROUP) for name, value in entries.items()]
    real = importlib.metadata.entry_points

    def entry_points(*, group: str) -> object:
        return found if group == drivers.PLUGIN_GROUP else real(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_a_path_names_a_driver(library: Path) -> None:
    settings = {"driver": str(library), "arguments": "src, dst, count", "dtype": "int32", "chunking": "elements"}
    with apyfal.Accelerator(kernel="increment", **settings) as accelerator:
        info: dict[str, object] = {}
        result = accelerator.process(np.arange(1000, dtype=np.int32), info_dict=info)
        np.testing.assert_array_equal(result, np.arange(1, 1001))
        assert info["driver"] == str(library)
    (listed,) = apyfal.devices(str(library))
    assert str(listed).startswith("example:0  example card")
    assert drivers.require_driver("example") == "example"  # it stays


def test_an_entry_point_names_a_driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers.require_driver(str(library))
    _install(monkeypatch, example="os:sep", other="os:sep")
    assert drivers.driver_names().count("example") == 1
    assert "other" in drivers.driver_names()
    assert apyfal.devices("example")[0]["name"] == "example card"


def test_broken_plugins_are_named(library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "acme_paths.py").write_text(f"library = {str(library)!r}\nodd = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    _install(monkeypatch, acme="acme_paths:library", gone="acme_paths:gone", odd="acme_paths:odd")
    with pytest.raises(DriverUnavailable, match=r"driver 'acme': .* is a driver named 'example'; expected 'acme'"):
        drivers.require_driver("acme")
    with pytest.raises(DriverUnavailable, match=r"driver 'gone': plugin 'acme_paths:gone' cannot be loaded: Attr"):
        drivers.require_driver("gone")
    with pytest.raises(DriverUnavailable, match=r"driver 'odd': .* cannot be loaded: TypeError"):
        drivers.require_driver("odd")
    assert "driver 'gone'" in apyfal.devices().unavailable["gone"]
    with pytest.raises(ConfigurationError, match="unknown driver 'acmee'; did you mean 'acme'"):
        drivers.require_driver("acmee")


def test_drivers_without_a_device_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APYFAL_XDMA_ROOT", str(tmp_path))
    assert apyfal.devices().unavailable["xdma"] == "it found no device here"
    assert apyfal.devices("xdma") == []


def test_libraries_that_are_no_drivers(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable, match="cannot open shared object"):
        drivers.require_driver(str(tmp_path / "gone.so"))
    for name, source, complaint in (
        ("none", "int nothing;", "does not export apf_driver_v1"),
        (
            "old",
            "static const unsigned table[64] = {99, 256}; const void *apf_driver_v1(void) { return table; }",
            "driver ABI 99, expected 1",
        ),
    ):
        (tmp_path / f"{name}.c").write_text(source)
        target = tmp_path / f"{name}.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(target), str(tmp_path / f"{name}.c")], check=True, timeout=60
        )
        with pytest.raises(UnsupportedByDriver, match=complaint):
            drivers.require_driver(str(target))
