"""Several sources and included files as one text: order, lines, guards, directories, and what cannot be one."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from apyfal.exceptions import ConfigurationError, ProgramError
from apyfal.opencl.comments import without_comments
from apyfal.opencl.program import include_directories, make_program, parts_of


def made(files: Mapping[str, str], program: str = "a.cl", build: str = "") -> str:
    def read(name: str) -> bytes:
        try:
            return files[posixpath.normpath(name) if "://" not in name else name].encode("latin-1")
        except KeyError:
            raise FileNotFoundError(name) from None

    return make_program(program, build, read).decode("latin-1")


def places(text: str) -> dict[str, str]:
    """Map each word of the text to the file and line that a compiler says for it."""
    found = {}
    name, number = "", 0
    for line in text.splitlines():
        if match := re.fullmatch(r'#line (\d+) "(.*)"', line):
            name, number = match[2], int(match[1])
            continue
        for word in re.findall(r"\b[a-z]\w*\b", line):
            found.setdefault(word, f"{name}:{number}")
        number += 1
    return found


@pytest.mark.parametrize("text", ["", "one", "one\ntwo\n", "int x; /* a */ int y; // b\n", "int\tx;\r\n"])
def test_a_source_alone_stays_as_it_is(text: str) -> None:
    assert made({"a.cl": text}).rstrip("\n") == text.rstrip("\n")


def test_several_sources_in_their_order() -> None:
    text = made({"a.cl": "one\ntwo", "lib/b.cl": "three\n"}, "a.cl, lib/b.cl")
    assert places(text) == {"one": "a.cl:1", "two": "a.cl:2", "three": "lib/b.cl:1"}


def test_included_files_are_part_of_the_text() -> None:
    files = {
        "src/a.cl": 'first\n#include "b.h"\nsecond\n  #  include <c.h> // with a remark\nthird\n',
        "src/b.h": 'in_b\n#include "deep/d.h"\nend_of_b\n',
        "src/deep/d.h": '#include "../e.h"\nin_d\n',
        "src/e.h": "in_e\n",
        "two/c.h": "in_c\n",
        "three/c.h": "not_this\n",
    }
    text = made(files, "src/a.cl", "-DN=1 -I one -Itwo -I three")
    assert "include" not in text
    assert places(text) == {
        "first": "src/a.cl:1",
        "in_b": "src/b.h:1",
        "in_e": "src/deep/../e.h:1",
        "in_d": "src/deep/d.h:2",
        "end_of_b": "src/b.h:3",
        "second": "src/a.cl:3",
        "in_c": "two/c.h:1",
        "third": "src/a.cl:5",
    }


@pytest.mark.parametrize(
    "line",
    [
        '// #include "b.h"',
        '/* #include "b.h" */',
        '/*\n#include "b.h"\n*/',
        '// a \\\n#include "b.h"',
        'text = "/*"; // \\\n#include "b.h"',
        "#include MACRO",
        '#define TEXT \\\n#include "b.h"',
        '#include \\\n"b.h"',
        '#include "missing.h"',
        'char *x = "\\"\\\n#include "; ',
    ],
)
def test_what_is_no_plain_include_stays(line: str) -> None:
    text = made({"a.cl": f"{line}\nend\n", "b.h": "in_b\n"})
    assert "in_b" not in text
    assert "end" in text


def test_guards() -> None:
    once = {"a.cl": '#include "b.h"\n#include "b.h"\nend\n', "b.h": "#pragma once\nin_b\n"}
    text = made(once)
    assert text.count("in_b") == 2
    assert text.count("#ifndef APYFAL_ONCE_0\n#define APYFAL_ONCE_0\n") == 2
    assert "pragma" not in text
    assert places(text)["in_b"] == "b.h:2"
    around = {
        "a.cl": '#include "b.h"\n',
        "b.h": '/* b */\n#ifndef B_H\n#define B_H\n#include "c.h"\nin_b\n#endif\n',
        "c.h": '#pragma once\n#include "b.h"\nin_c\n',
    }
    found = places(made(around))
    assert (found["in_b"], found["in_c"]) == ("b.h:5", "c.h:3")


@pytest.mark.parametrize("text", ["one \\\n#pragma once\n", "/*\n#pragma once */\n", "/*\n*/#pragma once\n"])
def test_what_is_no_guard(text: str) -> None:
    assert made({"a.cl": text}) == text


def test_a_comment_of_several_lines_in_a_directive() -> None:
    text = made({"a.cl": "#define A 1 /* asm\n*/ + 2\nA\n"})
    assert re.search(r"#define A 1\s+\\\n \+ 2\nA\n", text)


def test_what_cannot_be_one_text() -> None:
    with pytest.raises(ProgramError, match=r"'b\.h' includes itself: a\.cl -> b\.h -> c\.h -> b\.h"):
        made({"a.cl": '#include "b.h"', "b.h": '#include "c.h"', "c.h": '#include "b.h"'})
    with pytest.raises(ProgramError, match="64 files in files"):
        made({"a.cl": '#include "0.h"', **{f"{n}.h": f'#include "{n + 1}.h"' for n in range(99)}})
    with pytest.raises(ProgramError, match=r"more than 16\.0 MiB"):
        made({"a.cl": '#include "b.h"\n' * 20, "b.h": "x" * (1 << 20)})
    with pytest.raises(ProgramError, match="more than 10000 files"):
        made(
            {
                "a.cl": '#include "0.h"',
                **{f"{n}.h": f'#include "{n + 1}.h"\n' * 10 for n in range(60)},
                "60.h": "x" * 99,
            }
        )
    with pytest.raises(ProgramError, match=r"'b\.bin' is a binary"):
        made({"a.cl": "text", "b.bin": "\0"}, "a.cl, b.bin")
    with pytest.raises(FileNotFoundError):
        made({"a.cl": "text"}, "a.cl, b.cl")
    for wrong in ("a.cl,", ",a.cl", "a.cl,,b.cl"):
        with pytest.raises(ConfigurationError, match="an empty name"):
            parts_of(wrong)


def test_a_binary_alone_stays_as_it_is() -> None:
    assert made({"a.bin": 'xclbin2\n#include "b.h"'}, "a.bin") == 'xclbin2\n#include "b.h"'


def test_comments_do_not_keep_a_program_out_of_the_cache() -> None:
    licence = "/* shall be included\n * in all copies\n */\nint x; // plasma\nint y;\n// apyfal: --global=count\n"
    text = made({"a.cl": licence})
    assert not re.search("include|asm|copies", text)
    assert places(text)["x"] == "a.cl:4"
    assert "/* apyfal: --global=count */\n" in text
    text = made({"a.cl": "/* apyfal: --global=count\n included */ x\n"})
    assert text.endswith("  /* apyfal: --global=count */ \\\n x\n")


def test_names_next_to_a_url() -> None:
    files = {
        "s3://lab/src/a.cl": '#include "b.h"\n#include "../c.h"\n#include "../../../../d.h"\n#include <e.h>\n',
        "s3://lab/src/b.h": "in_b",
        "s3://lab/c.h": "in_c",
        "s3://lab/d.h": "in_d",
        "https://host/inc/e.h": "in_e",
        "/etc/f.h": "in_f",
    }
    text = made(files, "s3://lab/src/a.cl", "-I https://host/inc")
    assert all(word in text for word in ("in_b", "in_c", "in_d", "in_e"))
    for wanted in ("/etc/f.h", "file:///etc/f.h", "../../../../../etc/f.h"):
        assert "in_f" not in made({**files, "s3://lab/a.cl": f'#include "{wanted}"\n'}, "s3://lab/a.cl")


def test_directories_of_the_options() -> None:
    assert include_directories("-I a -Ib -DI -I  c -cl-std=CL1.2 -I") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a /* b */ c", ["a   c"]),
        ("a /* b\nc */ d", ["a  ", " d"]),
        ("a // b \\\nc\nd", ["a ", "", "d"]),
        ('"/* a */" b', ['"/* a */" b']),
        ('"a\\"// b" c // d', ['"a\\"// b" c ']),
        ("'\"' /* a */ '\\''", ["'\"'   '\\''"]),
        ("/*/ a */ b", ["  b"]),
        ("a / b /**/ c", ["a / b   c"]),
    ],
)
def test_comments(text: str, code: list[str]) -> None:
    assert [line.code for line in without_comments(text)] == code


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("one\n/* two\n", "b.h:2: a comment without an end"),
        ("#if A\n#ifdef B\n#endif\n", "b.h:1: #if without #endif"),
        ("one\n#endif\n#if A\n", "b.h:2: #endif without #if"),
    ],
)
def test_what_ends_in_another_file(header: str, says: str) -> None:
    """A compiler would refuse it: as one text it would be another program."""
    with pytest.raises(ProgramError, match=says):
        made({"a.cl": '#include "b.h"\n', "b.h": header})


def test_a_backslash_at_the_end_of_a_file() -> None:
    for header in ("#define A \\\n", "#pragma once\n#define A \\\n", "one \\"):
        text = made({"a.cl": '#include "b.h"\nnext\n', "b.h": header}).replace("\\\n", "")
        assert "\nnext\n" in text
        assert "#endif" not in text or "\n#endif\n" in text


# -- names of files ---------------------------------------------------------------------------------------------------
#: Folders and files may be named like this; the last is not UTF-8.
NAMES = [
    *(
        "日本",
        "é",
        'say "x"',
        "back\\slash",
        "back\\",
        "two\nlines",
        "cr\r",
        "tab\t",
        "what??",
        "%d",
        "a\u3000b",
        "include",
    ),
    "\udce9",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the place of the program, of `-I`, in `#line` and in an error, each as the compiler reads it: on one line."""
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir()
    (folder / "b.h").write_text("in_b\n")
    (folder / "wrong.h").write_text("#if A\n")
    Path("a.cl").write_text("#include <b.h>\n")
    for program, text in (("k.cl", '#include "b.h"\nend\n'), ("include me.cl", "// include\nend\n")):
        (folder / program).write_text(text)
        content = make_program(f"{name}/{program}", "", read_file)
        assert (b"in_b\n" in content) == (program == "k.cl")
        for line in content.decode("ascii").split("\n"):
            match = re.fullmatch(r'#line \d+ "((?:[^"\\]|\\.)*)"', line)
            assert match is not None or line in ("in_b", "end", "")
            assert match is None or unquoted(match[1]) in (os.fsencode(folder / "b.h"), os.fsencode(folder / program))
    if not re.search(r"[ \n\r\t]", name):
        assert b"in_b\n" in make_program("a.cl", f"-DA -I {name}", read_file)
        assert b"in_b\n" in make_program("a.cl", f"-I{name} -DA", read_file)
    for text in ('#include "wrong.h"', '#include "k.cl"'):
        (folder / "k.cl").write_text(f"{text}\n")
        with pytest.raises(ProgramError) as error:
            make_program(f"{name}/k.cl", "", read_file)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", [*(name for name in NAMES if not re.search(r'["\n]', name)), "s3://x", "file:///x", "a:b"]
)
def test_an_include_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = Path(f"{name}/b.h")
    wanted.parent.mkdir(parents=True)
    wanted.write_text("in_b\n")
    Path("a.cl").write_bytes(b'#include "%s/b.h"\n' % os.fsencode(name))
    assert b"\nin_b\n" in make_program("a.cl", "", read_local)
    assert b"\nin_b\n" in make_program(str(Path("a.cl").absolute()), "", read_local)


def read_file(name: str) -> bytes:
    return Path(name).read_bytes()


def read_local(name: str) -> bytes:
    assert not re.match(r"[a-z0-9]+:", name), f"{name} would be taken for a URL"
    return read_file(name)


def unquoted(text: str) -> bytes:
    """Return what a compiler takes from a string."""
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda match: bytes([int(match[1], 8)]) if len(match[1]) == 3 else match[1],
        text.encode("latin-1"),
    )


def test_names_in_stores_are_utf_8() -> None:
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        if name == "s3://lab/日本/a.cl":
            return '#include "é.h"\n'.encode() + b'#include "\xe9.h"\nend\n'
        if name == "s3://lab/日本/é.h":
            return b"in_e\n"
        raise FileNotFoundError(name)

    text = make_program("s3://lab/日本/a.cl", "", read)
    assert b"in_e" in text
    assert b'#include "\xe9.h"' in text  # the compiler says what it is about
    assert asked == ["s3://lab/日本/a.cl", "s3://lab/日本/é.h"]


def test_beside_a_file_in_the_root_of_a_mount() -> None:
    assert "in_b" in made({"lab://a.cl": '#include "b.h"\n', "lab://b.h": "in_b\n"}, "lab://a.cl")


@pytest.mark.parametrize(
    "files",
    [
        {"https://u:pass@host/a.cl?sig=pass": "// include\n#include <x.h>\n"},
        {"https://u:pass@host/a.cl?sig=pass": "// include\n", "b.bin": "\0"},
        {"https://u:pass@host/a.cl?sig=pass": "/*"},
        {"https://u:pass@host/a.cl?sig=pass": "", "": ""},
    ],
)
def test_no_secret_of_an_address_is_shown(files: dict[str, str]) -> None:
    try:
        shown = made(files, ",".join(files))
    except (ConfigurationError, ProgramError) as error:
        shown = str(error)
    assert "pass" not in shown


@pytest.mark.parametrize("start", ["", "./", "/", "file:///", "file://localhost/", "FILE:///"])
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("inc/../b.h", "real"),  # inc is a link to real/inc
        ("./inc/./../b.h", "real"),
        ("sub/../b.h", "here"),
        ("../w/inc/../b.h", "real"),
        ("missing/../b.h", None),
        ("a.cl/../b.h", None),
        ("sub/../inc/c.h", "real"),  # which includes "../b.h": beside the name that led to it
        ("linked.h", "here"),  # a link to real/inc/d.h, which includes "b.h"
    ],
)
def test_two_dots_behind_a_link(
    wanted: str, found: str | None, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system follows links before it goes up, as a C compiler does; test_against_cc.py asks one."""
    folder = links(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "a.cl").write_text(f'#include "{wanted}"\nend\n')
    program = f"{start}a.cl" if start in ("", "./") else f"{start}{str(folder)[1:]}/a.cl"
    text = make_program(program, "", read_location).decode()
    assert [word for word in ("here", "real") if f"\n{word}\n" in text] == ([] if found is None else [found])
    assert ("#include" in text) == (found is None)


def test_what_is_not_there_does_not_hide_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = links(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "a.cl").write_text('#include "missing/../b.h"\n#include "b.h"\n#include "missing/../b.h"\n')
    text = make_program("a.cl", "", read_file).decode()
    assert text.count("\nhere\n") == 1
    assert text.count("#include") == 2


@pytest.mark.parametrize("guard", ["#pragma once\n", ""])
def test_a_file_by_two_names_is_one(guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.h").write_text(f'{guard}#include "link.h"\nin_b\n')
    Path("link.h").symlink_to("b.h")
    Path("a.cl").write_text('#include "b.h"\n#include "link.h"\n#include "./b.h"\n')
    if not guard:
        with pytest.raises(ProgramError, match=r"'link\.h' includes itself: a\.cl -> b\.h -> link\.h"):
            make_program("a.cl", "", read_file)
        return
    text = make_program("a.cl", "", read_file).decode()
    assert text.count("#ifndef APYFAL_ONCE_0\n") == text.count("#ifndef") == 3


def test_a_guarded_file_that_includes_itself_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ever other names, each of which has to be looked up."""
    monkeypatch.chdir(tmp_path)
    Path("a.cl").write_text('#include "b.h"\n')
    Path("b.h").write_text("#pragma once\n" + "".join(f'#include "{"./" * (n % 99)}b.h"\n' for n in range(10_000)))
    with pytest.raises(ProgramError, match="more than 10000 files"):
        make_program("a.cl", "", read_file)


def links(place: Path) -> Path:
    """Make w/b.h ("here"), real/b.h ("real") and links from w into real; return w."""
    folder = place / "w"
    (folder / "sub").mkdir(parents=True)
    (place / "real/inc").mkdir(parents=True)
    (folder / "inc").symlink_to(place / "real/inc")
    (folder / "b.h").write_text("here\n")
    (place / "real/b.h").write_text("real\n")
    (place / "real/inc/c.h").write_text('#include "../b.h"\n')
    (place / "real/inc/d.h").write_text('#include "b.h"\n')
    (folder / "linked.h").symlink_to(place / "real/inc/d.h")
    return folder


def read_location(name: str) -> bytes:
    return read_file(re.sub("^file://(localhost)?", "", name, flags=re.I))
