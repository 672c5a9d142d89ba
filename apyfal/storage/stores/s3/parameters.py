"""What the parameters of an S3 mount mean for its requests."""

from __future__ import annotations

import base64
import hashlib
import ipaddress

from apyfal.exceptions import MountError, did_you_mean
from apyfal.storage.checksums import crc_function
from apyfal.storage.http.status import decode_base64

__all__ = ["chosen_checksum", "customer_headers", "is_loopback"]


def chosen_checksum(wanted: str | None, aws: bool) -> str | None:
    """Return the algorithm of the checksum that is sent; ``None``: none is. `aws`: whether the store is Amazon's."""
    choices = ("crc64nvme", "crc32c", "crc32", "none")
    if wanted is None:
        # Without awscrt CRC-32, which every Python has, is the next best.
        return next((name for name in ("crc64nvme", "crc32") if crc_function(name)), None) if aws else None
    if wanted not in choices:
        raise MountError(f"s3: unknown checksum {wanted!r}{did_you_mean(wanted, choices)}")
    if wanted == "none":
        return None
    if crc_function(wanted) is None:
        raise MountError(f"s3: checksum {wanted!r} needs awscrt: pip install 'apyfal[s3]'")
    return wanted


def customer_headers(key: bytes | str | None) -> dict[str, str]:
    """Return the header fields of a customer's own encryption key (SSE-C)."""
    if key is None:
        return {}
    raw = decode_base64(key) if isinstance(key, str) else key
    if raw is None or len(raw) != 32:
        raise MountError("s3: sse_customer_key must be 32 bytes, or their base64")
    prefix = "x-amz-server-side-encryption-customer"
    return {
        f"{prefix}-algorithm": "AES256",
        f"{prefix}-key": base64.b64encode(raw).decode("ascii"),
        f"{prefix}-key-md5": base64.b64encode(hashlib.md5(raw, usedforsecurity=False).digest()).decode("ascii"),
    }


def is_loopback(host: str) -> bool:
    """Whether requests to `host` stay on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
