"""LibraGrad on heads that pool by attention: gradients pass the pooling as they pass the blocks."""

import clip_networks
import networks
import pytest
import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from vitrail.adapters import adapt
from vitrail.adapters.similarity import compare_with_probe
from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers import make_explainer
from vitrail.explainers._libra import balanced_gradients

PROBE = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))


def timm_map(fused):
    classifier = adapt(networks.timm_vit(class_token=False, global_pool="map"))
    classifier.module.attn_pool.fused_attn = fused
    return classifier


def siglip():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipVisionConfig(**sizes, image_size=32, patch_size=8)
    return compare_with_probe(adapt(networks.shaken(SiglipVisionModel(config).eval(), spread=0.3)), PROBE)


def open_clip(**options):
    model = clip_networks.open_clip_model(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, **options)
    return compare_with_probe(adapt(model), PROBE)


KINDS = {
    "timm": lambda: timm_map(True),
    "timm, not fused": lambda: timm_map(False),
    "siglip": siglip,
    "open_clip": open_clip,
}


def prepared(kind):
    """A network without biases and positions, whose logit comes from the patches alone; in double precision."""
    classifier = KINDS[kind]()
    classifier.module.double()
    with torch.no_grad():
        for key, parameter in classifier.module.named_parameters():
            if key.endswith(("bias", "pos_embed", "position_embedding.weight", "positional_embedding", "class_embedding")):
                parameter.zero_()
    size = classifier.probe_size
    return classifier, torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_sum_to_the_logit(kind):
    classifier, images = prepared(kind)
    targets = torch.tensor([1, 0])
    balanced = make_explainer("input-x-gradient", classifier, libra=True).explain(images, targets)
    plain = make_explainer("input-x-gradient", classifier).explain(images, targets)
    torch.testing.assert_close(balanced.logits, plain.logits, rtol=1e-10, atol=1e-12)
    logits = plain.target_logits()
    assert logits.abs().min() > 1e-4
    torch.testing.assert_close(balanced.relevance.sum((1, 2)), logits, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(plain.relevance.sum((1, 2)), logits, rtol=0.02)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 10}])
def test_attention_of_torch_has_the_gradient_of_constant_weights(batch_first, sizes):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, **sizes).double()
    query, key, value = (torch.randn(3, 4, width).double() for width in (8, sizes.get("kdim", 8), sizes.get("vdim", 8)))
    expected, weights = attention(query, key, value, average_attn_weights=False)
    classifier, _ = prepared("timm")
    with balanced_gradients(classifier):
        value.requires_grad_()
        query.requires_grad_()
        output, _ = attention(query, key, value)
    torch.testing.assert_close(output, expected)
    # The output is linear in the values, whose weights are constants: Euler's relation, without what biases add.
    [by_value, by_query] = torch.autograd.grad(output.sum(), [value, query], allow_unused=True)
    with torch.no_grad():
        constant = attention(query, key, torch.zeros_like(value))[0].sum()
    torch.testing.assert_close((by_value * value).sum(), output.sum() - constant)
    assert by_query is None or not by_query.any()
    assert weights.std() > 0


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_to_more_than_tokens_is_refused(options):
    attention, tokens = nn.MultiheadAttention(8, 2, **options).double(), torch.randn(4, 1, 8).double()
    classifier, _ = prepared("timm")
    with balanced_gradients(classifier), pytest.raises(UnsupportedModelError, match="bias_k or add_zero_attn; leave out libra"):
        attention(tokens, tokens, tokens)


def test_heads_that_share_keys_and_values():
    query, key, value = torch.randn(1, 4, 3, 8).double(), torch.randn(1, 2, 5, 8).double(), torch.randn(1, 2, 5, 8).double()
    query.requires_grad_()
    value.requires_grad_()
    attend = nn.functional.scaled_dot_product_attention
    expected = attend(query, key, value, enable_gqa=True)
    classifier, _ = prepared("timm")
    with balanced_gradients(classifier):
        output = attend(query, key, value, enable_gqa=True)
    torch.testing.assert_close(output, expected)
    [by_value, by_query] = torch.autograd.grad(output.sum(), [value, query], allow_unused=True)
    torch.testing.assert_close((by_value * value).sum(), output.sum())
    assert by_query is None or not by_query.any()
