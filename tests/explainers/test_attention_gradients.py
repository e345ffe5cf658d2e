"""Chefer's attention, LeGrad and AttCAT against their definitions, spelled out with plain autograd."""

from functools import cache

import networks
import pytest
import torch
from oracles import PLAIN, read, reading_row, walk

from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer

TARGETS = torch.tensor([4, 0, 2])

each_plain = pytest.mark.parametrize("name", PLAIN)


def fresh_double(name):
    """A network that a test may change."""
    classifier = networks.network(name)
    classifier.module.double()
    return classifier, networks.images(name).double()


double = cache(fresh_double)


@pytest.fixture
def case(name):
    return double(name)


def assert_maps(method, case, rows, **options):
    classifier, images = case
    expected = torch.stack(rows)[:, classifier.num_prefix_tokens :].unflatten(1, classifier.grid_size(images))
    relevance = make_explainer(method, classifier, **options).explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance, expected, rtol=1e-9, atol=1e-13)
    assert relevance.abs().max() > 1e-6


@each_plain
def test_chefer_is_a_row_of_the_relevancy_matrix(name, case):
    classifier, images = case
    rows = []
    for image, target in zip(images, TARGETS, strict=True):  # one by one: gradients of a batch are those of its images
        seen = walk(classifier.module, image[None])
        identity = relevancy = torch.eye(seen.attentions[0].shape[-1], dtype=torch.float64)
        for weights in seen.attentions:
            [gradient] = torch.autograd.grad(seen.logits[0, target], weights, retain_graph=True)
            relevancy = relevancy + (weights * gradient).clamp_min(0)[0].mean(0).detach() @ relevancy
        rows.append(reading_row(classifier.module, len(relevancy)) @ (relevancy - identity))
    assert_maps("chefer", case, rows)


@each_plain
@pytest.mark.parametrize("start", [0, 2])
def test_legrad_reads_every_block_by_itself(name, case, start):
    classifier, images = case
    rows = []
    for image, target in zip(images, TARGETS, strict=True):
        seen, maps = walk(classifier.module, image[None]), []
        for weights, tokens in list(zip(seen.attentions, seen.leaving, strict=True))[start:]:
            score = read(classifier.module, tokens)[0, target]
            [gradient] = torch.autograd.grad(score, weights, retain_graph=True)
            maps.append(gradient[0].clamp_min(0).mean((0, 1)))
        rows.append(torch.stack(maps).mean(0))
    assert_maps("legrad", case, rows, starting_block=start)


@each_plain
def test_attcat_by_definition(name, case):
    classifier, images = case
    rows = []
    for image, target in zip(images, TARGETS, strict=True):
        seen, total = walk(classifier.module, image[None]), 0
        for weights, tokens in zip(seen.attentions, seen.leaving, strict=True):
            [gradient] = torch.autograd.grad(seen.logits[0, target], tokens, retain_graph=True)
            attention = reading_row(classifier.module, tokens.shape[1]) @ weights[0].mean(0)
            total = total + attention * (tokens * gradient)[0].sum(-1)
        rows.append(total.detach())
    assert_maps("attcat", case, rows)


def test_the_last_two_blocks_contribute_nothing_to_attcat_under_a_class_token():
    """Nothing reads the patches after the last block; those before it pass through a norm, which ignores their length."""
    classifier, images = fresh_double("timm")
    for block in classifier.module.blocks:
        block.norm1.eps = 0
    seen = walk(classifier.module, images)
    gradients = torch.autograd.grad(seen.logits[:, 0].sum(), seen.leaving)
    products = [
        (tokens * gradient)[:, 1:].sum(-1).abs().max() for tokens, gradient in zip(seen.leaving, gradients, strict=True)
    ]
    assert products[0] > 1e-4
    assert products[1] < 1e-14
    assert not gradients[2][:, 1:].any()


@pytest.mark.parametrize("name", ["hit", "hit-wide"])
def test_chefer_on_a_hit_adds_its_weighted_attention(name, case):
    """Only the class token is a query, and its weight for itself is 0: each block adds its row, nothing flows between patches."""
    classifier, images = case
    with classifier.record(attentions=True) as trace:
        logits = classifier.logits(images)
    score = logits.gather(1, TARGETS[:, None]).sum()
    expected = 0
    for weights in trace.attentions:
        [gradient] = torch.autograd.grad(score, weights, retain_graph=True)
        cells = (weights * gradient).clamp_min(0).mean(1)[:, 0, 1:].detach()
        rows, cols = classifier.grid_size(images)
        factor = int((rows * cols / cells.shape[1]) ** 0.5)
        grid = cells.unflatten(1, (rows // factor, cols // factor)) / factor**2
        expected = expected + grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    relevance = make_explainer("chefer", classifier).explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance, expected)


def test_legrad_refuses_heads_that_cannot_read_every_block():
    with pytest.raises(UnsupportedModelError, match=r"the width of this HiT changes from stage to stage$"):
        make_explainer("legrad", networks.network("hit-pooled"))
    assert make_explainer("legrad", networks.network("hit")).starting_block == 0


@pytest.mark.parametrize("start", [-1, 3])
def test_legrad_refuses_unknown_blocks(start):
    with pytest.raises(InvalidInputError, match=rf"^expected a starting_block from 0 to 2, got {start}$"):
        make_explainer("legrad", networks.network("timm"), starting_block=start)


def test_chefer_keeps_small_values_if_patches_are_averaged():
    single, double = networks.network("timm-average"), networks.network("timm-average")
    double.module.double()
    for classifier in (single, double):
        classifier.module.head.weight.data *= 1e-7
    images = networks.images("timm-average")
    maps = [make_explainer("chefer", one).explain(images.to(one.dtype), TARGETS).relevance.double() for one in (single, double)]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=0)
    assert 0 < float(maps[1].max()) < 1e-6
