"""What is true, what is a number, what is a text: one reading for every parameter of every provider."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest

from apyfal.exceptions import AcceleratorException, ParameterError
from apyfal.storage import providers
from apyfal.storage.http.pool import Timeouts
from apyfal.storage.mounting.parameters import accepted, checked
from apyfal.storage.stores.fsspec.handler import FsspecHandler
from apyfal.units import parse_boolean

TRUE = ("true", "True", "TRUE", "yes", "on", "1", " true ", True)
FALSE = ("false", "False", "FALSE", "no", "off", "0", False)
NEITHER = ("", "maybe", "none", "null", "2", "-1", "t", "f", "truee", "nope", 0, 1, 0.0, None, [], [True], {})


def hints(provider: str) -> dict[str, Any]:
    factory: Any = providers.handler_factory(providers.BUILT_IN[provider])
    return typing.get_type_hints(factory.__init__ if isinstance(factory, type) else factory)


BOOLEANS = [
    (provider, name)
    for provider in providers.BUILT_IN
    if provider != "file"
    for name, hint in hints(provider).items()
    if bool in (hint, *typing.get_args(hint)) and name != "ambient"
]


def read(provider: str, name: str, value: object) -> object:
    factory = providers.handler_factory(providers.BUILT_IN[provider])
    return checked("m", provider, factory, {name: (value, True)})[name].value


def test_there_are_some() -> None:
    assert {("s3", "anonymous"), ("gs", "anonymous"), ("az", "managed_identity"), ("http", "verify")} <= set(BOOLEANS)


@pytest.mark.parametrize(("provider", "name"), BOOLEANS)
def test_booleans_of_providers(provider: str, name: str) -> None:
    for value in TRUE:
        assert read(provider, name, value) is True
    for value in FALSE:
        assert read(provider, name, value) is False
    for value in NEITHER:
        if name == "verify" and isinstance(value, str):
            assert read(provider, name, value) == value  # the path of a bundle
            continue
        with pytest.raises(AcceleratorException, match=name):
            read(provider, name, value)


def test_booleans_themselves() -> None:
    assert [parse_boolean(value) for value in TRUE] == [True] * len(TRUE)  # type: ignore[arg-type]
    assert [parse_boolean(value) for value in FALSE] == [False] * len(FALSE)  # type: ignore[arg-type]
    for value in NEITHER:
        with pytest.raises(ParameterError, match="expected true or false"):
            parse_boolean(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["maybe", "2", "yess"])
def test_booleans_of_filesystems(value: str) -> None:
    pytest.importorskip("webdav4")
    with pytest.raises(AcceleratorException, match="'trust_env': expected true or false"):
        FsspecHandler(protocol="webdav", endpoint_url="http://127.0.0.1:9", trust_env=value)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("timeout", np.float32(0.5), 0.5), ("timeout", np.int64(3), 3.0), ("max_concurrency", np.int64(3), 3),
    ],
)  # fmt: skip
def test_numbers_of_numpy(name: str, value: object, taken: object) -> None:
    assert read("s3", name, value) == taken


@pytest.mark.parametrize("seconds", [0, -1, 1e10, 1e300])
def test_time_limits_that_no_connection_can_have(seconds: float) -> None:
    with pytest.raises(ParameterError, match=r"^timeout: .* s: expected more than 0, and .* at most$"):
        Timeouts.of(seconds)
    with pytest.raises(ParameterError, match=r"^connect_timeout: .* s: expected more than 0, and .* at most$"):
        Timeouts.of(None, seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client_id", 5), ("region", ["x"]), ("endpoint_url", {"a": 1}), ("timeout", "nan"), ("timeout", "1e999"),
        ("timeout", True), ("timeout", "soon"), ("max_concurrency", 0), ("max_concurrency", 1.5),
        ("max_concurrency", "10" * 20), ("bandwidth", 1.5), ("bandwidth", -1), ("memory_limit", None),
    ],
)  # fmt: skip
def test_what_is_no_value(name: str, value: object) -> None:
    with pytest.raises(AcceleratorException, match=name) as caught:
        read("s3", name, value)
    assert "\n" not in str(caught.value)


def test_every_parameter_of_every_provider_is_checked() -> None:
    for provider in providers.BUILT_IN.values():
        for convert in accepted(providers.handler_factory(provider)).values():
            with pytest.raises(ParameterError):
                convert(object())
