"""LeGrad by the attention of a pooling head, as its authors publish it for SigLIP, re-derived from the arithmetic of their code."""

import clip_networks
import networks
import pytest
import torch
from clip_networks import with_text
from torch import Tensor, nn

import vitrail
from vitrail import similarity
from vitrail.adapters import adapt
from vitrail.core.errors import InvalidInputError, UnsupportedModelError

PUBLISHED = {"method": "legrad", "attention": "head", "final_norm": False}


def siglip():
    network = networks.timm_vit(class_token=False, global_pool="map", num_classes=0, depth=3)
    return with_text(adapt(networks.shaken(network, spread=0.2).double()))


def published_sum(network: nn.Module, images: Tensor, text: Tensor, first: int) -> Tensor:
    """Return the sum over blocks of the published map for one text.

    The tokens of every block from the first go to the attention pooling without the last normalization; the positive part of the
    cosine's gradient by the pooling's weights is averaged over heads.
    """
    pool, tokens = network.attn_pool, network._pos_embed(network.patch_embed(images))
    total = torch.zeros(())
    for index, block in enumerate(network.blocks):
        tokens = block(tokens)
        if index >= first:
            heads = pool.num_heads
            query = pool.q(pool.latent).unflatten(2, (heads, -1)).transpose(1, 2)
            key, value = pool.kv(tokens).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (pool.q_norm(query) @ pool.k_norm(key).mT * pool.scale).softmax(-1)
            pooled = pool.proj((weights @ value).transpose(1, 2).flatten(2))
            pooled = (pooled + pool.mlp(pool.norm(pooled)))[:, 0]
            cosine = nn.functional.normalize(pooled, dim=-1) @ text
            gradient = torch.autograd.grad(cosine.sum(), weights, retain_graph=True)[0]
            total = total + gradient.clamp(min=0).mean(1)[:, 0].unflatten(1, network.patch_embed.grid_size)
    return total


def rescale(heatmap: Tensor) -> Tensor:
    return (heatmap - heatmap.min()) / (heatmap.max() - heatmap.min())


@pytest.mark.parametrize("first", [0, 1])
def test_the_published_map_of_siglip(first):
    classifier, images = siglip(), clip_networks.images().double()
    texts = ["a cat", "a photo of a"]
    embeddings = nn.functional.normalize(classifier.text.encode(texts).double(), dim=-1)
    cat, empty = (published_sum(classifier.module, images, text, first) for text in embeddings)
    model = similarity(classifier, prompts=texts)
    found, found_empty = (
        vitrail.explain(model, images, target=text, starting_block=first, **PUBLISHED).relevance for text in texts
    )
    scale = classifier.text.scale * (3 - first) ** -1
    torch.testing.assert_close(found, cat * scale, rtol=1e-5, atol=1e-5 * float(found.max()))
    for index in range(len(images)):
        corrected = cat[index].masked_fill(rescale(empty[index]) > 0.8, 0)
        ours = found[index].masked_fill(rescale(found_empty[index]) > 0.8, 0)
        assert 0 < (corrected == 0).sum() < corrected.numel()
        torch.testing.assert_close(rescale(ours), rescale(corrected), rtol=1e-5, atol=1e-5)


def test_the_attention_of_the_head_of_a_classifier():
    """One block: every cell is the mean over heads of the positive gradients by the head's own weights, last norm included."""
    network = networks.shaken(networks.timm_vit(class_token=False, global_pool="map", depth=1), spread=0.2)
    network.attn_pool.fused_attn = False
    images, seen = clip_networks.images(), list[Tensor]()
    explanation = vitrail.explain(adapt(network), images, method="legrad", attention="head", target=1)
    softmax = Tensor.softmax

    def keep(weights: Tensor, *args: int, **kwargs: int) -> Tensor:
        seen.append(softmax(weights, *args, **kwargs))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "softmax", keep)
        logits = network(images)
    gradient = torch.autograd.grad(logits[:, 1].sum(), seen[-1])[0]
    expected = gradient.clamp(min=0).mean((1, 2)).unflatten(1, explanation.relevance.shape[1:])
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-6)


def test_refusals():
    images = clip_networks.images()
    with pytest.raises(UnsupportedModelError, match="pools all tokens by one attention"):
        vitrail.explain(adapt(networks.timm_vit()), images, method="legrad", attention="head")
    with pytest.raises(InvalidInputError, match='got pooling "mean"'):
        vitrail.explain(adapt(networks.timm_vit()), images, method="legrad", attention="head", pooling="mean")
    with pytest.raises(UnsupportedModelError, match="final_norm=false"):
        vitrail.explain(adapt(networks.timm_vit(final_norm=False)), images, method="legrad", final_norm=False)
