"""The protocol of Vision DiffMask: closed forms, brute force in pixels, its noise."""

import copy
from dataclasses import replace

import networks
import pytest
import torch
from torch.distributions import Categorical

from vitrail.adapters import Classifier, Preprocessing
from vitrail.core.baselines import BASELINES
from vitrail.core.errors import InvalidInputError
from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, Curves, InsertionDeletion, perturbation_curves
from vitrail.metrics.perturbation import _check_one_grid

DIFFMASK = PROTOCOLS["diffmask"]
CELL = 4


def explained(classifier, images, relevance) -> Explanation:
    with torch.no_grad():
        logits = classifier.logits(images)
    return Explanation(relevance, logits.argmax(-1), logits)


def spread(numbers, rows, cols):
    """Numbers per cell as a picture whose cells are flat."""
    picture = numbers.reshape(-1, 1, rows, cols).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    return picture.expand(-1, 3, -1, -1)


class Cells(Classifier):
    """A classifier that only sees the mean of the first channel in every cell."""

    num_classes = 2

    def grid_size(self, images):
        return images.shape[2] // CELL, images.shape[3] // CELL

    def cells(self, images):
        return torch.nn.functional.avg_pool2d(images[:, :1], CELL).flatten(1)


class Additive(Cells):
    """Logit 0 is a weighted sum of cells, logit 1 is 0."""

    def logits(self, images):
        first = self.cells(images) @ self.module.weight[0]
        return torch.stack([first, torch.zeros_like(first)], 1)


class Counting(Cells):
    """Class k is more probable the closer k is to the number of bright cells."""

    num_classes = 21

    def logits(self, images):
        count = (self.cells(images) > 2).sum(1, keepdim=True)
        return -((count - torch.arange(self.num_classes)) ** 2).float()


def make(kind, num_cells=20):
    return kind(torch.nn.Linear(num_cells, 1, bias=False), Preprocessing((16, 20)), (), "cells")


def test_the_noise_is_fixed():
    """The noise of the published code for a single image on the CPU."""
    images = torch.randn(1, 3, 32, 48)
    noise = BASELINES["noise"](images)
    expected = [-0.4077761173248291, 0.033124566078186035, -0.4966585636138916, 0.37711358070373535, -0.8520550727844238]
    assert noise.flatten()[:5].tolist() == expected
    torch.manual_seed(123)
    assert torch.equal(noise, torch.rand(1, 3, 32, 48) * 2 - 1)
    assert noise.min() >= -1
    assert noise.max() <= 1
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(3**-0.5, abs=0.01)


def test_all_images_share_the_noise():
    noise, state = BASELINES["noise"](torch.zeros(1, 3, 16, 16)), torch.get_rng_state()
    for count in (1, 2, 7):
        assert torch.equal(BASELINES["noise"](torch.randn(count, 3, 16, 16)), noise)
    torch.set_rng_state(state)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(BASELINES["noise"](torch.zeros(2, 3, 16, 16)), noise.double())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(BASELINES["noise"](torch.zeros(2, 3, 16, 16, dtype=torch.bfloat16)), noise.bfloat16())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("order", ["most", "least"])
def test_additive_scorer_has_its_closed_form(order):
    """20 cells are not divisible by 7: points at 0, 7, 14 and 20 cells."""
    classifier, weights = make(Additive), torch.linspace(0.5, -0.3, 20)[torch.randperm(20)]
    classifier.module.weight.data[:] = weights
    values = torch.rand(20) + 1
    images = spread(values, 4, 5)
    curves = perturbation_curves(classifier, images, explained(classifier, images, weights.view(1, 4, 5)), DIFFMASK)
    assert curves.scores.shape == (1, 4, 4)
    torch.testing.assert_close(curves.fractions, torch.tensor([0, 0.35, 0.7, 1]))

    noise = classifier.cells(BASELINES["noise"](images))[0]
    by_weight = weights.argsort(descending=order == "most")
    logits = torch.stack([
        torch.where(torch.isin(torch.arange(20), by_weight[:count]), noise, values) @ weights for count in (0, 7, 14, 20)
    ])  # fmt: skip
    suffix = "_least" * (order == "least")
    probability = logits.sigmoid()
    assert int(logits[0] > 0) == 1  # class 0 is explained
    torch.testing.assert_close(curves[f"deletion_noise{suffix}"][0], probability)
    clean = probability[0]
    divergence = clean * (clean / probability).log() + (1 - clean) * ((1 - clean) / (1 - probability)).log()
    torch.testing.assert_close(curves[f"deletion_noise{suffix}_kl"][0], divergence, atol=1e-6, rtol=1e-4)

    areas, widths = curves.aucs(), torch.tensor([0.35, 0.35, 0.3])
    area = ((probability[1:] + probability[:-1]) / 2 * widths).sum()
    torch.testing.assert_close(areas[f"deletion_noise{suffix}"][0], area)
    relative = (area - probability[-1]) / (probability[0] - probability[-1])
    torch.testing.assert_close(areas[f"normalized_deletion_noise{suffix}"][0], relative)


def test_counting_with_the_true_mask():
    """Nine of twenty cells are bright, so the map only has ties, which change row by row."""
    classifier, bright = make(Counting), torch.zeros(20, dtype=torch.bool)
    bright[torch.tensor([1, 3, 4, 8, 9, 10, 13, 15, 18])] = True
    images = spread(3.0 * bright, 4, 5)
    curves = perturbation_curves(classifier, images, explained(classifier, images, bright.float().view(1, 4, 5)), DIFFMASK)
    # Double: torch.distributions takes a probability that single precision rounds to 0 for none at all.
    of_count = -((torch.arange(21)[:, None] - torch.arange(21)) ** 2).double()
    # Most first: 7 bright, then the last 2. Least first: 11 dark cells, then the first 3 bright ones in row order, then all.
    for suffix, counts in (("", [9, 2, 0, 0]), ("_least", [9, 9, 6, 0])):
        torch.testing.assert_close(curves[f"deletion_noise{suffix}"][0], of_count.softmax(-1)[counts, 9].float())
        divergence = torch.distributions.kl_divergence(Categorical(logits=of_count[9]), Categorical(logits=of_count[counts]))
        torch.testing.assert_close(curves[f"deletion_noise{suffix}_kl"][0], divergence.float(), atol=1e-5, rtol=1e-4)
    summary = curves.summary()
    for curve in DIFFMASK.curves:  # The true mask beats its opposite, whatever is measured.
        opposite = perturbation_curves(
            classifier, images, explained(classifier, images, -bright.float().view(1, 4, 5)), DIFFMASK
        ).summary()
        better = summary[curve.name] > opposite[curve.name]
        assert better == (curve.better == "higher")


@pytest.mark.parametrize("name", ["timm", "timm-registers", "hit-wide", "eva-dinov3", "torchvision"])
def test_both_orders_equal_one_forward_pass_per_step(name):
    classifier, images = networks.network(name), networks.images(name, 2)
    rows, cols = classifier.grid_size(images)
    relevance = torch.randn(2, rows, cols).round(decimals=1)
    curves = perturbation_curves(classifier, images, explained(classifier, images, relevance), DIFFMASK)
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(123)) * 2 - 1
    height, width = images.shape[2] // rows, images.shape[3] // cols
    num_points = -(-rows * cols // 7) + 1
    assert curves.scores.shape == (2, 4, num_points)
    with torch.no_grad():
        original = classifier.logits(images)
        for i in range(2):
            for suffix, sign in (("", -1), ("_least", 1)):
                numbers = relevance[i].flatten().tolist()
                order = sorted(range(rows * cols), key=lambda cell, sign=sign, numbers=numbers: (sign * numbers[cell], cell))
                picture = images[i].clone()
                for k in range(num_points):
                    for cell in order[7 * (k - 1) : 7 * k] if k else []:
                        top, left = cell // cols * height, cell % cols * width
                        at = (slice(None), slice(top, top + height), slice(left, left + width))
                        picture[at] = noise[at]
                    changed = classifier.logits(picture[None])[0]
                    probability = changed.softmax(-1)[original[i].argmax()]
                    divergence = torch.distributions.kl_divergence(Categorical(logits=original[i]), Categorical(logits=changed))
                    close = {"rtol": 1e-3, "atol": 1e-5}
                    torch.testing.assert_close(curves[f"deletion_noise{suffix}"][i, k], probability, **close)
                    torch.testing.assert_close(curves[f"deletion_noise{suffix}_kl"][i, k], divergence, **close)
                assert torch.equal(picture, noise)


def test_orders_and_directions_share_one_call():
    classifier, images, calls = make(Additive), torch.randn(3, 3, 16, 20), []

    class Watched(Additive):
        def perturbed_logits(self, images, baseline, keep):
            calls.append(keep.shape)
            return super().perturbed_logits(images, baseline, keep)

    watched = Watched(classifier.module, classifier.preprocessing, (), "watched")
    explanation = explained(watched, images, torch.randn(3, 4, 5))
    perturbation_curves(watched, images, explanation, DIFFMASK)
    assert calls == [(3, 2 * 4, 20)]
    both = replace(DIFFMASK, directions=("insertion", "deletion"), baselines=("noise", "zero"))
    curves = perturbation_curves(watched, images, explanation, both)
    # The whole image, or the bare baseline, where one curve ends and the next one begins, is one point.
    assert calls[1:] == [(3, 4 * 4 - 3, 20)] * 2
    # What one order brings in last, the other takes out first; with 7 cells a step only the ends of the two meet.
    for baseline in both.baselines:
        for score in ("", "_kl"):
            most, least = curves[f"insertion_{baseline}{score}"], curves[f"deletion_{baseline}_least{score}"]
            torch.testing.assert_close(most[:, [0, -1]], least[:, [-1, 0]])
    for one, names in ((("deletion",), DIFFMASK), (("insertion",), both)):
        part = perturbation_curves(watched, images, explanation, replace(names, directions=one))
        for name in part.names:
            torch.testing.assert_close(part[name], curves[name])


def test_insertion_alone_has_the_scores_of_image_and_baseline():
    classifier, images = networks.network("timm"), networks.images("timm", 2)
    explanation = explained(classifier, images, torch.randn(2, 4, 4))
    protocol = replace(DIFFMASK, directions=("insertion",))
    alone = perturbation_curves(classifier, images, explanation, protocol)
    together = perturbation_curves(classifier, images, explanation, replace(protocol, directions=("insertion", "deletion")))
    assert torch.equal(alone["insertion_noise_kl"][:, -1], torch.zeros(2))
    assert set(alone.aucs()) < set(together.aucs())
    for name, areas in alone.aucs().items():
        torch.testing.assert_close(areas, together.aucs()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_divergence_of_a_network_in_another_precision(dtype):
    classifier, images = networks.network("timm"), networks.images("timm").to(dtype)
    classifier.module.to(dtype)
    curves = perturbation_curves(classifier, images, explained(classifier, images, torch.rand(3, 4, 4)), DIFFMASK)
    expected = torch.promote_types(dtype, torch.float32)
    assert curves.scores.dtype == curves.fractions.dtype == curves.auc().dtype == expected
    assert torch.equal(curves["deletion_noise_kl"][:, 0], torch.zeros(3, dtype=expected))
    assert (curves["deletion_noise_kl"][:, 1:] > 0).all()


def test_curves_by_name():
    curves = Curves(DIFFMASK, torch.tensor([0, 0.5, 1]), torch.rand(2, 4, 3), torch.rand(2, 4, 2))
    assert torch.equal(curves["deletion_noise_kl"], curves.scores[:, 2])
    with pytest.raises(InvalidInputError, match="unknown curve 'deletion_zero'"):
        curves["deletion_zero"]
    assert list(curves.aucs()) == [*curves.names, "normalized_deletion_noise", "normalized_deletion_noise_least"]
    assert list(curves.summary()) == list(curves.aucs())
    assert curves.normalized_auc()[:, 2:].isnan().all()
    assert not curves.normalized_auc()[:, :2].isnan().any()


def of_size(classifier, height, width, seed=0):
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return images, explained(classifier, images, torch.randn(2, *classifier.grid_size(images)))


def test_data_sets_with_several_grids_are_refused():
    classifier = networks.network("timm-dynamic")
    metric = InsertionDeletion(DIFFMASK)
    metric.update(classifier, *of_size(classifier, 32, 48))
    with pytest.raises(InvalidInputError, match="one grid, got some with 16 and some with 24 cells"):
        metric.update(classifier, *of_size(classifier, 32, 32))
    metric.update(classifier, *of_size(classifier, 48, 32, seed=1))
    assert metric.curves().scores.shape == (4, 4, 5)
    metric.reset()
    metric.update(classifier, *of_size(classifier, 32, 32))
    assert metric.curves().fractions.tolist() == [0, 7 / 16, 14 / 16, 1]
    # Points of a fixed number of steps are the same on every grid.
    evenly = InsertionDeletion(DIFFMASK.changed(num_steps=5))
    for size in ((32, 48), (32, 32)):
        evenly.update(classifier, *of_size(classifier, *size))
    assert evenly.curves().scores.shape == (4, 4, 6)


def test_processes_with_different_grids_are_refused():
    assert int(_check_one_grid(torch.tensor([0, 16, 16]))) == 16
    assert int(_check_one_grid(torch.tensor([0, 0]))) == 0
    with pytest.raises(InvalidInputError, match="one grid"):
        _check_one_grid(torch.tensor([16, 0, 24]))
    classifier = networks.network("timm")
    whole, parts = InsertionDeletion(DIFFMASK), InsertionDeletion(DIFFMASK)
    for seed in range(2):
        torch.manual_seed(seed)
        batch = of_size(classifier, 32, 32, seed)
        whole.update(classifier, *batch)
        parts(classifier, *batch)  # Measures the batch alone, then adds it.
    torch.testing.assert_close(parts.compute(), whole.compute())
    assert copy.deepcopy(parts).compute() == parts.compute()
