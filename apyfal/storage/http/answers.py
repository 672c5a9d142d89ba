"""What a store says in XML and JSON: read, and understood, or an error that another attempt may mend."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from apyfal.exceptions import AcceleratorException, StoreUnavailable

__all__ = ["hexadecimal", "read_json", "read_xml", "understood"]

#: what reading a document raises that has other values, or fewer, than it should have
_MISUNDERSTOOD = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)


def read_xml(body: bytes) -> Element:
    """Parse a document; `StoreUnavailable` if it is damaged, or in an encoding that nobody knows."""
    try:
        return fromstring(body)
    except (ParseError, ValueError, LookupError) as error:
        raise StoreUnavailable(f"the store's answer is not XML: {error}") from None


def read_json(body: bytes) -> Any:
    """Parse a document; `StoreUnavailable` if it is damaged."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise StoreUnavailable(f"the store's answer is not JSON: {error}") from None


@contextlib.contextmanager
def understood(what: str, path: str) -> Iterator[None]:
    """Take what a document lacks, or has of another type, for an error of its store.

    Parameters
    ----------
    what, path
        What is being done with what, for the message.

    Raises
    ------
    StoreUnavailable
        The block raised what values of a wrong type raise.
    """
    try:
        yield
    except AcceleratorException:
        raise
    except _MISUNDERSTOOD as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise StoreUnavailable(
            f"cannot {what} {path!r}: the store's answer is malformed ({reason})", path=path
        ) from None


def hexadecimal(text: str) -> bytes | None:
    """Decode hexadecimal digits; ``None`` for anything else."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
