"""The servers that the other tests rely on do what those tests expect of them."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from servers.process import ServerFailed, program, running
from servers.stores.azurite import Azurite
from servers.stores.ceph import Ceph
from servers.stores.gcs import FakeGcs
from servers.stores.moto import Moto
from servers.stores.swift import Swift
from servers.web.nginx import Nginx

pytestmark = pytest.mark.server

DIRECT = urllib.request.ProxyHandler({})


def get(url: str, headers: dict[str, str] | None = None, **handlers: object) -> tuple[int, dict[str, str], bytes]:
    opener = urllib.request.build_opener(DIRECT, *handlers.values())
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def put_and_get_by_s3(endpoint_url: str, access_key: str, secret_key: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    try:
        client.create_bucket(Bucket="selftest")
        client.put_object(Bucket="selftest", Key="über/k ey", Body=b"0123456789")
        answer = client.get_object(Bucket="selftest", Key="über/k ey", Range="bytes=2-4")
        with answer["Body"] as body:
            assert body.read() == b"234"
    finally:
        client.close()


def test_ceph_stores_objects(ceph_server: Ceph) -> None:
    put_and_get_by_s3(ceph_server.endpoint_url, ceph_server.access_key, ceph_server.secret_key)


def test_moto_stores_objects(moto_server: Moto) -> None:
    put_and_get_by_s3(moto_server.endpoint_url, moto_server.access_key, moto_server.secret_key)


def test_swift_stores_objects_through_its_s3_interface(swift_server: Swift) -> None:
    put_and_get_by_s3(swift_server.endpoint_url, swift_server.user, swift_server.key)


def test_swift_issues_v1_tokens(swift_server: Swift) -> None:
    status, headers, _ = get(
        swift_server.auth_url, {"X-Storage-User": swift_server.user, "X-Storage-Pass": swift_server.key}
    )
    assert status == 200
    assert headers["X-Storage-Url"] == swift_server.storage_url
    status, _, _ = get(headers["X-Storage-Url"], {"X-Auth-Token": headers["X-Auth-Token"]})
    assert status in (200, 204)


def test_swift_takes_keystone_tokens_until_they_expire(swift_server: Swift) -> None:
    known = swift_server.keystone
    user = {"name": known.user, "domain": {"name": "Default"}, "password": known.password}
    login = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    request = urllib.request.Request(f"{known.endpoint_url}/v3/auth/tokens", json.dumps(login).encode(), method="POST")
    with urllib.request.build_opener(DIRECT).open(request, timeout=10) as answer:
        token = answer.headers["X-Subject-Token"]
        (service,) = (each for each in json.load(answer)["token"]["catalog"] if each["type"] == "object-store")
    url = service["endpoints"][0]["url"]
    assert get(url, {"X-Auth-Token": token})[0] in (200, 204)
    known.expire_tokens()
    assert get(url, {"X-Auth-Token": token})[0] == 401


def test_azurite_refuses_what_is_not_signed(azurite_server: Azurite) -> None:
    status, headers, _ = get(f"{azurite_server.endpoint_url}?comp=list")
    assert status in (401, 403)
    assert headers["Server"].startswith("Azurite")


def test_gcs_answers(gcs_server: FakeGcs) -> None:
    status, _, body = get(f"{gcs_server.endpoint_url}/storage/v1/b?project={gcs_server.project}")
    assert status == 200
    assert json.loads(body)["kind"] == "storage#buckets"


@pytest.fixture
def served(nginx_server: Nginx) -> Nginx:
    (nginx_server.root / "digits").write_bytes(b"0123456789" * 100)
    return nginx_server


def test_nginx_serves_ranges(served: Nginx) -> None:
    status, headers, body = get(f"{served.endpoint_url}/digits", {"Range": "bytes=3-5"})
    assert (status, body) == (206, b"345")
    assert headers["ETag"].startswith('"')


def test_nginx_ignores_ranges_where_asked_to(served: Nginx) -> None:
    status, _, body = get(f"{served.endpoint_url}/noranges/digits", {"Range": "bytes=3-5"})
    assert (status, len(body)) == (200, 1000)


def test_nginx_compresses_where_asked_to(served: Nginx) -> None:
    _, headers, body = get(f"{served.endpoint_url}/gzip/digits", {"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 1000


def test_nginx_asks_for_a_password(served: Nginx) -> None:
    url = f"{served.endpoint_url}/private/digits"
    assert get(url)[0] == 401
    known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    known.add_password(None, url, served.user, served.password)
    assert get(url, auth=urllib.request.HTTPBasicAuthHandler(known))[0] == 200


@pytest.mark.parametrize("way", ["moved", "found"])
def test_nginx_redirects(served: Nginx, way: str) -> None:
    assert get(f"{served.endpoint_url}/{way}/digits")[2] == b"0123456789" * 100


def test_nginx_speaks_tls_with_its_own_authority(served: Nginx) -> None:
    context = ssl.create_default_context(cafile=str(served.ca))
    status, _, _ = get(f"{served.tls_url}/digits", tls=urllib.request.HTTPSHandler(context=context))
    assert status == 200


def test_nginx_takes_files_where_it_may(served: Nginx) -> None:
    request = urllib.request.Request(f"{served.endpoint_url}/dav/new/file", b"content", method="PUT")
    with urllib.request.build_opener(DIRECT).open(request, timeout=10) as answer:
        assert answer.status == 201
    assert (served.root / "new/file").read_bytes() == b"content"


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(ServerFailed, match=r"apt-get install .* some-package"):
        program("no-such-program", "some-package")


def test_a_server_that_ends_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo cannot bind; exit 3"]
    with (
        pytest.raises(ServerFailed, match=r"(?s)ended with 3.*cannot bind"),
        running(command, log=tmp_path / "log", ready=lambda: False),
    ):
        pass


def test_a_server_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailed, match=r"not ready within 0\.3 s"),
        running(["/bin/sleep", "60"], log=tmp_path / "log", ready=lambda: False, within=0.3),
    ):
        pass
