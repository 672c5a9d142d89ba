"""The software card's settings, from configurations and the environment, and as the documentation lists them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import apyfal
from apyfal._core.device import Device
from apyfal.exceptions import ParameterError

DOCUMENT = Path(__file__).parents[2] / "docs/reference/drivers.md"


def test_every_setting_is_documented() -> None:
    with pytest.raises(ParameterError) as raised:
        Device("emulator", None, {"speed": "1"})
    known = str(raised.value).split("there are: ")[1].split(", ")
    section = DOCUMENT.read_text().split("## emulator")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(known)


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APYFAL_EMULATOR", "memory=1MiB,read_only_import=1")
    assert Device("emulator").info["memory"] == 1 << 20
    info = Device("emulator", None, {"memory": "1.5GiB"}).info
    assert info["memory"] == 3 << 29
    assert "import-read-only" in info["capabilities"]


@pytest.mark.parametrize(("align", "copied"), [("16", 0), ("4096", 1000)])
def test_an_accelerator_takes_them(align: str, copied: int) -> None:
    memory = np.zeros(10_000, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 4096 + 16  # a multiple of 16, and of no page
    part = memory[begin : begin + 1000]
    info: dict[str, object] = {}
    with apyfal.Accelerator("loopback", emulator={"import_align": align}) as card:
        card.process(part, apyfal.empty(1000, np.uint8), info_dict=info)
    assert info["bytes_copied"] == copied
