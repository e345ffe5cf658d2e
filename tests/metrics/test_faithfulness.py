"""Faithfulness: closed forms, oracles, what is shared, batches, edges."""

import math
from itertools import combinations

import networks
import numpy as np
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.adapters import adapt
from vitrail.core.errors import InvalidInputError
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.faithfulness import FaithfulnessCorrelation, FaithfulnessEstimate, Infidelity
from vitrail.metrics.saco import SaCo
from vitrail.metrics.subsets import RandomSubsets, correlation, count_cells_of_share, has_variation

NAMES = {
    "faithfulness-correlation": FaithfulnessCorrelation,
    "faithfulness-estimate": FaithfulnessEstimate,
    "infidelity": Infidelity,
    "saco": SaCo,
}
ALL = list(NAMES.values())
CORRELATIONS = [FaithfulnessCorrelation, FaithfulnessEstimate, SaCo]
YES = torch.tensor([0])


def value(metric, classifier, images, relevance, targets=None) -> torch.Tensor:
    return metric.measure(MetricBatch(classifier, images), explained(classifier, images, relevance, targets))[:, 0]


def counted(classifier, monkeypatch) -> list[int]:
    """Number of steps of every call of `perturbed_logits`."""
    calls, run = [], type(classifier).perturbed_logits

    def count(self, images, baseline, keep):
        calls.append(keep.shape[1])
        return run(self, images, baseline, keep)

    monkeypatch.setattr(type(classifier), "perturbed_logits", count)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_registered(name):
    assert METRICS[name] is NAMES[name]


class TestSubsets:
    def test_sizes_and_distinct_cells(self):
        cells = RandomSubsets(50, 0.3, 0).cells(10)
        assert cells.shape == (50, 3)
        assert all(len(set(row)) == 3 for row in cells.tolist())
        assert set(cells.flatten().tolist()) == set(range(10))

    def test_subsets_are_equally_likely(self):
        found = [tuple(sorted(row)) for row in RandomSubsets(6000, 0.5, 0).cells(4).tolist()]
        for pair in combinations(range(4), 2):
            assert found.count(pair) == pytest.approx(1000, abs=150)

    def test_subsets_depend_on_the_seed_only(self):
        first = RandomSubsets(20, 0.5, 3).cells(9)
        torch.manual_seed(17)
        assert first.equal(RandomSubsets(20, 0.5, 3).cells(9))
        assert not first.equal(RandomSubsets(20, 0.5, 4).cells(9))

    @pytest.mark.parametrize(
        ("share", "num_cells", "expected"), [(0.2, 196, 39), (0.01, 6, 1), (0.99, 6, 5), (0.5, 1, 1), (0.5, 2, 1)]
    )
    def test_shares_never_round_to_no_or_all_cells(self, share, num_cells, expected):
        assert count_cells_of_share(share, num_cells) == expected

    def test_correlation_against_numpy(self):
        first, second = torch.randn(2, 4, 30)
        expected = [np.corrcoef(one, two)[0, 1] for one, two in zip(first.numpy(), second.numpy(), strict=True)]
        for scale in (1, 1e-30, 1e30):
            torch.testing.assert_close(correlation(first * scale, second).double(), torch.tensor(expected).double())
        torch.testing.assert_close(
            correlation(first, second / 1e3 + 5).double(), torch.tensor(expected).double(), rtol=1e-2, atol=1e-3
        )

    def test_rounding_errors_do_not_count_as_variation(self):
        noise = 1e-7 * torch.randn(1, 30)
        assert not has_variation(1 + noise)
        assert has_variation(1 + 1e3 * noise)
        assert correlation(1 + noise, torch.randn(1, 30)).isnan()
        assert has_variation(torch.tensor([[1.0, 1.0078125]], dtype=torch.bfloat16))


class TestClosedForms:
    """The drop of the additive scorer's logit is the sum of the weights of what is removed."""

    @pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, -1), (0.001, 1)])
    @pytest.mark.parametrize(
        "metric",
        [
            FaithfulnessCorrelation(subset_share=0.5),
            FaithfulnessCorrelation(subset_share=0.2, num_subsets=20, seed=7),
            FaithfulnessEstimate(score="logit"),
            FaithfulnessEstimate(score="logit", cells_per_group=2),
        ],
    )
    def test_correlations_of_the_true_map(self, metric, sign, expected):
        classifier = additive_classifier()
        found = value(metric, classifier, ones(), sign * (own_map(classifier) + 0.5), YES)
        torch.testing.assert_close(found, torch.tensor([float(expected)]), rtol=1e-4, atol=0)

    def test_the_target_decides(self):
        """The logit of the other class is always 0; its probability falls when the first one rises."""
        classifier = additive_classifier()
        other = torch.tensor([1])
        assert value(FaithfulnessCorrelation(), classifier, ones(), own_map(classifier), other).isnan()
        assert value(FaithfulnessCorrelation(score="probability"), classifier, ones(), own_map(classifier), other) < -0.5

    def test_correlation_of_any_map_by_hand(self):
        classifier, relevance = additive_classifier(), torch.randn(1, 2, 3)
        cells = RandomSubsets(30, 0.4, 5).cells(6).numpy()
        weights, cell_values = classifier.module.weights.detach().numpy(), relevance.flatten().numpy()
        expected = np.corrcoef(cell_values[cells].sum(1), weights[cells].sum(1))[0, 1]
        metric = FaithfulnessCorrelation(num_subsets=30, subset_share=0.4, seed=5)
        assert float(value(metric, classifier, ones(), relevance, YES)) == pytest.approx(expected, abs=1e-5)

    def test_estimate_in_probabilities_by_hand(self):
        classifier, relevance = additive_classifier(), torch.randn(1, 2, 3)
        drops = torch.sigmoid(torch.tensor(5.5)) - torch.sigmoid(5.5 - classifier.module.weights.detach())
        expected = np.corrcoef(relevance.flatten().numpy(), drops.numpy())[0, 1]
        assert float(value(FaithfulnessEstimate(), classifier, ones(), relevance, YES)) == pytest.approx(expected, abs=1e-4)

    def test_estimate_of_groups_by_hand(self):
        classifier = additive_classifier()
        relevance = torch.tensor([[[1.0, 5.0, 2.0], [9.0, 3.0, 4.0]]])
        # In order of relevance: cells 3, 1, 5, 4 of weights 0.5, -1, 1, 0; what is left is a group of two.
        expected = np.corrcoef([9 + 5 + 4 + 3, 2 + 1], [0.5, 5.0])[0, 1]
        metric = FaithfulnessEstimate(cells_per_group=4, score="logit")
        assert float(value(metric, classifier, ones(), relevance, YES)) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("scale", ["none", "optimal"])
    def test_infidelity_of_the_true_map_is_zero(self, scale):
        classifier = additive_classifier()
        metric = Infidelity(scale=scale)
        assert float(value(metric, classifier, ones(), own_map(classifier), YES)) == pytest.approx(0, abs=1e-10)

    def test_infidelity_of_other_scales(self):
        classifier = additive_classifier()
        sums = RandomSubsets(100, 0.2, 0).sums(own_map(classifier))
        for factor in (3.0, -1.0, 1e-25):
            found = value(Infidelity(scale="none"), classifier, ones(), factor * own_map(classifier), YES)
            torch.testing.assert_close(found, ((factor - 1) * sums).square().mean(1))
            found = value(Infidelity(), classifier, ones(), factor * own_map(classifier), YES)
            torch.testing.assert_close(found, torch.zeros(1), atol=1e-9, rtol=0)

    def test_optimal_scale_is_least_squares(self):
        classifier, relevance = additive_classifier(), torch.randn(1, 2, 3)
        subsets = RandomSubsets(100, 0.2, 0)
        sums, drops = (subsets.sums(each)[0].double().numpy() for each in (relevance, own_map(classifier)))
        [_], [residual], *_ = np.linalg.lstsq(sums[:, None], drops, rcond=None)
        assert float(value(Infidelity(), classifier, ones(), relevance, YES)) == pytest.approx(residual / 100, rel=1e-4)

    @pytest.mark.parametrize("scale", ["none", "optimal"])
    def test_infidelity_of_no_relevance_is_the_mean_squared_drop(self, scale):
        classifier = additive_classifier()
        drops = RandomSubsets(100, 0.2, 0).sums(own_map(classifier))
        found = value(Infidelity(scale=scale), classifier, ones(), torch.zeros(1, 2, 3), YES)
        torch.testing.assert_close(found, drops.square().mean(1))

    @pytest.mark.parametrize("num_groups", [2, 3, 6, 10])
    @pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, -1)])
    def test_saco_of_the_true_map(self, num_groups, sign, expected):
        classifier = additive_classifier()
        metric = SaCo(num_groups=num_groups, baseline="zero")
        found = value(metric, classifier, ones(), sign * own_map(classifier), YES)
        torch.testing.assert_close(found, torch.tensor([float(expected)]))

    def test_saco_by_hand(self):
        classifier = additive_classifier()
        relevance = torch.tensor([[[5.0, 4.0, 1.0], [2.0, 0.0, 3.0]]])
        # In order of relevance the weights are 3, -1 | 1, 0.5 | 2, 0: drops of the logit 2, 1.5, 2; means 4.5, 2.5, 0.5.
        # Faithful: first over second by 2, first as far as third by 4. Not: second over third by 2.
        found = value(SaCo(num_groups=3, baseline="zero"), classifier, ones(), relevance, YES)
        assert float(found) == pytest.approx((2 + 4 - 2) / 8, abs=1e-6)

    def test_saco_of_groups_of_two_sizes(self):
        """6 cells in 4 groups of 2, 1, 2 and 1 cells: relevance per cell decides, not the size."""
        classifier = additive_classifier((1.0, 1.0, 0.9, 0.4, 0.4, 0.3))
        relevance = torch.tensor([[[1.0, 0.99, 0.98], [0.97, 0.96, 0.95]]])
        means, drops = [0.995, 0.98, 0.965, 0.95], [2, 0.9, 0.8, 0.3]
        assert drops == sorted(drops, reverse=True)
        assert means == sorted(means, reverse=True)
        found = value(SaCo(num_groups=4, baseline="zero"), classifier, ones(), relevance, YES)
        torch.testing.assert_close(found, torch.ones(1))

    def test_saco_of_a_constant_model_is_one(self):
        """As published, an equal drop counts for the map."""
        classifier = additive_classifier((0.0,) * 6)
        assert value(SaCo(), classifier, ones(), torch.randn(1, 2, 3), YES) == 1

    def test_saco_replaces_by_the_mean_of_the_image(self):
        classifier, images = additive_classifier(), torch.randn(1, 3, 8, 12)
        relevance = torch.randn(1, 2, 3)
        pictures = images.expand(6, -1, -1, -1).clone()
        order = relevance.flatten().argsort(descending=True)
        for picture, cell in zip(pictures, order.tolist(), strict=True):
            row, col = divmod(cell, 3)
            picture[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = images.mean()
        left = classifier.logits(pictures)[:, 0].tolist()
        ordered = relevance.flatten()[order].tolist()
        total = faithful = 0.0
        for i, j in combinations(range(6), 2):
            weight = ordered[i] - ordered[j]
            total += weight
            faithful += weight if left[i] <= left[j] else -weight
        assert float(value(SaCo(), classifier, images, relevance, YES)) == pytest.approx(faithful / total, abs=1e-5)


def tiny_vit():
    """Cells of one pixel with one channel, which are the features that Quantus and captum remove."""
    network = networks.timm_vit(img_size=4, patch_size=1, in_chans=1, embed_dim=12)
    return adapt(network, name="tiny")


class TestOracles:
    """Cells of one pixel with one channel are the features that Quantus and captum remove."""

    @pytest.fixture
    def quantus(self):
        return pytest.importorskip("quantus", reason="comes with the extra quantus")

    @pytest.fixture
    def given(self):
        classifier, images = tiny_vit(), torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(2))
        relevance = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))
        return classifier, images, relevance, torch.tensor([0, 3, 1])

    def theirs(self, metric, given):
        classifier, images, relevance, targets = given
        maps = relevance.unsqueeze(1).numpy()
        return metric(
            model=classifier.module.eval(),
            x_batch=images.numpy(),
            y_batch=targets.numpy(),
            a_batch=maps,
            device="cpu",
            softmax=metric.soft,
        )

    @pytest.mark.parametrize("score", ["logit", "probability"])
    @pytest.mark.parametrize("cells", [1, 4])
    def test_estimate_against_quantus(self, quantus, given, cells, score):
        metric = quantus.FaithfulnessEstimate(
            features_in_step=cells, perturb_baseline=0.0, normalize=False, return_aggregate=False, disable_warnings=True
        )
        metric.soft = score == "probability"
        ours = FaithfulnessEstimate(cells_per_group=cells, score=score)
        np.testing.assert_allclose(value(ours, *given), self.theirs(metric, given), atol=2e-4)

    @pytest.mark.parametrize("score", ["logit", "probability"])
    def test_correlation_against_quantus(self, quantus, given, score, monkeypatch):
        """Quantus draws new subsets for every image; here it gets our subsets, which all images share."""
        subsets = RandomSubsets(40, 0.25, 0).cells(16).repeat_interleave(3, 0)
        dealt = iter(subsets.numpy())
        monkeypatch.setattr(np.random, "choice", lambda *args, **kwargs: next(dealt))
        metric = quantus.FaithfulnessCorrelation(
            nr_runs=40, subset_size=4, perturb_baseline=0.0, normalize=False, return_aggregate=False, disable_warnings=True
        )
        metric.soft = score == "probability"
        found = self.theirs(metric, given)
        ours = FaithfulnessCorrelation(num_subsets=40, subset_share=0.25, score=score)
        np.testing.assert_allclose(value(ours, *given), found, atol=2e-4)
        assert next(dealt, None) is None

    @pytest.mark.parametrize("scale", ["optimal", "none"])
    def test_infidelity_against_captum(self, given, scale):
        captum = pytest.importorskip("captum.metrics", reason="comes with the extra captum")
        classifier, images, relevance, targets = given
        subsets = RandomSubsets(40, 0.25, 0).cells(16)
        removed = torch.zeros(40, 16).scatter_(1, subsets, 1).view(1, 40, 1, 4, 4)

        def perturb(inputs):  # Every image 40 times.
            masks = removed.expand(3, -1, -1, -1, -1).flatten(0, 1)
            return masks, inputs * (1 - masks)

        found = captum.infidelity(
            classifier.logits,
            perturb,
            images,
            relevance.unsqueeze(1),
            target=targets,
            n_perturb_samples=40,
            normalize=scale == "optimal",
        )
        ours = Infidelity(num_subsets=40, subset_share=0.25, scale=scale)
        torch.testing.assert_close(value(ours, *given), found, rtol=1e-4, atol=1e-6)


class TestSharing:
    @pytest.fixture
    def batch(self, monkeypatch):
        classifier, images = networks.network("timm"), networks.images("timm")
        return MetricBatch(classifier, images), counted(classifier, monkeypatch)

    def maps(self, batch, seed, targets=None):
        relevance = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return explained(batch.classifier, batch.images, relevance, targets)

    def test_methods_and_metrics_share_the_passes_of_random_subsets(self, batch):
        batch, calls = batch
        for seed, targets in ((0, None), (1, torch.tensor([0, 0, 4]))):
            for metric in (FaithfulnessCorrelation(), Infidelity(), FaithfulnessCorrelation(score="probability")):
                apart = MetricBatch(batch.classifier, batch.images)
                found = metric.measure(batch, self.maps(batch, seed, targets))
                shared = len(calls)
                torch.testing.assert_close(found, metric.measure(apart, self.maps(batch, seed, targets)))
                del calls[shared:]
        assert calls == [100]

    @pytest.mark.parametrize(
        "options",
        [{"seed": 1}, {"subset_share": 0.5}, {"num_subsets": 50}, {"baseline": "blur"}],
        ids=lambda options: next(iter(options)),
    )
    def test_other_subsets_run_again(self, batch, options):
        batch, calls = batch
        first = FaithfulnessCorrelation().measure(batch, self.maps(batch, 0))
        assert not first.equal(FaithfulnessCorrelation(**options).measure(batch, self.maps(batch, 0)))
        assert calls == [100, options.get("num_subsets", 100)]

    def test_subsets_of_another_grid_run_again(self, batch):
        batch, calls = batch
        coarse = explained(batch.classifier, batch.images, torch.randn(3, 2, 2))
        for metric in (FaithfulnessCorrelation(), FaithfulnessEstimate()):
            for maps in (self.maps(batch, 0), coarse):
                metric.measure(batch, maps)
        assert calls == [100, 100, 16, 4]

    def test_methods_share_the_passes_of_single_cells(self, batch):
        batch, calls = batch
        for seed in (0, 1):
            FaithfulnessEstimate().measure(batch, self.maps(batch, seed))
        assert calls == [16]
        FaithfulnessEstimate(cells_per_group=4).measure(batch, self.maps(batch, 0))
        SaCo().measure(batch, self.maps(batch, 0))
        assert calls == [16, 4, 10]


@pytest.mark.parametrize("name", ["hit-wide", "timm-registers"])
@pytest.mark.parametrize("metric", [*ALL, lambda: FaithfulnessEstimate(cells_per_group=3)])
def test_batches_equal_singles(name, metric):
    classifier, images = networks.network(name), networks.images(name)
    relevance, targets = torch.randn(3, *classifier.grid_size(images)), torch.tensor([0, 3, 1])
    together = value(metric(), classifier, images, relevance, targets)
    assert together.isfinite().all()
    for i in range(3):
        some = slice(i, i + 1)
        alone = value(metric(), classifier, images[some], relevance[some], targets[some])
        torch.testing.assert_close(together[some], alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_scale_and_offset_of_the_map_do_not_matter(metric):
    classifier, images = networks.network("hit"), networks.images("hit")
    relevance = torch.randn(3, 4, 4)
    found = value(metric(), classifier, images, relevance)
    for other in (relevance * 1e-3, relevance * 1e20, relevance + 2):
        torch.testing.assert_close(found, value(metric(), classifier, images, other), rtol=1e-4, atol=1e-4)
    assert (found.abs() <= 1).all()
    if metric is not SaCo:  # Its groups are of two sizes, and the other way round others are larger.
        torch.testing.assert_close(value(metric(), classifier, images, -relevance), -found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", [*CORRELATIONS, lambda: FaithfulnessEstimate(cells_per_group=3)])
@pytest.mark.parametrize("level", [0.0, 0.1, -3.0])
def test_a_constant_map_is_undefined(metric, level):
    classifier, images = networks.network("hit"), networks.images("hit")
    assert value(metric(), classifier, images, torch.full((3, 4, 4), level)).isnan().all()


@pytest.mark.parametrize("metric", [FaithfulnessCorrelation, FaithfulnessEstimate])
def test_a_constant_model_is_undefined(metric):
    classifier, images = networks.network("timm"), torch.zeros(2, 3, 32, 32)  # As the baseline.
    for score in ("logit", "probability"):
        assert value(metric(score=score), classifier, images, torch.randn(2, 4, 4)).isnan().all()


@pytest.mark.parametrize("metric", ALL)
def test_a_map_of_one_cell(metric):
    classifier = additive_classifier()
    found = value(metric(baseline="zero"), classifier, ones(), torch.full((1, 1, 1), 2.0), YES)
    if metric is Infidelity:  # The one cell's drop is 5.5, which a factor explains.
        assert float(found) == pytest.approx(0, abs=1e-9)
        assert float(value(Infidelity(scale="none"), classifier, ones(), torch.full((1, 1, 1), 2.0), YES)) == pytest.approx(
            12.25
        )
    else:
        assert found.isnan()


@pytest.mark.parametrize("metric", ALL)
def test_coarse_maps_remove_rectangles_of_patches(metric):
    classifier, images = networks.network("timm"), networks.images("timm")
    assert value(metric(), classifier, images, torch.randn(3, 2, 2)).isfinite().all()
    with pytest.raises(InvalidInputError, match="rectangles of the 4x4 patches, got a 3x3 map"):
        value(metric(), classifier, images, torch.randn(3, 3, 3))


@pytest.mark.parametrize("metric", ALL)
def test_half_precision(metric):
    classifier, images = networks.network("hit"), networks.images("hit").bfloat16()
    classifier.module.bfloat16()
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = value(metric(), classifier, images, maps)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.equal(value(metric(), classifier, images, maps.float()))


@pytest.mark.parametrize("metric", ALL)
def test_over_a_data_set(metric):
    classifier, images = networks.network("hit"), networks.images("hit")
    explanation = explained(classifier, images, torch.randn(3, 4, 4))
    measured = metric()
    for i in (slice(0, 1), slice(1, 3)):
        measured.update(classifier, images[i], explanation[i])
    [(name, mean)] = measured.compute().items()
    [described] = measured.measures
    assert name == described.name
    whole = metric().measure(MetricBatch(classifier, images), explanation)
    torch.testing.assert_close(float(mean), float(whole.double().mean()), rtol=1e-3, atol=1e-5)
    assert described.low <= float(mean) <= described.high
    assert math.isinf(described.high) == (metric is Infidelity)


@pytest.mark.parametrize("metric", ALL)
def test_the_model_and_the_random_state_are_restored(metric):
    classifier, images = networks.network("timm"), networks.images("timm")
    explanation = explained(classifier, images, torch.randn(3, 4, 4))
    classifier.module.train()
    state = torch.get_rng_state()
    metric().measure(MetricBatch(classifier, images), explanation)
    assert classifier.module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in classifier.module.parameters())


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        (FaithfulnessCorrelation, {"num_subsets": 1}, "num_subsets as a whole number of at least 2, got 1"),
        (FaithfulnessCorrelation, {"subset_share": 0.0}, "subset_share between 0 and 1"),
        (FaithfulnessCorrelation, {"subset_share": float("nan")}, "subset_share between 0 and 1"),
        (FaithfulnessCorrelation, {"baseline": "gray"}, "unknown baseline 'gray'"),
        (FaithfulnessCorrelation, {"score": "kl"}, "unknown score 'kl'"),
        (FaithfulnessCorrelation, {"seed": -1}, "seed as a whole number of at least 0"),
        (FaithfulnessEstimate, {"cells_per_group": 0}, "cells_per_group as a whole number of at least 1"),
        (FaithfulnessEstimate, {"score": "margin"}, "unknown score 'margin'"),
        (FaithfulnessEstimate, {"baseline": "gray"}, "unknown baseline 'gray'"),
        (Infidelity, {"num_subsets": 0}, "num_subsets as a whole number of at least 1, got 0"),
        (Infidelity, {"subset_share": 1.0}, "subset_share between 0 and 1"),
        (Infidelity, {"scale": "best"}, "unknown scale 'best'"),
        (SaCo, {"num_groups": 1}, "num_groups as a whole number of at least 2, got 1"),
        (SaCo, {"num_groups": 2.5}, "num_groups as a whole number"),
        (SaCo, {"baseline": "gray"}, "unknown baseline 'gray'"),
    ],
)
def test_bad_options_are_refused(metric, options, message, unchecked):
    with pytest.raises(InvalidInputError, match=message):
        metric(**options)
