"""apyfal in a notebook: run by nbclient as Jupyter runs it, and shown by nbconvert as a reader sees it."""

from __future__ import annotations

import os
import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

ROOT = Path(__file__).parents[2]
#: Cells, and patterns of what is to be below each.
CELLS = {
    "import apyfal, numpy as np": [],
    "apyfal.devices()": [r"<table>.*<th>device</th>.*<td>emulator:0</td>"],
    "apyfal.accelerators()": [r"<table>.*<td>sha3</td>.*<td>emulator</td>"],
    "apyfal.accelerators()[:0] == []": [r"True"],
    "card = apyfal.Accelerator('scale', dtype='int32')\ncard.process(np.arange(10, dtype='i4'), a=2, report=True)": [
        r"<table>.*<th>device</th>.*<th>out</th><td>40 B</td>"
    ],
    # one bar that stays, also of a job of many chunks
    "with apyfal.ProgressBar('scale') as bar:\n"
    "    big = card.process(np.zeros(3_000_000, dtype='i4'), progress=bar, memory_limit='1MiB')": [
        r'<progress value="12000000" max="12000000".*</progress> scale: 11.4 MiB of 11.4 MiB'
    ],
    "jobs = [np.full(5, number, dtype='i4') for number in range(40)]\n"
    "with apyfal.ProgressBar('many', unit='jobs') as bar:\n"
    "    sums = [int(one.sum()) for one in card.process_map(jobs, progress=bar)]\nsums[-1]": [
        r'<progress value="40" max="40".*</progress> many: 40 of 40 jobs',
        r"195",
    ],
    "apyfal.storage.write_bytes('in.raw', bytes(1000))\n"
    "with apyfal.ProgressBar('copy') as bar:\n"
    "    apyfal.storage.copy('in.raw', 'out.raw', progress=bar)": [r"</progress> copy: "],
    "bar": [r"</progress> copy: "],
    "card.stop()": [],
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """A notebook that has been run in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        NotebookClient(made, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return made


def shown(cell: nbformat.NotebookNode) -> str:
    """Return what is below a cell."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        found.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
    return "\n".join(found)


@pytest.mark.parametrize("number", range(len(CELLS)))
def test_what_is_below_a_cell(notebook: nbformat.NotebookNode, number: int) -> None:
    text = shown(notebook.cells[number])
    expected = list(CELLS.values())[number]
    for pattern in expected:
        assert re.search(pattern, text, re.S), text
    if not expected:
        assert text == ""
    assert len(re.findall("<progress", text)) <= 1  # what changes is one output, not one for each change


def test_the_notebook_as_a_page(notebook: nbformat.NotebookNode) -> None:
    page, _ = HTMLExporter().from_notebook_node(notebook)
    page = re.sub(r'<progress max="(\d+)"(.*?) value="(\d+)"', r'<progress value="\3" max="\1"\2', page)  # sorted there
    for patterns in CELLS.values():
        for pattern in patterns:
            assert re.search(pattern, page if "<" in pattern else unescape(page), re.S), pattern
