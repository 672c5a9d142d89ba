"""Alibaba Cloud OSS, through its S3-compatible interface ("Use Amazon S3 SDKs to access OSS").

That interface has everything that is needed here, ranges, multipart uploads, conditions and server-side copies, and the
S3 handler receives at the final address; the oss2 SDK hands out `bytes`. Its rules differ from AWS in two points: the
bucket must be in the host name, and AWS's checksum fields are not known.
"""

from __future__ import annotations

import ipaddress

from apyfal.exceptions import MountError
from apyfal.storage.http.origin import split_url
from apyfal.storage.metadata import HTTP_FIELDS
from apyfal.storage.stores.s3.handler import S3Handler

__all__ = ["OSSHandler"]


class OSSHandler(S3Handler):
    """One Alibaba Cloud account in one region.

    Parameters
    ----------
    ambient
        Whether what is not given may come from this machine; see `apyfal.storage.mounting.mount.MountSpec`.
    client_id, secret_id
        AccessKey ID and AccessKey secret.
    session_token
        Of temporary credentials (STS).
    region
        ``cn-hangzhou``, ``eu-central-1``, ...; with or without the prefix ``oss-``.
    endpoint_url
        Instead of the region's public endpoint: the internal one (``https://s3.oss-cn-hangzhou-internal.aliyuncs.com``),
        or another server.
    anonymous
        Send unsigned requests, for public data.
    verify, timeout, connect_timeout, proxy
        As for `apyfal.storage.stores.s3.handler.S3Handler`.
    """

    scheme = "oss"
    aliases = ("alibaba",)
    # OSS has x-oss-forbid-overwrite, in its own protocol only; If-None-Match would be ignored.
    conditional_writes = False
    metadata_fields = (*HTTP_FIELDS, "storage_class", "acl", "user")
    why_unconditional = "OSS has no such S3 request"

    def __init__(
        self,
        ambient: bool = True,
        /,
        *,
        client_id: str | None = None,
        secret_id: str | None = None,
        session_token: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        anonymous: bool = False,
        verify: str | bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        proxy: str | None = None,
    ) -> None:
        region = region.removeprefix("oss-") if region is not None else None
        if endpoint_url is None:
            if region is None:
                raise MountError("oss: no region; expected region='cn-hangzhou' or the like, or endpoint_url")
            endpoint_url = f"https://s3.oss-{region}.aliyuncs.com"
        if not anonymous and client_id is None:
            # The S3 handler would go on to the AWS credentials of this machine, which are none of Alibaba's business.
            raise MountError("oss: no credentials; expected client_id and secret_id, or anonymous=True")
        super().__init__(
            ambient,
            client_id=client_id,
            secret_id=secret_id,
            session_token=session_token,
            region=region or "oss",
            endpoint_url=endpoint_url,
            anonymous=anonymous,
            addressing="path" if _is_address(split_url(endpoint_url)[0].host) else "virtual",
            checksum="none",
            verify=verify,
            timeout=timeout,
            connect_timeout=connect_timeout,
            proxy=proxy,
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
