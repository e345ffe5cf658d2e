"""Numbers at their limits: reduced precision, infinite and tiny maps, huge tolerances, protocols with curves left out."""

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import networks
import numpy as np
import pytest
import torch
from additive import AdditiveClassifier, additive_classifier, explained, ones, own_map
from scored import LOGIT, Exact, additive, gray_photos

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation import Plan, score
from vitrail.evaluation.scoring.report import write_results
from vitrail.evaluation.scoring.text import describe_undefined
from vitrail.explainers import Attribution, Explainer, make_explainer
from vitrail.metrics import METRICS, PROTOCOLS, Curves, MetricBatch, Protocol
from vitrail.metrics.localization import dilate
from vitrail.viz.curves import plot_perturbation


@pytest.fixture
def images(tmp_path):
    return ImageFolder.scan(gray_photos(tmp_path / "photos"), additive().preprocessing)


@dataclass(frozen=True, eq=False)
class Asked(Explainer):
    """Remembers which classes it was asked for."""

    paper: ClassVar[str] = "tests"
    needs_model: ClassVar[str] = "any"
    name = "asked"
    seen: Any = None

    def attribution(self, images, choose):
        logits = self.model.logits(images)
        targets = choose(logits)
        self.seen.append(targets.tolist())
        return Attribution(logits, targets, torch.rand(len(images), *self.model.grid_size(images)))


@dataclass(frozen=True, eq=False)
class Other(Asked):
    name = "other"


def test_all_methods_explain_the_class_that_the_images_have_in_full_precision(tmp_path):
    """Near ties, where a pass in half precision is as likely to say another class."""
    classifier = networks.network("timm")
    with torch.no_grad():
        classifier.module.head.weight.mul_(1e-4)
    batch = networks.images("timm", 3)
    from vitrail.datasets.dataset import LabeledArrays

    pixels = (batch.permute(0, 2, 3, 1) * 60 + 120).clamp(0, 255).to(torch.uint8).numpy()
    data = LabeledArrays(pixels, [-1] * 3, [], classifier.preprocessing, "noise")
    methods = [Asked(classifier, seen=[], precision="bf16"), Other(classifier, seen=[], precision="bf16")]
    found = score(classifier, data, methods, Plan.create(metrics=["sparseness"]), passes=[1.0, 1.0])
    seen = torch.stack([data[i].image for i in range(3)])
    with torch.no_grad():
        expected = classifier.logits(seen).argmax(-1).tolist()
    assert found.targets.tolist() == expected
    for method in methods:
        assert method.seen[0] == expected


def test_infinite_numbers_are_left_out_and_reported(images, caplog):
    classifier = additive()

    @dataclass(frozen=True, eq=False)
    class Huge(Exact):
        name = "huge"

        def attribution(self, images, choose):
            exact = super().attribution(images, choose)
            return exact._replace(relevance=exact.relevance * 1e30)

    plan = Plan.create(metrics=["infidelity"], options={"infidelity": {"scale": "none", "num_subsets": 8}})
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        found = score(classifier, images, [Huge(classifier)], plan, passes=[1.0])
    assert not np.isinf(found.values).any()
    assert "infidelity of huge is infinite for some images" in caplog.text

    assert "infidelity is left out: it is undefined for every image and method" in caplog.text


def test_undefined_numbers_are_excluded_from_means_with_a_warning(images, tmp_path, caplog):
    """One image, of which the model says NaN as soon as something is replaced, takes nothing from the others."""

    class Fragile(AdditiveClassifier):
        def perturbed_logits(self, images, baseline, keep):
            found = super().perturbed_logits(images, baseline, keep)
            fragile = (images[:, 0, 0, 4] - 204 / 255).abs() < 1e-3
            return found.where(~fragile[:, None, None] | keep.all(2, keepdim=True), torch.nan)

    whole = additive()
    classifier = Fragile(whole.module, whole.preprocessing, whole.class_names, "fragile")
    plan = Plan.create({"logit": LOGIT}, ["infidelity"], {"infidelity": {"num_subsets": 8}})
    found, expected = (score(model, images, [Exact(model)], plan, target=0, passes=[1.0]) for model in (classifier, whole))
    [broken] = np.flatnonzero(np.isnan(found.column("infidelity")[0]))
    others = [i for i in range(len(found)) if i != broken]
    assert found.num_undefined()["Exact"] == {
        column.name: 0 if column.name == "completeness" else 1 for column in found.columns
    }
    for name in ("logit.insertion_zero_logit", "infidelity"):
        assert found.means()["Exact"][name] == pytest.approx(expected.column(name)[0, others].mean(), rel=1e-5)
    curves = found.mean_curves("logit")["Exact"].scores[0].numpy()
    np.testing.assert_allclose(curves, expected.curves("logit")["Exact"].scores[others].mean(0), rtol=1e-5, atol=1e-6)
    (tmp_path / "out").mkdir()
    table = found.table
    write_results(tmp_path / "out", table)
    message = "undefined for 1 of 5 images; the mean leaves these out"
    assert describe_undefined(table, "logit") == [f"insertion_zero_logit, deletion_zero_logit: {message}"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count(message) == 2
    assert "nan" not in (tmp_path / "out" / "curves.csv").read_text().lower()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e25])
def test_the_scale_of_a_map_does_not_count_for_its_sensitivity(scale):
    classifier = additive_classifier()
    images = 0.5 * ones(2) + 0.1 * torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))

    def method(asked, targets):
        return torch.nn.functional.avg_pool2d(asked[:, 0], 4) * own_map(classifier) * scale

    metric = METRICS["max-sensitivity"](num_samples=3)
    found = metric.measure_batch(MetricBatch(classifier, images), explained(classifier, images, method(images, None)), method)
    plain = replace_scale(classifier, images)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=0)


def replace_scale(classifier, images):
    def method(asked, targets):
        return torch.nn.functional.avg_pool2d(asked[:, 0], 4) * own_map(classifier)

    metric = METRICS["max-sensitivity"](num_samples=3)
    return metric.measure_batch(MetricBatch(classifier, images), explained(classifier, images, method(images, None)), method)


def test_a_tolerance_beyond_the_image_is_the_image():
    answers = torch.zeros(2, 5, 7, dtype=torch.bool)
    answers[0, 0, 0] = True
    found = dilate(answers, 10**6)
    assert found[0].all()
    assert not found[1].any()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"num_workers": -1}])
def test_batches_of_nothing_are_refused(images, options):
    classifier = additive()
    with pytest.raises(InvalidInputError, match="expected a batch_size of at least 1 and num_workers of at least 0"):
        score(classifier, images, [make_explainer("random", classifier)], Plan.create(metrics=["sparseness"]), **options)


@pytest.mark.parametrize("fields", [{"num_steps": 2.5}, {"num_steps": "3"}, {"cells_per_step": 1.0}])
@pytest.mark.usefixtures("unchecked")
def test_steps_are_whole_numbers(fields):
    with pytest.raises(InvalidInputError, match="expected at least 1"):
        Protocol(description="", source="", **fields)


def test_omitted_curves_have_no_empty_panels(tmp_path, monkeypatch):
    protocol = replace(PROTOCOLS["rise"], num_steps=2, baselines=("zero", "blur", "noise"), without=("insertion_zero",))
    curves = {"a": Curves(protocol, torch.tensor([0, 0.5, 1]), torch.rand(2, 5, 3), torch.rand(2, 5, 2))}
    drawn = []
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_perturbation(curves, tmp_path / "curves.png")
    panels = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_title().split(" (")[0] for axes in panels] == [
        f"{curve.direction}, {curve.baseline}" for curve in protocol.curves
    ]
    assert all(axes.lines for axes in panels)
    assert [bool(axes.get_xlabel()) for axes in panels] == [False, False, False, True, True]
