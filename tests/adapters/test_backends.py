"""Specifics of libraries: their own attention as an oracle, masks, unusual heads."""

import networks
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from vitrail.adapters import adapt
from vitrail.adapters.huggingface.attention import open_attention

HUGGINGFACE = [name for name in networks.NETWORKS if name.startswith("hf-")]


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm", "timm-distilled", "timm-norms"])
def test_timms_attention_from_the_weights_themselves(name):
    adapter, images = networks.network(name), networks.images(name)
    with adapter.record(attentions=True, hidden_states=True) as trace:
        adapter.logits(images)
    for block, tokens, recorded in zip(adapter.blocks, trace.hidden_states, trace.attentions, strict=False):
        attention = block.attn
        query, key, _ = (block.norm1(tokens) @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)
        for head, (q, k) in enumerate(zip(query.split(8, -1), key.split(8, -1), strict=True)):
            expected = torch.softmax(attention.q_norm(q) @ attention.k_norm(k).mT / 8**0.5, -1)
            torch.testing.assert_close(recorded[:, head], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", HUGGINGFACE)
def test_hugging_faces_own_eager_attention(name):
    adapter, images = networks.network(name), networks.images(name)
    with adapter.record(attentions=True, hidden_states=True) as trace:
        adapter.logits(images)
    eager = networks.NETWORKS[name]()
    eager.set_attn_implementation("eager")
    output = eager(images, output_attentions=True, output_hidden_states=True)
    for mine, own in zip(trace.attentions, output.attentions, strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-5)
    # The last one is what leaves the block, before the norm, in every family.
    for mine, own in zip(trace.hidden_states[:-1], output.hidden_states, strict=False):
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hugging_faces_implementation_is_put_back(implementation):
    module = networks.NETWORKS["hf-vit"]()
    module.set_attn_implementation(implementation)
    adapter, images = adapt(module), networks.images("hf-vit")
    with adapter.record(attentions=True) as trace:
        assert module.config._attn_implementation != implementation
        adapter.logits(images)
    assert module.config._attn_implementation == implementation
    assert len(trace.attentions) == 2


@torch.no_grad()
def test_two_models_of_one_configuration():
    """Both models switch their attention; only one is recorded."""
    one = networks.NETWORKS["hf-vit"]()
    other = type(one)(one.config).eval()
    images = networks.images("hf-vit")
    expected = other(images).logits
    with adapt(one).record(attentions=True) as trace:
        torch.testing.assert_close(other(images).logits, expected)
        assert not trace.attentions


@torch.no_grad()
@pytest.mark.parametrize("name", HUGGINGFACE)
def test_a_boolean_mask_hides(name):
    """transformers' eager attention adds it to the scores instead, so that True becomes a bonus of 1."""
    adapter, images = networks.network(name), networks.images(name)
    rows, cols = adapter.grid_size(images)
    num_tokens = adapter.num_prefix_tokens + rows * cols
    mask = torch.ones(3, 1, num_tokens, num_tokens, dtype=torch.bool)
    mask[..., -3:] = False
    if name == "hf-beit":  # Its relative positions turn any mask into numbers before attention sees it.
        mask = torch.zeros(mask.shape).masked_fill(~mask, -1e9)
    expected = adapter.module(images, attention_mask=mask).logits
    with adapter.record(attentions=True) as trace:
        logits = adapter.module(images, attention_mask=mask).logits
    torch.testing.assert_close(logits, expected)
    assert (logits - adapter.logits(images)).abs().max() > 1e-2
    assert all(weights[..., -3:].abs().max() == 0 for weights in trace.attentions)


@pytest.mark.parametrize("kind", ["none", "boolean", "numbers"])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_open_attention_is_torchs(kind, scaling):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 6, 4, generator=generator).unbind()
    hidden = torch.rand(2, 1, 6, 6, generator=generator) > 0.7
    hidden[..., 0] = False
    mask = {"none": None, "boolean": ~hidden, "numbers": torch.randn(2, 1, 6, 6, generator=generator)}[kind]
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    output, weights = open_attention(nn.Module().eval(), query, key, value, mask, scaling=scaling)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    torch.testing.assert_close((weights @ value).transpose(1, 2), output)


@torch.no_grad()
def test_torchvisions_own_weights():
    adapter, images = networks.network("torchvision"), networks.images("torchvision")
    with adapter.record(attentions=True, hidden_states=True) as trace:
        adapter.logits(images)
    for block, tokens, recorded in zip(adapter.blocks, trace.hidden_states, trace.attentions, strict=False):
        normed = block.ln_1(tokens)
        _, expected = block.self_attention(normed, normed, normed, need_weights=True, average_attn_weights=False)
        torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"reg_tokens": 4, "global_pool": "map"}, "patches"),
        ({"reg_tokens": 4, "global_pool": "map", "pool_include_prefix": True}, "all"),
        ({"reg_tokens": 4, "global_pool": "avg", "pool_include_prefix": True}, "all"),
        ({"reg_tokens": 4, "class_token": False, "global_pool": "avg"}, "patches"),
        ({"reg_tokens": 4, "global_pool": "token", "no_embed_class": True, "dynamic_img_size": True}, "class"),
        ({"kind": VisionTransformerDistilled, "dynamic_img_size": True}, "both"),
        ({"fc_norm": True, "final_norm": False}, "class"),
    ],
)
def test_timms_odd_heads(options, read):
    module = networks.timm_vit(**options)
    adapter, images = adapt(module), networks.images("timm")
    with adapter.record(hidden_states=True) as trace:
        adapter.logits(images)
    tokens = trace.hidden_states[-1].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adapter.head(tokens).square().sum(), tokens)
    where = {"patches": slice(adapter.num_prefix_tokens, None), "all": slice(None), "class": slice(1), "both": slice(2)}[read]
    expected = torch.zeros(tokens.shape[1])
    expected[where] = 1 / len(expected[where])
    torch.testing.assert_close(adapter.pooling_weights(tokens.shape[1]), expected)
    assert torch.equal(gradient.abs().sum((0, 2)) > 0, expected > 0)
    grid = adapter.grid_size(images)
    logits = adapter.forward_tokens(adapter.assemble(adapter.patch_embed(images), grid), grid)
    torch.testing.assert_close(logits, module(images))


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{"global_pool": "map"}, {"use_rot_pos_emb": False}, {"swiglu_mlp": True, "scale_attn_inner": True}]
)
def test_other_evas(options):
    module = networks.eva(**options)
    adapter, images = adapt(module), networks.images("eva")
    grid = adapter.grid_size(images)
    tokens = adapter.assemble(adapter.patch_embed(images), grid)
    torch.testing.assert_close(adapter.forward_tokens(tokens, grid), module(images))
    pooling_weights = adapter.pooling_weights(17)
    expected = (
        torch.full((17,), 1 / 17)
        if options.get("global_pool") == "map"
        else torch.cat([torch.zeros(1), torch.full((16,), 1 / 16)])
    )
    torch.testing.assert_close(pooling_weights, expected)
