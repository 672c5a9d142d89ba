"""Without `ambient`, a mount uses what it was given and nothing of this machine: provider by provider, place by place.

Every place where a cloud's library or a system's tool keeps credentials holds a canary that a server on loopback would
see. For most of them a second test, with `ambient`, shows that the canary does arrive where it is looked for.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from apyfal.exceptions import AcceleratorException, MountError
from apyfal.storage.mounting.mount import MountSpec
from apyfal.storage.mounting.parameters import MountParameter, checked, separates_ambient
from apyfal.storage.providers import BUILT_IN, handler_factory

CANARY = "CANARY9f27"
CANARY_KEY = base64.b64encode(CANARY.encode()).decode()


class Recorder(http.server.ThreadingHTTPServer):
    """Keeps every request in full, and plays a metadata service, a token service and Keystone to those who ask."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), _Recording)
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"


class _Recording(http.server.BaseHTTPRequestHandler):
    server: Recorder

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("latin-1")
        self.server.seen.append(f"{self.command} {self.path}\n{self.headers}\n{body}")
        status, content, fields = 404, b"", {"Content-Type": "application/json", "Metadata-Flavor": "Google"}
        if self.path.endswith("/token"):
            status = 200
            content = json.dumps({"access_token": CANARY, "expires_in": 3600, "token_type": "Bearer"}).encode()
        elif self.path.endswith("/container"):
            status = 200
            content = json.dumps(
                {"AccessKeyId": CANARY, "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
            ).encode()
        elif self.path.endswith("/auth/tokens"):
            place = {"interface": "public", "region": "r", "url": f"{self.server.url}/v1/AUTH_x"}
            token = {"expires_at": "2099-01-01T00:00:00Z", "catalog": [{"type": "object-store", "endpoints": [place]}]}
            status, content, fields["X-Subject-Token"] = 201, json.dumps({"token": token}).encode(), "t"
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = do_PROPFIND = do_OPTIONS = answer  # noqa: N815  # as its base asks

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and an environment that say nothing."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "OS_", "ST_", "GCE_", "CLOUDSDK_", "FSSPEC_", "STORAGE_")):
            monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- places where this machine keeps credentials and settings ----------------------------------------------------------
Put = Callable[[str, str], None]
PRIVATE_KEY = (
    rsa.generate_private_key(65537, 2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def command(home: Path) -> str:
    keys = json.dumps({"Version": 1, "AccessKeyId": CANARY, "SecretAccessKey": "s"})
    return written(home / "helper.py", f"open({str(home / 'RAN')!r}, 'w'); print({keys!r})")


def adc(home: Path, url: str) -> str:
    account = {"type": "service_account", "client_email": f"{CANARY}@x", "private_key": PRIVATE_KEY}
    more = {"private_key_id": "1", "token_uri": f"{url}/token", "project_id": CANARY}
    return written(home / "adc.json", json.dumps({**account, **more}))


def aws_profile(home: Path, url: str, put: Put) -> None:
    written(home / ".aws/credentials", f"[default]\naws_access_key_id = {CANARY}\naws_secret_access_key = s\n")


def aws_command(home: Path, url: str, put: Put) -> None:
    line = f"credential_process = {sys.executable} {command(home)}"
    written(home / ".aws/config", f"[profile {CANARY}]\nregion = {CANARY}\n{line}\n")
    put("AWS_PROFILE", CANARY)


def aws_web_identity(home: Path, url: str, put: Put) -> None:
    put("AWS_WEB_IDENTITY_TOKEN_FILE", written(home / "token", CANARY))
    put("AWS_ROLE_ARN", f"arn:aws:iam::1:role/{CANARY}")
    put("AWS_ENDPOINT_URL_STS", url)


def aws_instance(home: Path, url: str, put: Put) -> None:
    put("AWS_EC2_METADATA_DISABLED", "false")
    put("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{url}/{CANARY}/")


def netrc(home: Path, url: str, put: Put) -> None:
    put("NETRC", written(home / ".netrc", f"machine 127.0.0.1 login me password {CANARY}\n"))


def gcloud(home: Path, url: str, put: Put) -> None:
    os.replace(adc(home, url), written(home / ".config/gcloud/application_default_credentials.json", ""))


def of(*names: str, value: str = CANARY) -> Callable[[Path, str, Put], None]:
    def put_all(home: Path, url: str, put: Put) -> None:
        for name in names:
            put(name, value.format(url=url, host=url.partition("://")[2]))

    return put_all


PROXY = "http://" + CANARY + ":p@{host}"
CONNECTION = f"DefaultEndpointsProtocol=http;AccountName={CANARY};AccountKey={CANARY_KEY};BlobEndpoint={{url}}/{CANARY}"

SOURCES: Mapping[str, Callable[[Path, str, Put], None]] = {
    "aws: keys": of("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "aws: session token": of("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "aws: profile": aws_profile,
    "aws: command": aws_command,
    "aws: container": of("AWS_CONTAINER_CREDENTIALS_FULL_URI", value="{url}/" + CANARY + "/container"),
    "aws: instance": aws_instance,
    "aws: web identity": aws_web_identity,
    "aws: region": of("AWS_REGION", "AWS_DEFAULT_REGION", value="canary9f27-1"),
    "aws: endpoint": of("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", value="{url}/" + CANARY),
    "az: account and key": lambda home, url, put: (
        put("AZURE_STORAGE_ACCOUNT", CANARY),
        put("AZURE_STORAGE_KEY", CANARY_KEY),
    )[0],
    "az: key alone": of("AZURE_STORAGE_KEY", value=CANARY_KEY),
    "az: sas": of("AZURE_STORAGE_SAS_TOKEN", value=f"sv=2024&sig={CANARY}"),
    "az: connection string": of("AZURE_STORAGE_CONNECTION_STRING", value=CONNECTION),
    "az: service principal": of("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"),
    "az: identity endpoint": of("IDENTITY_ENDPOINT", "IDENTITY_HEADER", value="{url}/" + CANARY),
    "gs: application credentials": lambda home, url, put: put("GOOGLE_APPLICATION_CREDENTIALS", adc(home, url)),
    "gs: gcloud": gcloud,
    "gs: instance": of("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT", value="{host}"),
    "gs: project": of("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
    "gs: emulator": of("STORAGE_EMULATOR_HOST", value="{url}/" + CANARY),
    "swift: keystone": of(
        *("OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME", "OS_PROJECT_ID", "OS_TENANT_NAME", "OS_TENANT_ID"),
        *("OS_USER_DOMAIN_NAME", "OS_PROJECT_DOMAIN_NAME", "OS_AUTH_URL"),
    ),
    "swift: application": of("OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET"),
    "swift: region": of("OS_REGION_NAME"),
    "swift: v1": of("ST_AUTH", "ST_USER", "ST_KEY"),
    "proxy": of("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY", value=PROXY),
    "proxy for all": of("all_proxy", "ALL_PROXY", value=PROXY),
    "netrc": netrc,
}

#: Mounts with an account of their own, one or more for each provider.
GIVEN: Mapping[str, dict[str, Any]] = {
    "s3 keys": {"provider": "s3", "client_id": "me", "secret_id": "mine", "endpoint_url": "{url}"},
    "s3 nobody": {"provider": "s3", "anonymous": "yes", "endpoint_url": "{url}"},
    "oss keys": {"provider": "oss", "client_id": "me", "secret_id": "mine", "endpoint_url": "{url}"},
    "oss nobody": {"provider": "oss", "anonymous": True, "endpoint_url": "{url}"},
    "gs hmac": {"provider": "gs", "client_id": "me", "secret_id": "mine", "endpoint_url": "{url}"},
    "gs nobody": {"provider": "gs", "anonymous": "true", "endpoint_url": "{url}", "project": "p"},
    "az key": {"provider": "az", "client_id": "me", "secret_id": "bWluZQ==", "endpoint_url": "{url}/me"},
    "az sas": {"provider": "az", "account": "me", "sas": "sig=mine", "endpoint_url": "{url}/me"},
    "az nobody": {"provider": "az", "account": "me", "anonymous": "on", "endpoint_url": "{url}/me"},
    "swift v3": {"provider": "swift", "client_id": "me", "secret_id": "mine", "endpoint_url": "{url}/v3"},
    "swift v1": {"provider": "swift", "client_id": "me", "secret_id": "mine", "endpoint_url": "{url}/auth/v1.0"},
    "http": {"provider": "http"},
    "webdav": {
        "provider": "fsspec",
        "protocol": "webdav",
        "client_id": "me",
        "secret_id": "mine",
        "endpoint_url": "{url}",
    },
    "webdav nobody": {"provider": "fsspec", "protocol": "webdav", "endpoint_url": "{url}"},
}

#: The same without an account: what `ambient` would look for. Not for http and WebDAV, which need none.
NOBODY: Mapping[str, dict[str, Any]] = {
    "s3": {"provider": "s3", "endpoint_url": "{url}"},
    "s3 anonymous=false": {"provider": "s3", "endpoint_url": "{url}", "anonymous": "false"},
    "oss": {"provider": "oss", "endpoint_url": "{url}"},
    "gs": {"provider": "gs", "endpoint_url": "{url}"},
    "gs anonymous=no": {"provider": "gs", "endpoint_url": "{url}", "anonymous": "no"},
    "az": {"provider": "az", "endpoint_url": "{url}/me"},
    "az account": {"provider": "az", "account": "me", "endpoint_url": "{url}/me"},
    "swift": {"provider": "swift", "endpoint_url": "{url}/v3"},
    "swift user": {"provider": "swift", "client_id": "me", "endpoint_url": "{url}/v3"},
}


def spec_of(given: Mapping[str, Any], recorder: Recorder, *, ambient: bool) -> MountSpec:
    """Define a mount as `UrlPolicy.mount` does it."""
    rest = {key: (value, True) for key, value in given.items() if key != "provider"}
    rest = {key: (v.format(url=recorder.url) if isinstance(v, str) else v, True) for key, (v, _) in rest.items()}
    provider = given["provider"]
    return MountSpec(
        "mine",
        provider,
        parameters=checked("mine", provider, handler_factory(BUILT_IN[provider]), rest),
        ambient=ambient,
    )


def used(spec: MountSpec, recorder: Recorder) -> None:
    """Connect, look up, read, write and list, whatever comes of it."""
    handler = spec.connect()
    path = f"{recorder.host}/bucket/key" if spec.provider == "http" else "bucket/key"
    for call in (
        lambda: handler.describe(path),
        lambda: handler.read(path, 0, None, None),
        lambda: handler.put(path, memoryview(b"data"), None),
        lambda: list(handler.list("bucket")),
        lambda: list(handler.list("")),
        lambda: handler.makedirs("bucket"),
    ):
        with suppress(AcceleratorException):
            call()
    handler.close()


def canaries(recorder: Recorder) -> list[str]:
    """Give the requests that hold something of this machine, its proxies' names included."""
    marks = (CANARY.lower(), base64.b64encode(f"{CANARY}:p".encode()).decode().lower())
    return [request for request in recorder.seen if any(mark in request.lower() for mark in marks)]


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_of_this_machine_is_used(
    source: str, recorder: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SOURCES[source](home, recorder.url, monkeypatch.setenv)
    for name, given in GIVEN.items():
        recorder.seen.clear()
        used(spec_of(given, recorder, ambient=False), recorder)
        assert recorder.seen, name  # it went to its own server,
        assert not canaries(recorder), name  # and with nothing but its own
        # a proxy would be asked for whole addresses
        assert not any(request.split()[1].startswith("http://") for request in recorder.seen), name
    for name, given in NOBODY.items():
        recorder.seen.clear()
        with pytest.raises(MountError):
            spec_of(given, recorder, ambient=False).connect()
        assert not recorder.seen, name
    assert not (home / "RAN").exists()


#: Where each of them arrives when it may: otherwise the test above could not fail.
ARRIVES = (
    *[("s3", f"aws: {name}") for name in ("keys", "session token", "profile", "command", "container", "instance")],
    *[("s3", "aws: web identity"), ("s3", "aws: region"), ("s3 keys", "aws: region"), ("s3 keys", "proxy")],
    *[("az", "az: account and key"), ("az", "az: connection string"), ("az account", "az: sas")],
    *[("az key", "proxy for all")],
    *[("gs", "gs: application credentials"), ("gs", "gs: gcloud"), ("gs nobody", "proxy"), ("gs hmac", "proxy")],
    *[("swift v3", "swift: keystone"), ("swift", "swift: keystone"), ("swift", "swift: application")],
    *[("http", "proxy"), ("webdav", "proxy"), ("oss keys", "proxy"), ("swift v1", "proxy")],
)


@pytest.mark.parametrize(("mount", "source"), ARRIVES)
def test_what_may_be_looked_for_arrives(
    mount: str, source: str, recorder: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SOURCES["aws: keys"](home, recorder.url, monkeypatch.setenv) if source == "aws: region" else None
    SOURCES[source](home, recorder.url, monkeypatch.setenv)
    used(spec_of({**NOBODY, **GIVEN}[mount], recorder, ambient=True), recorder)
    assert canaries(recorder) or (home / "RAN").exists()


def test_an_account_of_its_own_is_not_mixed_with_the_variables(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own mounts too: a key goes with its own account, and a given key is not overruled."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", CANARY)
    monkeypatch.setenv("AZURE_STORAGE_KEY", CANARY_KEY)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2024&sig={CANARY}")
    for name in ("az key", "az sas"):
        used(spec_of(GIVEN[name], recorder, ambient=True), recorder)
    assert recorder.seen
    assert not canaries(recorder)


# -- parameters that name something of this machine --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mount", "parameter", "value"),
    [
        ("s3 keys", "profile", "default"),
        ("s3 keys", "verify", "/etc/ssl/certs"),
        ("oss keys", "verify", "/etc/ssl/certs"),
        ("gs nobody", "credentials_file", "/etc/passwd"),
        ("gs nobody", "verify", "/etc/passwd"),
        ("az key", "managed_identity", "yes"),
        ("az key", "tenant_id", "t"),
        ("az key", "authority", "https://login.example"),
        ("swift v3", "verify", "/etc/passwd"),
        ("http", "verify", "/etc/passwd"),
        ("webdav", "verify", "/etc/passwd"),
        ("webdav", "cert", "/etc/passwd"),
        ("webdav", "trust_env", "true"),
        ("webdav", "transport", "x"),
        ("webdav", "proxy", "http://127.0.0.1"),
    ],
)
def test_what_cannot_be_given(mount: str, parameter: str, value: str, recorder: Recorder) -> None:
    spec = spec_of({**GIVEN[mount], parameter: value}, recorder, ambient=False)
    with pytest.raises(MountError, match=parameter) as caught:
        spec.connect()
    assert "\n" not in str(caught.value)
    assert not recorder.seen


def test_the_mode_is_no_parameter_of_a_mount() -> None:
    for provider in BUILT_IN.values():
        kind = handler_factory(provider)
        if provider.name == "fsspec":
            continue  # takes any name, and hands it to the filesystem
        with pytest.raises(MountError, match="unknown parameter"):
            checked("mine", provider.name, kind, {"ambient": (True, True)})
    for given in ({"ambient": True}, {"trust_env": True}):
        parameters = {"protocol": "webdav", "endpoint_url": "http://127.0.0.1:9", **given}
        spec = MountSpec("x", "fsspec", parameters={k: MountParameter(v) for k, v in parameters.items()}, ambient=False)
        with pytest.raises(MountError, match=next(iter(given))):
            spec.connect()


def test_who_can_do_without_this_machine() -> None:
    able = {provider.name for provider in BUILT_IN.values() if separates_ambient(handler_factory(provider))}
    assert able == set(BUILT_IN) - {"file"}


@pytest.mark.parametrize(
    "provider", ["file", "memory", "broken", "local", "arrow_hdfs", "github", "reference", "simplecache", "smb", "git"]
)
def test_providers_and_protocols_that_nobody_has_looked_at(provider: str, tmp_path: Path) -> None:
    if provider == "file":
        spec = MountSpec("x", "file", ambient=False)
    else:
        parameters = {"protocol": MountParameter(provider), "path": MountParameter(str(tmp_path))}
        spec = MountSpec("x", "fsspec", parameters=parameters, ambient=False)
    with pytest.raises(MountError):
        spec.connect()


def test_fsspecs_own_configuration_is_not_used(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("fsspec.config")
    for protocol in ("webdav", "dav"):
        monkeypatch.setitem(config.conf, protocol, {"headers": {"X-Canary": CANARY}})
    given = GIVEN["webdav nobody"]
    used(spec_of(given, recorder, ambient=False), recorder)
    assert recorder.seen
    assert not canaries(recorder)
    used(spec_of(given, recorder, ambient=True), recorder)
    assert canaries(recorder)


class SshServer:
    """An SSH server that notes who logs in how, and lets nobody in."""

    def __init__(self) -> None:
        import paramiko

        noted = self.noted = []  # type: list[str]

        class Interface(paramiko.ServerInterface):
            def get_allowed_auths(self, username: str) -> str:
                return "publickey,password"

            def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
                noted.append(f"{username} key {key.get_base64()}")
                return int(paramiko.AUTH_FAILED)

            def check_auth_password(self, username: str, password: str) -> int:
                noted.append(f"{username} password {password}")
                return int(paramiko.AUTH_FAILED)

        self._interface = Interface
        self._key = paramiko.RSAKey.generate(2048)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._transports: list[Any] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        import paramiko

        with suppress(OSError):
            while True:
                transport = paramiko.Transport(self._listener.accept()[0])
                transport.add_server_key(self._key)
                self._transports.append(transport)
                with suppress(Exception):
                    transport.start_server(server=self._interface())

    def close(self) -> None:
        self._listener.close()
        for transport in self._transports:
            transport.close()


def test_keys_of_this_machines_user_are_not_offered_over_ssh(home: Path) -> None:
    paramiko = pytest.importorskip("paramiko")
    (home / ".ssh").mkdir()
    paramiko.RSAKey.generate(2048).write_private_key_file(str(home / ".ssh/id_rsa"))
    server = SshServer()
    values = {"protocol": "sftp", "host": "127.0.0.1", "port": server.port, "client_id": "me", "secret_id": "mine"}
    parameters = {name: MountParameter(value) for name, value in values.items()}
    try:
        for ambient in (False, True):
            server.noted.clear()
            handler = MountSpec("x", "fsspec", parameters=parameters, ambient=ambient).connect()
            with pytest.raises(AcceleratorException):
                handler.describe("x")
            assert [line for line in server.noted if "password" in line] == ["me password mine"]
            assert bool([line for line in server.noted if "key" in line]) is ambient
        for missing in ("client_id", "secret_id"):
            rest = {name: parameter for name, parameter in parameters.items() if name != missing}
            with pytest.raises(MountError, match=f"needs {missing}="):
                MountSpec("x", "fsspec", parameters=rest, ambient=False).connect()
    finally:
        server.close()
