"""Result parameters of a remote card: the same values, of the same types, as those of a card of this process."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.support.daemon import RunningDaemon, running
from host.support.odd_results import LARGE, REFUSED, VALUES, register_results

import apyfal
from apyfal.definition import registry
from apyfal.exceptions import ParameterError
from apyfal.host.protocol.messages import JOB_HEADER, KEY_HEADER
from apyfal.host.protocol.values import value_of


@pytest.fixture(scope="module", autouse=True)
def defined() -> None:
    if registry.find("results") is None:
        register_results()


@pytest.fixture(scope="module")
def cards(daemon: RunningDaemon, defined: None) -> Iterator[tuple[apyfal.Accelerator, apyfal.Accelerator]]:
    where = {"host_ip": daemon.url, "token": daemon.token()}
    with apyfal.Accelerator("results") as here, apyfal.Accelerator("results", **where) as there:
        yield here, there


def shown(value: object) -> object:
    """Return what can be compared of a value: types, and content to the last bit."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype, value.shape, np.asfortranarray(value).flags.c_contiguous, value.tobytes()
    if isinstance(value, np.generic):
        return type(value), value.dtype, value.tobytes()
    if isinstance(value, dict):
        return dict, [(shown(key), shown(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shown(item) for item in value]
    if isinstance(value, float):
        return float, value.hex()
    return type(value), str(value) if isinstance(value, complex) else value


def source(number: int, length: int = 8) -> np.ndarray[Any, Any]:
    return np.full(length, number, np.uint8)


#: ways to run one job: on the data channel, by HTTP, and with a report
WAYS: dict[str, dict[str, Any]] = {
    "channel": {},
    "http": {"progress": lambda done, total: None},
    "report": {"info_dict": {}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_a_result_arrives_as_it_is(cards: tuple[apyfal.Accelerator, ...], number: int, way: str) -> None:
    here, there = cards
    assert shown(there.process(source(number), **WAYS[way])) == shown(here.process(source(number)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(len(VALUES), len(VALUES) + len(REFUSED)))
def test_what_cannot_be_sent_is_one_error(cards: tuple[apyfal.Accelerator, ...], number: int, way: str) -> None:
    with pytest.raises(ParameterError, match=r"^the result: .* cannot be sent to a client; expected numbers, text"):
        cards[1].process(source(number), **WAYS[way])


def test_results_of_a_batch(cards: tuple[apyfal.Accelerator, ...]) -> None:
    """Equal results are sent once; 1, True and 1.0, and 0.0 and -0.0, are not equal."""
    here, there = cards
    numbers = [number for number in range(len(VALUES) + len(REFUSED)) for _ in range(3)]
    futures = [there.process_submit(source(number)) for number in numbers]
    seen = []
    for number, future in zip(numbers, futures, strict=True):
        if number >= len(VALUES):
            with pytest.raises(ParameterError, match="cannot be sent to a client"):
                future.result(60)
        else:
            seen.append(future.result(60))
            assert shown(seen[-1]) == shown(here.process(source(number)))
    assert len({id(result) for result in seen}) == len(seen)  # a change of one does not change another


@pytest.mark.parametrize("length", [8, 300_000])
@pytest.mark.parametrize("way", [*WAYS, "mapping", "batch"])
def test_an_array_beside_results_is_filled(cards: tuple[apyfal.Accelerator, ...], way: str, length: int) -> None:
    for card in cards:
        arrays = [np.zeros(length, np.uint8) for _ in range(100 if way == "batch" else 5)]
        if way == "batch":
            results = list(card.process_map([source(7, length)] * len(arrays), arrays))
        elif way == "mapping":
            results = [card.process(source(7, length), {"dst": array}) for array in arrays]
        else:  # after some jobs of a kind, a host has them prepared
            results = [card.process(source(7, length), array, **WAYS[way]) for array in arrays]
        assert results == [{"value": 1, "number": 7}] * len(arrays)
        assert {int(array.min()) for array in arrays} == {7}


def test_a_large_result_beside_an_array_is_one_error(cards: tuple[apyfal.Accelerator, ...]) -> None:
    here, there = cards
    large = source(len(VALUES) + len(REFUSED))
    assert there.process(large) == here.process(large) == {"value": LARGE, "number": large[0]}
    for options in WAYS.values():
        with pytest.raises(
            ParameterError, match=r"^the result: \d+ bytes as JSON; expected 65536 at most beside an output"
        ):
            there.process(large, np.zeros(8, np.uint8), **options)
    arrays = [np.zeros(8, np.uint8) for _ in range(100)]
    with pytest.raises(ParameterError, match=r"^the results?: \d+ bytes as JSON; expected 65536 at most"):
        list(there.process_map([large] * 100, arrays))


def test_a_file_beside_results_is_never_left_empty(cards: tuple[apyfal.Accelerator, ...], tmp_path: Path) -> None:
    here, there = cards
    here.process(source(7), {"dst": tmp_path / "a"})
    assert (tmp_path / "a").read_bytes() == source(7).tobytes()
    there.process(source(7), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == source(7).tobytes()
    with pytest.raises(apyfal.exceptions.HostError, match="did not send what belongs into dst"):
        there.process(source(7), {"dst": tmp_path / "c"})
    assert not (tmp_path / "c").exists()


def test_a_result_of_the_journal_is_the_same(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        token = daemon.token()
        with contextlib.closing(daemon.host(token)) as host:
            session = host.json("POST", "/v1/sessions", {"accelerator": "results"})["id"]
            job = {"src": {"body": True, "array": {"dtype": "|u1", "shape": [8]}}}
            headers = {KEY_HEADER: "k", JOB_HEADER: json.dumps(job), "Content-Type": "application/octet-stream"}
            body = source(VALUES.index((1, (math.nan,))))
            target = f"/v1/sessions/{session}/jobs?wait=30"
            with host.request("POST", target, headers=headers, body=[body.data], length=body.nbytes) as reply:
                first = reply.json()
        daemon.stop()
        daemon.start()
        with contextlib.closing(daemon.host(token)) as host:
            (again,) = host.json("GET", "/v1/jobs?key=k")["jobs"]
    assert again == first
    assert first["result"]["value"] == [1, ["NaN"]]
    assert shown(value_of(again, "result")["value"]) == shown(VALUES[int(body[0])])
