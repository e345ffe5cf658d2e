"""Standard errors of sampled relevance: kept by Explanation, honest for RISE, and used to tell ties."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation


def sampled(error=True):
    relevance = torch.tensor([[[5.0, 4.0], [3.9, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    return Explanation(
        relevance, torch.tensor([0, 1]), torch.randn(2, 3), "rise", standard_error=torch.full((2, 2, 2), 0.1) if error else None
    )


def test_errors_are_sliced_moved_joined_and_saved(tmp_path, unchecked):
    explanation = sampled()
    explanation.save(tmp_path / "map.npz")
    loaded = Explanation.load(tmp_path / "map.npz")
    torch.testing.assert_close(loaded.standard_error, explanation.standard_error)
    assert explanation[1].standard_error.shape == (1, 2, 2)
    assert Explanation.concatenate([explanation[0], explanation[1]]).standard_error.shape == (2, 2, 2)
    assert explanation.to("cpu").standard_error is not None
    with pytest.raises(InvalidInputError, match="some with a standard error and some without"):
        Explanation.concatenate([explanation, sampled(error=False)])
    with pytest.raises(InvalidInputError, match=r"expected a standard error per patch, of shape \(2, 2, 2\), got \(2, 1, 2\)"):
        replace(explanation, standard_error=torch.zeros(2, 1, 2))


def test_files_without_errors_still_load(tmp_path):
    explanation = sampled(error=False)
    explanation.save(tmp_path / "old.npz")
    assert set(np.load(tmp_path / "old.npz").files) == {"relevance", "targets", "logits"}
    assert Explanation.load(tmp_path / "old.npz").standard_error is None
    with pytest.raises(CheckpointError):
        Explanation.load(tmp_path / "none.npz")


def test_ties_are_the_patches_within_the_error():
    explanation = sampled()
    assert explanation.strongest_patches(0, 2) == [(0, 0, 5.0), (0, 1, 4.0)]
    assert [place[:2] for place in explanation.ties(0, 2)] == [(1, 0)]  # 0.1 below, and the difference's error is 0.14.
    assert explanation.ties(0, 1) == []
    assert explanation.ties(0, 4) == []
    assert sampled(error=False).ties(0, 2) == []
    assert replace(explanation, standard_error=torch.zeros(2, 2, 2)).ties(0, 2) == []


def test_errors_of_rise_are_the_spread_between_seeds():
    classifier, images = networks.network("timm"), networks.images("timm", 1)
    runs = [make_explainer("rise", classifier, num_masks=32, seed=seed).explain(images, 1) for seed in range(60)]
    maps = torch.stack([run.relevance for run in runs])
    stated = torch.stack([run.standard_error for run in runs])
    ratio = stated.square().mean(0).sqrt() / maps.std(0)
    assert 0.9 < float(ratio.square().mean().sqrt()) < 1.1
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all())
    assert make_explainer("rise", classifier, num_masks=1).explain(images, 1).standard_error is None


@pytest.mark.parametrize("method", ["occlusion", "random", "chefer"])
def test_methods_that_do_not_sample_have_none(method):
    assert make_explainer(method, networks.network("timm")).explain(networks.images("timm"), 1).standard_error is None
