"""Files of an answer hold its numbers, open by themselves, and are all that is left."""

import json
import re

import numpy as np
import pytest
import torch
from asked import ask, model
from PIL import Image

from vitrail.app.downloads import write_downloads
from vitrail.metrics import PROTOCOLS, perturbation_curves


@pytest.fixture(scope="module")
def sides():
    return [ask("vit-birds", "rollout", "diffmask"), ask("vit-birds", "rollout", "diffmask", index=2)]


def test_one_answer(sides, tmp_path):
    [side] = sides[:1]
    each = PROTOCOLS["tokens"]
    curves = {name: perturbation_curves(model("vit-birds"), side.image, one, each) for name, one in side.explanations.items()}
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
    assert page.count("<img") == 3
    assert "Insertion and deletion" in page


def test_two_sides(sides, tmp_path):
    vit, each = model("vit-birds"), PROTOCOLS["tokens"]
    curves = [
        {name: perturbation_curves(vit, side.image, one, each) for name, one in side.explanations.items()} for side in sides
    ]
    write_downloads(tmp_path, sides, curves, palette="gray")
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert not np.array_equal(arrays["a_rollout"], arrays["b_rollout"])
        for name, measured in zip("ab", curves, strict=True):
            for method, one in measured.items():
                np.testing.assert_array_equal(arrays[f"{name}_{method}_curves"], one.scores[0].numpy())
                np.testing.assert_array_equal(arrays[f"{name}_{method}_fractions"], one.fractions.numpy())
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert "A: bird 1.png" in page
    assert "B: bird 2.png" in page
    # One scale for both.
    assert len(set(re.findall(r'alt="rollout for .*?(colors from \S+ to \S+?)\. ', page))) == 1
