"""Definitions: what an accelerator is, its grammar, its parameters and types, and one call bound to a job's values."""

from apyfal.definition.definition import Definition

__all__ = ["Definition"]
