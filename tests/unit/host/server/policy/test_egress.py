"""Where clients may make the host connect: every row of the URL table, directly, by name and by rebinding."""

from __future__ import annotations

import json
import subprocess

import pytest
from host.support.url_cases import DENIED_ADDRESSES, DENIED_URLS, Names

from apyfal.exceptions import AccessDenied, ConfigurationError, StoreUnavailable
from apyfal.host.server.policy.egress import EgressPolicy, Endpoint, is_denied_address

# The addresses just outside those ranges, and well-known public ones.
PUBLIC_ADDRESSES = [
    "1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255",
    "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "52.216.0.1", "93.184.216.34",
    "2001:1::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111", "2a00:1450:4001::1", "fbff::1", "fe00::1",
    "64:ff9a::1", "64:ff9b:2::1",
    "192.0.1.255", "192.0.3.0", "192.31.196.1", "192.52.193.1", "192.88.98.255", "192.88.100.0", "192.175.48.1",
    "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "100:0:0:2::1", "2001:1::2", "2001:1::3",
    "2001:3::1", "2001:4:112::1", "2001:30::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1",
    "2620:4f:8000::1", "3ffe:ffff::1", "3fff:1000::1", "5eff:ffff::1", "5f01::1",
]  # fmt: skip


def test_the_table_is_as_long_as_promised() -> None:
    assert len(set(DENIED_ADDRESSES) | set(DENIED_URLS)) >= 100


@pytest.mark.parametrize("address", DENIED_ADDRESSES)
def test_refused_addresses(address: str) -> None:
    assert is_denied_address(address)
    gate = EgressPolicy(resolver=Names(evil_test=[[address]], mixed_test=[["93.184.216.34", address]]))
    for host in ("evil.test", "EVIL.test.", "mixed.test", address):
        with pytest.raises(AccessDenied):
            gate(host, 443)
    with pytest.raises(AccessDenied):
        gate.check_url(f"https://[{address}]/x" if ":" in address else f"https://{address}/x")


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_addresses(address: str) -> None:
    assert not is_denied_address(address)
    gate = EgressPolicy(resolver=Names(good_test=[[address]]))
    assert gate("good.test", 443) == [address]
    gate.check_url(f"https://[{address}]/x" if ":" in address else f"https://{address}/x")


@pytest.mark.parametrize("url", DENIED_URLS)
def test_refused_urls(url: str) -> None:
    names = Names(public_test=[["93.184.216.34"]])
    with pytest.raises(AccessDenied) as caught:
        EgressPolicy(resolver=names).check_url(url)
    assert not names.asked, "nothing may be looked up for it"
    assert ":password" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "0x7f.1", "0177.1", "fe80::1%eth0", "a\\b", "a b", "", "\u2460"]
)
def test_hosts_that_reach_the_pool_by_a_redirect_are_checked_too(host: str) -> None:
    names = Names()
    with pytest.raises(AccessDenied):
        EgressPolicy(resolver=names)(host, 80)
    assert not names.asked


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (
            "https://b.s3.eu-west-1.amazonaws.com/k?x=1",
            Endpoint("https", "b.s3.eu-west-1.amazonaws.com", 443),
        ),
        ("http://Public.Test:8080", Endpoint("http", "public.test", 8080)),
        ("public.test", Endpoint("https", "public.test", 443)),
        ("public.test:9000", Endpoint("https", "public.test", 9000)),
        ("https://xn--bcher-kva.example/", Endpoint("https", "xn--bcher-kva.example", 443)),
        ("https://under_score.test/", Endpoint("https", "under_score.test", 443)),
        ("https://1e100.net/", Endpoint("https", "1e100.net", 443)),
        ("https://[2606:4700:4700::1111]:8443/", Endpoint("https", "2606:4700:4700::1111", 8443)),
    ],
)
def test_accepted_urls(url: str, endpoint: Endpoint) -> None:
    assert EgressPolicy().check_url(url) == endpoint


def test_rebinding_name_is_resolved_once_for_each_connection() -> None:
    names = Names(rebind_test=[["93.184.216.34"], ["127.0.0.1"]])
    gate = EgressPolicy(resolver=names)
    assert gate("rebind.test", 80) == ["93.184.216.34"]  # what is returned is what is connected to
    assert names.asked == ["rebind.test"]
    with pytest.raises(AccessDenied):
        gate("rebind.test", 80)


def test_private_endpoints_allowed_by_name() -> None:
    names = Names(minio_lab=[["10.0.0.9"]], other_lab=[["10.0.0.9"]], any_lab=[["192.168.1.5"]])
    gate = EgressPolicy(["minio.lab:9000", "ANY.lab", "[fd00::1]:80", "10.1.1.1"], resolver=names)
    assert gate("minio.lab", 9000) == ["10.0.0.9"]
    assert gate("any.lab", 1) == ["192.168.1.5"]
    assert gate("fd00::1", 80) == ["fd00::1"]
    assert gate("10.1.1.1", 80) == ["10.1.1.1"]
    for host, port in (("minio.lab", 80), ("other.lab", 9000), ("10.0.0.9", 9000), ("fd00::1", 81)):
        with pytest.raises(AccessDenied):
            gate(host, port)


@pytest.mark.parametrize(
    "entry", ["", "host:0", "host:99999", "host:x", "http://host", "a b", "*", "2130706433", "::1%1"]
)
def test_malformed_private_endpoint(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="private_endpoints"):
        EgressPolicy([entry])


def test_own_port_is_refused_whatever_is_allowed() -> None:
    shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, text=True, check=True).stdout
    own = {name: info["local"] for link in json.loads(shown) for info in link["addr_info"] for name in [link["ifname"]]}
    names = Names(loop_test=[["127.0.0.1"]], **{f"{name}_test": [[address]] for name, address in own.items()})
    gate = EgressPolicy([*names.answers, "127.0.0.1"], own_ports=[8443], resolver=names)
    for host in (*names.answers, "127.0.0.1"):
        with pytest.raises(AccessDenied, match="own service"):
            gate(host, 8443)
    assert gate("loop.test", 9000) == ["127.0.0.1"]


def test_unknown_name() -> None:
    with pytest.raises(StoreUnavailable, match="no address"):
        EgressPolicy(resolver=Names())("nowhere.test", 80)


def test_system_resolver_refuses_localhost() -> None:
    with pytest.raises(AccessDenied):
        EgressPolicy()("localhost", 80)


def test_messages_show_no_signature() -> None:
    with pytest.raises(AccessDenied) as caught:
        EgressPolicy().check_url("http://127.0.0.1/key?X-Amz-Signature=CANARY")
    assert "CANARY" not in str(caught.value)
