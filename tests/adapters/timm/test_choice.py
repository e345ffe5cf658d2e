"""Which adapter a timm network gets, and why others are explained from outside; attention against its definition."""

import re
from dataclasses import replace

import networks
import pytest
import timm
import timm_families
import torch
from timm.layers import Attention
from timm.models.qwen3_vit import Qwen3VitClassifier

from vitrail.adapters import ViTAdapter, adapt
from vitrail.adapters.directions import Directions
from vitrail.adapters.plain import PlainClassifier
from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers.base import EXPLAINERS

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}


class OtherFeatures(timm.models.VisionTransformer):
    def forward_features(self, x, **options):
        return super().forward_features(x.flip(-1), **options)


class SameAttention(Attention):
    pass


class OtherAttention(Attention):
    def forward(self, x, **options):
        return 2 * super().forward(x, **options)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: OtherFeatures(**TINY),
            "leaves the steps of timm alone, got OtherFeatures, which replaces forward_features; adapt a",
        ),
        (lambda: networks.timm_vit(attn_layer=OtherAttention), "one self-attention each, got timm's Block with OtherAttention"),
        (
            lambda: timm.models.Xcit(**TINY),
            "got timm's Xcit, which has no adapter: its attention is over channels or neighborhoods",
        ),
        (
            lambda: timm.create_model("vit_tiny_r_s16_p8_224", embed_dim=24, depth=1, num_heads=3, img_size=32),
            r"embedded one by one \(timm's PatchEmbed\), got HybridEmbed",
        ),
        (
            lambda: timm.models.SwinTransformer(
                img_size=32, patch_size=4, num_classes=5, embed_dim=12, depths=(1, 1), num_heads=(1, 2), window_size=4
            ),
            "which has no adapter: its tokens are merged or attend in windows",
        ),
        (
            lambda: timm_families.encoder(Qwen3VitClassifier, encoder_pool="merge", out_features=16),
            r"merges neighbors \(encoder_pool='merge'\); create it with encoder_pool=''",
        ),
    ],
    ids=["steps", "attention", "xcit", "hybrid", "swin", "merge"],
)
@torch.no_grad()
def test_other_networks_are_explained_as_plain_classifiers_with_the_reason(build, reason):
    module = build().eval()
    classifier = adapt(module)
    assert isinstance(classifier, PlainClassifier)
    assert re.search(reason, classifier.reason), classifier.reason
    images = torch.rand(2, 3, *classifier.preprocessing.size)
    torch.testing.assert_close(classifier.logits(images), module(images))


@torch.no_grad()
def test_derived_attention_that_changes_nothing():
    module = networks.timm_vit(attn_layer=SameAttention)
    adapter, images = adapt(module), networks.images("timm")
    assert isinstance(adapter, ViTAdapter)
    own = module(images)
    with adapter.record(attentions=True) as trace:
        torch.testing.assert_close(adapter.logits(images), own)
    assert len(trace.attentions) == 3


def test_cait_mixes_its_heads_with_a_bias():
    """With weights of zero everywhere, its patches read each other all the same."""
    module = timm_families.cait(depth=1)
    tokens = torch.randn(1, 16, 24, generator=torch.Generator().manual_seed(0))
    (block,) = module.blocks
    with torch.no_grad():
        block.attn.proj_w.weight.zero_()
        block.attn.proj_w.bias.fill_(0.5)
        other = tokens.clone()
        other[:, 3] = torch.randn(24, generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(block(tokens)[:, 5], block(other)[:, 5])
    adapter = adapt(timm_families.cait())
    with pytest.raises(UnsupportedModelError, match="mixes its heads after the softmax, with a bias"):
        EXPLAINERS["rollout"](adapter).explain(networks.images("timm"))


@pytest.mark.parametrize("name", ["siglip", "naflex-map"])
def test_directions_make_a_classifier_of_an_embedding(name):
    adapter = adapt(timm_families.FAMILIES[name]())
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    width = adapter.module(images).shape[1]
    vectors = torch.randn(3, width, generator=torch.Generator().manual_seed(2))
    bank = Directions(vectors, torch.arange(3), 10.0, torch.zeros(1))
    similar = replace(adapter, directions=bank, output="softmax")
    with torch.no_grad():
        expected = 10 * torch.nn.functional.cosine_similarity(adapter.module(images)[:, None], vectors[None], dim=-1)
        torch.testing.assert_close(similar.logits(images), expected)
    explanation = EXPLAINERS["integrated-gradients"](similar).explain(images, 1)
    assert explanation.targets.tolist() == [1]
    for method in ("legrad", "occlusion"):
        assert EXPLAINERS[method](similar).explain(images, 1).relevance.std() > 0
