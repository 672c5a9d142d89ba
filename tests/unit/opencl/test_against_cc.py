"""The text of a program against the system's preprocessor: what it makes of the files, it makes of the text."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from apyfal.exceptions import ProgramError
from apyfal.opencl.program import make_program

_LINES = [
    *('#include "b.h"', '#include "d/c.h"', '#include "c.h"', "#include <e.h>", '# include "../i/e.h" // r'),
    *("#if A", "#endif", "#define A 1", "#undef A", "#define K(a) a \\", "#pragma once", "__LINE__", "word", "m \\"),
    *('/* include "b.h" */', '// #include "b.h"', "/* a", "b */ int z;", '"s // t";', "x /* y */ z", "// c \\"),
    *("'\"' q", "/* asm"),
]
_NAMES = ("a.cl", "b.h", "d/c.h", "i/e.h")


def _file(source: random.Random, name: str) -> str:
    body = source.choices(_LINES, k=source.randint(1, 9))
    if name != "a.cl":
        guard = name.upper().replace("/", "_").replace(".", "_")
        body = (
            ["#pragma once", *body]
            if source.random() < 0.5
            else [f"#ifndef {guard}", f"#define {guard}", *body, "#endif"]
        )
    return "\n".join([*body, ""])


def _words(folder: Path, name: str) -> list[str] | None:
    command = ["cc", "-E", "-P", "-x", "c", "-I", "i", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, check=False)
    return done.stdout.split() if done.returncode == 0 else None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("seed", range(4))
def test_the_text_means_what_the_files_mean(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = random.Random(seed)
    compared = 0
    while compared < 12:
        for name in _NAMES:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(_file(source, name))
        try:
            text = make_program("a.cl", "-I i", lambda name: Path(name).read_bytes())
        except ProgramError:
            assert _words(tmp_path, "a.cl") is None
            continue
        expected = _words(tmp_path, "a.cl")
        if expected is not None:
            Path("text.cl").write_bytes(text)
            assert _words(tmp_path, "text.cl") == expected, text.decode()
            compared += 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", ["日本", 'say "x"', "back\\slash", "two\nlines", "what??", "tab\t"])
def test_the_names_of_files_are_those_that_the_compiler_knows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Path(f"{name}/a.cl").write_text('#include "b.h"\n__FILE__ __LINE__\n')
    Path(f"{name}/b.h").write_text("__FILE__ __LINE__\n")
    Path("text.cl").write_bytes(make_program(f"{name}/a.cl", "", lambda name: Path(name).read_bytes()))
    assert _words(tmp_path, "text.cl") == _words(tmp_path, f"{name}/a.cl")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("wanted", ["inc/../b.h", "sub/../b.h", "../w/inc/../b.h", "sub/../inc/c.h", "linked.h"])
def test_links_lead_where_the_compiler_goes(wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("w/sub", "w/i", "real/inc"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "w")
    Path("inc").symlink_to(tmp_path / "real/inc")
    Path("linked.h").symlink_to(tmp_path / "real/inc/c.h")
    for name in ("b.h", "../real/b.h", "../b.h"):
        Path(name).write_text(f"{name.count('real')} __FILE__\n")
    Path("inc/c.h").write_text('#include "../b.h"\n')
    Path("a.cl").write_text(f'#include "{wanted}"\n#include <{wanted}>\n#include <../{wanted}>\n')
    text = make_program("a.cl", "-I i/.. -I sub", lambda name: Path(name).read_bytes())
    command = ["cc", "-E", "-P", "-x", "c", "-I", "i/..", "-I", "sub"]
    Path("text.cl").write_bytes(text)
    made, asked = (
        subprocess.run([*command, name], capture_output=True, text=True, timeout=60, check=False)
        for name in ("text.cl", "a.cl")
    )
    assert (made.returncode, made.stdout.split()) == (asked.returncode, asked.stdout.split())
    assert asked.returncode == 0
