"""Messages between client and daemon, as JSON: jobs, their state, and errors.

Both sides import this package, and nothing else of each other. Version 1 of the protocol is everything below ``/v1``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apyfal import exceptions
from apyfal.exceptions import AcceleratorException, HostError, ParameterError
from apyfal.host.protocol.array_types import ArrayType, SharedArray
from apyfal.host.protocol.audit import without_secrets
from apyfal.host.protocol.fields import parse_count, parse_object, parse_region, parse_seconds, parse_text

__all__ = [
    "DEFAULT_PORT",
    "ENTRY_HEADER",
    "JOB_HEADER",
    "KEY_HEADER",
    "MAX_BATCH",
    "BatchGroup",
    "DestinationSpec",
    "JobSpec",
    "SourceSpec",
    "error_document",
    "error_from",
]

DEFAULT_PORT = 7391
#: header that carries the job if the body carries data, in requests and in responses
JOB_HEADER = "Apyfal-Job"
KEY_HEADER = "Idempotency-Key"
#: header that describes the object whose content is the body, in responses
ENTRY_HEADER = "Apyfal-Entry"

#: jobs in one batch
MAX_BATCH = 256
_FIELDS = {"kind", "src", "dst", "parameters", "copy", "timeout", "memory_limit", "batch"}
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class BodyPart:
    """One of several inputs or outputs.

    Attributes
    ----------
    url
        Storage URL; or
    offset, nbytes
        Position of an input in the request's body. The response states the position of an output without URL.
    array
        Type and shape of an array; ``None``: bytes of a file, or a new array.
    """

    url: str | None = None
    offset: int = 0
    nbytes: int = 0
    array: ArrayType | None = None

    @classmethod
    def parse_all(cls, value: object, what: str) -> Mapping[str, BodyPart]:
        """Parse several inputs or outputs by name."""
        if not isinstance(value, dict) or not value or not all(name.isidentifier() for name in value):
            raise ParameterError(f"{what}: expected an object of names and parts")
        return {name: cls._parse(one, f"{what}: {name}") for name, one in value.items()}

    @classmethod
    def _parse(cls, value: object, what: str) -> BodyPart:
        document = parse_object(value, what, {"url", "offset", "nbytes", "array"})
        if "url" in document:
            if len(document) > 1:
                raise ParameterError(f"{what}: expected a url, or a place in the body")
            return cls(url=parse_text(document["url"], f"{what}: url"))
        array = None if document.get("array") is None else ArrayType.parse(document["array"], what)
        offset, nbytes = (parse_count(document.get(key, 0), f"{what}: {key}") for key in ("offset", "nbytes"))
        return cls(offset=offset, nbytes=nbytes, array=array)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        if self.url is not None:
            return {"url": self.url}
        place = {"offset": self.offset, "nbytes": self.nbytes}
        return place if self.array is None else {**place, "array": self.array.document()}


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """The input of a job: a URL, the request's body (an array, or bytes of a file), or shared memory.

    Several inputs are in `parts`, by name. Those without URL lie in the body, which is then an array of bytes. A `raw`
    source is an array of bytes whose element type is not known: a client's ``bytes``.
    """

    url: str | None = None
    parts: Mapping[str, BodyPart] | None = None
    body: bool = False
    array: ArrayType | None = None
    shared: SharedArray | None = None
    raw: bool = False

    @classmethod
    def parse(cls, value: object) -> SourceSpec | None:
        """Parse the JSON that `document` returns."""
        if value is None:
            return None
        document = parse_object(value, "src", {"url", "parts", "body", "array", "shared", "raw"})
        parts = None if "parts" not in document else BodyPart.parse_all(document["parts"], "src: parts")
        kinds = document.keys() & {"url", "body", "shared"}
        if parts is not None and not kinds:
            return cls(parts=parts)
        if len(kinds) != 1 or ("array" in document and "body" not in document):
            raise ParameterError("src: expected one of url, body (with or without array), shared; or parts")
        if parts is not None and "array" not in document:
            raise ParameterError("src: parts: expected URLs, or places in a body that is an array")
        if "url" in document:
            return cls(url=parse_text(document["url"], "src: url"))
        if not isinstance(raw := document.get("raw", False), bool):
            raise ParameterError("src: raw: expected true or false")
        if "shared" in document:
            return cls(shared=SharedArray.parse(document["shared"], "src"), raw=raw)
        if document["body"] is not True:
            raise ParameterError("src: body: expected true")
        array = None if document.get("array") is None else ArrayType.parse(document["array"], "src")
        return cls(body=True, array=array, parts=parts, raw=raw)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        if self.url is not None:
            return {"url": self.url}
        more = {"raw": True} if self.raw else {}
        if self.shared is not None:
            return {"shared": self.shared.document(), **more}
        document: dict[str, Any] = {"body": True, **more} if self.body else {}
        if self.array is not None:
            document["array"] = self.array.document()
        if self.parts is not None:
            document["parts"] = {name: part.document() for name, part in self.parts.items()}
        return document


@dataclass(frozen=True, slots=True)
class DestinationSpec:
    """The destination of a job's output. Exactly one attribute is set.

    Attributes
    ----------
    url
        Storage URL; or
    parts
        several outputs by name, to URLs and into the response's body; or
    array
        into an array of this type, sent as the response's body; or
    data
        into the response's body, as bytes of a file; or
    shared
        into an array in shared memory; or
    memory
        into a new array, in this region of shared memory if it is large enough, otherwise in the response's body.
    """

    url: str | None = None
    parts: Mapping[str, BodyPart] | None = None
    array: ArrayType | None = None
    data: bool = False
    shared: SharedArray | None = None
    memory: str | None = None

    @classmethod
    def parse(cls, value: object) -> DestinationSpec | None:
        """Parse the JSON that `document` returns."""
        if value is None:
            return None
        document = parse_object(value, "dst", {"url", "parts", "array", "data", "shared", "memory"})
        if len(document) != 1:
            raise ParameterError("dst: expected one of url, parts, array, data, shared, memory")
        if "url" in document:
            return cls(url=parse_text(document["url"], "dst: url"))
        if "parts" in document:
            return cls(parts=BodyPart.parse_all(document["parts"], "dst: parts"))
        if "array" in document:
            return cls(array=ArrayType.parse(document["array"], "dst"))
        if "shared" in document:
            return cls(shared=SharedArray.parse(document["shared"], "dst"))
        if "memory" in document:
            return cls(memory=parse_region(document["memory"], "dst: memory"))
        if document["data"] is not True:
            raise ParameterError("dst: data: expected true")
        return cls(data=True)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        if self.url is not None:
            return {"url": self.url}
        if self.parts is not None:
            return {"parts": {name: part.document() for name, part in self.parts.items()}}
        if self.array is not None:
            return {"array": self.array.document()}
        if self.shared is not None:
            return {"shared": self.shared.document()}
        return {"data": True} if self.memory is None else {"memory": self.memory}


@dataclass(frozen=True, slots=True)
class BatchGroup:
    """Equal jobs of a batch, one after the other: how many, and the types of their source and destination.

    Attributes
    ----------
    count
        How many there are.
    src, dst
        Array types; `dst` is ``None``: a new array.
    """

    count: int
    src: ArrayType
    dst: ArrayType | None = None

    @classmethod
    def parse_all(cls, value: object) -> tuple[BatchGroup, ...]:
        """Parse the JSON form of all groups of a batch."""
        if not isinstance(value, list) or not 0 < len(value) <= MAX_BATCH:
            raise ParameterError(f"job: batch: expected a list of 1 to {MAX_BATCH} groups of equal jobs")
        groups = tuple(cls._parse(one) for one in value)
        if (count := sum(group.count for group in groups)) > MAX_BATCH:
            raise ParameterError(f"job: batch: {count} jobs: expected {MAX_BATCH} at most")
        if len({group.src.dtype for group in groups}) > 1:
            raise ParameterError("job: batch: expected sources of one element type")
        return groups

    @classmethod
    def _parse(cls, value: object) -> BatchGroup:
        document = parse_object(value, "job: batch", {"count", "src", "dst"})
        count = parse_count(document.get("count", 1), "job: batch: count")
        src = ArrayType.parse(document.get("src"), "job: batch: src")
        if not count or not src.nbytes:
            raise ParameterError("job: batch: expected 1 or more jobs, each with a source that is not empty")
        dst = None if document.get("dst") is None else ArrayType.parse(document["dst"], "job: batch: dst")
        return cls(count, src, dst)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        document: dict[str, Any] = {"count": self.count, "src": self.src.document()}
        return document if self.dst is None else {**document, "dst": self.dst.document()}


@dataclass(frozen=True)  # no slots: `text` is kept in `__dict__`
class JobSpec:
    """One call of `start` or `process`, or several calls at once, as the client sends it.

    In a batch, the sources lie in the body one after the other, and so do the outputs in that of the response.
    """

    kind: str = "process"
    src: SourceSpec | None = None
    dst: DestinationSpec | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    copy: bool = True
    timeout: float | None = None
    memory_limit: int | str | None = None
    batch: tuple[BatchGroup, ...] | None = None

    @classmethod
    def parse(cls, value: object) -> JobSpec:
        """Parse the JSON that `document` returns. The message of a `ParameterError` names the faulty field."""
        document = parse_object(value, "job", _FIELDS)
        kind = document.get("kind", "process")
        if kind not in ("process", "start"):
            raise ParameterError(f"job: kind {kind!r}: expected process or start")
        parameters = document.get("parameters", {})
        if not isinstance(parameters, dict) or not all(name.isidentifier() for name in parameters):
            raise ParameterError("job: parameters: expected an object of names and values")
        if parameters.keys() & {
            "src",
            "dst",
            "copy",
            "timeout",
            "memory_limit",
            "info_dict",
            "progress",
            "report",
            "self",
        }:
            raise ParameterError("job: parameters: these are the accelerator's own, not those of the call")
        if not isinstance(copy := document.get("copy", True), bool):
            raise ParameterError("job: copy: expected true or false")
        limit = document.get("memory_limit")
        if limit is not None and not isinstance(limit, str):
            limit = parse_count(limit, "job: memory_limit")
        dst = DestinationSpec.parse(document.get("dst"))
        if kind == "start" and dst is not None:
            raise ParameterError("job: start has no dst")
        src = SourceSpec.parse(document.get("src"))
        batch = None if document.get("batch") is None else BatchGroup.parse_all(document["batch"])
        if batch is not None:
            total = ArrayType(np.dtype(np.uint8), (sum(group.count * group.src.nbytes for group in batch),))
            if kind != "process" or dst is not None or src != SourceSpec(body=True, array=total):
                raise ParameterError(
                    f"job: batch: expected src: an array of {total.nbytes} bytes in the body, and no dst"
                )
        return cls(
            kind=kind,
            src=src,
            dst=dst,
            parameters=parameters,
            copy=copy,
            timeout=parse_seconds(document.get("timeout"), "job: timeout"),
            memory_limit=limit,
            batch=batch,
        )

    def own_parameters(self) -> dict[str, Any]:
        """Return a copy of the parameters for one run: the accelerator may change them."""
        try:
            return deepcopy(dict(self.parameters)) if self.parameters else {}
        except RecursionError:
            raise ParameterError("job: parameters: they are nested too deeply") from None

    def document(self) -> dict[str, Any]:
        """Return the JSON form, without fields that have their default."""
        document: dict[str, Any] = {"kind": self.kind, "parameters": dict(self.parameters)}
        if self.src is not None:
            document["src"] = self.src.document()
        if self.dst is not None:
            document["dst"] = self.dst.document()
        if not self.copy:
            document["copy"] = False
        if self.timeout is not None:
            document["timeout"] = self.timeout
        if self.memory_limit is not None:
            document["memory_limit"] = self.memory_limit
        if self.batch is not None:
            document["batch"] = [group.document() for group in self.batch]
        return document

    @functools.cached_property
    def text(self) -> str:
        """`document` in canonical form, for the header and for fingerprints. Jobs of one kind have one text."""
        return _CANONICAL.encode(self.document())


def error_document(error: BaseException) -> dict[str, Any]:
    """Return the JSON form of `error`: its type and message; for errors that are not apyfal's own, only the type."""
    for kind in type(error).__mro__:  # the nearest class that the client knows
        if kind.__module__ == exceptions.__name__:
            return {"type": kind.__name__, "message": without_secrets(str(error))[:_MAX_MESSAGE]}
    return {"type": "HostError", "message": f"the host failed: {type(error).__name__} (see its log)"}


def error_from(document: object) -> AcceleratorException:
    """Return the exception that `error_document` described; `HostError` if this version does not know its type."""
    if not isinstance(document, dict):
        return HostError("the host answered with an error that it did not describe")
    kind = getattr(exceptions, str(document.get("type")), None)
    message = str(document.get("message", ""))
    if isinstance(kind, type) and issubclass(kind, AcceleratorException):
        return kind(message)
    return HostError(message)
