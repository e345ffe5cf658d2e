"""Undefined numbers are left out of means, and reported."""

import logging

import networks
import numpy as np
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map
from torch import nn

from vitrail.adapters import Classifier, Preprocessing, adapt
from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS, PROTOCOLS, Curves, InsertionDeletion, MetricBatch, Protocol, perturbation_curves
from vitrail.metrics.masks import Masks
from vitrail.viz.curves import plot_perturbation

STEPS = Protocol("", "", num_steps=4, baselines=("zero",))


def made_curves(clean: float, empty: float, middle: float, score: str = "probability") -> Curves:
    """Insertion and deletion curves of one image, from the scores of the baseline, in between, and of the image."""
    insertion = torch.tensor([empty, middle, clean])
    scores = torch.stack([insertion, insertion.flip(0)])[None]
    protocol = Protocol("", "", num_steps=2, baselines=("zero",), scores=(score,))
    return Curves(protocol, torch.linspace(0, 1, 3), scores, torch.tensor([[[clean, empty]] * 2]))


@pytest.mark.parametrize(
    ("clean", "empty", "middle", "defined"),
    [
        (0.9, 0.1, 0.5, True),
        (0.5, 0.4999, 0.9, False),
        (0.4999, 0.5, 0.1, False),
        (0.5, 0.5, 0.5, False),
        (0.334, 0.333, 0.3335, True),  # All are near each other: nothing explodes.
        (1e-6, 1e-7, 5e-7, True),
        (0.1091, 0.1, 1.0, True),
        (0.1089, 0.1, 1.0, False),
    ],
)
def test_normalized_aucs_are_undefined_if_image_and_baseline_score_nearly_the_same(clean, empty, middle, defined):
    curves = made_curves(clean, empty, middle)
    assert curves.normalized_auc().isfinite().tolist() == [[defined] * 2]
    assert (curves.num_undefined() == {}) is defined
    assert curves.auc().isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_smallest_span_does_not_depend_on_the_scale(scale):
    assert made_curves(2 * scale, 1 * scale, 3 * scale, "logit").normalized_auc().isfinite().all()
    assert made_curves(1.001 * scale, 1 * scale, 3 * scale, "logit").normalized_auc().isnan().all()


def test_curves_of_a_mean_leave_out_what_is_undefined():
    whole = [made_curves(0.9, 0.1, middle) for middle in (0.2, 0.4)]
    hole = made_curves(0.9, 0.1, float("nan"))
    joined = Curves(
        STEPS.changed(num_steps=2),
        whole[0].fractions,
        *(torch.cat([getattr(each, name) for each in (whole[0], hole, whole[1])]) for name in ("scores", "ends")),
    )
    torch.testing.assert_close(joined.mean()[0], torch.tensor([0.1, 0.3, 0.9]))
    assert joined.summary()["insertion_zero"] == pytest.approx(0.4)
    assert joined.summary()["normalized_insertion_zero"] == pytest.approx(0.375)
    assert joined.num_undefined() == dict.fromkeys(joined.aucs(), 1)


def test_pictures_of_curves_leave_out_what_is_undefined(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: drawn.append(figure) or save(figure, *args, **options)
    )
    one, hole = made_curves(0.9, 0.1, 0.5), made_curves(0.9, 0.1, float("nan"))
    joined = Curves(one.protocol, one.fractions, torch.cat([one.scores, hole.scores]), torch.cat([one.ends, hole.ends]))
    plot_perturbation({"some": joined, "none": hole}, tmp_path / "curves.png")
    panel = drawn[0].axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), one.mean()[0])
    assert np.isnan(panel.lines[1].get_ydata()).all()
    assert [text.get_text() for text in panel.texts] == ["undefined: none"]


def huge(factor: float) -> Classifier:
    module = networks.hit()
    with torch.no_grad():
        for parameter in module.head.parameters():
            parameter.mul_(factor)
    return adapt(module, preprocessing=Preprocessing((16, 16)))


def test_infinite_numbers_are_left_out_of_means_with_a_warning(caplog):
    images = torch.randn(2, 3, 16, 16)
    infidelity = METRICS["infidelity"](num_subsets=4)
    for factor in (1.0, 1e30):
        classifier = huge(factor)
        infidelity.update(classifier, images, make_explainer("random", classifier).explain(images))
    assert infidelity.per_image().isfinite().sum() == 2
    with caplog.at_level(logging.WARNING):
        mean = infidelity.compute()["infidelity"]
    torch.testing.assert_close(mean, infidelity.per_image()[:2].double().mean())
    assert caplog.messages == ["Infidelity: undefined, and left out of means: infidelity for 2 of 4 images"]


def test_no_warning_if_everything_is_defined(caplog):
    classifier, images = additive_classifier(), ones(3)
    explanation = explained(classifier, images, own_map(classifier, 3))
    metrics = [METRICS["sparseness"](), METRICS["infidelity"](num_subsets=4), InsertionDeletion(STEPS)]
    with caplog.at_level(logging.WARNING):
        for metric in metrics:
            metric.update(classifier, images, explanation)
            assert all(value.isfinite() for name, value in metric.compute().items() if not name.startswith("normalized"))
    assert not caplog.messages


def test_means_of_curves_warn_about_undefined_images(caplog):
    classifier = networks.network("hit")
    images = networks.images("hit", 2)
    metric = InsertionDeletion(STEPS)
    metric.update(classifier, images, explained(classifier, images, torch.rand(2, 4, 4)))
    expected = metric.curves().summary()
    hole = metric.curve_scores[0].clone()
    hole[:, 1, 2] = torch.nan
    metric.curve_scores.append(hole)
    metric.curve_ends.append(metric.curve_ends[0])
    with caplog.at_level(logging.WARNING):
        found = metric.compute()
    assert caplog.messages == ["InsertionDeletion: undefined, and left out of means: deletion_zero for 2 of 4 images"]
    for name in ("insertion_zero", "deletion_zero"):
        assert float(found[name]) == pytest.approx(expected[name])


class Fragile(Classifier):
    """A classifier whose logits are NaN if the first pixel is replaced."""

    num_classes = 3

    def grid_size(self, images):
        return 2, 2

    def logits(self, images):
        sums = images.flatten(2).sum(2)
        return sums.where(images[:, :1, 0, 0] != 0, torch.nan)


@pytest.mark.parametrize("name", ["saco", "single-step", "faithfulness-correlation", "faithfulness-estimate", "infidelity"])
def test_nan_logits_leave_a_metric_undefined(name):
    classifier = Fragile(nn.Linear(1, 1))
    images = torch.rand(1, 3, 4, 4) + 1
    relevance = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    metric = METRICS[name](baseline="zero")
    found = metric.measure_batch(MetricBatch(classifier, images), explained(classifier, images, relevance))
    undefined = [False, False, True] if name == "single-step" else [True]
    assert found.isnan().tolist() == [undefined]


def test_hits_of_nan_logits_are_undefined():
    classifier = Fragile(nn.Linear(1, 1))
    images, relevance = torch.rand(1, 3, 4, 4) + 1, torch.tensor([[[1.0, 4.0], [3.0, 2.0]]])
    explanation = explained(classifier, images, relevance)
    curves = perturbation_curves(classifier, images, explanation, STEPS.changed(scores=("top1",), directions=("deletion",)))
    assert curves.scores.isnan().tolist() == [[[False, False, False, False, True]]]
    found = dict(
        zip(
            (each.name for each in Masks.measures),
            Masks().measure(MetricBatch(classifier, images), explanation)[0],
            strict=True,
        )
    )
    assert found["agreement"].isnan()
    assert found["kept"] == 0.75 or found["kept"] == 0.5


def test_accuracy_refuses_nan_logits():
    with pytest.raises(InvalidInputError, match="gave logits that are not finite"):
        networks.network("hit").check_logits(torch.tensor([[0.0, 0.0, 0.0, 0.0, torch.inf]]))


SINGLE = {
    "timm": lambda: adapt(networks.timm_vit(num_classes=1)),
    "huggingface": lambda: adapt(networks.huggingface("ViT", num_labels=1)),
    "hit": lambda: adapt(networks.hit(num_classes=1)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_random_relevance_is_not_perfect_for_a_single_logit(name):
    """With a softmax over one logit, every curve would be 1, every divergence 0 and every prediction unchanged."""
    classifier, side = SINGLE[name](), 16 if name == "hit" else 32
    images = 3 * torch.randn(6, 3, side, side, generator=torch.Generator().manual_seed(2))
    explainer = make_explainer("random", classifier)
    explanation, batch = explainer.explain(images), MetricBatch(classifier, images)
    with torch.no_grad():
        # As often yes as no.
        middle = networks.own_logits(classifier.module, images).median()
        bias = [value for name, value in classifier.module.named_parameters() if value.shape == (1,)][-1]
        bias.sub_(middle)
    for protocol in (STEPS.changed(scores=("probability", "top1", "kl")), PROTOCOLS["chefer"]):
        scores = perturbation_curves(classifier, images, explanation, protocol).scores
        assert 0 < scores.mean() < 1
        assert (scores.flatten(0, 1).amax(0) > scores.flatten(0, 1).amin(0)).any()
    found = Masks().measure_batch(batch, explanation, explainer).nanmean(0)
    names = [each.name for each in Masks.measures]
    assert found[names.index("agreement")] < 1
    assert found[names.index("kl")] > 0
    drops = METRICS["single-step"]().measure_batch(batch, explanation)
    assert drops.max() > 0
    assert METRICS["stability"](noise=3.0).measure_batch(batch, explanation, explainer)[:, 2].mean() < 1
