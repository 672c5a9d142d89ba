"""The OpenAPI 3.1 document of the daemon, made from the declarations of its routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from apyfal.host.protocol.fields import MAX_TIMEOUT
from apyfal.host.protocol.messages import MAX_BATCH
from apyfal.host.server.api.routes import PUBLIC, Body, Route

__all__ = ["SCHEMAS", "document"]

_TEXT = {"type": "string"}
_SIZE = {"type": "integer", "minimum": 0}
_ARRAY = {
    "type": "object",
    "required": ["dtype", "shape"],
    "additionalProperties": False,
    "properties": {
        "dtype": {"type": "string", "description": "numpy's array-protocol type text", "examples": ["<f4", "|u1"]},
        "shape": {"type": "array", "items": _SIZE, "maxItems": 32},
    },
}
_BATCH = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_BATCH,
    "items": {
        "type": "object",
        "required": ["src"],
        "additionalProperties": False,
        "properties": {
            "count": {"type": "integer", "minimum": 1, "maximum": MAX_BATCH},
            "src": _ARRAY,
            "dst": {"anyOf": [{"type": "null"}, _ARRAY]},
        },
    },
}
_SHARED = {
    "type": "object",
    "required": ["region", "array"],
    "additionalProperties": False,
    "properties": {
        "region": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "offset": _SIZE,
        "array": {"$ref": "#/components/schemas/Array"},
    },
}
_URL = {"type": "string", "minLength": 1, "maxLength": 8192}
#: several inputs or outputs, by name
_PARTS = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {
        "anyOf": [
            {"type": "object", "required": ["url"], "additionalProperties": False, "properties": {"url": _URL}},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "offset": {"type": "integer", "minimum": 0},
                    "nbytes": {"type": "integer", "minimum": 0},
                    "array": {"$ref": "#/components/schemas/Array"},
                },
            },
        ]
    },
}
_OF_PARTS = {"type": "object", "required": ["parts"], "additionalProperties": False, "properties": {"parts": _PARTS}}

#: schemas that routes refer to by name
SCHEMAS: dict[str, Any] = {
    "Array": _ARRAY,
    "Shared": _SHARED,
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _TEXT, "message": _TEXT},
            }
        },
    },
    "SessionRequest": {
        "type": "object",
        "required": ["accelerator"],
        "additionalProperties": False,
        "properties": {
            "accelerator": {"type": ["string", "null"], "maxLength": 256},
            "driver": {"type": ["string", "null"], "maxLength": 256},
            "device": {"type": ["string", "integer", "null"], "maxLength": 256},
            "program": {"type": ["string", "null"], "maxLength": 8192},
            **{name: {"type": ["string", "null"], "maxLength": 16} for name in ("dtype", "in_dtype", "out_dtype")},
        },
    },
    "Session": {
        "type": "object",
        "required": ["id", "accelerator", "mounts"],
        "properties": {
            "id": _TEXT,
            "accelerator": {"type": ["string", "null"]},
            "mounts": {"type": "array", "items": _TEXT},
        },
    },
    "Job": {
        "type": "object",
        "required": ["id", "state"],
        "properties": {
            "id": _TEXT,
            "state": {"enum": ["queued", "running", "done", "failed", "cancelled", "interrupted"]},
            "ran": {"type": ["boolean", "null"], "description": "null: not known, the host stopped while it ran"},
            "info": {"type": "object"},
            "result": {
                "description": "NaN and infinities are the texts NaN, Infinity, -Infinity; bytes are hexadecimal text"
            },
            "exact": {
                "type": "object",
                "description": "result and info in a form that keeps what JSON does not have, if they have such",
            },
            "output": {"anyOf": [{"type": "null"}, {"type": "object"}]},
            "progress": {"type": ["object", "null"]},
            "error": {"anyOf": [{"type": "null"}, {"type": "object"}]},
            "batch": {"type": "array", "description": "for a batch: equal ends of its jobs, with their number"},
        },
    },
    "JobRequest": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "kind": {"enum": ["process", "start"]},
            "src": {
                "anyOf": [
                    {"type": "null"},
                    {"type": "object", "required": ["url"], "additionalProperties": False, "properties": {"url": _URL}},
                    _OF_PARTS,
                    {
                        "type": "object",
                        "required": ["shared"],
                        "additionalProperties": False,
                        "properties": {"shared": {"$ref": "#/components/schemas/Shared"}, "raw": {"type": "boolean"}},
                    },
                ]
            },
            "dst": {
                "anyOf": [
                    {"type": "null"},
                    {"type": "object", "required": ["url"], "additionalProperties": False, "properties": {"url": _URL}},
                    _OF_PARTS,
                    {
                        "type": "object",
                        "required": ["array"],
                        "additionalProperties": False,
                        "properties": {"array": {"$ref": "#/components/schemas/Array"}},
                    },
                    {
                        "type": "object",
                        "required": ["shared"],
                        "additionalProperties": False,
                        "properties": {"shared": {"$ref": "#/components/schemas/Shared"}},
                    },
                    {
                        "type": "object",
                        "required": ["data"],
                        "additionalProperties": False,
                        "properties": {"data": {"const": True}},
                    },
                    {
                        "type": "object",
                        "required": ["memory"],
                        "additionalProperties": False,
                        "properties": {"memory": {"type": "string", "pattern": "^[0-9a-f]{32}$"}},
                    },
                ]
            },
            "parameters": {"type": "object"},
            "copy": {"type": "boolean"},
            "timeout": {"type": ["number", "null"], "minimum": 0, "maximum": MAX_TIMEOUT},
            "memory_limit": {"type": ["integer", "string", "null"], "minimum": 0},
            "batch": {"anyOf": [{"type": "null"}, _BATCH]},
        },
    },
    "MountRequest": {
        "type": "object",
        "required": ["provider"],
        "additionalProperties": {"type": ["string", "integer", "number", "boolean"]},
        "properties": {"provider": _TEXT, "root": {"type": ["string", "null"]}},
    },
    "CopyRequest": {
        "type": "object",
        "required": ["src", "dst"],
        "additionalProperties": False,
        "properties": {"src": _URL, "dst": _URL, "session": {"type": ["string", "null"]}},
    },
    "MemoryRequest": {
        "type": "object",
        "required": ["nbytes"],
        "additionalProperties": False,
        "properties": {"nbytes": {"type": "integer", "minimum": 1}},
    },
    "Entry": {
        "type": "object",
        "required": ["path", "size", "is_directory"],
        "properties": {
            "path": _TEXT,
            "size": {"type": ["integer", "null"]},
            "mtime": {"type": ["number", "null"]},
            "etag": {"type": ["string", "null"]},
            "is_directory": {"type": "boolean"},
        },
    },
}

_ERRORS = {
    "400": "The request is wrong; see the error.",
    "401": "The token is missing or not valid.",
    "403": "The token's scopes, or the host's rules, do not allow it.",
    "404": "It does not exist, or it is not yours.",
    "409": "Not possible in the current state.",
    "413": "Larger than the host accepts.",
    "415": "Not the expected content type.",
    "422": "The idempotency key was used for another request.",
    "424": "A store that the host was sent to failed.",
    "429": "A limit of your user is reached; Retry-After says when to try again.",
    "503": "A limit of the host is reached; Retry-After says when to try again.",
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Parameters
    ----------
    routes
        All routes of the daemon.
    version
        Version of this package.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        plain_path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)
        paths.setdefault(plain_path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "apyfal host",
            "version": version,
            "summary": "Accelerators of this machine, for remote users",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.path_parameters
    ]
    parameters += [
        {
            "name": parameter.name,
            "in": parameter.where,
            "required": parameter.required,
            "description": parameter.description,
            "schema": parameter.schema,
        }
        for parameter in route.parameters
    ]
    answers = {str(status): _body(body) for status, body in route.answers.items()}
    errors = _ERRORS if route.access != PUBLIC else {}
    for status, text in errors.items():
        answers.setdefault(status, _body(Body(text, {"application/json": "Error"})))
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": answers,
        "security": [] if route.access == PUBLIC else [{"token": [route.access]}],
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, **_body(route.body)}
    return operation


def _body(body: Body) -> dict[str, Any]:
    result: dict[str, Any] = {"description": body.description}
    if body.content:
        result["content"] = {
            kind: {"schema": {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema}
            for kind, schema in body.content.items()
        }
    if body.headers:
        result["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in body.headers.items()
        }
    return result
