"""LeGrad as its authors publish it for CLIP, re-derived from the arithmetic of their code."""

import clip_networks
import pytest
import torch
from torch import Tensor, nn

import vitrail
from vitrail import similarity
from vitrail.adapters import adapt
from vitrail.core.types import Images


def rescale(heatmap: Tensor) -> Tensor:
    return (heatmap - heatmap.amin((1, 2), True)) / (heatmap.amax((1, 2), True) - heatmap.amin((1, 2), True))


def published_legrad(visual: nn.Module, images: Images, text: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Return the sum over blocks, and the published heatmap in pixels.

    Every block from the first: its output tokens are averaged over all tokens, normalized, projected, and compared with the text by
    cosine. The positive part of the gradient by that block's attention is averaged over heads and queries, without the class token.
    """
    tokens = visual.conv1(images).flatten(2).mT
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([class_token, tokens], 1) + visual.positional_embedding)
    total: Tensor | float = 0.0
    for index, block in enumerate(visual.transformer.resblocks):
        attention = block.attn
        projected = nn.functional.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.ln_2(tokens))
        if index >= first:
            embedding = nn.functional.normalize(visual.ln_post(tokens.mean(1)) @ visual.proj, dim=-1)
            gradient = torch.autograd.grad((embedding @ text).sum(), weights, retain_graph=True)[0]
            total = total + gradient.clamp(min=0).mean((1, 2))[:, 1:].unflatten(1, (4, 4))
    enlarged = nn.functional.interpolate(total[:, None], scale_factor=visual.patch_size[0], mode="bilinear")[:, 0]
    return total, rescale(enlarged)


@pytest.mark.parametrize("num_blocks", [2, 4])
@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_the_published_map_of_clip(num_blocks, pool_type):
    model = clip_networks.open_clip_model(layers=4, pool_type=pool_type, final_ln_after_pool=pool_type == "avg").double()
    images, first = clip_networks.images().double(), 4 - num_blocks
    classifier = adapt(model)
    text = nn.functional.normalize(classifier.text.encode(["a photo of a cat"]), dim=-1)[0]
    total, heatmap = published_legrad(model.visual, images, text, first)
    explanation = vitrail.explain(
        similarity(classifier, prompts=["a photo of a cat"]),
        images,
        method="legrad",
        target=0,
        starting_block=first,
        pooling="mean",
    )
    assert total.abs().max() > 0
    torch.testing.assert_close(explanation.relevance * num_blocks, total, rtol=1e-5, atol=1e-5 * float(total.max()))
    enlarged = nn.functional.interpolate(explanation.relevance[:, None], scale_factor=8, mode="bilinear")[:, 0]
    torch.testing.assert_close(rescale(enlarged), heatmap, rtol=1e-5, atol=1e-5)


def test_one_text_among_several_is_the_same_up_to_scale():
    """The published code compares every text alone; the model's learned scale only changes the unit."""
    model, images = clip_networks.open_clip_model(layers=3), clip_networks.images()
    options = {"method": "legrad", "starting_block": 1, "pooling": "mean"}
    alone = vitrail.explain(similarity(model, prompts=["a dog"]), images, target=0, **options)
    among = vitrail.explain(similarity(model, prompts=["a cat", "a dog"]), images, target="a dog", **options)
    scale = float(model.logit_scale.detach().exp())
    torch.testing.assert_close(among.relevance, alone.relevance * scale, rtol=1e-4, atol=1e-5)


def test_pooling_changes_the_map_and_the_default_is_the_networks_own():
    compared, images = similarity(clip_networks.open_clip_model(layers=3), prompts=["a dog"]), clip_networks.images()
    default, head, mean = (
        vitrail.explain(compared, images, method="legrad", **options).relevance
        for options in ({}, {"pooling": "head"}, {"pooling": "mean"})
    )
    torch.testing.assert_close(default, head, rtol=0, atol=0)
    assert (default - mean).abs().max() > 0.1 * default.abs().max()
