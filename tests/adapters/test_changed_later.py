"""What was true of a network when it was adapted may not be later, or for other images: that is seen, and refused."""

import random
import threading

import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from vitrail.adapters import Preprocessing, ViTAdapter, adapt
from vitrail.adapters.similarity import compare_with_directions
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer

SMALL = Preprocessing.unnormalized(3, (32, 32), crop_fraction=1.0)
PHOTOS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def explain(classifier, images=PHOTOS, method="rollout"):
    return make_explainer(method, classifier).explain(images, 0)


class Wrapper(nn.Module):
    """Passes on what the network inside gives, at first: it normalizes by nothing, and its other branch and temperature do nothing."""

    def __init__(self, normalizes=False):
        super().__init__()
        self.network = networks.timm_vit()
        self.branch = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
        nn.init.zeros_(self.branch[1].weight)
        nn.init.zeros_(self.branch[1].bias)
        self.temperature = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5 if normalizes else 0.0))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25 if normalizes else 1.0))

    def forward(self, images):
        images = (images - self.mean) / self.std
        return self.network(images) / self.temperature + self.branch(images)


def flip(part, inputs):
    return (inputs[0].flip(-1), *inputs[1:])


CHANGES = {
    "branch": lambda wrapper: nn.init.normal_(wrapper.branch[1].weight),
    "temperature": lambda wrapper: nn.init.constant_(wrapper.temperature, 3.0),
    "mean": lambda wrapper: wrapper.load_state_dict(wrapper.state_dict() | {"mean": torch.full((1, 3, 1, 1), 0.1)}),
    "head": lambda wrapper: setattr(wrapper.network, "head", nn.Linear(24, 5)),
    "network": lambda wrapper: setattr(wrapper, "network", networks.timm_vit(embed_dim=48)),
    "hook": lambda wrapper: wrapper.register_forward_pre_hook(flip),
    "hook inside": lambda wrapper: wrapper.network.register_forward_pre_hook(flip),
}


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_wrapper_that_changes_is_not_explained_as_it_was(change, normalizes):
    wrapper = Wrapper(normalizes)
    classifier = adapt(wrapper, preprocessing=SMALL)
    assert isinstance(classifier, ViTAdapter)
    explain(classifier)
    CHANGES[change](wrapper)
    try:
        explanation = explain(classifier)
    except UnsupportedModelError:
        return
    # A head that was replaced is that of the network inside; all else is refused.
    assert (change, normalizes) == ("head", False)
    torch.testing.assert_close(explanation.logits, networks.own_logits(wrapper, PHOTOS), rtol=1e-4, atol=1e-5)


def test_the_refusal_says_what_to_do():
    wrapper = Wrapper()
    classifier = adapt(wrapper, preprocessing=SMALL)
    CHANGES["temperature"](wrapper)
    with pytest.raises(
        UnsupportedModelError, match=r"the Wrapper around it gives other logits by now.*; adapt the Wrapper anew"
    ):
        explain(classifier)
    assert not isinstance(adapt(wrapper, preprocessing=SMALL), ViTAdapter)


def test_a_hook_on_a_parallel_wrapper_is_seen():
    wrapper = nn.DataParallel(networks.timm_vit())
    classifier = adapt(wrapper, preprocessing=SMALL)
    explain(classifier)
    wrapper.register_forward_pre_hook(flip)
    with pytest.raises(UnsupportedModelError, match="the DataParallel around it"):
        explain(classifier)


@pytest.mark.parametrize("normalizes", [False, True])
def test_a_wrapper_may_change_its_precision_and_train(normalizes):
    wrapper = Wrapper(normalizes)
    classifier = adapt(wrapper, preprocessing=SMALL)
    explain(classifier)
    wrapper.double()
    with torch.no_grad():
        wrapper.network.head.weight.add_(1)
    explanation = explain(classifier, PHOTOS.double())
    torch.testing.assert_close(explanation.logits, networks.own_logits(wrapper, PHOTOS.double()), rtol=1e-6, atol=1e-9)


def test_a_wrapped_embedding_is_compared_as_the_one_inside():
    wrapper = Wrapper()
    tower = adapt(wrapper, preprocessing=SMALL, output="embedding")
    compared = compare_with_directions(tower, torch.eye(5)[:3])
    assert compared.wrapper is not None
    assert explain(compared).logits.shape == (2, 3)
    CHANGES["branch"](wrapper)
    with pytest.raises(UnsupportedModelError, match="the Wrapper around it"):
        explain(compared)


def to_32_pixels(part, inputs):
    images = inputs[0]
    return (images if images.shape[-1] == 32 else nn.functional.interpolate(images, (32, 32)), *inputs[1:])


class Resizing(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(*to_32_pixels(self, (images,)))


@pytest.mark.parametrize("method", ["rollout", "chefer", "occlusion"])
@pytest.mark.parametrize("wraps", [False, True])
def test_images_of_other_sizes_are_checked_too(method, wraps):
    network = networks.timm_vit(dynamic_img_size=True)
    if wraps:
        network = Resizing(network)
    else:
        network.register_forward_pre_hook(to_32_pixels)
    classifier = adapt(network, preprocessing=SMALL)
    explain(classifier, PHOTOS, method)
    with pytest.raises(UnsupportedModelError):
        explain(classifier, torch.rand(2, 3, 64, 64), method)
    explain(classifier, PHOTOS, method)


class Gated(nn.Module):
    """A block whose gate lets a convolution over tokens pass."""

    def __init__(self, block):
        super().__init__()
        self.block, self.conv, self.gate = block, nn.Conv1d(24, 24, 5, padding=2), nn.Parameter(torch.zeros(1))
        self.attn, self.norm1 = block.attn, block.norm1

    def forward(self, tokens, **options):
        return self.block(tokens, **options) + self.gate * self.conv(tokens.mT).mT


def test_hooks_for_all_networks_are_seen():
    classifier = adapt(networks.timm_vit(), preprocessing=SMALL)
    explain(classifier)
    embedding = classifier.module.patch_embed
    hook = register_module_forward_pre_hook(lambda part, inputs: flip(part, inputs) if part is embedding else None)
    try:
        with pytest.raises(UnsupportedModelError, match="flipped, moved or reordered"):
            explain(classifier)
    finally:
        hook.remove()
    explain(classifier)


@pytest.mark.parametrize("method", ["rollout", "chefer", "mutex"])
def test_a_part_that_a_zero_hid_is_checked_once_it_is_trained(method):
    network = networks.timm_vit()
    network.blocks[0] = Gated(network.blocks[0])
    classifier = adapt(network, preprocessing=SMALL)
    explain(classifier, method=method)
    optimizer = torch.optim.SGD(network.parameters(), 10.0)
    network.train()(PHOTOS).square().sum().backward()
    optimizer.step()
    assert network.blocks[0].gate.any()
    with pytest.raises(UnsupportedModelError):
        explain(classifier, method=method)


class Prunes(nn.Module):
    """A block that drops tokens of images with large pixels only."""

    def __init__(self, block, kept):
        super().__init__()
        self.block, self.kept, self.attn, self.norm1 = block, kept, block.attn, block.norm1

    def forward(self, tokens, **options):
        output = self.block(tokens, **options)
        return output[:, : 1 + self.kept] if tokens.abs().max() > 1000 else output


@pytest.mark.parametrize("kept", [4, 8])
@pytest.mark.parametrize("method", ["attention", "rollout", "chefer", "legrad", "attcat", "grad-cam", "mutex"])
def test_tokens_that_are_dropped_by_what_the_photo_shows(kept, method):
    network = networks.timm_vit()
    network.blocks[0] = Prunes(network.blocks[0], kept)
    classifier = adapt(network, preprocessing=SMALL)
    explain(classifier, PHOTOS, method)
    with pytest.raises(UnsupportedModelError, match="tokens in every block of VisionTransformer, got"):
        explain(classifier, 1e5 * PHOTOS, method)


def test_threads_that_explain_one_network_wait_for_each_other():
    network = networks.timm_vit(depth=4).train()
    methods = ["chefer", "rollout", "occlusion", "legrad"]
    expected = {method: explain(adapt(network, preprocessing=SMALL), method=method).relevance for method in methods}
    wrong = []

    def work(method):
        for _ in range(4):  # Wrappers of its own in every thread, of one network.
            found = explain(adapt(nn.Sequential(network), preprocessing=SMALL), method=method).relevance
            wrong.extend([] if torch.allclose(found, expected[method], atol=1e-5) else [method])

    threads = [threading.Thread(target=work, args=(method,)) for method in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(part.training for part in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


class Draws(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 5)

    def forward(self, images):
        random.random(), np.random.rand(), torch.rand(1)
        return self.layer(images.flatten(1))


def test_random_numbers_of_every_generator_are_as_they_were(unchecked):
    network = Draws()

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    explain(adapt(network, preprocessing=SMALL), method="occlusion")
    assert draw() == expected


def test_weights_without_numbers_are_named():
    with pytest.raises(InvalidInputError, match=r"got 1\.weight without a shape; run it on images first"):
        explain(adapt(nn.Sequential(nn.Flatten(), nn.LazyLinear(5))), method="occlusion")
    with pytest.raises(InvalidInputError, match="got cls_token on the meta device; load them first"):
        explain(adapt(networks.timm_vit().to("meta"), preprocessing=SMALL))
