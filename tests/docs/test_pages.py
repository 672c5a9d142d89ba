"""What the documentation shows is run: Python blocks, configurations and command lines."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import apyfal
from apyfal.cli import COMMANDS
from apyfal.config.configuration import Configuration

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Pages that the site has and the tree does not; `test_site.py` looks at the links to them.
MADE = {*("changelog.md", "contributing.md"), *("reference/configuration-keys.md", "reference/command-line.md")}
MADE |= {f"reference/api/{name}.md" for name in ("index", "apyfal", "storage", "exceptions", "accelerators", "testing")}


def blocks(language: str) -> list[object]:
    """Return the fenced blocks in `language` of all pages, with their place as id."""
    found: list[object] = []
    for page in PAGES:
        if page.name == "start.md" or page.parent.name == "tutorials":
            continue  # typed as a whole by `test_tutorials.py`
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M):
            line = page.read_text().count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs_as_pasted(code: str, tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(apyfal.__file__).parents[1])!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in code.splitlines():
        if line.startswith("print(") and "  # " in line:
            assert done.stdout.strip() == line.partition("  # ")[2]


@pytest.mark.parametrize("text", blocks("ini"))
def test_configurations_are_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "accelerator.conf"
    path.write_text(text)
    configuration = Configuration.load(path)
    assert configuration.sections()
    for name in configuration.sections("accelerator"):
        assert apyfal.accelerators.resolve(name.partition(".")[2], configuration).name


@pytest.mark.parametrize("text", blocks("sh"))
def test_command_lines_are_accepted(text: str) -> None:
    for line in re.split(r"\n|&&", text):
        words = shlex.split(line, comments=True)
        if words[:1] == ["apyfal"] and not words[1].startswith("-"):
            command = importlib.import_module(COMMANDS[words[1]][0]).command
            with command.make_context(words[1], words[2:]) as context:
                assert context.params is not None
        if words[:1] == ["./do"]:
            assert words[1] in verbs()


def verbs() -> list[str]:
    """Return the verbs that ``./do`` explains."""
    text = subprocess.run([ROOT / "do"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z]+) ", text, re.M)


def test_contributing_lists_the_verbs_of_do() -> None:
    assert re.findall(r"^\| `([a-z]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M) == verbs()
    unknown = subprocess.run([ROOT / "do", "tset"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("do: unknown verb 'tset'; expected one of build, test,")


def test_the_command_line_page_lists_the_commands() -> None:
    table = re.findall(r"^\| `([a-z]+)` \|", (ROOT / "docs/how-to/command-line.md").read_text(), re.M)
    assert table == list(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text()):
        place = (page.parent / target).resolve()
        assert place.exists() or place.relative_to(ROOT / "docs").as_posix() in MADE, target


def test_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for path in re.findall(r"`((?:csrc|apyfal|tests)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


#: Kinds of blocks, and how each is tested, or why it is not.
BLOCKS = {
    "python": "run",
    "sh": "run in tutorials; elsewhere the command line is parsed, since it names stores that nobody has here",
    "ini": "loaded",
    "text": "what a command prints, or lines for a cluster or store that the reader has",
    "toml": "of other packages: examples/ has them whole",
    "c": "written to a file and compiled in tutorials; a declaration elsewhere",
    "verilog": "written to a file and simulated",
    "mermaid": "drawn",
    "": "messages and pictures",
    "{ .python .theirs }": "another library's code, which that library explains",
    "{ .python .needs-a-card }": "needs the card of its section",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    infos = re.findall(r"^ *```(.*)$", page.read_text(), re.M)
    assert len(infos) % 2 == 0
    kinds = {re.sub(r' title="[^"]*"', "", info) for info in infos[::2]}
    assert kinds - set(BLOCKS) == set()


def test_every_kind_of_block_is_in_use() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for kind in BLOCKS:
        assert re.search(rf"^```{re.escape(kind)}\b" if kind.isalpha() else rf"^```{re.escape(kind)}$", text, re.M), (
            kind
        )
