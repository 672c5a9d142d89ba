from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apyfal.config.configuration import KINDS, Configuration, Value
from apyfal.config.ini import parse
from apyfal.exceptions import ConfigurationError

EXAMPLE = """\
; what this card runs
[accelerator.vadd]              ; a comment after a section
driver    = opencl              ; and after a value
program   = s3://lab/vadd.cl
arguments = src, dst,
    count
# a whole line
emulator.memory = 4GiB

[host]
host_type = aws
client_id = AKIDEXAMPLE
secret_id = s;cret#1

[host.aws]
region = eu-west-1

[storage.s3.lab]
root = bucket/prefix

[storage]
region = us-east-1

[security]
authorized_host_dirs = ~/shared
    ; a comment in a list

    /data/fpga, with comma
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accelerator.conf"
    path.write_text(EXAMPLE)
    return path


def load(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "bad.conf"
    path.write_text(text)
    return Configuration.load(path)


# -- finding ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {}
    for name in ("environment", "working", "home"):
        (tmp_path / name).mkdir()
        found[name] = tmp_path / name / "accelerator.conf"
        found[name].write_text(f"[host]\nregion = {name}\n")
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("APYFAL_CONFIG_FILE", str(found["environment"]))
    return found


def test_search_order(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert Configuration.load().section("host")["region"] == "environment"
    monkeypatch.delenv("APYFAL_CONFIG_FILE")
    assert Configuration.load().section("host")["region"] == "working"
    places["working"].unlink()
    assert Configuration.load().file == places["home"]
    places["home"].unlink()
    empty = Configuration.load()
    assert empty.file is None
    assert empty.sections() == []
    assert dict(empty.section("host")) == {}


def test_a_file_that_was_named_must_be_there(places: dict[str, Path]) -> None:
    places["environment"].unlink()
    with pytest.raises(
        ConfigurationError, match=r"cannot read configuration '.*' \(from \$APYFAL_CONFIG_FILE\): No such"
    ):
        Configuration.load()
    with pytest.raises(ConfigurationError, match=r"cannot read configuration '[^']*working': Is a directory"):
        Configuration.load(places["working"].parent)


def test_home_is_expanded(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert Configuration.load("~/accelerator.conf").file == places["home"]
    monkeypatch.setenv("APYFAL_CONFIG_FILE", "~/accelerator.conf")
    assert Configuration.load().file == places["home"]


def test_a_configuration_is_taken_as_it_is(file: Path) -> None:
    configuration = Configuration.load(file)
    assert Configuration.load(configuration) is configuration


# -- parsing ----------------------------------------------------------------------------------------------------------
def test_values_know_where_they_are(file: Path) -> None:
    section = Configuration.load(file).section("accelerator.vadd")
    driver = section["driver"]
    assert driver == "opencl"
    assert (driver.file, driver.line, driver.section, driver.key) == (file, 3, "accelerator.vadd", "driver")
    assert driver.where == f"{file}, line 3, [accelerator.vadd] driver"


def test_comments(file: Path) -> None:
    configuration = Configuration.load(file)
    assert configuration.section("host")["secret_id"] == "s;cret#1"
    assert configuration.section("accelerator.vadd").parts("arguments") == ["src", "dst", "count"]


def test_lists_know_the_line_of_every_part(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    security = Configuration.load(file).section("security")
    assert [(part, part.line) for part in security.parts("authorized_host_dirs", None)] == [
        ("~/shared", 25),
        ("/data/fpga, with comma", 28),
    ]
    assert security.paths("authorized_host_dirs") == [Path("/home/me/shared"), Path("/data/fpga, with comma")]
    assert security.paths("missing", ["~/shared"]) == [Path("/home/me/shared")]
    assert Configuration.load({}).section("security").parts("authorized_host_dirs") == []


def test_an_indented_section_keeps_its_keys_apart(tmp_path: Path) -> None:
    section = load(tmp_path, "[host]\n  region = a\n  client_id = b\n    c\n").section("host")
    assert dict(section) == {"region": "a", "client_id": "b\nc"}


@pytest.mark.parametrize(
    "text", ["\ufeff[host]\nregion = x\n", "[host]\r\nregion = x\r\n", "[ host ]\nregion=x", "[host]\nregion\t=\tx"]
)
def test_spellings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.conf"
    path.write_bytes(text.encode())
    assert dict(Configuration.load(path).section("host")) == {"region": "x"}


def test_only_the_first_equals_sign_separates(tmp_path: Path) -> None:
    section = load(tmp_path, "[accelerator.x]\nparameters = a: float64 = 1, b: int8 = 0\n").section("accelerator.x")
    assert section["parameters"] == "a: float64 = 1, b: int8 = 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[host]\nregion\n", "bad.conf, line 2, [host]: expected '[section]' or 'key = value', not 'region'"),
        ("[host]\nregion: eu\n", "line 2, [host]: expected '[section]' or 'key = value', not 'region: ...'"),
        ("region = eu\n", "bad.conf, line 1: key 'region' is before the first '[section]'"),
        ("[host\n", "bad.conf, line 1: '[host' is not a section"),
        ("[]\n", "bad.conf, line 1: '[]' is not a section"),
        ("[a..b]\n", "bad.conf, line 1: '[a..b]' is not a section"),
        ("[host]\n[storge.x]\n", "bad.conf, line 2, [storge.x]: unknown section; did you mean 'storage'?"),
        ("[zzz]\n", "expected one of accelerator, configuration, host, process, security, storage"),
        ("[host]\nregion = a\n[host]\n", "bad.conf, line 3, [host]: the section is already there, at line 1"),
        ("[host]\nregion = a\n\nregion = b\n", "bad.conf, line 4, [host] region: the key is already there, at line 2"),
        ("[host]\n= a\n", "bad.conf, line 2, [host]: '' is not a key"),
        ("[host]\nre gion = a\n", "bad.conf, line 2, [host]: 're gion' is not a key"),
        (
            "[accelerator.x]\n\nkernal = a\n",
            "line 3, [accelerator.x] kernal: unknown key 'kernal'; did you mean 'kernel'?",
        ),
        ("[security]\nauthorised_host_dirs = /\n", "did you mean 'authorized_host_dirs'?"),
        ("[process]\ntype = x\n", "[process] type: unknown key 'type'; expected one of copy, memory_limit, timeout"),
    ],
)
def test_errors_name_file_line_section_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert str(tmp_path / "bad.conf") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.conf"
    path.write_bytes(b"[host]\n\nregion = \xe9\n")
    with pytest.raises(ConfigurationError, match=r"latin\.conf, line 3: the text is not UTF-8"):
        Configuration.load(path)


def test_an_unreadable_line_does_not_show_a_secret(tmp_path: Path) -> None:
    for text in ("[host]\nsecret_id hunter2\n", "[host]\nhunter2\n", "[host]\nhunter2 hunter2\n"):
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, text)
        assert "hunter2" not in str(caught.value)


def test_sections_that_others_check_and_parameters_of_accelerators_are_open(tmp_path: Path) -> None:
    configuration = load(
        tmp_path, "[storage.x]\nanything = 1\n[process.sha3]\ntype = sha3-512\n[accelerator.x]\nemulator.memory = 1\n"
    )
    assert configuration.section("process.sha3")["type"] == "sha3-512"
    with pytest.raises(
        ConfigurationError, match=r"line 2, \[storage\.x\] anything: unknown key 'anything'; expected one of"
    ):
        configuration.section("storage.x").check(["region", "root"])


# -- layers -----------------------------------------------------------------------------------------------------------
def test_subsections_fall_back(file: Path) -> None:
    configuration = Configuration.load(file)
    aws = configuration.section("host.aws")
    assert aws["client_id"] == "AKIDEXAMPLE"
    assert aws["client_id"].section == "host"
    assert aws["region"] == "eu-west-1"
    lab = configuration.section("storage.s3.lab")
    assert dict(lab) == {"region": "us-east-1", "root": "bucket/prefix"}
    assert dict(configuration.section("storage.s3")) == {"region": "us-east-1"}


def test_arguments_win(file: Path) -> None:
    section = Configuration.load(file).section("host.aws", {"region": "us-west-2", "client_id": None, "project_id": 7})
    assert section["region"] == "us-west-2"
    assert section["region"].where == "argument 'region'"
    assert section["client_id"] == "AKIDEXAMPLE"
    assert section.integer("project_id", None) == 7


def test_sections_by_prefix(file: Path) -> None:
    configuration = Configuration.load(file)
    assert configuration.sections("host") == ["host", "host.aws"]
    assert configuration.sections("storage") == ["storage.s3.lab", "storage"]
    assert configuration.sections("stor") == []
    assert "host.aws" in configuration


def test_a_mapping_is_checked_alike() -> None:
    configuration = Configuration.load(
        {
            "security": {"authorized_host_dirs": [Path("/a"), "/b"]},
            "storage.x": {"region": None, "secure": True, "n": 3},
        }
    )
    assert configuration.section("security").paths("authorized_host_dirs") == [Path("/a"), Path("/b")]
    section = configuration.section("storage.x")
    assert dict(section) == {"secure": "true", "n": "3"}
    assert section.boolean("secure", None) is True
    with pytest.raises(ConfigurationError, match=r"\[securty\]: unknown section; did you mean 'security'"):
        Configuration.load({"securty": {}})
    with pytest.raises(ConfigurationError, match=r"\[accelerator\] drivr: unknown key 'drivr'; did you mean 'driver'"):
        Configuration.load({"accelerator": {"drivr": "x"}})
    with pytest.raises(ConfigurationError, match=r"\[storage\.x\] region: expected text, .*, not dict"):
        Configuration.load({"storage.x": {"region": {}}})


# -- typed getters ----------------------------------------------------------------------------------------------------
def test_typed_getters(tmp_path: Path) -> None:
    section = load(
        tmp_path, "[storage.x]\nn = 0x10\nb = No\nsize = 4MiB\nwait = 1.5min\nkind = two\nname = a b\nempty =\n"
    ).section("storage.x")
    assert section.integer("n", None) == 16
    assert section.boolean("b", None) is False
    assert section.size("size", None) == 4 << 20
    assert section.duration("wait", None) == 90.0
    assert section.choice("kind", ["one", "two"], None) == "two"
    assert section.text("name", None) == "a b"
    assert type(section.text("name", None)) is str
    assert section.size("none", 5) == 5
    assert section.require("n") == "0x10"


@pytest.mark.parametrize(
    ("getter", "text", "message"),
    [
        ("integer", "1.5", "expected a whole number, not '1.5'"),
        ("boolean", "maybe", "expected true or false, not 'maybe'"),
        ("size", "4 MeB", "'4 MeB' is not a size: unknown unit 'MeB'; did you mean"),
        ("duration", "soon", "'soon' is not a duration"),
        ("text", "", "expected a value after '='"),
    ],
)
def test_wrong_values(tmp_path: Path, getter: str, text: str, message: str) -> None:
    section = load(tmp_path, f"[storage.x]\n\nlimit = {text}\n").section("storage.x")
    with pytest.raises(ConfigurationError) as caught:
        getattr(section, getter)("limit", None)
    assert str(caught.value).startswith(f"{tmp_path}/bad.conf, line 3, [storage.x] limit: {message}")


def test_wrong_choice_minimum_and_missing_key(tmp_path: Path) -> None:
    section = load(tmp_path, "[storage.x]\nkind = tow\nn = 0\n").section("storage.x")
    with pytest.raises(ConfigurationError, match="unknown value 'tow'; did you mean 'two'"):
        section.choice("kind", ["one", "two"], "one")
    with pytest.raises(ConfigurationError, match="expected 1 or more, not 0"):
        section.integer("n", 1, minimum=1)
    with pytest.raises(ConfigurationError, match=r"bad\.conf, \[storage\.x\]: key 'region' is missing"):
        section.require("region")


# -- secrets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "key",
    ["secret_id", "token", "session_token", "password", "account_key", "sas_token", "connection_string", "Secret-Key"],
)
def test_secrets_are_hidden(tmp_path: Path, key: str) -> None:
    configuration = load(tmp_path, f"[host]\n{key} = hunter2\nclient_id = me\n")
    section = configuration.section("host")
    assert section[key] == "hunter2"
    assert "hunter2" not in f"{configuration!r} {section!r} {section[key]!r} {dict(section)!r}"
    assert "me" in repr(section)
    with pytest.raises(ConfigurationError) as caught:
        section.integer(key, 0)
    assert "hunter2" not in str(caught.value)


def test_user_and_password_in_a_url_are_hidden(tmp_path: Path) -> None:
    section = load(tmp_path, "[host]\nendpoint_url = https://me:hunter2@store/x@y\n").section("host")
    assert repr(section["endpoint_url"]) == "'https://***@store/x@y'"


def test_values_survive_pickle_and_copy(file: Path) -> None:
    value = Configuration.load(file).section("security")["authorized_host_dirs"]
    for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert isinstance(other, Value)
        assert other == value
        assert other.where == value.where
        assert other.parts(None)[1].line == 28


# -- anything at all --------------------------------------------------------------------------------------------------
TEXTS = st.text(
    st.sampled_from(" \t\r\n[]=;#.\"'%~$\\abcé_-\x00\u2028") | st.characters(exclude_categories=["Cs"]), max_size=200
)


@given(TEXTS)
@example("[host]\n =\n")
@example("[host]\na=\x0c\n b")
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refusal = ""
    sections: dict[str, dict[str, Value]] = {}
    try:
        sections = parse(text, Path("any.conf"), KINDS)
    except ConfigurationError as error:
        refusal = str(error)
    assert not refusal or (refusal.startswith("any.conf, line ") and "\n" not in refusal)
    for name, values in sections.items():
        for key, value in values.items():
            assert (value.section, value.key) == (name, key)
            assert value.parts(None) == [part.strip() for part in value.split("\n") if part.strip()]


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.from_regex(r"([!-:<-~]([ -:<-~]{0,20}[!-:<-~])?)?", fullmatch=True).filter(lambda text: " ;" not in text)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(mounts: dict[str, dict[str, str]]) -> None:
    lines = []
    for mount, values in mounts.items():
        lines.append(f"[storage.{mount}]")
        lines += [f"{key} = {value}" for key, value in values.items()]
    read = parse("\n".join(lines), Path("any.conf"), KINDS)
    assert {name.partition(".")[2]: {**values} for name, values in read.items()} == mounts
