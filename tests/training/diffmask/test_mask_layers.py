"""Sampling of the layer that a step trains."""

from collections import Counter

import pytest
import torch

from vitrail.training.diffmask import layer_sampling
from vitrail.training.diffmask.layer_sampling import LayerSampler
from vitrail.training.reproducibility import derive_seed


def frequencies(sampler, count=2500):
    drawn = Counter(sampler.sample(derive_seed(7, step)) for step in range(count))
    return torch.tensor([drawn[layer] / count for layer in range(len(sampler.steps))])


def learned(sampler, layer):
    sampler.agreement[layer], sampler.kept[layer], sampler.steps[layer] = 0.76, 0.09, 101


def test_layers_are_sampled_uniformly():
    for sampling in ("uniform", "weighted"):
        sampler = LayerSampler(5, sampling)
        torch.testing.assert_close(frequencies(sampler), torch.full((5,), 0.2), rtol=0, atol=0.03)
    sampler = LayerSampler(5, "uniform")
    learned(sampler, 1)
    assert sampler.weights().tolist() == [1] * 5


def test_learned_layers_are_sampled_a_tenth_as_often():
    sampler = LayerSampler(5, "weighted")
    learned(sampler, 1)
    learned(sampler, 4)
    torch.testing.assert_close(sampler.weights(), torch.tensor([1, 0.1, 1, 1, 0.1]))
    expected = torch.tensor([1, 0.1, 1, 1, 0.1]) / 3.2
    torch.testing.assert_close(frequencies(sampler), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize(("figure", "value"), [("agreement", 0.75), ("kept", 0.1), ("steps", 100)])
def test_learned_layer_must_reach_all_figures(figure, value):
    sampler = LayerSampler(3, "weighted")
    learned(sampler, 1)
    getattr(sampler, figure)[1] = value
    assert sampler.weights().tolist() == [1] * 3


def test_the_last_layer_alone_can_be_trained():
    sampler = LayerSampler(5, "last")
    learned(sampler, 4)
    assert frequencies(sampler).tolist() == [0, 0, 0, 0, 1]


def test_sample_depends_only_on_seed_and_figures():
    first, second = LayerSampler(14), LayerSampler(14)
    draws = [first.sample(seed) for seed in range(50)]
    torch.rand(3)
    assert [second.sample(seed) for seed in range(50)] == draws
    assert len(set(draws)) > 8


def test_running_figures():
    sampler = LayerSampler(3)
    sampler.update(1, torch.tensor(0.5), 0.2)
    sampler.update(1, 0.0, 0.4)
    torch.testing.assert_close(sampler.agreement, torch.tensor([1, 0.9 * 0.95, 1]))
    torch.testing.assert_close(sampler.kept, torch.tensor([1, 0.9 * 0.92 + 0.04, 1]))
    assert sampler.steps.tolist() == [0, 2, 0]
    assert (layer_sampling.LEARNED_AGREEMENT, layer_sampling.LEARNED_KEPT, layer_sampling.LEARNED_STEPS) == (0.75, 0.1, 100)


def test_running_figures_match_the_steps(trained_steps, steps, monkeypatch):
    """The kept share includes prefix tokens, like the norm."""
    seen = []
    update = LayerSampler.update
    monkeypatch.setattr(
        LayerSampler, "update", lambda self, layer, *figures: seen.append((layer, *figures)) or update(self, layer, *figures)
    )
    trained_steps()
    sampler = LayerSampler(3)
    for figures in seen:
        update(sampler, *figures)
    assert torch.equal(sampler.kept, steps.learner.layers.kept)
    assert all(0 < kept < 1 and agreement in (0, 0.5, 1) for _, agreement, kept in seen)
