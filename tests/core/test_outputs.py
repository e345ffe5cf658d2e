"""Meaning of logits: a single one, several labels, and one class among all."""

import json
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

import vitrail
from vitrail.adapters import PlainClassifier, Preprocessing, adapt
from vitrail.adapters.plain import adapt_plain
from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import CheckpointError, UnknownNameError, UnsupportedModelError
from vitrail.core.outputs import decisions, probabilities
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation

SIZE = {"hit": (16, 16), "intr": (32, 48)}


def plain() -> PlainClassifier:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 1))
    return adapt_plain(networks.shaken(module, spread=0.5), "plain", cell_size=8)


def seen(module: nn.Module, side: int = 32):
    return adapt(module, preprocessing=Preprocessing((side, side)))


SINGLE = {
    "timm": lambda: seen(networks.timm_vit(num_classes=1)),
    "torchvision": lambda: seen(networks.torchvision_vit(num_classes=1)),
    "huggingface": lambda: seen(networks.huggingface("ViT", num_labels=1)),
    "hit": lambda: seen(networks.hit(num_classes=1), 16),
    "intr": lambda: networks.intr(num_classes=1, class_names=("ant",)),
    "plain": plain,
}
"""Networks of a single logit, by where they come from."""


def batch(name: str) -> torch.Tensor:
    """An image with a bright square, and noise."""
    height, width = SIZE.get(name, (32, 32))
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))
    images[0] *= 0.1
    images[0, :, : height // 2, : width // 2] += 2
    return images


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_logit_is_a_sigmoid(name):
    classifier, images = SINGLE[name](), batch(name)
    explanation = make_explainer("random", classifier).explain(images)
    logits = networks.own_logits(classifier.module, images).detach()
    expected = 1 / (1 + (-logits).exp())
    assert logits.shape == (2, 1)
    assert expected.min() > 0
    assert expected.max() < 1
    torch.testing.assert_close(explanation.probabilities, expected)
    torch.testing.assert_close(classifier.probabilities(logits), expected)
    assert explanation.output == "sigmoid"
    assert explanation.targets.tolist() == [0, 0]
    [(_, shown)] = explanation.top_classes(0, 5)
    assert shown == pytest.approx(float(expected[0, 0]), rel=1e-5)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("method", ["rise", "mutex"])
def test_maps_of_a_single_logit_depend_on_the_image(name, method):
    classifier, images = SINGLE[name](), batch(name)
    if (method, name) in {("mutex", "hit"), ("mutex", "intr"), ("mutex", "plain")}:
        with pytest.raises(UnsupportedModelError):
            make_explainer(method, classifier)
        return
    first, second = (
        make_explainer(method, classifier, **({"num_masks": 16} if method == "rise" else {})).explain(images).relevance
    )
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


def test_rise_of_a_single_logit_against_its_formula():
    classifier, images = plain(), batch("plain")[:1]
    explainer = make_explainer("rise", classifier, num_masks=8)
    masks = explainer.masks((4, 4))
    pixels = masks.view(8, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    probabilities = classifier.module(images * pixels).detach()[:, 0].sigmoid()
    torch.testing.assert_close(explainer.explain(images).relevance.flatten(), probabilities @ masks.float() / 4)


MULTI = {"problem_type": "multi_label_classification"}


def multi_convnext():
    import transformers

    config = transformers.ConvNextConfig(num_labels=3, hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], num_channels=3, **MULTI)
    torch.manual_seed(0)
    return adapt(networks.shaken(transformers.ConvNextForImageClassification(config)), preprocessing=Preprocessing((32, 32)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: seen(networks.huggingface("ViT", **MULTI)),
        lambda: seen(networks.huggingface("Dinov2", **MULTI)),
        multi_convnext,
        lambda: adapt(networks.timm_vit(), output="sigmoid"),
        lambda: adapt(networks.hit(), output="sigmoid"),
    ],
    ids=["hf-vit", "hf-dinov2", "hf-convnext", "timm-said", "hit-said"],
)
def test_several_labels_are_sigmoids(make):
    classifier = make()
    side = 16 if "hit" in classifier.name.lower() else 32
    images = torch.randn(2, 3, side, side)
    explanation = make_explainer("rise", classifier, num_masks=4).explain(images)
    logits = networks.own_logits(classifier.module, images).detach()
    assert classifier.output == explanation.output == "sigmoid"
    torch.testing.assert_close(explanation.probabilities, logits.sigmoid(), rtol=1e-4, atol=1e-6)
    assert explanation.targets.tolist() == logits.argmax(1).tolist()


def test_softmax_is_the_default_of_configurations():
    for options in ({}, {"problem_type": "single_label_classification"}):
        classifier = seen(networks.huggingface("ViT", **options))
        logits = torch.randn(3, 5)
        assert classifier.output == "softmax"
        assert torch.equal(classifier.probabilities(logits), logits.softmax(-1))


def test_a_regression_has_no_probabilities():
    for num_labels in (1, 3):
        classifier = seen(networks.huggingface("ViT", problem_type="regression", num_labels=num_labels))
        logits = torch.randn(4, num_labels)
        assert classifier.output == "none"
        assert torch.equal(classifier.probabilities(logits), logits)


def test_an_unknown_output_is_refused(unchecked):
    with pytest.raises(UnknownNameError, match="unknown output 'sigmiod'"):
        adapt(networks.hit(), output="sigmiod")


def test_saturated_labels_keep_their_order():
    """Sigmoids of 30 and 40 are both 1 in single precision."""
    logits = torch.tensor([[-5.0, 30.0, 40.0, 35.0]])
    explanation = Explanation(torch.zeros(1, 2, 2), torch.tensor([2]), logits, output="sigmoid")
    assert [name for name, _ in explanation.top_classes(0, 3)] == ["class 2", "class 3", "class 1"]


def test_probabilities_are_in_single_precision_at_least():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for output, expected in (("softmax", logits.softmax(-1)), ("sigmoid", logits.sigmoid())):
        assert torch.equal(probabilities(logits, output), expected)
        assert probabilities(logits.half(), output).dtype == torch.float32
        assert probabilities(logits.double(), output).dtype == torch.float64


def test_a_decision_is_a_class_or_the_sign_of_a_logit():
    assert decisions(torch.tensor([[1.0, 3.0, 2.0]])).tolist() == [1]
    assert decisions(torch.tensor([[[-0.1], [0.0], [4.0]]])).tolist() == [[0, 1, 1]]


def test_divergence_of_labels_is_that_of_their_joint_distribution():
    generator = torch.Generator().manual_seed(0)
    original, changed = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    def joint(logits):
        p = logits.sigmoid()
        outcomes = torch.tensor(np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T)
        return torch.where(outcomes == 1, p[:, None], 1 - p[:, None]).prod(-1)

    p, q = joint(original), joint(changed)
    torch.testing.assert_close(kl_divergence(original, changed, "sigmoid"), (p * (p / q).log()).sum(1))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_divergence_of_extreme_logits(output):
    logits = torch.tensor([[200.0, -300.0, 0.0]])
    assert kl_divergence(logits, logits, output).tolist() == [0]
    assert 100 < kl_divergence(logits, -logits, output) < 10_000
    single = kl_divergence(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), output)
    assert single == pytest.approx(2 / (1 + np.exp(-1)) - 1, rel=1e-6)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_explanations_remember_what_logits_mean(tmp_path, output):
    explanation = Explanation(torch.rand(2, 2, 2), torch.tensor([0, 1]), torch.randn(2, 3), output=output)
    explanation.save(tmp_path / "one")
    read = Explanation.load(tmp_path / "one")
    assert read.output == output
    assert torch.equal(read.probabilities, explanation.probabilities)
    for whole in (read[1], Explanation.concatenate([read, read])):
        assert whole.output == output


def test_explanations_of_older_files_are_softmax_unless_of_a_single_logit(tmp_path, unchecked):
    for num_classes, output in ((3, "softmax"), (1, "sigmoid")):
        Explanation(torch.rand(1, 2, 2), torch.tensor([0]), torch.randn(1, num_classes)).save(tmp_path / "old")
        path = tmp_path / "old.json"
        described = json.loads(path.read_text())
        del described["output"]
        path.write_text(json.dumps(described))
        assert Explanation.load(tmp_path / "old").output == output
    described["output"] = "softplus"
    path.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="unknown output 'softplus'"):
        Explanation.load(tmp_path / "old")


@pytest.mark.parametrize("kind", ["hit", "huggingface", "plain"])
def test_files_of_models_remember_what_logits_mean(tmp_path, kind):
    if kind == "hit":
        classifier = adapt(networks.hit(), output="sigmoid")
    elif kind == "huggingface":
        classifier = seen(networks.huggingface("ViT", **MULTI))
    else:
        built = vitrail.adapters.build("timm:convnext_atto", num_classes=3, depths=[1, 1, 1, 1], dims=[4, 4, 4, 4])
        classifier = replace(built, output="sigmoid")
    vitrail.save(classifier, tmp_path / "model.safetensors")
    assert vitrail.load(tmp_path / "model.safetensors", device="cpu").output == "sigmoid"
    vitrail.save(replace(classifier, output="softmax"), tmp_path / "model.safetensors")
    assert vitrail.load(tmp_path / "model.safetensors", device="cpu").output == "softmax"
    assert vitrail.load(tmp_path / "model.safetensors", device="cpu", output="sigmoid").output == "sigmoid"


def test_an_exported_folder_remembers_that_labels_are_several(tmp_path):
    classifier = replace(seen(networks.huggingface("ViT")), output="sigmoid")
    vitrail.adapters.export_huggingface(classifier, tmp_path / "model")
    assert vitrail.load(tmp_path / "model", device="cpu").output == "sigmoid"
    assert classifier.module.config.problem_type is None
