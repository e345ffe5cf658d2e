"""Options that reproduce published code: single heads and mass thresholds of DINO, first blocks, AttCAT's averages."""

import networks
import pytest
import torch
from oracles import reading_row, walk

from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer

TARGETS = torch.tensor([4, 0, 2])


def double(name):
    classifier = networks.network(name)
    classifier.module.double()
    return classifier, networks.images(name).double()


def on_grid(classifier, images, values):
    return values[:, classifier.num_prefix_tokens :].unflatten(1, classifier.grid_size(images))


def forward(classifier, images):
    """All tokens and attention weights, with gradients, and the chosen logits."""
    with classifier.inspecting():
        return walk(classifier.module, images.clone().requires_grad_())


@pytest.mark.parametrize("name", ["timm", "timm-no-prefix"])
def test_rollout_from_a_block_multiplies_only_the_later_ones(name):
    classifier, images = double(name)
    seen = forward(classifier, images)
    num_tokens = seen.attentions[0].shape[-1]
    for first in range(len(seen.attentions)):
        product = torch.eye(num_tokens).double()
        for weights in seen.attentions[first:]:
            product = (weights.mean(1) + torch.eye(num_tokens)) / 2 @ product
        expected = (reading_row(classifier.module, num_tokens) @ product).detach()
        relevance = make_explainer("rollout", classifier, starting_block=first).explain(images).relevance
        torch.testing.assert_close(relevance, on_grid(classifier, images, expected))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_relevance_from_a_block_leaves_out_earlier_ones(first):
    classifier, images = double("timm")
    seen = forward(classifier, images)
    score = seen.logits.gather(1, TARGETS[:, None]).sum()
    gradients = torch.autograd.grad(score, seen.attentions)
    num_tokens = seen.attentions[0].shape[-1]
    relevancy = torch.eye(num_tokens).double().expand(len(images), -1, -1)
    for weights, gradient in list(zip(seen.attentions, gradients, strict=True))[first:]:
        relevancy = relevancy + (weights * gradient).clamp(min=0).mean(1) @ relevancy
    relevance = make_explainer("chefer", classifier, starting_block=first).explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance, on_grid(classifier, images, relevancy[:, 0].detach()))


def test_one_head_is_shown_by_itself():
    classifier, images = double("timm")
    weights = forward(classifier, images).attentions[-1].detach()
    for head in (0, 1, -1):
        relevance = make_explainer("attention", classifier, head=head).explain(images).relevance
        torch.testing.assert_close(relevance, on_grid(classifier, images, weights[:, head, 0]))
    with pytest.raises(InvalidInputError, match=rf"expected a head of {weights.shape[1]}"):
        make_explainer("attention", classifier, head=weights.shape[1]).explain(images)


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.95])
def test_the_patches_that_hold_the_mass_keep_their_attention(mass):
    """The rule of DINO's published code: sort, and keep from where the cumulated attention exceeds 1 - mass."""
    classifier, images = double("timm")
    whole = make_explainer("attention", classifier, head=0).explain(images).relevance.flatten(1)
    kept = make_explainer("attention", classifier, head=0, mass=mass).explain(images).relevance.flatten(1)
    for row, shown in zip(whole, kept, strict=True):
        values, order = torch.sort(row / row.sum())
        mask = torch.zeros_like(row, dtype=torch.bool)
        mask[order[torch.cumsum(values, 0) > 1 - mass]] = True
        assert 0 < mask.sum() < len(row)
        assert torch.equal(shown, torch.where(mask, row, 0))
        assert shown.sum() >= mass * row.sum()


@pytest.mark.parametrize("mass", [0.0, 1.5, float("nan")])
def test_impossible_masses_are_refused(mass):
    with pytest.raises(InvalidInputError, match="expected a mass above 0, up to 1, got"):
        make_explainer("attention", networks.network("timm"), mass=mass)


@pytest.mark.parametrize("method", ["rollout", "chefer"])
def test_a_block_that_does_not_exist_is_refused(method):
    with pytest.raises(InvalidInputError, match="expected a starting_block from 0 to 2, got 3"):
        make_explainer(method, networks.network("timm"), starting_block=3)


def test_attcat_as_its_code_computes_it():
    """Tokens that enter a block times their gradient, times the attention to them, averaged over heads and all queries."""
    classifier, images = double("timm")
    seen = forward(classifier, images)
    gradients = torch.autograd.grad(seen.logits.gather(1, TARGETS[:, None]).sum(), seen.entering)
    expected = sum(
        (tokens * gradient).sum(-1) * weights.mean(1).mean(1)
        for tokens, gradient, weights in zip(seen.entering, gradients, seen.attentions, strict=True)
    ).detach()
    relevance = make_explainer("attcat", classifier, queries="all", states="entering").explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance, on_grid(classifier, images, expected))
    plain = make_explainer("attcat", classifier).explain(images, TARGETS).relevance
    assert not torch.allclose(plain, relevance, rtol=1e-2)
