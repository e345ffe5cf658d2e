"""Occlusion and RISE against loops in pixel space and closed forms."""

import itertools
import math
from dataclasses import dataclass

import networks
import pytest
import torch
from torch import nn

from vitrail.adapters import Classifier, Preprocessing
from vitrail.core.baselines import BASELINES
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.explainers import make_explainer

TARGETS = torch.tensor([4, 0, 2])
BY_DEFAULT = ("timm-wide", "hf-deit-teacher", "hit-pooled")
NAMES = [
    pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.slow)
    for name in ("timm", "timm-wide", "eva-dinov3", "hf-deit-teacher", "torchvision", "hit-pooled")
]
CELL = 4


class Weights(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)


@dataclass(frozen=True, eq=False)
class Additive(Classifier):
    """Logits are sums over cells, of a 3x4 grid; with `as_shares` their exponentials are."""

    as_shares: bool = False

    @property
    def num_classes(self):
        return 2

    def grid_size(self, images):
        return 3, 4

    def logits(self, images):
        sums = nn.functional.avg_pool2d(images[:, :1], CELL).flatten(1) @ self.module.weights
        if self.as_shares:
            return torch.stack([sums, 1 - sums], 1).log()
        return torch.stack([sums, -sums], 1)


def additive(**options):
    weights = torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if options.get("as_shares"):
        weights = weights.abs() / weights.abs().sum() * 0.9 + 1e-3
    return Additive(Weights(weights), Preprocessing((12, 16)), name="additive", **options), weights


def pixels(mask, grid_size, size):
    """Expand a mask over patches to pixels."""
    factors = [side // count for side, count in zip(size, grid_size, strict=True)]
    return mask.view(grid_size).repeat_interleave(factors[0], 0).repeat_interleave(factors[1], 1)


def replaced(classifier, image, baseline, kept):
    """Logits of the network for an image with replaced pixels."""
    mask = pixels(kept, classifier.grid_size(image[None]), image.shape[1:])
    return networks.own_logits(classifier.module, torch.where(mask, image, baseline)[None])[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("window", "baseline"), [(1, "zero"), (2, "blur"), (9, "zero")])
@torch.no_grad()
def test_occlusion_by_brute_force_in_pixel_space(name, window, baseline):
    classifier, images = networks.network(name), networks.images(name)
    rows, cols = classifier.grid_size(images)
    height, width = min(window, rows), min(window, cols)
    expected = torch.zeros(3, rows, cols)
    for i, (image, target) in enumerate(zip(images, TARGETS, strict=True)):
        whole = networks.own_logits(classifier.module, image[None])[0, target]
        replacement = BASELINES[baseline](image[None])[0]
        losses = [[[] for _ in range(cols)] for _ in range(rows)]
        for top, left in itertools.product(range(rows - height + 1), range(cols - width + 1)):
            kept = torch.ones(rows, cols, dtype=torch.bool)
            kept[top : top + height, left : left + width] = False
            loss = whole - replaced(classifier, image, replacement, kept)[target]
            for row, col in itertools.product(range(top, top + height), range(left, left + width)):
                losses[row][col].append(loss)
        expected[i] = torch.tensor([[sum(cell) / len(cell) for cell in line] for line in losses])
    explanation = make_explainer("occlusion", classifier, window=window, baseline=baseline).explain(images, TARGETS)
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-5)
    if window == 9:  # larger than the grid: one window, the whole image
        assert torch.equal(explanation.relevance, explanation.relevance[:, :1, :1].expand_as(explanation.relevance))


def test_occlusion_of_an_additive_scorer_gives_its_terms():
    classifier, weights = additive()
    images = torch.randn(2, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = (nn.functional.avg_pool2d(images[:, :1], CELL).flatten(1) * weights).unflatten(1, (3, 4))
    single = make_explainer("occlusion", classifier).explain(images, 0).relevance
    torch.testing.assert_close(single, terms)
    torch.testing.assert_close(make_explainer("occlusion", classifier).explain(images, 1).relevance, -terms)
    # A window of 2 loses the sum of its four terms; a patch has the mean over the windows that cover it.
    sums = nn.functional.avg_pool2d(terms[:, None], 2, 1)[:, 0] * 4
    double = make_explainer("occlusion", classifier, window=2).explain(images, 0).relevance
    torch.testing.assert_close(double[:, 0, 0], sums[:, 0, 0])
    torch.testing.assert_close(double[:, 0, 1], sums[:, 0, :2].mean(1))
    torch.testing.assert_close(double[:, 1, 2], sums[:, :2, 1:3].mean((1, 2)))
    torch.testing.assert_close(double[:, 2, 3], sums[:, 1, 2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("baseline", ["zero", "blur"])
@torch.no_grad()
def test_rise_is_a_loop_over_its_masks(name, baseline):
    classifier, images = networks.network(name), networks.images(name)
    explainer = make_explainer("rise", classifier, num_masks=20, cells=3, keep_probability=0.6, baseline=baseline)
    masks = explainer.masks(classifier.grid_size(images))
    expected = torch.zeros(3, masks.shape[1])
    for i, (image, target) in enumerate(zip(images, TARGETS, strict=True)):
        replacement = BASELINES[baseline](image[None])[0]
        for mask in masks:
            expected[i] += replaced(classifier, image, replacement, mask).softmax(0)[target] * mask / (20 * 0.6)
    relevance = explainer.explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance.flatten(1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 3, 7, 20])
@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("grid_size", [(14, 14), (4, 9)])
def test_masks_keep_patches_with_the_requested_probability(cells, rate, grid_size):
    explainer = make_explainer("rise", additive()[0], num_masks=4000, cells=cells, keep_probability=rate)
    masks = explainer.masks(grid_size)
    assert masks.shape == (4000, math.prod(grid_size))
    kept = masks.float().mean(0)  # five standard errors, also at the borders
    assert (kept - rate).abs().max() < 5 * (rate * (1 - rate) / 4000) ** 0.5
    assert torch.equal(masks, explainer.masks(grid_size))
    other = make_explainer("rise", additive()[0], num_masks=4000, cells=cells, keep_probability=rate, seed=1)
    assert not torch.equal(masks, other.masks(grid_size))


def test_masks_consist_of_shifted_cells():
    explainer = make_explainer("rise", additive()[0], num_masks=500, cells=2)
    masks = explainer.masks((8, 8)).view(500, 8, 8)
    changes = (masks[:, :, 1:] != masks[:, :, :-1]).float().mean((0, 1))
    # Borders are uniformly distributed, and half of the masks change at each.
    torch.testing.assert_close(changes, torch.full((7,), 0.125), rtol=0, atol=0.06)
    inner = [[len(list(run)) for _, run in itertools.groupby(mask[0].tolist())][1:-1] for mask in masks]
    assert {length % 4 for lengths in inner for length in lengths} == {0}


def test_rise_estimates_the_expected_score_of_an_additive_scorer_when_a_patch_is_kept():
    """E[score | patch kept] = its term + half of all others, if cells are as fine as the grid."""
    classifier, weights = additive(as_shares=True)
    images = torch.ones(1, 3, 12, 16, dtype=torch.float64)
    explainer = make_explainer("rise", classifier, num_masks=20_000, cells=4, keep_probability=0.5)
    expected = weights + (weights.sum() - weights) / 2
    relevance = explainer.explain(images, 0).relevance.flatten()
    # The weight 1 / (N p) makes the spread of one estimate at most 1 / sqrt(N p).
    torch.testing.assert_close(relevance.double(), expected.detach(), rtol=0, atol=5 / 10_000**0.5 * float(expected.max()))
    assert torch.corrcoef(torch.stack([relevance.double(), weights]))[0, 1] > 0.95


@pytest.mark.parametrize(("method", "rows"), [("occlusion", 1 + 16), ("rise", 1 + 30)])
def test_every_window_and_mask_runs_once_within_memory(method, rows, monkeypatch):
    classifier, images = networks.network("timm"), networks.images("timm")
    explainer = make_explainer(method, classifier, **({"num_masks": 30} if method == "rise" else {}))
    whole, sizes = explainer.explain(images, TARGETS).relevance, []
    forward = type(classifier).forward_tokens

    def counted(self, tokens, *rest):
        sizes.append(len(tokens))
        return forward(self, tokens, *rest)

    monkeypatch.setattr(type(classifier), "forward_tokens", counted)
    explainer.explain(images, TARGETS)
    assert sum(sizes) == 3 * rows
    monkeypatch.setattr("vitrail.adapters.memory.memory_budget", lambda device: 1)
    sizes.clear()
    torch.testing.assert_close(explainer.explain(images, TARGETS).relevance, whole, rtol=1e-4, atol=1e-6)
    assert sizes == [1] * (3 * rows)


def test_bad_options_are_refused():
    classifier = networks.network("timm")
    with pytest.raises(InvalidInputError, match=r"^expected a window of at least 1 patch, got 0$"):
        make_explainer("occlusion", classifier, window=0)
    for method in ("occlusion", "rise"):
        with pytest.raises(UnknownNameError, match=r"^unknown baseline 'pink'"):
            make_explainer(method, classifier, baseline="pink")
    for options in ({"num_masks": 0}, {"cells": 0}, {"keep_probability": 0.0}, {"keep_probability": 1.0}):
        numbers = {"num_masks": 512, "cells": 7, "keep_probability": 0.5} | options
        ending = "{num_masks}, {cells} and {keep_probability}".format(**numbers)
        message = rf"^expected num_masks and cells of at least 1 and 0 < keep_probability < 1, got {ending}$"
        with pytest.raises(InvalidInputError, match=message):
            make_explainer("rise", classifier, **options)
