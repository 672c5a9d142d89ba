"""How storage URLs and paths are read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from apyfal.exceptions import InvalidURL, ParameterError
from apyfal.storage.url import Location, is_file_object, parse, redact


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/home/u/f", Location("file", "/home/u/f")),
        ("file:///home/u/f", Location("file", "/home/u/f")),
        ("FILE://localhost/home/u/f", Location("file", "/home/u/f")),
        ("relative/f", Location("file", "relative/f")),
        ("file:///a%20b?c#d", Location("file", "/a%20b?c#d")),
        (Path("/home/u/f"), Location("file", "/home/u/f")),
        (PurePosixPath("a b"), Location("file", "a b")),
        ("./s3://b/k", Location("file", "./s3://b/k")),
        ("dir/x://y", Location("file", "dir/x://y")),
        ("a:b", Location("file", "a:b")),
        ("s3://bucket/key", Location("s3", "bucket/key")),
        ("S3://bucket/Key", Location("s3", "bucket/Key")),
        ("aws://bucket/key", Location("s3", "bucket/key")),
        ("aws.lab://bucket/key", Location("s3.lab", "bucket/key")),
        ("openstack://c/o", Location("swift", "c/o")),
        ("my_storage://my_file", Location("my_storage", "my_file")),
        ("s3://bucket", Location("s3", "bucket")),
        ("s3://", Location("s3", "")),
        ("s3:///", Location("s3", "")),
        ("s3://b//k//", Location("s3", "b//k//")),
        ("s3://b/ k%20?x=1#f\n", Location("s3", "b/ k%20?x=1#f\n")),
        ("s3://b/ключ", Location("s3", "b/ключ")),
        ("http://h/p?q=1", Location("http", "h/p?q=1")),
        ("host:///out/x", Location("host", "/out/x")),
        ("HOST://out/x", Location("host", "out/x")),
    ],
)
def test_meaning(url: object, expected: Location) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("s3://b/\0", "NUL"),
        (" s3://b/k", "is not a scheme"),
        ("\ts3://b/k", "is not a scheme"),
        ("3s://b/k", "is not a scheme"),
        ("s\uff13://b/k", "is not a scheme"),
        ("://b", "is not a scheme"),
        ("file://server/share", "three slashes"),
        ("file://relative", "file:///relative"),
        ("file://", "three slashes"),
        ("host:/etc/passwd", "host://etc/passwd"),
        ("HOST:etc", "host://etc"),
        ("file:/etc", "file:///etc"),
        ("s3:/b/k", "s3://b/k"),
        (Path("s3://b/k"), "s3://b/k"),
        (Path("aws://b/k"), "aws://b/k"),
        ("http://h/a\r\nHost: x", "control character"),
    ],
)
def test_refused(url: object, message: str) -> None:
    with pytest.raises(InvalidURL, match="(?i)" + message):
        parse(url)


@pytest.mark.parametrize("value", [None, 3, b"/home", ["a"], 1.5])
def test_what_is_no_location(value: object) -> None:
    with pytest.raises(ParameterError, match="expected a URL or path"):
        parse(value)


def test_one_file_has_one_location() -> None:
    assert len({parse("/x/y"), parse("file:///x/y"), parse(Path("/x/y"))}) == 1


def test_a_location_can_be_parsed_again() -> None:
    for url in ("/x", "s3://b/k ", "my.lab://k"):
        assert parse(parse(url).url) == parse(url)


def test_secrets_are_not_shown() -> None:
    url = "https://me:canary@host/p/q?X-Amz-Signature=canary&a=b"
    assert redact(url) == "https://host/p/q?..."
    assert str(parse(url)) == "https://host/p/q?..."
    assert parse(url).url == url
    assert redact("s3://me@b/k?x") == "s3://me@b/k?x"
    assert redact("http://h/a@b") == "http://h/a@b"


def test_file_objects(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        assert is_file_object(file)
    assert not is_file_object(tmp_path)
    assert not is_file_object("x")
    assert not is_file_object(3)
