"""CPython's own tests of the modules that work on files, with these files in memory and in an S3 bucket.

zipfile, tarfile, gzip, bz2, lzma, fileinput and mailbox open files by name, write, seek, append and read back; the
names lead to a mount (see `redirected`). Each case that is left out has a reason beside it.
"""

from __future__ import annotations

import builtins
import fnmatch
import gzip
import io
import unittest
from pathlib import Path
from typing import Any

import pytest
from conformance_io.redirected import redirect

from apyfal import storage

_REASON = "this Python came without the standard library's tests"
#: Modules of CPython's tests, and the classes of each that are about files.
CASES = {
    "test_zipfile": [
        "StoredTestsWithSourceFile",
        "DeflateTestsWithSourceFile",
        "StoredTestZip64InSmallFiles",
        "StoredWriterTests",
        "DeflateWriterTests",
        "OtherTests",
        "StoredBadCrcTests",
        "DecryptionTests",
        "DeflateTestsWithRandomBinaryFiles",
        "UnseekableTests",
        "TestsWithMultipleOpens",
        "EncodedMetadataTests",
    ],
    "test_tarfile": ["WriteTest", "GzipWriteTest", "AppendTest", "PaxWriteTest"],
    "test_gzip": ["TestGzip", "TestOpen"],
    "test_bz2": ["BZ2FileTest", "OpenTest"],
    "test_lzma": ["FileTestCase", "OpenTestCase"],
    "test_fileinput": ["BufferSizesTests", "FileInputTests"],
    "test_mailbox": ["TestMbox", "TestMMDF", "TestBabyl"],
}
#: Which of them are run on S3, too: each kind of access once.
ON_S3 = (
    "OtherTests",
    "StoredTestsWithSourceFile",
    "AppendTest",
    "TestGzip",
    "FileTestCase",
    "BZ2FileTest",
    "FileInputTests",
    "TestMbox",
)

_DESCRIPTOR = "about a descriptor, which an object of a store has none of while it is written or read"
_LINKS = "about links, which a store has none of"
_EXTRACTS = "writes through the system's own functions (os.open, os.symlink), which are not what is tested"
_LOCKS = "about locks between processes"
_LATE = "looks at a file before it is closed, and an object is there when it is complete"
#: Patterns of ``module.class.test``, and why these are left out.
LEFT_OUT = {
    "test_zipfile.*.test_add_file_before_1980": "about a time that is given to a file, which a store decides",
    "test_lzma.FileTestCase.test_fileno": _DESCRIPTOR,
    "test_gzip.*.test_many_append": "200 appends, each of which sends the object again: nothing new, and slow",
    "test_gzip.*.test_fileobj_from_fdopen": _DESCRIPTOR,
    "test_tarfile.*symlink*": _LINKS,
    "test_tarfile.*.test_link_size": _LINKS,
    "test_tarfile.*.test_add_self": _EXTRACTS,
    "test_tarfile.*.test_cwd": _EXTRACTS,
    "test_tarfile.*.test_filter": _EXTRACTS,
    "test_tarfile.*pathnames": _EXTRACTS,
    "test_tarfile.*.test_file_mode": "about the umask of a local file",
    "test_mailbox.*.test_add_doesnt_rewrite": _LATE,
    "test_mailbox.*.test_add_nonascii_string_header_raises": _LATE,
    "test_mailbox.*.test_message_separator": _LATE,
    "test_mailbox.*.test_lock*": _LOCKS,
    "test_mailbox.*.test_relock": _LOCKS,
    "test_mailbox.*.test_permissions_after_flush": "about permission bits",
    "test_mailbox.*.test_file_perms": "about permission bits",
}


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in LEFT_OUT.items() if fnmatch.fnmatchcase(name, pattern)), None)


class Redirected:
    """Runs a module's cases with their files at a URL."""

    module: Any
    place: str

    @pytest.fixture(autouse=True)
    def _place(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        base = request.getfixturevalue(self.place)
        monkeypatch.chdir(tmp_path)
        directories = [str(tmp_path)]
        if hasattr(self.module, "TEMPDIR"):
            directories.append(self.module.TEMPDIR)
        url = f"{base}/{tmp_path.name}"
        storage.makedirs(f"{url}/0", exist_ok=True)
        if hasattr(self.module, "tarname"):
            storage.makedirs(f"{url}/1", exist_ok=True)
        redirect(monkeypatch, directories, url)
        if hasattr(self.module, "tarname"):
            with open(self.module.tarname, "rb") as tar:
                content = tar.read()
            for kind in (self.module.GzipTest, self.module.Bz2Test, self.module.LzmaTest):
                with kind.open(kind.tarname, "wb") as compressed:
                    compressed.write(content)


def _write_gzip(self: Any) -> None:
    """Write what the other cases read, as theirs does, which asks for the descriptor, too."""
    with gzip.GzipFile(self.filename, "wb") as file:
        file.write(self.module.data1 * 50)
        file.flush()
    file.close()


def _make(module_name: str, class_name: str, place: str) -> type[unittest.TestCase]:
    module = pytest.importorskip(f"test.{module_name}", reason=_REASON)
    case = getattr(module, class_name)
    body: dict[str, Any] = {"module": module, "place": place, "__module__": __name__}
    for name in dir(case):
        if name.startswith("test") and _reason(f"{module_name}.{class_name}.{name}"):
            body[name] = None
    if class_name == "TestGzip":
        body["test_write"] = _write_gzip
    if getattr(case, "open", None) is io.FileIO:
        body["open"] = staticmethod(_open)
    return type(f"{class_name}On{place.capitalize()}", (Redirected, case), body)


def _open(*arguments: Any) -> Any:
    """Stand in for `io.FileIO`, which the cases use for files as they are."""
    return builtins.open(*arguments)


for _module, _classes in CASES.items():
    for _class in _classes:
        for _base in ("memory", "bucket") if _class in ON_S3 else ("memory",):
            _made = _make(_module, _class, _base)
            globals()[f"{_module}_{_made.__name__}".replace("test_", "Test_")] = _made
