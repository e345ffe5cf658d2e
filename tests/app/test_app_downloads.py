"""Downloads: arrays hold all numbers, the page opens offline, and no other files are left."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from app_requests import explain_bird, load_model
from PIL import Image

from vitrail.app.downloads import write_downloads
from vitrail.app.plain_words import METHODS, TERMS
from vitrail.app.ui.render import Look, render_results
from vitrail.metrics import PROTOCOLS, perturbation_curves


@pytest.fixture(scope="module")
def sides():
    return [explain_bird("vit-birds", "rollout", "diffmask"), explain_bird("vit-birds", "rollout", "diffmask", index=2)]


def measure(side):
    vit, protocol = load_model("vit-birds"), PROTOCOLS["tokens"]
    return {
        name: perturbation_curves(vit, side.image, explanation, protocol) for name, explanation in side.explanations.items()
    }


def test_files_of_one_result(sides, tmp_path):
    [side] = sides[:1]
    curves = measure(side)
    paths = write_downloads(tmp_path, [side], [curves])
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    with np.load(tmp_path / "vitrail-arrays.npz", allow_pickle=False) as arrays:
        assert torch.equal(torch.from_numpy(arrays["rollout"]), side.explanations["rollout"].relevance[0])
        assert arrays["diffmask_parts"].shape[1:] == arrays["diffmask"].shape
        np.testing.assert_array_equal(arrays["rollout_curves"], curves["rollout"].scores[0].numpy())
        described = json.loads(str(arrays["description"]))
        logits = arrays["logits"]
    assert described[0]["target_name"] == side.target
    assert int(logits.argmax()) == described[0]["target"]
    assert described[0]["curves"] == list(curves["rollout"].names)
    with Image.open(tmp_path / "vitrail-sheet.png") as sheet:
        assert sheet.width > 600
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert re.findall(r'src="(?!data:)', page) == []
    # What the served page shows, and what it takes to understand it.
    for words in (
        "The photo</h2>",
        "vt-legend",
        METHODS["rollout"].label,
        "counted from 0",
        "colors from",
        TERMS["deletion"],
        "AUC",
    ):
        assert words in page
    assert "normalized" not in page
    assert render_results([side]) in page


@pytest.mark.parametrize("look", [Look("gray"), Look("color", "bilinear")])
def test_files_follow_colors_and_blending(sides, tmp_path, look):
    (tmp_path / "default").mkdir()
    write_downloads(tmp_path / "default", sides[:1])
    write_downloads(tmp_path, sides[:1], look=look, opacity=0.4)
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert render_results(sides[:1], look) in page
    assert "--vt-opacity:0.4" in page
    with Image.open(tmp_path / "default" / "vitrail-sheet.png") as old, Image.open(tmp_path / "vitrail-sheet.png") as new:
        assert old.size == new.size
        assert old.tobytes() != new.tobytes()


def test_files_of_two_sides(sides, tmp_path):
    curves = [measure(side) for side in sides]
    write_downloads(tmp_path, sides, curves, look=Look("gray"))
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert not np.array_equal(arrays["a_rollout"], arrays["b_rollout"])
        for name, measured in zip("ab", curves, strict=True):
            for method, one in measured.items():
                np.testing.assert_array_equal(arrays[f"{name}_{method}_curves"], one.scores[0].numpy())
                np.testing.assert_array_equal(arrays[f"{name}_{method}_fractions"], one.fractions.numpy())
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert "A: bird 1.png" in page
    assert "B: bird 2.png" in page
    assert f"B: {METHODS['rollout'].label}" in page


def test_file_names_with_html_are_escaped_on_the_page(sides, tmp_path):
    hostile = "<script>alert('x')</script>.png"
    write_downloads(tmp_path, [replace(sides[0], row=replace(sides[0].row, title=hostile))])
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<h2>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;.png</h2>" in page
