"""The media type that an object's name says."""

from __future__ import annotations

import pytest

from apyfal.storage.metadata import content_type_of

NOTHING = "application/octet-stream"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("bucket/a.json", "application/json"),
        ("bucket/A.JSON", "application/json"),
        ("bucket.json/a", NOTHING),
        ("bucket/a.b.txt", "text/plain"),
        ("bucket/a.", NOTHING),
        ("bucket/.json", NOTHING),
        ("bucket/..json", NOTHING),
        ("bucket/.a.json", "application/json"),
        ("bucket/x.csv.gz", "application/gzip"),
        ("bucket/x.csv.GZ", "application/gzip"),
        ("bucket/.gz", "application/gzip"),
        ("bucket/a.tar.Z", "application/x-compress"),
        ("bucket/a.tgz", "application/gzip"),
        ("bucket/a.npy", "application/x-npy"),
        ("bucket/.NPY", "application/x-npy"),
        ("bucket/000001", NOTHING),
        ("", NOTHING),
    ],
)
def test_type_of_a_name(path: str, kind: str) -> None:
    assert content_type_of(path) == kind
