"""The notebooks run from a clean kernel, and lie in the repository with what they show."""

import os
import re

import pytest
from conftest import SAMPLES

ROOT = SAMPLES.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat, nbclient and ipykernel: '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbformat, nbclient and ipykernel: '.[test]'")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def numbers(cell):
    """The numbers that a cell printed and shows: versions of pandas set them in different ways."""
    texts = []
    for output in cell.outputs:
        texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return re.findall(r"\d+", re.sub(r" at 0x[0-9a-f]+", "", "".join(texts)))


def test_there_are_four():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the kernel's own machinery, in a process of its own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_showed(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(path.parent)}})
    client.execute()  # raises where a cell fails
    for was, now in zip(code_cells(kept), code_cells(fresh), strict=True):
        assert numbers(now) == numbers(was), was.source
        images = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in (was, now)]
        assert images[0] == images[1], was.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_here_whole_and_says_nothing_of_its_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert any("image/png" in o.get("data", {}) for cell in cells for o in cell.outputs) or path.stem.startswith("04")
    text = path.read_text(encoding="utf-8")
    assert "\\u001b" not in text
    assert not any(place in text for place in ("/home/", "/root/", "/work/", "/tmp/", "site-packages"))
