"""What a configuration of the working directory may say without the user's word: every key of the table.

Each key of each section has a row, not only those that were reported (tokens, endpoints, a driver by path). Each row is
tried untrusted, trusted, and after a change of the file, and a key that is added without a verdict fails here.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from apyfal.accelerators import resolve
from apyfal.config.authority import _PROVIDERS, CREDENTIALS, TABLE, Verdict, rule_of
from apyfal.config.configuration import KINDS, Configuration, host_ip_of
from apyfal.config.ini import Value, is_secret
from apyfal.config.trust import TrustStore
from apyfal.exceptions import ConfigurationError
from apyfal.host.client.accelerator import open_host
from apyfal.host.settings import HostSettings
from apyfal.storage import providers
from apyfal.storage.mounting.parameters import accepted, shown
from apyfal.storage.mounting.table import MountTable
from apyfal.storage.url import parse

#: Values that the rule's condition accepts, where any text will not do.
GOOD = {
    "region": "eu-west-1",
    "verify": "false",
    "host_ip": "https://127.0.0.1:1",
    "src": "inside",
    "provider": "s3",
    "protocol": "sftp",
}
#: Values that the condition refuses: the key then names something that only a trusted file may name.
BAD = {
    ("accelerator", "driver"): ("./x.so", "/opt/x.so", "~/x.so", "../x.so", "sub/x.so"),
    ("accelerator", "device"): ("/dev/mem", "../../etc/passwd"),
    ("host", "host_ip"): ("unix:///run/other.sock", " UNIX:///run/other.sock"),
    ("host", "region"): ("evil.example/", "x@evil.example", "eu west", "a" * 41, "évil"),
    ("storage", "region"): ("evil.example/", "x#", "a.b"),
    ("storage", "provider"): ("a-plugin",),
    ("storage", "protocol"): ("file", "local", "dir", "zip", "reference", "simplecache", "s3", "memory", "SFTP", "git"),
    ("storage", "verify"): ("/etc/passwd", "ca.pem", "~/ca.pem"),
    ("configuration", "src"): (
        *("../up", "/etc/passwd", "~/x", "file:///etc/passwd", "s3://b/k", "link/x", "inside/../../up", "memory:x"),
        "away",
    ),
}
ROWS = [(kind, key) for kind, rules in TABLE.items() for key in sorted({*rules, *(KINDS[kind] or ())}) if key != "*"]
ROWS = [(kind, key.replace("*", "some")) for kind, key in ROWS]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, and a working directory that somebody else has filled."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (here / "inside").write_text("data")
    (here / "link").symlink_to(tmp_path)
    (here / "away").symlink_to(home / "private")
    (home / "private").write_text("secret")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    for name in ("APYFAL_CONFIG_FILE", "APYFAL_TOKEN", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return here


def write(place: Path, text: str) -> Path:
    file = place / "accelerator.conf"
    file.write_text(text)
    return file


def refused(error: pytest.ExceptionInfo[ConfigurationError], file: Path, key: str) -> bool:
    text = str(error.value)
    return "\n" not in text and str(file) in text and key in text and f"apyfal config trust {file}" in text


# -- the table is whole -----------------------------------------------------------------------------------------------
def test_every_key_of_every_section_has_a_row() -> None:
    assert set(TABLE) == set(KINDS)
    for kind, keys in KINDS.items():
        assert kind == "security" or set(keys or ()) <= set(TABLE[kind]), kind
        assert all(rule_of("security", key).verdict is Verdict.TRUSTED for key in KINDS["security"] or ())
    for provider in providers.BUILT_IN.values():
        missing = set(accepted(providers.handler_factory(provider))) - set(TABLE["storage"])
        assert not missing, f"{provider.name}: decide what an untrusted file may say of {missing}"
    assert {"host_ip", "host_type", "token", "token_file"} <= set(TABLE["host"])


def test_every_documented_driver_option_has_a_row() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/drivers.md").read_text()
    documented = set(re.findall(r"^\| .*?`((?:opencl|xrt|xdma)\.\w+)`", text, re.M))
    documented |= set(re.findall(r"^\| `xdma\.\w+`, `(xdma\.\w+)`", text, re.M))
    emulator = text.partition("## emulator")[2].partition("## opencl")[0]
    for row in re.findall(r"^\| (`.*?) \|", emulator, re.M):
        documented |= {f"emulator.{name}" for name in re.findall(r"`(\w+)`", row)}
    assert len(documented) > 25
    assert documented <= set(TABLE["accelerator"])


def test_the_providers_are_the_built_in_ones() -> None:
    names = {name for provider in providers.BUILT_IN.values() for name in (provider.name, *provider.aliases)}
    assert names == _PROVIDERS


# -- each row ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "key"), ROWS)
def test_a_key_counts_as_the_table_says(place: Path, kind: str, key: str) -> None:
    value = GOOD.get(key, "1")
    text = f"[{kind}]\n{key} = {value}\n"
    file = write(place, text)
    section = Configuration.load().section(kind)
    assert key in section
    if rule_of(kind, key).verdict is Verdict.TRUSTED:
        with pytest.raises(ConfigurationError) as error:
            section[key]
        assert refused(error, file, key)
        for read in (section.text, section.parts, section.require):
            with pytest.raises(ConfigurationError, match="without your word"):
                read(key, None) if read != section.require else read(key)  # type: ignore[operator]
        with pytest.raises(ConfigurationError, match="without your word"):
            dict(section)
    else:
        assert section[key] == value
    # an argument of the program wins, and is the user's word
    assert Configuration.load().section(kind, {key: "mine"})[key] == "mine"
    # the user's word, for this content and no other
    TrustStore().trust(file)
    assert Configuration.load().section(kind)[key] == value
    write(place, text + "; changed\n")
    assert Configuration.load().distrust == "it has changed since then"


@pytest.mark.parametrize(("kind", "key", "value"), [(*row, value) for row, values in BAD.items() for value in values])
def test_values_that_name_more_than_they_may(place: Path, kind: str, key: str, value: str) -> None:
    file = write(place, f"[{kind}]\n{key} = {value}\n")
    with pytest.raises(ConfigurationError) as error:
        Configuration.load().section(kind)[key]
    assert refused(error, file, key)
    TrustStore().trust(file)
    assert Configuration.load().section(kind)[key] == value.strip()


def test_a_refused_key_stops_only_those_who_ask_for_it(place: Path) -> None:
    write(
        place,
        "[accelerator]\nprogram = ./x.cl\n[accelerator.mine]\nkernel = sha3\ndriver = ./x.so\n[host]\nregion = x\n",
    )
    assert resolve("sha3").kernel == "sha3"
    with pytest.raises(ConfigurationError, match="driver"):
        resolve("mine")
    assert resolve("mine", driver="emulator", program="s3://b/mine").program == "s3://b/mine"


PROGRAM = "driver = opencl\narguments = src, dst, count\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("program", "x.cl"),
        ("program", "x.cl, y.cl"),
        ("program", "x.cl, /elsewhere/y.cl"),
        ("program", "../x.cl, s3://bucket/y.cl"),
        ("program", "file:///elsewhere/x.cl"),
        ("program", "日本/x.cl"),
        ("program", "link/../x.cl"),
        ("opencl.build", "-I /elsewhere"),
        ("opencl.build", "-I/elsewhere"),
        ("opencl.build", "-I ."),
        ("opencl.build", "-I inside/.. -I link"),
        ("opencl.build", "-I s3://bucket/inc"),
        ("opencl.build", "-DN=1"),
    ],
)
def test_a_strangers_directory_names_no_sources_and_no_directories_of_includes(
    place: Path, key: str, value: str
) -> None:
    """However many there are, and wherever: what the user's own program includes is the user's to say, too."""
    file = write(place, f"[accelerator.mine]\n{PROGRAM}{key} = {value}\n")
    own = {} if key == "program" else {"program": "/own/x.cl"}
    with pytest.raises(ConfigurationError) as error:
        resolve("mine", **own)
    assert refused(error, file, key)
    TrustStore().trust(file)
    found = resolve("mine", **own)
    assert (found.program if key == "program" else found.options["build"]) == value


def test_a_daemon_does_not_take_its_settings_from_a_strangers_directory(place: Path) -> None:
    write(place, "[security]\nauthorized_host_dirs = /\n")
    with pytest.raises(ConfigurationError, match="authorized_host_dirs"):
        HostSettings.load()


# -- hosts and their tokens -------------------------------------------------------------------------------------------
HOST = "[host]\nhost_ip = https://127.0.0.1:9\n"


@pytest.mark.parametrize(
    ("text", "environment", "argument", "token"),
    [
        (HOST, None, None, None),  # nothing is lent
        (HOST, "apf_user", None, ConfigurationError),
        (HOST, None, "apf_program", ConfigurationError),
        (HOST + "token = apf_own\n", None, None, "apf_own"),
        (HOST + "token = apf_own\n", "apf_user", None, "apf_own"),
        (HOST + "token = apf_own\n", "apf_user", "apf_program", ConfigurationError),
        (HOST + "token_file = token\n", None, None, None),
        (HOST + "token_file = ~/private\n", None, None, None),
        ("[host]\nhost_type = lab\n[host.lab]\nhost_ip = https://127.0.0.1:9\n", "apf_user", None, ConfigurationError),
    ],
)
def test_whose_token_a_host_gets(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    environment: str | None,
    argument: str | None,
    token: object,
) -> None:
    file = write(place, text)
    if environment is not None:
        monkeypatch.setenv("APYFAL_TOKEN", environment)
    assert host_ip_of(None) == "https://127.0.0.1:9"
    if token is ConfigurationError:
        with pytest.raises(ConfigurationError) as error:
            open_host(token=argument)
        assert refused(error, file, "host_ip")
        assert "apf_" not in str(error.value)
    else:
        sent = [field for field in open_host(token=argument)._fields if field.startswith("Authorization")]
        assert sent == ([] if token is None else [f"Authorization: Bearer {token}"])


# -- mounts -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def recorder() -> Iterator[tuple[int, list[bytes]]]:
    """A server of the attacker's: keeps what it gets, answers 403."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    got.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], got
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


#: What the user has in the environment, each with a canary in it.
AMBIENT = {
    "AWS_ACCESS_KEY_ID": "CANARY",
    "AWS_SECRET_ACCESS_KEY": "CANARY",
    "AWS_SESSION_TOKEN": "CANARY",
    "AZURE_STORAGE_SAS_TOKEN": "sig=CANARY",
    "AZURE_STORAGE_ACCOUNT": "CANARY",
    "AZURE_STORAGE_KEY": "Q0FOQVJZ",
    "OS_USERNAME": "CANARY",
    "OS_PASSWORD": "CANARY",
    "OS_AUTH_URL": "http://127.0.0.1:1/v3",
    "OS_PROJECT_NAME": "CANARY",
    "GOOGLE_CLOUD_PROJECT": "CANARY",
}
OWN_KEYS = "client_id = own\nsecret_id = b3du\n"
ADDRESSES = {
    "s3": "endpoint_url = {}",
    "oss": "endpoint_url = {}",
    "gs": "endpoint_url = {}",
    "az": "endpoint_url = {}/own",
    "swift": "endpoint_url = {}/v3",
}


@pytest.mark.parametrize("section", ["storage.NAME", "storage.lab", "host", "host.NAME", "storage"])
@pytest.mark.parametrize("provider", list(ADDRESSES))
@pytest.mark.parametrize(
    "half", ["", "client_id = own\n", "session_token = own\n", "project = own\n", "verify = false\n"]
)
def test_an_address_of_an_untrusted_file_gets_no_credentials_of_the_user(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: tuple[int, list[bytes]],
    section: str,
    provider: str,
    half: str,
) -> None:
    port, got = recorder
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)
    section = section.replace("NAME", provider)
    stated = f"provider = {provider}\n" if section == "storage.lab" else ""
    write(place, f"[{section}]\n{stated}{half}{ADDRESSES[provider].format(f'http://127.0.0.1:{port}')}\n")
    scheme = "lab" if section == "storage.lab" else provider
    with pytest.raises(ConfigurationError, match="apyfal config trust"):
        MountTable().resolve(parse(f"{scheme}://bucket/key"))
    assert got == []


@pytest.mark.parametrize("provider", ["s3", "oss", "gs", "swift"])
def test_a_mount_with_its_own_credentials_needs_no_word(place: Path, provider: str) -> None:
    write(
        place, f"[storage.lab]\nprovider = {provider}\n{OWN_KEYS}{ADDRESSES[provider].format('http://127.0.0.1:1')}\n"
    )
    assert MountTable().mounts()["lab"].provider == provider


def test_a_program_does_not_give_its_credentials_to_a_strangers_address(place: Path) -> None:
    file = write(place, "[storage.lab]\nprovider = s3\nendpoint_url = http://127.0.0.1:1\n")
    with pytest.raises(ConfigurationError) as error:
        MountTable().mount("lab", client_id="mine", secret_id="mine")
    assert refused(error, file, "endpoint_url")
    MountTable().mount("lab", client_id="mine", secret_id="mine", endpoint_url="http://127.0.0.1:2")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("[storage.s3]\nroot = evil-bucket\n", "s3://bucket/key"),
        ("[storage.aws]\nroot = evil-bucket\n", "s3://bucket/key"),
        ("[storage]\nroot = evil-bucket\n", "s3://bucket/key"),
        ("[storage]\nroot = evil-bucket\n", "https://example.com/key"),
        ("[storage.https]\nverify = false\n", "https://example.com/key"),
        ("[storage.https]\nproxy = http://127.0.0.1:1\n", "https://example.com/key"),
        ("[storage]\nproxy = http://127.0.0.1:1\n", "http://example.com/key"),
        ("[storage]\nproxy = http://127.0.0.1:1\n", "s3://bucket/key"),
        ("[host]\nproxy = http://127.0.0.1:1\n", "s3://bucket/key"),
        ("[storage.fsspec]\nprotocol = file\n", "fsspec://etc/passwd"),
        ("[storage.s3]\nprofile = prod\n", "s3://bucket/key"),
        ("[storage.s3]\nprovider = fsspec\nprotocol = file\n", "s3://etc/passwd"),
        ("[storage.file]\nroot = sub\n", "file:///etc/passwd"),
    ],
)
def test_addresses_that_mean_something_by_themselves_keep_their_meaning(place: Path, text: str, url: str) -> None:
    write(place, text)
    with pytest.raises(ConfigurationError, match="apyfal config trust"):
        MountTable().resolve(parse(url))


@pytest.mark.parametrize(
    ("root", "inside"),
    [
        ("sub", True),
        ("./sub/.", True),
        ("sub/../sub", True),
        (".", True),
        ("..", False),
        ("link", False),
        ("link/home", False),
        ("sub/../..", False),
        ("~", False),
        ("~root", False),
        ("/", False),
        ("/etc", False),
        ("file:///etc", False),
    ],
)
def test_local_mounts_stay_in_the_directory(place: Path, root: str, inside: bool) -> None:
    (place / "sub").mkdir()
    file = write(place, f"[storage.data]\nprovider = file\nroot = {root}\n")
    if inside:
        assert MountTable().mounts()["data"].root == root
        return
    with pytest.raises(ConfigurationError) as error:
        MountTable().mounts()
    assert refused(error, file, "root")


@pytest.mark.parametrize("text", ["region = eu-west-1\n", "bandwidth = 1MiB\n", "root = b/p\n", ""])
def test_what_names_no_address_may_use_the_users_credentials(
    place: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)
    write(place, f"[storage.lab]\nprovider = s3\n{text}")
    table = MountTable()
    table.resolve(parse("lab://bucket/key")).release()
    table.clear()


@pytest.mark.parametrize("name", sorted(CREDENTIALS - {"client_id", "access_key_id", "user", "username"}))
def test_what_authenticates_is_never_shown(name: str) -> None:
    assert is_secret(name)
    assert "canary" not in shown(name, {"Authorization": "Bearer canary"})
    assert "canary" not in repr(Value("canary", section="storage.lab", key=name))
