"""What an explanation costs, against what is known of its passes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import networks
import pytest
import torch
from networks import images, network

from vitrail.evaluation.scoring.cost import count_passes
from vitrail.explainers import Attribution, Explainer, make_explainer


def passes(name, *methods, seed=1):
    classifier = network(name)
    explainers = [make_explainer(method, classifier) for method in methods]
    return count_passes(classifier, explainers, images(name, 1, seed))


@dataclass(frozen=True, eq=False)
class Twice(Explainer):
    """One pass more than its logits."""

    paper: ClassVar[str] = "tests"

    def attribution(self, images: Any, choose: Any) -> Attribution:
        self.model.logits(images)
        logits = self.model.logits(images)
        return Attribution(logits, choose(logits), torch.zeros(len(images), *self.model.grid_size(images)))


@pytest.mark.parametrize("name", ["timm", "torchvision", "hf-vit", "hit", "timm-no-prefix"])
def test_chance_and_attention_cost_one_pass(name):
    assert passes(name, "random", "attention") == pytest.approx([1, 1], rel=0.01)


def test_every_pass_counts():
    classifier = network("timm")
    assert count_passes(classifier, [Twice(classifier)], images("timm", 1)) == pytest.approx([2], rel=1e-6)


@pytest.mark.parametrize("name", ["timm", "torchvision", "timm-no-prefix"])
def test_a_gradient_of_the_patches_costs_another_pass(name):
    """Backwards as much as forwards, since no weight asks for its gradient, and but for the embedding, which is not passed."""
    [found] = passes(name, "input-x-gradient")
    assert found == pytest.approx(2, rel=0.1)
    assert found < 2


def test_a_gradient_of_the_patches_costs_another_pass_of_a_transformers_model():
    assert passes("hf-vit", "input-x-gradient") == pytest.approx([2], rel=0.15)


def test_gradients_of_attentions_cost_between_one_and_two_passes():
    for found in passes("timm", "chefer", "legrad", "attcat"):
        assert 1.3 < found < 2.1


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_occlusion_costs_a_pass_a_patch_and_one_for_the_image(name):
    """17 passes of all behind the embedding, which all steps share: 1 for the image, 1 for the baseline."""
    classifier, (depth, width, mlp) = network(name), (3, 24, 96) if name == "timm" else (2, 24, 48)
    batch, tokens, patches = images(name, 1), 17, 16
    embedding = patches * 8 * 8 * 3 * width
    blocks = depth * (tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width) + 5 * width
    [found] = count_passes(classifier, [make_explainer("occlusion", classifier)], batch)
    assert found == pytest.approx((17 * blocks + 2 * embedding) / (blocks + embedding), rel=0.005)
    assert found < patches + 1


def test_explaining_a_hit_costs_little_more_than_its_forward_pass():
    [found] = passes("hit", "hit")
    assert found == pytest.approx(1, abs=0.15)


def test_integrated_gradients_cost_a_pass_and_a_way_back_at_every_point():
    classifier = network("timm")
    batch = images("timm", 1)
    few, many = (
        count_passes(classifier, [make_explainer("integrated-gradients", classifier, num_steps=steps)], batch)[0]
        for steps in (4, 14)
    )
    [gradient] = passes("timm", "input-x-gradient")
    assert 10 * (gradient - 1) < many - few < 10 * gradient


@pytest.mark.parametrize("name", ["timm", "hit"])
def test_the_cost_is_the_same_for_every_image(name):
    methods = ("random", "attention", "chefer", "occlusion")
    assert passes(name, *methods, seed=1) == passes(name, *methods, seed=2)


def test_counting_leaves_the_model_alone():
    classifier = network("timm")
    classifier.module.train()
    before, random_state = [part.training for part in classifier.module.modules()], torch.get_rng_state()
    count_passes(classifier, [make_explainer("input-x-gradient", classifier)], images("timm", 1))
    assert [part.training for part in classifier.module.modules()] == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.module.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in classifier.module.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("methods", [("random", "intr"), ("intr", "random")])
def test_shapes_that_are_asked_for_once_cost_nothing(methods):
    intr = networks.intr()
    found = count_passes(intr, [make_explainer(name, intr) for name in methods], torch.randn(1, 3, 32, 48))
    assert dict(zip(methods, found, strict=True))["random"] == 1.0
