"""Texts that go to drivers: what C would cut at a NUL, or nobody can encode, is an error that names it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apyfal._core.device import Device, list_devices, load_driver
from apyfal.exceptions import ParameterError

WAYS: dict[str, Callable[[str], object]] = {
    "driver of a device": Device,
    "driver of a list": list_devices,
    "path of a driver": load_driver,
    "device": lambda text: Device("emulator", text),
    "option": lambda text: Device("emulator", None, {text: "0"}),
    "value of an option": lambda text: Device("emulator", None, {"run_latency": text}),
    "option of a list": lambda text: list_devices("emulator", {"run_latency": text}),
    "kernel": lambda text: Device("emulator").load(text),
    "name of a program": lambda text: Device("emulator").load("loopback", b"x", name=text),
    "build options": lambda text: Device("emulator").load("loopback", None, options=text),
    "arguments": lambda text: Device("emulator").load("loopback", None, arguments=text),
    "setting": lambda text: Device("emulator").control(text, "0"),
    "value of a setting": lambda text: Device("emulator").control("run_latency", text),
    "name of an interface's program": lambda text: Device("emulator").interface(b"x", name=text),
    "build options of an interface": lambda text: Device("emulator").interface(b"x", options=text),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("text", "why"), [("emulator\0x", "holds a NUL"), ("0\0", "holds a NUL"), ("\udcff", "holds a lone surrogate")]
)
def test_a_text_that_would_be_cut_is_refused(way: str, text: str, why: str) -> None:
    with pytest.raises(ParameterError, match=why):
        WAYS[way](text)
