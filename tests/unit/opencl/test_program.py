"""Several sources and included files as one text: order, lines, guards, directories, and what cannot be one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from apyfal.exceptions import ConfigurationError, ProgramError
from apyfal.opencl.comments import without_comments
from apyfal.opencl.program import include_directories, make_program, parts_of


def made(files: Mapping[str, str], program: str = "a.cl", build: str = "") -> str:
    def read(name: str) -> bytes:
        try:
            return files[name].encode("latin-1")
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
        "in_e": "src/e.h:1",
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
