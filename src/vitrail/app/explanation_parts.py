"""Parts of an explanation: the layers, gates or heads that its relevance is made of."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.app.number_format import format_signed
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Images
from vitrail.explainers import Explainer
from vitrail.explainers._attention import propagate_row, to_grid
from vitrail.explainers.attention import RawAttention
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.explainers.hit import HiTContributions, HiTRollout
from vitrail.explainers.intr import INTRQueries
from vitrail.explanation import Explanation
from vitrail.models.hit.contributions import spread_attention


class ExplanationPart(NamedTuple):
    """One layer, gate or head, and its relevance."""

    title: str
    relevance: Float[Tensor, "rows cols"]


@dataclass(frozen=True, eq=False)
class ExplanationParts:
    """All parts of an explanation.

    Attributes:
        description: What the parts are, and how they make up the explanation.
        parts: The parts in their order.
    """

    description: str
    parts: tuple[ExplanationPart, ...]


def split_explanation(explainer: Explainer, images: Images, explanation: Explanation) -> ExplanationParts | None:
    """Split the explanation of one image into its parts; None if the method has none.

    Args:
        explainer: The method.
        images: The explained image, a batch of one on the model's device.
        explanation: Its explanation by this method.
    """
    with torch.inference_mode(False), explainer.model.inspecting(), torch.no_grad():
        match explainer:
            case HiTContributions():
                return _split_hit(explainer, images, explanation)
            case HiTRollout():
                return _split_hit_rollout(explainer, images)
            case VisionDiffMask():
                return _split_diffmask(explainer, images)
            case INTRQueries():
                return _split_intr(explainer, images, explanation)
            case RawAttention():
                return _split_attention(explainer, images)
    return None


def _make_parts(description: str, titles: list[str], relevance: Float[Tensor, "parts rows cols"]) -> ExplanationParts:
    relevance = at_least_float32(relevance.detach()).cpu()
    return ExplanationParts(description, tuple(ExplanationPart(*part) for part in zip(titles, relevance, strict=True)))


def _split_hit(explainer: HiTContributions, images: Images, explanation: Explanation) -> ExplanationParts:
    targets = explanation.targets.to(images.device)
    split = explainer.model.module.contributions(images, targets, explainer.norm_mean, by_layer=True)  # type: ignore[operator]
    relevance = split.layer_patches[0, 0]
    titles = [f"layer {layer}: patches {format_signed(float(cells.sum()))}" for layer, cells in enumerate(relevance)]
    description = "Contribution of each patch through each layer, counted from 0; the layers add up to the whole."
    return _make_parts(description, titles, relevance)


def _split_hit_rollout(explainer: HiTRollout, images: Images) -> ExplanationParts:
    with explainer.model.record(attentions=True) as trace:  # type: ignore[attr-defined]
        explainer.model.logits(images)
    grid = explainer.model.grid_size(images)
    relevance = torch.cat([spread_attention([weights[:, :, 0, 1:]], grid) for weights in trace.attentions])
    titles = [f"layer {layer}" for layer in range(len(relevance))]
    description = "Attention of the class token in each layer, counted from 0, mean over heads; the layers add up to the whole."
    return _make_parts(description, titles, relevance)


def _split_diffmask(explainer: VisionDiffMask, images: Images) -> ExplanationParts:
    relevance = explainer.predict_masked(images, "expected").layers[0]
    titles = ["embedded patches", *(f"input of block {block}" for block in range(1, len(relevance)))]
    if len(relevance) == explainer.trained.network.config.num_gates:
        titles[-1] = "output of the last block"
    description = "Probability that a patch is still kept after each gate; the last gate is the mask."
    return _make_parts(description, titles, relevance)


def _split_intr(explainer: INTRQueries, images: Images, explanation: Explanation) -> ExplanationParts:
    targets = explanation.targets.to(images.device).unsqueeze(1)
    titles, relevance = list[str](), list[Tensor]()
    depth = explainer.intr.config.decoder_depth
    for layer in range(depth):
        heads = replace(explainer, layer=layer).maps(images, targets).maps[0, 0]
        titles += [f"decoder layer {layer + 1} of {depth}, head {head + 1}" for head in range(len(heads))]
        relevance.append(heads)
    description = "Cross-attention of the query of the class, per head; the whole is the mean over the heads of the last layer."
    return _make_parts(description, titles, torch.cat(relevance))


def _split_attention(explainer: RawAttention, images: Images) -> ExplanationParts:
    vit, block = explainer.vit, explainer.block
    with vit.record(attentions=True, blocks=slice(block, block + 1 or None)) as trace:
        vit.logits(images)
    [heads] = trace.attentions
    row = vit.pooling_weights(heads.shape[-1]).to(heads).expand(heads.shape[1], -1)
    relevance = to_grid(propagate_row(row, heads[0]), vit, vit.grid_size(images))
    titles = [f"head {head + 1}" for head in range(len(relevance))]
    return _make_parts("Attention of the last block, per head.", titles, relevance)
