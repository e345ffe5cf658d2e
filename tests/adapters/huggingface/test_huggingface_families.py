"""Every family of Hugging Face's Vision Transformers on tiny networks, against their own forward passes."""

from dataclasses import replace
from functools import cache

import huggingface_families as families
import pytest
import torch
import transformers
from transformers import AttentionInterface

from vitrail.adapters import ViTAdapter, adapt
from vitrail.adapters.checks.vit_checks import CHECKS
from vitrail.adapters.directions import Directions
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS, make_explainer

EVERY = [name if name in families.REPRESENTATIVES else pytest.param(name, marks=pytest.mark.slow) for name in families.NETWORKS]
OPTIONS = {
    "rise": {"num_masks": 8},
    "integrated-gradients": {"num_steps": 2},
    "mutex": {},
    "shapley": {"num_passes": 100, "region": 2},
}
FEW = [
    name if name in ("DINOv3ViTModel", "CLIPModel") else pytest.param(name, marks=pytest.mark.slow)
    for name in families.NETWORKS
]
METHODS = [
    name
    for name, method in EXPLAINERS.items()
    if not method.needs_training and name not in ("hit", "intr", "intr-heads") and "random" not in name
]


@cache
def adapted(name):
    """An adapted network; one of a kind that gives an embedding is compared with three directions."""
    classifier = adapt(families.NETWORKS[name](), name=name)
    if classifier.output != "embedding":
        return classifier
    vectors = torch.randn(3, classifier.num_classes, generator=torch.Generator().manual_seed(3))
    return replace(classifier, directions=Directions(vectors, torch.arange(3), 10.0, torch.zeros(1)), output="softmax")


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", families.NETWORKS)
def test_logits_and_embeddings_are_the_networks_own(name, images):
    network = families.NETWORKS[name]()
    classifier = adapt(network)
    assert isinstance(classifier, ViTAdapter)
    assert classifier.output == ("softmax" if name in families.CLASSIFIERS else "embedding")
    torch.testing.assert_close(classifier.logits(images), families.own_output(name, network, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_every_check_passes(name):
    with adapted(name).verified(*CHECKS):
        pass


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FEW)
def test_every_method_runs(name, method, images):
    classifier = adapted(name)
    if (refusal := EXPLAINERS[method].refusal(classifier)) is not None:
        pytest.skip(refusal)
    relevance = make_explainer(method, classifier, **OPTIONS.get(method, {})).explain(images).relevance
    assert torch.isfinite(relevance).all()
    assert relevance.std() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "siglip2", "DINOv3ViTModel", "BeitModel", "ViTMAEModel", "ViTModel", "ijepa"])
def test_images_of_another_size(name):
    """Networks that resize their positions do so in their parts as well."""
    images = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    classifier = adapted(name)
    assert classifier.grid_size(images) == (6, 8)
    (logits,) = classifier.rebuilt_logits(images).values()
    torch.testing.assert_close(logits, classifier.logits(images), atol=1e-5, rtol=1e-5)
    if name in ("clip", "ijepa"):
        own = classifier.module(images, interpolate_pos_encoding=True).logits
    elif name == "siglip2":
        own = classifier.module(**families.naflex_inputs(images, 8)).logits
    else:
        return
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=1e-5)


def blind(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention that does not see the keys that are hidden."""
    scores = query @ key.mT * scaling + (0 if attention_mask is None else attention_mask)
    weights = scores.masked_fill(hidden[0], float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


hidden = [torch.zeros(1, dtype=torch.bool)]
AttentionInterface.register("blind", blind)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ViTModel", "DINOv3ViTModel", "BeitModel", "ViTMAEModel", "ViTMSNModel", "CLIPModel"])
def test_removed_patches_are_as_if_no_token_saw_them(name, images):
    """For networks that read a class token: rotary, relative and learned positions stay those of the kept patches."""
    classifier = replace(adapted(name), directions=None, output="embedding")
    if name == "BeitModel":  # Its pooler reads the class token only without mean pooling.
        classifier = adapt(families.plain("BeitModel", "Beit", use_relative_position_bias=True, use_mean_pooling=False))
    keep = torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    removed = classifier.kept_logits(images, keep)
    config = classifier.base.config
    before = config._attn_implementation
    for step in range(3):
        for index in range(2):
            prefix = torch.zeros(classifier.num_prefix_tokens, dtype=torch.bool)
            hidden[0] = torch.cat([prefix, ~keep[index, step]])
            config._attn_implementation = "blind"
            try:
                expected = families.own_output(name, classifier.module, images[index : index + 1])
            finally:
                config._attn_implementation = before
            torch.testing.assert_close(removed[index, step], expected[0], atol=1e-5, rtol=1e-5)


def test_the_text_tower_keeps_its_own_attention(images):
    network = families.NETWORKS["CLIPModel"]()
    network.config.text_config._attn_implementation = "eager"
    classifier = adapt(network)
    with classifier.record(attentions=True) as trace, torch.no_grad():
        classifier.logits(images)
    assert len(trace.attentions) == 3
    assert network.config.text_config._attn_implementation == "eager"
    assert network.config.vision_config._attn_implementation == "sdpa"


def test_a_subclass_is_what_it_derives_from(images):
    class Mine(transformers.ViTModel):
        pass

    network = Mine(transformers.ViTConfig(**families.VISION))
    assert isinstance(adapt(network), ViTAdapter)


def test_masking_is_restored():
    network = families.NETWORKS["ViTMAEModel"]()
    images = torch.zeros(1, 3, 32, 32)
    adapt(network).logits(images)
    assert "random_masking" not in vars(network.embeddings)
    assert network(images).last_hidden_state.shape[1] == 5


def test_methods_that_need_a_class_refuse_an_embedding(images):
    classifier = adapt(families.NETWORKS["IJepaModel"]())
    assert make_explainer("rollout", classifier).explain(images).relevance.shape == (2, 4, 4)
    with pytest.raises(UnsupportedModelError, match="embedding"):
        make_explainer("legrad", classifier)


@pytest.mark.parametrize("size", [(33, 32), (32, 36)])
def test_sides_that_the_patch_does_not_divide(size):
    with pytest.raises(InvalidInputError, match="multiples of 8 and 8 pixels"):
        adapted("siglip2").logits(torch.zeros(1, 3, *size))


def test_other_heads_are_refused_in_the_fallbacks_reason():
    reason = adapt(families.plain("ViTForMaskedImageModeling", "ViT", encoder_stride=8)).reason
    assert (
        "or without any head (ViTModel, ViTVisionModel, ViTVisionModelWithProjection), got ViTForMaskedImageModeling" in reason
    )
