"""What a map is made of: layers, gates, heads; where a method can tell them apart."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.core.types import Images
from vitrail.explainers import Explainer
from vitrail.explainers._attention import follow, on_grid
from vitrail.explainers._precision import at_least_single
from vitrail.explainers.attention import RawAttention
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.explainers.hit import HiTContributions, HiTRollout
from vitrail.explainers.intr import INTRQueries
from vitrail.explanation import Explanation
from vitrail.models.hit.contributions import spread_attention


class Part(NamedTuple):
    """One of the maps that a map is made of: what it is called, and its relevance on (rows, cols)."""

    title: str
    relevance: Tensor


@dataclass(frozen=True, eq=False)
class Parts:
    """The maps that a map is made of.

    Attributes:
        words: What they are, and how they make up the whole.
        maps: In their order.
    """

    words: str
    maps: tuple[Part, ...]


def list_components(explainer: Explainer, images: Images, explanation: Explanation) -> Parts | None:
    """Take the map of one image apart; None where the method has no parts.

    Args:
        explainer: A method.
        images: The explained image, a batch of one on the model's device.
        explanation: What the method said of it.
    """
    with torch.inference_mode(False), explainer.model.inspecting(), torch.no_grad():
        match explainer:
            case HiTContributions():
                return _hit_layers(explainer, images, explanation)
            case HiTRollout():
                return _hit_attention(explainer, images)
            case VisionDiffMask():
                return _gates(explainer, images)
            case INTRQueries():
                return _heads(explainer, images, explanation)
            case RawAttention():
                return _attention_heads(explainer, images)
    return None


def _parts(words: str, titles: list[str], maps: Tensor) -> Parts:
    cells = at_least_single(maps.detach()).cpu()
    return Parts(words, tuple(Part(title, cell) for title, cell in zip(titles, cells, strict=True)))


def _hit_layers(explainer: HiTContributions, images: Images, explanation: Explanation) -> Parts:
    targets = explanation.targets.to(images.device)
    split = explainer.model.module.contributions(images, targets, explainer.norm_mean, by_layer=True)  # type: ignore[operator]
    maps = split.layer_patches[0, 0]
    titles = [f"layer {layer}: patches {float(cells.sum()):+.3f}" for layer, cells in enumerate(maps)]
    words = "What each patch gave through each layer, counted from 0; the layers' maps add up to the whole map."
    return _parts(words, titles, maps)


def _hit_attention(explainer: HiTRollout, images: Images) -> Parts:
    with explainer.model.record(attentions=True) as trace:  # type: ignore[attr-defined]
        explainer.model.logits(images)
    grid = explainer.model.grid_size(images)
    maps = torch.cat([spread_attention([weights[:, :, 0, 1:]], grid) for weights in trace.attentions])
    titles = [f"layer {layer}" for layer in range(len(maps))]
    words = "The class token's attention in each layer, counted from 0, mean over heads; they add up to the whole map."
    return _parts(words, titles, maps)


def _gates(explainer: VisionDiffMask, images: Images) -> Parts:
    maps = explainer.predict_masked(images, "expected").layers[0]
    titles = ["embedded patches", *(f"input of block {block}" for block in range(1, len(maps)))]
    if len(maps) == explainer.trained.network.config.num_gates:
        titles[-1] = "output of the last block"
    return _parts("The probability that a patch is still kept after each gate; the last one is the mask.", titles, maps)


def _heads(explainer: INTRQueries, images: Images, explanation: Explanation) -> Parts:
    targets = explanation.targets.to(images.device).unsqueeze(1)
    titles, found = list[str](), list[Tensor]()
    depth = explainer.intr.config.decoder_depth
    for layer in range(depth):
        heads = replace(explainer, layer=layer).maps(images, targets).maps[0, 0]
        titles += [f"decoder layer {layer + 1} of {depth}, head {head + 1}" for head in range(len(heads))]
        found.append(heads)
    words = "Where the query of the class looked, head by head; the heads of the last layer have the whole map as their mean."
    return _parts(words, titles, torch.cat(found))


def _attention_heads(explainer: RawAttention, images: Images) -> Parts:
    vit, block = explainer.vit, explainer.block
    with vit.record(attentions=True, blocks=slice(block, block + 1 or None)) as trace:
        vit.logits(images)
    [heads] = trace.attentions
    row = vit.pooling_weights(heads.shape[-1]).to(heads).expand(heads.shape[1], -1)
    maps = on_grid(follow(row, heads[0]), vit.num_prefix_tokens, vit.grid_size(images))
    return _parts("Attention of the last block, head by head.", [f"head {head + 1}" for head in range(len(maps))], maps)
