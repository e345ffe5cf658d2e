"""The notebooks of the documentation run from top to bottom in an empty folder, and what they show draws itself."""

import ast
import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from doc_pages import ROOT
from PIL import Image
from slow import by_default

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {"clip.ipynb": "open_clip", "own_data.ipynb": "lightning"}
KEPT = os.environ.get("VITRAIL_NOTEBOOK_PICTURES")
"""A folder in which to keep the pictures, to look at them."""


def read_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, object]) -> object:
    """Run a cell, and return the value of its last line if that is an expression, which a notebook would display."""
    tree = ast.parse(source)
    shown = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(shown, "cell", "eval"), names) if shown else None  # noqa: S307 (a cell of ours)


def draw(value: object) -> Image.Image | None:
    """Return what a notebook would draw of a value, or of the current figure."""
    encode = getattr(value, "_repr_png_", None)
    if encode:
        return Image.open(io.BytesIO(encode()))
    if plt.get_fignums():
        file = io.BytesIO()
        plt.savefig(file, dpi=72)
        plt.close("all")
        return Image.open(file)
    return None


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("path", by_default(NOTEBOOKS[0], among=NOTEBOOKS), ids=lambda path: path.name)
def test_notebook_runs(path, tmp_path, monkeypatch):
    if path.name in NEEDS:
        pytest.importorskip(NEEDS[path.name])
    plt.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITRAIL_CLIP", raising=False)
    names: dict[str, object] = {"__name__": "notebook"}
    pictures = []
    with redirect_stdout(io.StringIO()):
        for number, source in enumerate(read_cells(path)):
            picture = draw(run_cell(source, names))
            if picture:
                pictures.append(picture)
                if KEPT:
                    picture.save(Path(KEPT) / f"{path.stem}-{number}.png")
    assert len(pictures) >= 3
    assert all(len(picture.convert("L").getcolors(256) or range(256)) > 8 for picture in pictures), "a picture is empty"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
