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
def test_others_are_explained_from_outside_and_tell_why(build, reason):
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


@torch.no_grad()
def test_cait_shows_its_softmax_before_heads_are_mixed():
    module = timm_families.cait()
    adapter, images = adapt(module), networks.images("timm")
    with adapter.record(attentions=True, hidden_states=True) as trace:
        adapter.logits(images)
    for block, tokens, recorded in zip(module.blocks, trace.hidden_states, trace.attentions, strict=False):
        attention = block.attn
        query, key, _ = attention.qkv(block.norm1(tokens)).chunk(3, -1)
        scores = torch.stack([q @ k.mT / 8**0.5 for q, k in zip(query.split(8, -1), key.split(8, -1), strict=True)], -1)
        expected = attention.proj_l(scores).softmax(2).movedim(-1, 1)
        torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_cait_continues_with_the_weights_that_it_is_given():
    """With equal weights everywhere, every patch reads the mean of all values, whatever the queries are."""
    module = timm_families.cait(depth=1)
    adapter, images = adapt(module), networks.images("timm")
    with adapter.intercept_attention(adapter.blocks, lambda weights: torch.full_like(weights, 1 / weights.shape[-1])):
        logits = adapter.logits(images)
    tokens = module.patch_embed(images) + module.pos_embed
    (block,) = module.blocks
    value = block.attn.qkv(block.norm1(tokens)).chunk(3, -1)[2].unflatten(-1, (3, 8))
    mixed = block.attn.proj_w(torch.full((3,), 1.0))  # Of heads that give every patch a share of 1.
    read = (value.mean(1, keepdim=True) * (mixed - block.attn.proj_w.bias)[:, None]) + value.sum(1, keepdim=True) * (
        block.attn.proj_w.bias[:, None]
    )
    tokens = tokens + block.gamma_1 * block.attn.proj(read.flatten(2).expand_as(tokens))
    tokens = tokens + block.gamma_2 * block.mlp(block.norm2(tokens))
    torch.testing.assert_close(logits, module.forward_head(module.norm(module.forward_cls(tokens))), rtol=1e-4, atol=1e-5)


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
