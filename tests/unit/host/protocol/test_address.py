"""Addresses of hosts."""

from __future__ import annotations

import pytest

from apyfal.exceptions import ParameterError
from apyfal.host.protocol.address import HostAddress, parse_address

PIN = "ab" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", HostAddress("10.0.0.1", 7391)),
        ("card.lab:8443", HostAddress("card.lab", 8443)),
        ("https://card.lab", HostAddress("card.lab", 7391)),
        (f"https://10.0.0.1:7391#sha256={PIN}", HostAddress("10.0.0.1", 7391, fingerprint=PIN)),
        ("127.0.0.1", HostAddress("127.0.0.1", 7391, secure=False)),
        ("localhost:1234", HostAddress("localhost", 1234, secure=False)),
        ("http://127.0.0.1:80/", HostAddress("127.0.0.1", 80, secure=False)),
        ("https://127.0.0.1", HostAddress("127.0.0.1", 7391)),
        ("::1", HostAddress("::1", 7391, secure=False)),
        ("[fd00::1]:8443", HostAddress("fd00::1", 8443)),
        ("unix:///run/apyfal/host.sock", HostAddress(unix="/run/apyfal/host.sock", secure=False)),
    ],
)
def test_addresses(text: str, address: HostAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address) + (f"#sha256={address.fingerprint}" if address.fingerprint else "")) == address


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://10.0.0.1", "http://card.lab", "ftp://h", "https://", "https://u:p@h", "https://h/path", "https://h?q",
     "h:99999", "h:x", "unix://relative", "https://h#sha256=12", f"http://127.0.0.1#sha256={PIN}", "//"],
)  # fmt: skip
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        parse_address(text)
