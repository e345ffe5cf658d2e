"""Raw attention and rollout against plain products of matrices."""

import math
from functools import cache

import networks
import pytest
import torch
from oracles import PLAIN, reading_row, walk

from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer

each_plain = pytest.mark.parametrize("name", PLAIN)


def fresh_double(name):
    """A network that a test may change."""
    classifier = networks.network(name)
    classifier.module.double()
    return classifier, networks.images(name).double()


double = cache(fresh_double)


def fused(weights, fusion):
    return {"mean": weights.mean(1), "max": weights.amax(1), "min": weights.amin(1)}[fusion]


def assert_map(relevance, row, classifier, images):
    expected = row[:, classifier.num_prefix_tokens :].unflatten(1, classifier.grid_size(images))
    torch.testing.assert_close(relevance, expected.to(relevance), rtol=1e-5, atol=1e-8)


def force_attention(classifier, matrix):
    """Replace the attention of every block by one matrix (q, k)."""
    for block in classifier.module.blocks:
        block.attn.fused_attn = False  # Fused attention computes no weights.
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, weights: matrix.expand_as(weights).clone())


@each_plain
@pytest.mark.parametrize(("fusion", "block"), [("mean", -1), ("max", 1), ("min", -1)])
def test_raw_attention_of_a_block(name, fusion, block):
    classifier, images = double(name)
    matrix = fused(walk(classifier.module, images).attentions[block], fusion)
    row = (reading_row(classifier.module, matrix.shape[1])[:, None] * matrix).sum(1)
    explanation = make_explainer("attention", classifier, head_fusion=fusion, block=block).explain(images)
    assert_map(explanation.relevance, row, classifier, images)


@each_plain
@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_rollout_is_a_product_of_matrices(name, fusion):
    classifier, images = double(name)
    factors = []
    for weights in walk(classifier.module, images).attentions:
        with_residual = fused(weights, fusion) + torch.eye(weights.shape[-1], dtype=torch.float64)
        factors.append(with_residual / with_residual.sum(-1, keepdim=True))
    relevance = make_explainer("rollout", classifier, head_fusion=fusion).explain(images).relevance
    for i in range(len(images)):
        product = torch.linalg.multi_dot([factor[i] for factor in reversed(factors)])
        row = reading_row(classifier.module, len(product)) @ product
        assert_map(relevance[i : i + 1], row[None], classifier, images)


@pytest.mark.parametrize("ratio", [0.3, 0.9])
@pytest.mark.parametrize("name", ["timm-registers", "timm-no-prefix"])
def test_rollout_without_the_smallest_weights(name, ratio):
    classifier, images = double(name)
    relevance = make_explainer("rollout", classifier, discard_ratio=ratio).explain(images).relevance
    attentions = [weights.mean(1) for weights in walk(classifier.module, images).attentions]
    for i in range(len(images)):
        row = reading_row(classifier.module, attentions[0].shape[-1])
        for matrix in reversed(attentions):
            values = matrix[i].flatten().tolist()
            for index in sorted(range(len(values)), key=values.__getitem__)[: int(len(values) * ratio)]:
                # The class token's weight for itself stays; without one there is nothing to protect.
                if index or name == "timm-no-prefix":
                    values[index] = 0.0
            mixed = torch.tensor(values, dtype=torch.float64).view_as(matrix[i]) + torch.eye(len(row), dtype=torch.float64)
            row = row @ (mixed / mixed.sum(-1, keepdim=True))
        assert_map(relevance[i : i + 1], row[None], classifier, images)


@each_plain
def test_rollout_of_attention_to_oneself_is_what_the_head_reads(name):
    classifier, images = fresh_double(name)
    num_tokens = classifier.num_prefix_tokens + math.prod(classifier.grid_size(images))
    force_attention(classifier, torch.eye(num_tokens, dtype=torch.float64))
    relevance = make_explainer("rollout", classifier).explain(images).relevance
    row = reading_row(classifier.module, num_tokens)
    assert_map(relevance, row.expand(3, -1), classifier, images)


@each_plain
@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_uniform_attention_gives_a_uniform_map(name, method):
    classifier, images = fresh_double(name)
    for block in classifier.module.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    relevance = make_explainer(method, classifier).explain(images).relevance
    num_tokens = classifier.num_prefix_tokens + relevance[0].numel()
    starts_at_class_token = classifier.module.global_pool == "token"
    if method == "attention":
        expected = 1 / num_tokens
    elif starts_at_class_token:  # Half of it stays in each of the 3 blocks, the rest is spread evenly.
        expected = (1 - 0.5**3) / num_tokens
    else:
        expected = (1 - 0.5**3) / num_tokens + 0.5**3 / relevance[0].numel()
    torch.testing.assert_close(relevance, torch.full_like(relevance, expected))


def test_rollout_follows_a_chain_of_patches():
    classifier, images = fresh_double("timm")
    patches = [3, 7, 12]  # The class token attends to 12 in the last block, 12 to 7 before it, and 7 to 3 before that.
    for block, (asks, asked) in zip(classifier.module.blocks, [(7, 3), (12, 7), (0, 12)], strict=True):
        matrix = torch.eye(17, dtype=torch.float64)
        matrix[asks] = torch.eye(17, dtype=torch.float64)[asked]
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda *parts, matrix=matrix: matrix.expand_as(parts[2]).clone())
    relevance = make_explainer("rollout", classifier).explain(images[:1]).relevance.flatten()
    assert relevance.nonzero().flatten().tolist() == [patch - 1 for patch in patches]
    torch.testing.assert_close(relevance[[11, 6, 2]].double(), torch.tensor([0.25, 0.125, 0.125]).double())


@pytest.mark.parametrize("name", ["hit", "hit-wide", "hit-pooled"])
def test_attention_and_rollout_of_a_hit(name):
    """Patches are no queries: in every block half stays in the class token, and half goes to the patches and stays there."""
    classifier, images = networks.network(name), networks.images(name)
    with torch.no_grad(), classifier.record(attentions=True) as trace:
        classifier.logits(images)
    rows, cols = classifier.grid_size(images)
    expected, share = torch.zeros(3, rows, cols), 1.0
    for weights in reversed(trace.attentions):
        share /= 2
        cells = weights.mean(1)[:, 0, 1:]
        factor = math.isqrt(rows * cols // cells.shape[1])
        grid = cells.unflatten(1, (rows // factor, cols // factor))
        expected += share * torch.nn.functional.interpolate(grid[None], scale_factor=factor)[0] / factor**2
    relevance = make_explainer("rollout", classifier).explain(images).relevance
    torch.testing.assert_close(relevance, expected)
    torch.testing.assert_close(relevance.sum((1, 2)), torch.full((3,), 1 - 0.5 ** len(trace.attentions)))


def test_bad_options_are_refused(unchecked):
    classifier = networks.network("timm")
    with pytest.raises(InvalidInputError, match=r"^expected a block of 3 \(negative ones from the end\), got 3$"):
        make_explainer("attention", classifier, block=3)
    with pytest.raises(InvalidInputError, match=r"got -4$"):
        make_explainer("attention", classifier, block=-4)
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(InvalidInputError, match=rf"^expected 0 <= discard_ratio < 1, got {ratio}$"):
            make_explainer("rollout", classifier, discard_ratio=ratio)
    for method in ("attention", "rollout"):
        with pytest.raises(InvalidInputError, match=r"^expected head_fusion to be one of 'mean', 'max', 'min', got 'sum'$"):
            make_explainer(method, classifier, head_fusion="sum")
