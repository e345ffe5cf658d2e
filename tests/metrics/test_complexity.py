"""Sparseness, complexity and completeness: closed forms, invariances, an independent implementation."""

import math

import networks
import numpy as np
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.explainers import EXPLAINERS
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.complexity import Completeness, Complexity, Sparseness

SPREADS = [Sparseness, Complexity]


def described(relevance, bias=None, logits=None) -> Explanation:
    count = len(relevance)
    logits = torch.zeros(count, 2) if logits is None else logits
    return Explanation(relevance, torch.zeros(count, dtype=torch.long), logits, bias=bias)


def measured(metric, relevance, **parts):
    """Measure maps without running the network."""
    found = metric().measure(
        MetricBatch(additive_classifier(), torch.zeros(len(relevance), 3, 8, 8)), described(relevance, **parts)
    )
    assert found.shape == (len(relevance), 1)
    return found.squeeze(1)


def maps(count=4, grid=(5, 7)):
    return torch.randn(count, *grid, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (14, 14), (96, 96)])
def test_equal_cells(grid):
    num_cells = grid[0] * grid[1]
    for value in (1.0, -0.3):
        assert measured(Sparseness, torch.full((1, *grid), value)).item() == pytest.approx(0, abs=1e-5)
        assert measured(Complexity, torch.full((1, *grid), value)).item() == pytest.approx(math.log(num_cells), rel=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (14, 14)])
def test_all_relevance_in_one_cell(grid):
    relevance = torch.zeros(1, *grid)
    relevance[0, -1, 0] = -2.0
    assert measured(Sparseness, relevance).item() == pytest.approx(1 - 1 / (grid[0] * grid[1]), abs=1e-6)
    assert measured(Complexity, relevance).item() == 0


def test_half_of_the_cells():
    relevance = torch.tensor([[[0.0, 5.0, -5.0, 0.0]]])
    assert measured(Sparseness, relevance).item() == pytest.approx(0.5)
    assert measured(Complexity, relevance).item() == pytest.approx(math.log(2))


def test_gini_index_is_half_the_relative_mean_difference():
    """The definition over all pairs of cells."""
    relevance = maps()
    magnitudes = relevance.flatten(1).abs().double()
    pairs = (magnitudes[:, :, None] - magnitudes[:, None]).abs().mean((1, 2))
    expected = pairs / (2 * magnitudes.mean(1))
    torch.testing.assert_close(measured(Sparseness, relevance).double(), expected, rtol=1e-5, atol=0)


def test_entropy_of_the_distribution_of_magnitudes():
    relevance = maps()
    expected = torch.distributions.Categorical(probs=relevance.flatten(1).abs().double()).entropy()
    torch.testing.assert_close(measured(Complexity, relevance).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("metric", SPREADS)
def test_invariances(metric):
    relevance = maps()
    plain = measured(metric, relevance)
    assert plain.unique().numel() == len(plain)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    for same in (
        -relevance,
        relevance.abs(),
        relevance.flatten(1)[:, order].view_as(relevance),
        relevance.mT,
        relevance / relevance.abs().max() * 3e38,  # Of which a sum would be infinite.
        relevance * 1e-37,
    ):
        torch.testing.assert_close(measured(metric, same), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", SPREADS)
def test_a_map_of_zeros_is_undefined_without_affecting_others(metric):
    relevance = maps()
    relevance[1] = 0
    found = measured(metric, relevance)
    assert found.isnan().tolist() == [False, True, False, False]
    assert METRICS[metric.measures[0].name] is metric
    running = metric()
    running.update(additive_classifier(), torch.zeros(4, 3, 8, 8), described(relevance))
    assert running.compute()[metric.measures[0].name].item() == pytest.approx(found[[0, 2, 3]].mean().item(), rel=1e-6)


@pytest.mark.parametrize("metric", SPREADS)
def test_batches_equal_single_images(metric):
    relevance = maps(5)
    singles = torch.cat([measured(metric, relevance[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(measured(metric, relevance), singles)


@pytest.mark.parametrize("metric", SPREADS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(metric, dtype):
    relevance = maps(2, (28, 28)).to(dtype)
    found = measured(metric, relevance)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), measured(metric, relevance.double()), rtol=1e-5, atol=0)


class TestQuantus:
    @staticmethod
    def scores(name, relevance):
        quantus = pytest.importorskip("quantus", reason="comes with the extra quantus")
        pixels = relevance.unsqueeze(1).abs().double().numpy().copy()
        return getattr(quantus, name)(disable_warnings=True).evaluate_batch(x_batch=pixels, a_batch=pixels.copy())

    @pytest.mark.parametrize(("name", "metric"), [("Sparseness", Sparseness), ("Complexity", Complexity)])
    def test_same_numbers(self, name, metric):
        relevance = maps(6, (9, 11))
        np.testing.assert_allclose(measured(metric, relevance).numpy(), self.scores(name, relevance), rtol=1e-5)

    def test_a_map_of_zeros_differs(self):
        assert self.scores("Sparseness", torch.zeros(1, 4, 4)).item() == pytest.approx(0)
        assert measured(Sparseness, torch.zeros(1, 4, 4)).isnan().all()


def test_completeness_of_the_additive_scorer():
    classifier, images = additive_classifier(), ones(2)
    whole = own_map(classifier, 2)
    logit = float(whole[0].sum())
    assert logit == 5.5
    found = explained(classifier, images, whole)
    exact = Explanation(found.relevance, found.targets, found.logits, bias=torch.zeros(2))
    short = Explanation(found.relevance, found.targets, found.logits, bias=torch.tensor([-1.1, 2.2]))
    metric = Completeness()
    for explanation, expected in ((exact, [0, 0]), (short, [1.1 / 5.5, 2.2 / 5.5]), (found, [math.nan, math.nan])):
        metric.update(classifier, images, explanation)
        torch.testing.assert_close(metric.per_image()[-2:, 0], torch.tensor(expected, dtype=torch.float32), equal_nan=True)
    # Means over where it is defined.
    assert metric.compute()["completeness"].item() == pytest.approx((0.2 + 0.4) / 4, rel=1e-5)


def test_completeness_is_relative_to_the_largest_logit_of_each_image():
    relevance = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]])
    logits = torch.tensor([[3.5, -10.0], [3.5, 1.0]])
    found = measured(Completeness, relevance, bias=torch.zeros(2), logits=logits)
    torch.testing.assert_close(found, torch.tensor([0.5 / 10, 0.5 / 3.5]))
    # As Explanation has it, image by image, whatever the batch.
    whole = described(relevance, torch.zeros(2), logits)
    assert found.tolist() == pytest.approx([each.completeness_error() for each in whole])
    # The size of logits is no matter.
    scaled = measured(Completeness, relevance * 8, bias=torch.zeros(2), logits=logits * 8)
    torch.testing.assert_close(scaled, found)


def test_completeness_without_any_logit():
    zeros = torch.zeros(1, 2, 2)
    assert measured(Completeness, zeros, bias=torch.zeros(1)).item() == 0
    assert measured(Completeness, zeros + 1, bias=torch.zeros(1)).isfinite().all()


def test_completeness_of_a_hit_and_of_methods_without_bias():
    classifier, images = networks.network("hit"), networks.images("hit")
    metric = Completeness()
    metric.update(classifier, images, EXPLAINERS["hit"](classifier).explain(images))
    assert metric.per_image().max().item() < 1e-4
    metric.reset()
    metric.update(classifier, images, EXPLAINERS["hit-rollout"](classifier).explain(images))
    assert metric.compute()["completeness"].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_completeness_in_half_precision_is_summed_in_single(dtype):
    relevance = torch.full((1, 30, 30), 0.25, dtype=dtype)
    relevance[0, 0, 0] = 4.0
    found = measured(Completeness, relevance, bias=torch.zeros(1, dtype=dtype), logits=torch.tensor([[228.0, 0.0]]).to(dtype))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(0.75 / 228, rel=1e-2)
