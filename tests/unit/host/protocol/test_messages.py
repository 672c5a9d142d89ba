"""What travels: jobs there and back again, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from apyfal import exceptions
from apyfal.exceptions import AcceleratorException, HostError, ParameterError
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.messages import DestinationSpec, JobSpec, SourceSpec, error_document, error_from
from apyfal.host.server.policy.refusals import TooMany

ARRAY = ArrayType(np.dtype("<f4"), (2, 3))
SHARED = SharedArray("0" * 32, 64, ARRAY)


@pytest.mark.parametrize(
    "src",
    [
        None,
        SourceSpec(url="s3://b/k"),
        SourceSpec(body=True),
        SourceSpec(body=True, array=ARRAY),
        SourceSpec(shared=SHARED),
    ],
)
@pytest.mark.parametrize(
    "dst",
    [
        None,
        DestinationSpec(url="host://x"),
        DestinationSpec(array=ARRAY),
        DestinationSpec(data=True),
        DestinationSpec(shared=SHARED),
        DestinationSpec(memory="1" * 32),
    ],
)
def test_jobs_there_and_back(src: SourceSpec | None, dst: DestinationSpec | None) -> None:
    spec = JobSpec("process", src, dst, {"a": 1.5, "name": "x"}, False, 2.0, "1MiB")
    assert JobSpec.parse(spec.document()) == spec
    assert "\n" not in spec.text


@pytest.mark.parametrize(
    "document",
    [
        None, [], 1, "x", {"kind": "stop"}, {"unknown": 1}, {"src": {}}, {"src": {"url": ""}}, {"src": {"url": 1}},
        {"src": {"url": "x" * 9000}}, {"src": {"url": "x", "body": True}}, {"src": {"body": False}}, {"src": []},
        {"src": {"array": {"dtype": "<f4", "shape": []}}},
        {"src": {"body": True, "array": {"dtype": "O", "shape": []}}},
        {"src": {"body": True, "array": {"dtype": "<f3", "shape": []}}},
        {"src": {"body": True, "array": {"dtype": "<f4"}}},
        {"dst": {"array": {"dtype": "<f4", "shape": [-1]}}},
        {"dst": {"array": {"dtype": "<f4", "shape": [1 << 61, 4]}}},
        {"dst": {"array": {"dtype": "<f4", "shape": [1.5]}}}, {"dst": {"array": {"dtype": "<f4", "shape": [1] * 33}}},
        {"dst": {"array": {"dtype": "<f4", "shape": [True]}}}, {"dst": {"data": 1}}, {"dst": {"memory": "../x"}},
        {"dst": {"shared": {"region": "x", "array": {"dtype": "<f4", "shape": []}}}}, {"dst": {}},
        {"dst": {"shared": {"region": "0" * 32, "offset": -1, "array": {"dtype": "<f4", "shape": []}}}},
        {"kind": "start", "dst": {"data": True}}, {"parameters": []}, {"parameters": {"not a name": 1}},
        {"parameters": {"src": 1}}, {"parameters": {"info_dict": {}}}, {"copy": 1}, {"timeout": -1}, {"timeout": "1"},
        {"timeout": float("inf")}, {"timeout": float("nan")}, {"timeout": True}, {"memory_limit": -1},
        {"memory_limit": 1.5},
    ],
)  # fmt: skip
def test_malformed_jobs(document: object) -> None:
    with pytest.raises(ParameterError):
        JobSpec.parse(document)


def test_types_that_cannot_be_sent() -> None:
    for array in (np.array([object()]), np.zeros(2, "datetime64[s]"), np.zeros(2, "U3"), np.zeros(2, "f4,i4")):
        with pytest.raises(ParameterError, match="cannot be sent"):
            ArrayType.of(array)
    for dtype in ("u1", "i8", "f2", "f8", "c16", "?", ">i4"):
        kind = ArrayType.of(np.zeros((2, 0), dtype))
        assert ArrayType.parse(kind.document(), "x") == kind


@pytest.mark.parametrize("name", exceptions.__all__)
def test_errors_arrive_as_what_they_are(name: str) -> None:
    kind = getattr(exceptions, name)
    if not isinstance(kind, type):
        return
    arrived = error_from(error_document(kind("a message")))
    assert type(arrived) is kind
    assert "a message" in str(arrived)


def test_errors_of_the_host_s_own_become_their_nearest_public_class() -> None:
    assert type(error_from(error_document(TooMany("x")))) is exceptions.JobRejected
    assert type(error_from({"type": "no such", "message": "x"})) is HostError
    assert type(error_from({"type": "did_you_mean", "message": "x"})) is HostError
    assert isinstance(error_from(None), AcceleratorException)
    assert "secret" not in error_document(KeyError("secret"))["message"]
    assert "Signature" not in error_document(HostError("https://b/k?X-Amz-Signature=1"))["message"]


BYTES = {"dtype": "|u1", "shape": [4]}
BATCH_SRC = {"body": True, "array": {"dtype": "|u1", "shape": [12]}}


def test_a_batch_there_and_back() -> None:
    document = {"src": BATCH_SRC, "batch": [{"count": 2, "src": BYTES}, {"src": BYTES, "dst": BYTES}]}
    spec = JobSpec.parse(document)
    assert spec.batch is not None
    assert [(run.count, run.dst is None) for run in spec.batch] == [(2, True), (1, False)]
    assert JobSpec.parse(spec.document()) == spec


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch": []}, "expected a list of 1 to 256 groups"),
        ({"batch": {}}, "expected a list of 1 to 256 groups"),
        ({"batch": [{"src": BYTES}] * 257}, "expected a list of 1 to 256 groups"),
        ({"batch": [{"count": 257, "src": BYTES}]}, "257 jobs: expected 256 at most"),
        ({"batch": [{"count": 10**18, "src": BYTES}]}, "jobs: expected 256 at most"),
        ({"batch": [{"count": 0, "src": BYTES}]}, "expected 1 or more jobs"),
        ({"batch": [{"count": -1, "src": BYTES}]}, "count: expected a whole number"),
        ({"batch": [{"count": True, "src": BYTES}]}, "count: expected a whole number"),
        ({"batch": [{"count": 3}]}, "batch: src: expected an object"),
        ({"batch": [{"count": 3, "src": {"dtype": "|u1", "shape": [0]}}]}, "a source that is not empty"),
        ({"batch": [{"count": 3, "src": {"dtype": "|O", "shape": [4]}}]}, "is not a type of numbers"),
        ({"batch": [{"count": 3, "src": BYTES, "url": "s3://b"}]}, "unknown key 'url'"),
        ({"batch": [{"count": 2, "src": BYTES}, {"src": {"dtype": "<f4", "shape": [1]}}]}, "one element type"),
        ({"batch": [{"count": 2, "src": BYTES}]}, "expected src: an array of 8 bytes in the body"),
        ({"src": None}, "expected src: an array of 12 bytes in the body"),
        ({"src": {"url": "s3://b/k"}}, "expected src: an array of 12 bytes in the body"),
        ({"src": {"body": True}}, "expected src: an array of 12 bytes in the body"),
        ({"dst": {"data": True}}, "and no dst"),
        ({"kind": "start"}, "expected src: an array of 12 bytes in the body"),
    ],
)
def test_a_malformed_batch_is_refused(change: dict[str, object], line: str) -> None:
    document = {"src": BATCH_SRC, "batch": [{"count": 3, "src": BYTES}], **change}
    with pytest.raises(ParameterError, match=line):
        JobSpec.parse(document)
