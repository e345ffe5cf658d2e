"""Checks of a Vision Transformer's view, each on one noise image; see `vitrail.adapters.checks.verification`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.checks.attention_use import check_use
from vitrail.adapters.checks.block_chain import check_chain
from vitrail.adapters.checks.gradient_checks import check_gradients
from vitrail.adapters.checks.landmarks import (
    NOWHERE,
    change_landmarks,
    choose_landmarks,
    count_tokens,
    find_changed_patches,
    measure_changes,
    replace_by_noise,
)
from vitrail.adapters.checks.places import check_isolation, check_places
from vitrail.adapters.classifier import Check
from vitrail.adapters.logits import logits_agree
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks
from vitrail.core.types import Images, Logits, Tokens

MOVED = (
    "the image or its patches are flipped, moved or reordered, so that a heatmap would be misplaced; do that before the network"
)

OTHER_POOLING = (
    "its head does not read the tokens that `pooling_weights` names (pooling was changed, or something modifies the tokens between the "
    "last block and the head)"
)


@torch.no_grad()
def check_tokens(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that a changed pixel changes, before the first block, the token of its own patch most."""
    landmarks, far_corners = choose_landmarks(vit, image), choose_landmarks(vit, image, far=True)
    with vit.record(hidden_states=True, num_hidden_states=1) as trace:
        vit.logits(change_landmarks(image, [*landmarks, *far_corners]))
    if not trace.hidden_states:
        raise UnsupportedModelError("its first block does not run where vitrail can see it; let its blocks be modules that run")
    num_tokens = trace.hidden_states[0].shape[1]
    if num_tokens != count_tokens(vit, image):
        raise UnsupportedModelError(
            f"expected {count_tokens(vit, image)} tokens before its first block ({vit.num_prefix_tokens} of them prefix tokens), got "
            f"{num_tokens}: tokens were added, merged or dropped, so that their patches are unknown; write an adapter that counts them"
        )
    tokens = trace.hidden_states[0]
    for (_, patch), changed in zip(landmarks, find_changed_patches(vit, tokens[: 1 + len(landmarks)]), strict=True):
        if changed not in (patch, NOWHERE):
            raise UnsupportedModelError(f"a pixel of patch {patch} changes token {changed} most: {MOVED}")
    # A patch may look beyond its edge, so its last pixel may change another token more; but it must change its own.
    changes = measure_changes(vit, torch.cat([tokens[:1], tokens[1 + len(landmarks) :]]))
    for (_, patch), change in zip(far_corners, changes, strict=True):
        if change.any() and not change[patch]:
            raise UnsupportedModelError(f"the last pixel of patch {patch} does not change its token: {MOVED}")


@torch.no_grad()
def check_pooling_weights(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that the head reads the tokens that have a pooling weight, those of equal weight alike.

    Noise in the others leaves the logits as they are, and so does a change of places; noise in one that is read does not.
    """
    with vit.record(hidden_states=True) as trace:
        vit.logits(image)
    num_tokens = trace.hidden_states[-1].shape[1]
    if vit.patches_attend and num_tokens != count_tokens(vit, image):
        raise UnsupportedModelError(
            "its blocks add, merge or drop tokens, so that the tokens that its head reads have no position on the image"
        )
    weights = vit.pooling_weights(num_tokens)
    read = weights > 0
    if (~read).any() and not logits_agree(vit.module, _run_with_noise(vit, image, ~read), expected):
        raise UnsupportedModelError(f"{OTHER_POOLING}: it reads other tokens as well")
    equal = (weights[-1] == weights) & read
    if not logits_agree(vit.module, _run_shuffled(vit, image, equal.nonzero().flatten()), expected):
        raise UnsupportedModelError(
            "its head weighs tokens by their position, where vitrail would give all of them the same weight; choose a method that does not "
            "use pooling weights, such as occlusion, rise or mutex"
        )
    if torch.equal(_run_with_noise(vit, image, torch.ones_like(read)), expected):
        return  # A head initialized with zeros reads nothing yet.
    for index in {int(read.nonzero()[0]), int(read.nonzero()[-1])}:
        single = torch.zeros_like(read)
        single[index] = True
        if torch.equal(_run_with_noise(vit, image, single), expected):
            raise UnsupportedModelError(f"{OTHER_POOLING}: it does not read token {index}")


def _run_with_noise(vit: ViTAdapter, image: Images, where: Tensor) -> Logits:
    """Return logits after the tokens in `where` that leave the last block were replaced by noise."""
    return _run_changed(vit, image, lambda tokens: torch.where(where[:, None], replace_by_noise(tokens), tokens))


def _run_shuffled(vit: ViTAdapter, image: Images, indices: Tensor) -> Logits:
    """Return logits after the tokens of these indices that leave the last block have changed places."""
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(5), device="cpu").to(indices.device)
    return _run_changed(vit, image, lambda tokens: tokens.index_copy(1, indices, tokens[:, indices[order]]))


def _run_changed(vit: ViTAdapter, image: Images, change: Callable[[Tokens], Tokens]) -> Logits:
    """Return logits after the tokens that leave the last block were changed."""
    sequence = BlockSequence(vit.blocks, [len(vit.blocks) - 1])

    def replace_output(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if sequence.advance(block) is None:
            return None
        return vit.replace_tokens(output, change(vit.select_tokens(output)))

    with forward_hooks([(block, replace_output) for block in sequence.modules]):
        return vit.logits(image)


@torch.no_grad()
def check_removal(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that shuffled patches, passed with their positions, give the same logits, and that half of them can be run."""
    grid_size, num_prefix = vit.grid_size(image), vit.num_prefix_tokens
    tokens = vit.assemble(vit.patch_embed(image), grid_size)
    shuffled = torch.randperm(math.prod(grid_size), generator=torch.Generator().manual_seed(2), device="cpu")
    everything = shuffled.to(image.device)[None]
    half = everything[:, : max(everything.shape[1] // 2, 1)]
    for kept in (half, everything):  # Networks that need all patches refuse the first.
        remaining = torch.cat([tokens[:, :num_prefix], tokens[:, num_prefix + kept[0]]], 1)
        logits = vit.forward_tokens(remaining, grid_size, kept)
        if kept is everything and not logits_agree(vit.module, logits, expected):
            raise UnsupportedModelError(
                "kept patches would take the positions of removed ones: something in its blocks depends on the index of a token; choose a "
                "method that replaces patches, such as occlusion"
            )


@torch.no_grad()
def check_attention(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that every block shows probabilities, and that showing them does not change the logits."""
    shown: list[Tensor] = []

    def keep(weights: Tensor) -> Tensor:
        shown.append(weights)
        return weights

    if (comparison := vit.compared_attention()) is not None:
        with comparison:
            vit.logits(image)
    with vit.intercept_attention(vit.blocks, keep):
        logits = vit.logits(image)
    if len(shown) != len(vit.blocks):
        raise UnsupportedModelError(
            f"expected attention weights from each of {len(vit.blocks)} blocks, got them from {len(shown)}: its attention runs where "
            "vitrail cannot look, in replaced, scripted or foreign code; choose a method that needs no attention, such as occlusion or rise"
        )
    for index, weights in enumerate(shown):
        sums = weights.float().sum(-1)
        if not bool((weights >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=0.02):
            raise UnsupportedModelError(
                f"expected attention weights that are probabilities over the keys, got others in block {index}; methods that read "
                "attention take softmax attention only"
            )
    if vit.patches_attend:
        check_chain(vit, image)
        if comparison is None:
            check_use(vit, image)
        check_isolation(vit, image)
    if not logits_agree(vit.module, logits, expected):
        raise UnsupportedModelError(
            "with its attention weights computed explicitly it gives other logits than by itself: a part of its attention was replaced "
            "or wrapped (adapters such as LoRA: merge them first), and vitrail would explain another network"
        )


@torch.no_grad()
def check_parts(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that running the parts gives the network's logits, and that a pixel changes the embedding of its patch only."""
    for way, logits in vit.rebuilt_logits(image).items():
        if not logits_agree(vit.module, logits, expected):
            raise UnsupportedModelError(
                f"{way} it gives other logits than by itself: hooks, a replaced forward or further parts take part in it, and vitrail "
                "would explain another network; put them into the blocks, or write an adapter"
            )
    landmarks = choose_landmarks(vit, image) + choose_landmarks(vit, image, far=True)
    patches = vit.patch_embed(change_landmarks(image, landmarks)).float()
    changes = (patches[1:] - patches[:1]).abs().amax(-1)
    changed_patches = torch.tensor([patch for _, patch in landmarks], device=changes.device)[:, None]
    largest_elsewhere = changes.scatter(1, changed_patches, 0).amax()
    if largest_elsewhere > 1e-3 * changes.amax():
        raise UnsupportedModelError(
            "its patches are not embedded independently: a pixel of one patch changes others, so that patches cannot be replaced exactly; "
            "choose occlusion or rise on vitrail.adapters.plain.adapt_plain"
        )


@torch.no_grad()
def check_head(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that the head turns the tokens that leave the last block into the network's logits."""
    with vit.record(hidden_states=True) as trace:
        vit.logits(image)
    if not trace.hidden_states or not logits_agree(vit.module, vit.head(trace.hidden_states[-1]), expected):
        raise UnsupportedModelError(
            "its head gives other logits for the tokens of the last block than the network does: it reads more than these, or was "
            "replaced by one that vitrail does not find"
        )


CHECKS: dict[Check, Callable[[ViTAdapter, Images, Logits], None]] = {
    "tokens": check_tokens,
    "pooling_weights": check_pooling_weights,
    "removal": check_removal,
    "attention": check_attention,
    "places": check_places,
    "parts": check_parts,
    "head": check_head,
    "gradients": check_gradients,
}
