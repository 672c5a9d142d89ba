"""Which value of a parameter counts: argument, storage.NAME, storage, host.TYPE, host, the SDK's own chain."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_store import MemoryHandler

from apyfal.storage.mounting import table
from apyfal.storage.stores.s3.handler import S3Handler
from apyfal.storage.url import parse

#: Every place that can say something of ``memory.lab``, the first to be asked first.
LAYERS = ("argument", "storage.memory.lab", "storage.memory", "storage", "host.memory", "host")
#: What each of them says of each parameter.
KEYS = ("client_id", "region", "endpoint_url")


@pytest.fixture
def home(home: Path) -> Path:
    (home / ".aws").mkdir()
    return home


def said(layer: str, key: str) -> str:
    return f"{key} of {layer}"


def configure(home: Path, layers: tuple[str, ...], keys: tuple[str, ...]) -> None:
    """Write a file in which all of `layers` have all of `keys`."""
    sections = [f"[{layer}]\n" + "".join(f"{key} = {said(layer, key)}\n" for key in keys) for layer in layers]
    (home / "accelerator.conf").write_text("\n".join(sections))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("first", range(len(LAYERS)), ids=LAYERS)
def test_the_first_layer_that_says_something_counts(
    mounts: table.MountTable, memory_provider: str, home: Path, first: int, key: str
) -> None:
    layers = LAYERS[first:]
    configure(home, tuple(layer for layer in layers if layer != "argument"), KEYS)
    if layers[0] == "argument":
        mounts.mount("memory.lab", **{name: said("argument", name) for name in KEYS})  # type: ignore[arg-type]  # all str
    elif layers[0] != "storage.memory.lab":
        mounts.mount("memory.lab")  # which no section names
    with mounts.resolve(parse("memory.lab://bucket/key")) as target:
        assert isinstance(target.handler, MemoryHandler)
        assert target.handler.parameters[key] == said(layers[0], key)
    info = mounts.mounts()["memory.lab"]
    assert info.parameters[key] == said(layers[0], key)
    where = info.origins[key]
    assert where == "argument" if layers[0] == "argument" else where.endswith(f"[{layers[0]}] {key}")


@pytest.mark.parametrize("missing", range(len(LAYERS) - 1), ids=LAYERS[:-1])
def test_each_key_is_looked_for_by_itself(
    mounts: table.MountTable, memory_provider: str, home: Path, missing: int
) -> None:
    # all layers say the region, and the lower ones alone the address
    lower = LAYERS[missing + 1 :]
    sections = []
    for layer in LAYERS[1:]:
        lines = [f"region = {said(layer, 'region')}\n"]
        lines += [f"endpoint_url = {said(layer, 'endpoint_url')}\n"] if layer in lower else []
        sections.append(f"[{layer}]\n{''.join(lines)}")
    (home / "accelerator.conf").write_text("\n".join(sections))
    mounts.mount("memory.lab", region=said("argument", "region"))
    info = mounts.mounts()["memory.lab"]
    assert info.parameters == {"region": said("argument", "region"), "endpoint_url": said(lower[0], "endpoint_url")}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("storage.s3", "storage", "host.aws", "host", "environment", "profile"), "region of storage.s3"),
        (("storage", "host.aws", "host", "environment", "profile"), "region of storage"),
        (("host.aws", "host", "environment", "profile"), "region of host.aws"),
        (("host", "environment", "profile"), "region of host"),
        (("environment", "profile"), "region-of-environment"),
        (("profile",), "region-of-profile"),
        ((), "us-east-1"),
    ],
)
def test_the_chain_of_the_sdk_comes_last(
    mounts: table.MountTable, home: Path, monkeypatch: pytest.MonkeyPatch, layers: tuple[str, ...], expected: str
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / ".aws/config"))
    configure(home, tuple(layer for layer in layers if layer not in ("environment", "profile")), ("region",))
    if "environment" in layers:
        monkeypatch.setenv("AWS_REGION", "region-of-environment")
    if "profile" in layers:
        (home / ".aws/config").write_text("[default]\nregion = region-of-profile\n")
    with mounts.resolve(parse("s3://bucket/key")) as target:
        assert isinstance(target.handler, S3Handler)
        assert target.handler._region == expected
