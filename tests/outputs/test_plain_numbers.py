"""Regressions: the value itself is explained and shown, no class is predicted, and nothing is called a probability."""

import json
import logging
import math

import networks
import pytest
import torch
from PIL import Image
from torch import nn

from vitrail import similarity
from vitrail.adapters import Preprocessing, adapt
from vitrail.cli.printing import describe_explanation, print_explanations
from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.outputs import same_decision
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.accuracy import evaluate, expect_several_classes, write_accuracy
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation
from vitrail.metrics import METRICS
from vitrail.metrics.perturbation import perturbation_curves
from vitrail.metrics.protocol import Protocol
from vitrail.runs.results import ImageResult
from vitrail.viz.report_tables import class_table

SMALL = Preprocessing((32, 32), 1.0)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def regression(num_outputs: int = 1, **options):
    network = networks.huggingface("ViT", num_labels=num_outputs, problem_type="regression")
    with torch.no_grad():
        network.classifier.bias += 40  # An age, say: far from where a sigmoid is not 1.
    return adapt(network, preprocessing=SMALL, **options)


def explain(classifier, method="rise", **options) -> Explanation:
    return make_explainer(method, classifier, **options).explain(IMAGES).with_sources(["a.png", "b.png"])


def test_a_regression_is_read_off_the_configuration():
    classifier = regression()
    explanation = explain(classifier, num_masks=4)
    values = networks.own_logits(classifier.module, IMAGES).detach()
    assert classifier.output == explanation.output == "none"
    torch.testing.assert_close(explanation.probabilities, values)
    [(_, shown)] = explanation.top_classes(0, 3)
    assert shown == pytest.approx(float(values[0, 0]))


@pytest.mark.parametrize(("method", "options"), [("rise", {"num_masks": 32}), ("mutex", {})])
def test_methods_of_probabilities_use_the_value(method, options):
    """As a sigmoid, 40 is 1 under every mask, and all photos have the same map."""
    classifier = regression()
    first, second = explain(classifier, method, **options).relevance
    saturated = explain(adapt(classifier.module, preprocessing=SMALL, output="sigmoid"), method, **options).relevance
    assert torch.equal(saturated[0], saturated[1]) or method == "mutex"
    assert (first - second).abs().max() > 1e-4
    if method == "rise":
        explainer = make_explainer(method, classifier, **options)
        masks = explainer.masks((4, 4))
        pixels = masks.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
        values = networks.own_logits(classifier.module, IMAGES[:1] * pixels).detach()[:, 0]
        torch.testing.assert_close(first.flatten(), values @ masks.float() / 16, rtol=1e-4, atol=1e-4)


def test_tables_show_the_value(tmp_path, capsys):
    explanation = explain(regression(class_names=["age"]), num_masks=4)
    value = float(explanation.logits[0, 0])
    explanation.save(tmp_path / "one")
    described = json.loads((tmp_path / "one.json").read_text())
    assert described["images"][0]["top"] == [{"class": "age", "value": pytest.approx(value)}]
    print_explanations({"rise": [explanation]}, 3, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{explanation.model}: 2 photos explained by rise", f"a.png: age {value:.4g}"]
    table = class_table(explanation.top_classes(0, 3), explanation.output)
    assert (table.head, table.rows) == (["class", "value"], [["age", f"{value:.4g}"]])
    assert ImageResult.from_explanation(explanation[0]).probability is None


def test_pictures_show_the_value(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    from vitrail.viz.sheet import SheetRow, _draw_classes, contact_sheet

    explanation = explain(regression(), num_masks=4)[0]
    axes = Figure().subplots()
    _draw_classes(axes, explanation)
    assert axes.get_title() == "value"
    assert axes.get_xlim()[1] > 30
    photo = Image.new("RGB", (40, 40))
    contact_sheet([SheetRow(photo, (0.0, 0.0, 40.0, 40.0), [explanation])], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_the_page_shows_the_value():
    pytest.importorskip("gradio")
    from PIL import Image

    from vitrail.app.explain_request import ExplainRequest, answer_request
    from vitrail.app.result_json import result_to_json
    from vitrail.app.ui.render import Look, render_results

    request = ExplainRequest(Image.new("RGB", (40, 40), "red"), ("occlusion",))
    side = answer_request(regression(class_names=["age"]), request)
    page = render_results([side], Look("color", "nearest"))
    assert f"Explained: <strong>age</strong>, value {side.probability:.4g}" in page
    assert "probab" not in page.split("</section>")[0]
    assert "%" not in page.split("</section>")[0].split("</style>")[1]
    assert result_to_json(side)["value"] == pytest.approx(side.probability)
    assert "probability" not in result_to_json(side)


def test_curves_follow_the_value():
    classifier = regression()
    protocol = Protocol("mine", "mine", num_steps=4, baselines=("zero",))
    curves = perturbation_curves(classifier, IMAGES, explain(classifier, num_masks=4), protocol)
    values = networks.own_logits(classifier.module, IMAGES).detach()[:, 0]
    empty = networks.own_logits(classifier.module, 0 * IMAGES).detach()[:, 0]
    torch.testing.assert_close(curves["insertion_zero"][:, -1], values)
    torch.testing.assert_close(curves["insertion_zero"][:, 0], empty)


@pytest.mark.parametrize("score", ["kl", "top1"])
def test_scores_of_classes_are_refused(score):
    classifier = regression()
    protocol = Protocol("mine", "mine", num_steps=4, scores=(score,))
    with pytest.raises(InvalidInputError, match=f"expected a classifier to measure {score}, got outputs without probabilities"):
        perturbation_curves(classifier, IMAGES, explain(classifier, num_masks=4), protocol)


def test_metrics_of_classes_are_undefined_or_refused():
    classifier = regression()
    explainer = make_explainer("occlusion", classifier)
    explanation = explainer.explain(IMAGES)
    masks = METRICS["masks"]()
    masks.update(classifier, IMAGES, explanation)
    measured = masks.compute()
    assert all(math.isnan(measured[name]) for name in ("agreement", "kl"))
    assert 0 < measured["kept"] <= 1
    stability = METRICS["stability"](num_samples=1)
    stability.update(classifier, IMAGES, explanation, explainer=explainer)
    assert math.isnan(stability.compute()["same_class"])
    assert -1 <= stability.compute()["spearman"] <= 1
    with pytest.raises(InvalidInputError, match="expected a classifier for single-step, which compares probabilities"):
        METRICS["single-step"]().update(classifier, IMAGES, explanation)
    with pytest.raises(InvalidInputError, match="so that there is no accuracy"):
        expect_several_classes(regression(3))
    with pytest.raises(UnsupportedModelError, match="its gates compare probabilities"):
        make_explainer("diffmask", classifier)
    with pytest.raises(InvalidInputError, match="expected a classifier to compare its probabilities"):
        kl_divergence(torch.zeros(1, 3), torch.ones(1, 3), "none")


def test_decisions_agree_only_where_there_are_any():
    first, second = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    assert same_decision(first, second).tolist() == [1, 0]
    assert same_decision(first, second, "none").isnan().all()


def test_printed_numbers_are_values_of_outputs():
    explanation = make_explainer("integrated-gradients", regression(), num_steps=4).explain(IMAGES[:1])
    assert explanation.target_name() == "output 0"
    assert describe_explanation(explanation, 1).startswith("value of output 0 ")


@pytest.mark.parametrize(
    ("logit", "expected"),
    [
        (4.0, ["+2.000 (50.0%)", "+1.000 (25.0%)", "-1.000"]),  # Nobody's share is below zero.
        (-2.0, ["+2.000", "+1.000", "-1.000 (50.0%)"]),
        (0.25, ["+2.000", "+1.000", "-1.000"]),  # Large parts that cancel out.
        (0.0, ["+2.000", "+1.000", "-1.000"]),
    ],
)
def test_parts_have_a_share_of_the_logit_where_it_is_one(logit, expected):
    relevance = torch.tensor([[[1.0, 2.0], [-1.0, -1.5]]])
    explanation = Explanation(relevance, torch.tensor([0]), torch.tensor([[logit, 0.0]]), "hit", bias=torch.tensor([0.5]))
    parts = describe_explanation(explanation, 3).rpartition("strongest patches: ")[2].split(", ")
    assert [part.split(" ", 4)[4] for part in parts] == expected


def test_similarities_have_an_accuracy_but_no_confidence(tmp_path):
    tower = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # The mean color.
    tower.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    for name, color in (("red", (250, 20, 20)), ("green", (20, 250, 20))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), color).save(tmp_path / name / "0.png")
    pixels = Preprocessing.unnormalized(3, (32, 32))
    compared = similarity(adapt(tower, preprocessing=pixels, output="embedding"), references=tmp_path)
    assert compared.output == "none"
    found = evaluate(compared, ImageFolder.scan(tmp_path, pixels))
    assert (found.top1, found.num_images) == (1, 2)
    assert math.isnan(found.confidence)
    write_accuracy(tmp_path, "tower", found)
    assert '"mean_confidence": null' in (tmp_path / "accuracy.json").read_text()


# A single logit.


def tumor(bias: float):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 1))
    networks.shaken(module, spread=0.5)
    with torch.no_grad():
        module[-1].bias += bias
    return module


def test_a_single_logit_is_announced_as_a_sigmoid(caplog):
    with caplog.at_level(logging.INFO, logger="vitrail"):
        classifier = adapt(tumor(0), name="tumor", preprocessing=SMALL)
        explain(classifier, num_masks=2)
        explain(classifier, num_masks=2)
    messages = [record.message for record in caplog.records if "one logit" in record.message]
    assert messages == ["tumor has one logit: explained as sigmoid; give output='none' (--output none) for a regression"]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="vitrail"):
        explain(adapt(tumor(0), output="none", preprocessing=SMALL), num_masks=2)
    assert "one logit" not in caplog.text


def test_a_single_logit_has_probabilities_below_one(capsys, tmp_path):
    """As a softmax of one, all photos would be the class at 100 %, and every masked photo too."""
    classifier = adapt(tumor(-1), name="tumor", class_names=["tumor"], preprocessing=SMALL)
    explanation = explain(classifier, num_masks=64)
    expected = torch.sigmoid(classifier.module(IMAGES).detach()[:, 0])
    assert expected.max() < 0.9
    torch.testing.assert_close(explanation.probabilities[:, 0], expected)
    print_explanations({"rise": [explanation]}, 1, tmp_path)
    assert f"a.png: tumor {float(expected[0]):.1%}" in capsys.readouterr().out
    assert (explanation.relevance[0] - explanation.relevance[1]).abs().max() > 1e-3


def test_random_does_not_score_perfectly_on_a_single_logit():
    classifier = adapt(tumor(-1), preprocessing=SMALL)
    protocol = Protocol("mine", "mine", num_steps=4, baselines=("zero",), scores=("probability", "top1"))
    curves = perturbation_curves(classifier, IMAGES, explain(classifier, "random"), protocol)
    assert not torch.allclose(curves["insertion_zero"], torch.ones(()))
    probability = torch.sigmoid(classifier.module(IMAGES).detach()[:, 0])
    torch.testing.assert_close(curves["insertion_zero"][:, -1], probability)
    torch.testing.assert_close(curves["insertion_zero_top1"][:, -1], (probability >= 0.5).float())


def test_probabilities_instead_of_logits_are_noticed(caplog):
    network = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(-1))
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        explain(adapt(network, name="net", preprocessing=SMALL), num_masks=2)
        explain(adapt(network[:-1], name="logits", preprocessing=SMALL), num_masks=2)
    [message] = caplog.messages
    assert message.startswith(
        "net returns probabilities, of which vitrail takes the softmax once more; give the network without"
    )


@pytest.mark.parametrize(("output", "advice"), [("softmax", " and output='sigmoid'"), ("sigmoid", ""), ("none", None)])
def test_a_sigmoid_instead_of_logits_is_noticed(output, advice, caplog):
    network = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.Flatten())
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        explain(adapt(network, name="net", preprocessing=SMALL, output=output), num_masks=2)
    expected = f"of which vitrail takes the {output} once more; give the network without its own sigmoid{advice}, or"
    assert len(caplog.messages) == (advice is not None)
    assert all(expected in message for message in caplog.messages)


@pytest.mark.parametrize("own", [nn.Sigmoid(), nn.Hardtanh(0.4, 0.6)])
def test_a_sigmoid_of_one_logit_is_noticed_by_the_graph_not_by_its_numbers(own, caplog):
    network = nn.Sequential(nn.Conv2d(3, 1, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), own)
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        explain(adapt(network, name="net", preprocessing=SMALL), num_masks=2)
    assert len(caplog.messages) == isinstance(own, nn.Sigmoid)
    assert all("takes the sigmoid once more; give the network without its own sigmoid, or" in each for each in caplog.messages)


@pytest.mark.parametrize("seldom", ["noise", "photos"])
def test_logits_that_are_positive_and_sum_to_one_for_some_images_are_no_probabilities(seldom, caplog):
    """Noise of the checks has a mean of 0.5, photos here one of 0."""

    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.classify = nn.Linear(3, 5)

        def forward(self, images):
            logits = self.classify(images.mean((2, 3)))
            bright = images.mean((1, 2, 3))[:, None] > 0.25
            return torch.where(bright == (seldom == "noise"), logits.softmax(-1), logits)

    with caplog.at_level(logging.WARNING, logger="vitrail"):
        make_explainer("rise", adapt(Sometimes(), name="net", preprocessing=SMALL), num_masks=2).explain(IMAGES - 0.5)
    assert caplog.messages == []
