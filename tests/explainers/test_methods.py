"""One oracle per method."""

import networks
import pytest
import torch

from vitrail.explainers import make_explainer


@pytest.mark.parametrize("name", ["hit", "hit-pooled", "hit-wide", "hit-no-positions"])
def test_hit_is_the_models_own_sum(name):
    classifier, images = networks.network(name), networks.images(name)
    explanation = make_explainer("hit", classifier, norm_mean="own").explain(images, torch.tensor([1, 2, 3]))
    split = classifier.module.contributions(images, torch.tensor([1, 2, 3]), norm_mean="own")
    torch.testing.assert_close(explanation.relevance, split.patches[:, 0])
    torch.testing.assert_close(explanation.bias, split.patch_bias[:, 0])


def test_rollout_of_uniform_attention_is_uniform():
    classifier, images = networks.network("hit-pooled"), networks.images("hit-pooled")
    with torch.no_grad():
        for stage in classifier.module.stages:
            for layer in stage.layers:
                layer.attention.in_proj_weight.zero_()
                layer.attention.in_proj_bias.zero_()
    relevance = make_explainer("hit-rollout", classifier).explain(images).relevance
    torch.testing.assert_close(relevance, torch.full((3, 4, 4), 4 / 16))


def test_rollout_follows_a_forced_attention():
    classifier, images = networks.network("hit"), networks.images("hit", 1)
    for layer in classifier.module.stages[0].layers:
        layer.attention.dropout.register_forward_hook(lambda module, inputs, weights: torch.eye(16)[5].expand_as(weights))
    relevance = make_explainer("hit-rollout", classifier).explain(images).relevance[0]
    assert relevance.flatten().nonzero().flatten().tolist() == [5]


def test_random_is_uniform_and_depends_on_image_and_seed_alone():
    classifier = networks.network("timm")
    images = networks.images("timm", 40)
    relevance = make_explainer("random", classifier).explain(images).relevance
    assert torch.equal(make_explainer("random", classifier).explain(images, 3).relevance, relevance)
    assert not torch.equal(make_explainer("random", classifier, seed=1).explain(images).relevance, relevance)
    values = relevance.flatten().sort().values
    # Kolmogorov-Smirnov against the uniform distribution, far beyond any accident.
    distance = (values - torch.linspace(0, 1, len(values))).abs().max()
    assert float(distance) < 2.5 / len(values) ** 0.5
    assert len({tuple(one.flatten().tolist()) for one in relevance}) == 40
