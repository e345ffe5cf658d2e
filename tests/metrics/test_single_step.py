"""Single-step measures: closed forms, ranges, batches, edges."""

import math

import networks
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.core.errors import InvalidInputError
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.single_step import SingleStep


def sigmoid(logit: float) -> float:
    """The probability of class 0 of the additive scorer, whose other logit is 0."""
    return 1 / (1 + math.exp(-logit))


def measured(classifier, images, relevance, targets=None, **options) -> torch.Tensor:
    return SingleStep(**options).measure(MetricBatch(classifier, images), explained(classifier, images, relevance, targets))


def test_the_metric_is_registered():
    assert METRICS["single-step"] is SingleStep


@pytest.mark.parametrize(
    ("sign", "share", "kept", "left"),
    # The logit of all is 5.5; the cells' own are 3, -1, 2, 0.5, 0, 1.
    [(1, 0.5, 6.0, -0.5), (1, 0.2, 3.0, 2.5), (-1, 0.5, -0.5, 6.0), (-1, 0.2, -1.0, 6.5)],
)
def test_closed_form(sign, share, kept, left):
    classifier = additive_classifier()
    [found] = measured(classifier, ones(), sign * own_map(classifier), torch.tensor([0]), share=share)
    clean = sigmoid(5.5)
    expected = [max(0, clean - sigmoid(kept)) / clean, float(kept > 5.5), max(0, clean - sigmoid(left)) / clean]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_relevance_of_another_class():
    """The probability of class 1 falls where that of class 0 rises."""
    classifier = additive_classifier()
    [found] = measured(classifier, ones(), -own_map(classifier), torch.tensor([1]))
    clean = sigmoid(-5.5)
    torch.testing.assert_close(found, torch.tensor([0, 1, (clean - sigmoid(-6)) / clean]), atol=1e-6, rtol=1e-4)


def test_equal_relevance_is_taken_row_by_row():
    classifier = additive_classifier()
    [found] = measured(classifier, ones(), torch.zeros(1, 2, 3), torch.tensor([0]), share=0.5)
    expected = (sigmoid(5.5) - sigmoid(4)) / sigmoid(5.5)  # Of the first row alone; then of the second.
    assert float(found[0]) == pytest.approx(expected, rel=1e-4)
    assert float(found[2]) == pytest.approx((sigmoid(5.5) - sigmoid(1.5)) / sigmoid(5.5), rel=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_at_least_one_cell_is_kept_and_removed(share):
    classifier = additive_classifier()
    [found] = measured(classifier, ones(), own_map(classifier), torch.tensor([0]), share=share)
    kept, left = (3, 2.5) if share < 0.5 else (6.5, -1)
    assert float(found[0]) == pytest.approx(max(0, sigmoid(5.5) - sigmoid(kept)) / sigmoid(5.5), abs=1e-6)
    assert float(found[2]) == pytest.approx((sigmoid(5.5) - sigmoid(left)) / sigmoid(5.5), rel=1e-5)


def test_a_map_of_one_cell_keeps_and_removes_all():
    classifier = additive_classifier()
    [found] = measured(classifier, ones(), torch.ones(1, 1, 1), torch.tensor([0]))
    torch.testing.assert_close(found, torch.tensor([0, 0, (sigmoid(5.5) - 0.5) / sigmoid(5.5)]))


def test_drops_are_undefined_if_the_probability_is_zero():
    classifier = additive_classifier((300.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    [found] = measured(classifier, ones(), own_map(classifier), torch.tensor([1]))
    assert found[[0, 2]].isnan().all()
    assert found[1] == 0


def test_nothing_drops_if_the_baseline_is_the_image():
    classifier = networks.network("timm")
    images = torch.zeros(2, 3, 32, 32)
    found = measured(classifier, images, torch.rand(2, 4, 4))
    torch.testing.assert_close(found[:, [0, 2]], torch.zeros(2, 2), atol=1e-5, rtol=0)


def test_only_the_order_of_the_map_matters():
    classifier, images = networks.network("hit"), networks.images("hit")
    relevance = torch.randn(3, 4, 4)
    first = measured(classifier, images, relevance)
    torch.testing.assert_close(first, measured(classifier, images, 1e-3 * relevance.exp() - 7))
    assert ((first >= 0) & (first <= 1)).all()
    assert set(first[:, 1].tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", ["hit-pooled", "timm-wide"])
def test_batches_equal_singles(name):
    classifier, images = networks.network(name), networks.images(name)
    relevance = torch.randn(3, *classifier.grid_size(images))
    together = measured(classifier, images, relevance, torch.tensor([0, 3, 1]))
    for i, target in enumerate((0, 3, 1)):
        [alone] = measured(classifier, images[i : i + 1], relevance[i : i + 1], torch.tensor([target]))
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-6)


def test_the_true_map_keeps_the_relevant_cells():
    classifier = additive_classifier()
    true, false = (measured(classifier, ones(), sign * own_map(classifier), torch.tensor([0]))[0] for sign in (1, -1))
    assert true[0] < false[0]
    assert true[1] > false[1]
    assert true[2] > false[2]


def test_half_precision():
    classifier, images = networks.network("hit"), networks.images("hit").bfloat16()
    classifier.module.bfloat16()
    found = measured(classifier, images, torch.rand(3, 4, 4))
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_over_a_data_set():
    classifier = additive_classifier()
    metric = SingleStep()
    for sign in (1, -1):
        metric.update(classifier, ones(), explained(classifier, ones(), sign * own_map(classifier), torch.tensor([0])))
    assert metric.per_image().shape == (2, 3)
    assert list(metric.compute()) == ["drop", "increase", "drop_in_deletion"]
    assert float(metric.compute()["increase"]) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"share": 0.0}, "share between 0 and 1"), ({"share": 1.0}, "share between 0 and 1"), ({"baseline": "gray"}, "'gray'")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        SingleStep(**options)
