"""The views of a Vision Transformer that methods rely on, each tried on one image; see `vitrail.adapters.verification`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.classifier import Check
from vitrail.adapters.gradient_checks import check_gradients
from vitrail.adapters.logits import agree
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks
from vitrail.core.types import Attentions, Images, Logits, Tokens

NOWHERE = -1
"""Of a network that does not look at the image, such as one that begins with zeros."""

Landmark = tuple[tuple[int, int], int]
"""A pixel, by row and column, and the number of its patch."""

MOVED = "the image or its patches are flipped, moved or reordered, so that a map would lie wrong; do that before the network"

COUNT_CHANGES = "its blocks add, merge or drop tokens, so that patches cannot be followed from block to block"

READS_OTHERWISE = (
    "its head does not read the tokens that its kind reads (pooling was changed, or something works on the tokens between the last block "
    "and the head)"
)


@torch.no_grad()
def check_tokens(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """A pixel of the image reaches, before the first block, the token of its patch more than any other."""
    landmarks, far_corners = _landmarks(vit, image), _landmarks(vit, image, far=True)
    with vit.record(hidden_states=True, num_hidden_states=1) as trace:
        vit.logits(_nudged(image, [*landmarks, *far_corners]))
    if not trace.hidden_states:
        raise UnsupportedModelError("its first block does not run where vitrail can see it; let its blocks be modules that run")
    num_tokens = trace.hidden_states[0].shape[1]
    if num_tokens != _num_tokens(vit, image):
        raise UnsupportedModelError(
            f"expected {_num_tokens(vit, image)} tokens before its first block ({vit.num_prefix_tokens} no patches), got {num_tokens}: "
            "tokens were added, merged or dropped, so that vitrail cannot tell where they lie; write an adapter that counts them"
        )
    tokens = trace.hidden_states[0]
    for (_, number), most in zip(landmarks, _most_changed(vit, tokens[: 1 + len(landmarks)]), strict=True):
        if most not in (number, NOWHERE):
            raise UnsupportedModelError(f"a pixel of patch {number} changes token {most} most: {MOVED}")
    # A patch may look beyond its edge, so that its last pixel need not change it most; but change it must.
    changes = _changes(vit, torch.cat([tokens[:1], tokens[1 + len(landmarks) :]]))
    for (_, number), change in zip(far_corners, changes, strict=True):
        if change.any() and not change[number]:
            raise UnsupportedModelError(f"the last pixel of patch {number} does not change its token: {MOVED}")


@torch.no_grad()
def check_pooling_weights(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Tokens that the head does not read do not matter after the last block, and those that it reads do."""
    with vit.record(hidden_states=True) as trace:
        vit.logits(image)
    num_tokens = trace.hidden_states[-1].shape[1]
    if vit.patches_attend and num_tokens != _num_tokens(vit, image):
        raise UnsupportedModelError(
            "its blocks add, merge or drop tokens, so that what the head reads has no place on the image"
        )
    read = vit.pooling_weights(num_tokens) > 0
    if (~read).any() and not agree(vit.module, _with_noise_after(vit, image, ~read), expected):
        raise UnsupportedModelError(f"{READS_OTHERWISE}: tokens count that it is said not to read")
    if torch.equal(_with_noise_after(vit, image, torch.ones_like(read)), expected):
        return  # A head that begins with zeros reads nothing yet.
    for index in {int(read.nonzero()[0]), int(read.nonzero()[-1])}:
        one = torch.zeros_like(read)
        one[index] = True
        if torch.equal(_with_noise_after(vit, image, one), expected):
            raise UnsupportedModelError(f"{READS_OTHERWISE}: token {index} does not count, though it is said to read it")


def _with_noise_after(vit: ViTAdapter, image: Images, where: Tensor) -> Logits:
    """Logits where some tokens that leave the last block are noise."""
    sequence = BlockSequence(vit.blocks, [len(vit.blocks) - 1])

    def leave(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if sequence.advance(block) is None:
            return None
        tokens = vit.select_tokens(output)
        noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu")
        return vit.replace_tokens(output, torch.where(where[:, None], 3 * noise.to(tokens) * tokens.std(), tokens))

    with forward_hooks([(block, leave) for block in sequence.modules]):
        return vit.logits(image)


@torch.no_grad()
def check_removal(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Patches in another order, each told its place, give the same logits, and some of them alone can be run."""
    grid_size, prefix = vit.grid_size(image), vit.num_prefix_tokens
    tokens = vit.assemble(vit.patch_embed(image), grid_size)
    order = torch.randperm(math.prod(grid_size), generator=torch.Generator().manual_seed(2), device="cpu").to(image.device)[
        None
    ]
    for kept in (order[:, : max(order.shape[1] // 2, 1)], order):  # Networks that need all patches say so at the first.
        logits = vit.forward_tokens(torch.cat([tokens[:, :prefix], tokens[:, prefix + kept[0]]], 1), grid_size, kept)
        if kept is order and not agree(vit.module, logits, expected):
            raise UnsupportedModelError(
                "patches that are left would take the places of those that are taken out: something in its blocks goes by the number of a "
                "token; choose a method that replaces patches, such as occlusion"
            )


@torch.no_grad()
def check_attention(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Every block shows probabilities, and with attention shown the network computes what it computes without."""
    seen: list[Tensor] = []

    def keep(weights: Tensor) -> Tensor:
        seen.append(weights)
        return weights

    if (comparison := vit.compared_attention()) is not None:
        with comparison:
            vit.logits(image)
    with vit.intercept_attention(vit.blocks, keep):
        logits = vit.logits(image)
    if len(seen) != len(vit.blocks):
        raise UnsupportedModelError(
            f"expected attention weights from each of {len(vit.blocks)} blocks, got them from {len(seen)}: its attention runs where "
            "vitrail cannot look, in replaced, scripted or foreign code; choose a method that needs no attention, such as occlusion or rise"
        )
    for index, weights in enumerate(seen):
        sums = weights.float().sum(-1)
        if not bool((weights >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=0.02):
            raise UnsupportedModelError(
                f"expected attention weights that are probabilities over the keys, got others in block {index}; methods that read "
                "attention take softmax attention only"
            )
    if vit.patches_attend:
        _follow_patches_alone(vit, image)
    if not agree(vit.module, logits, expected):
        raise UnsupportedModelError(
            "with its attention weights formed one by one it gives other logits than by itself: a part of its attention was replaced "
            "or wrapped (adapters such as LoRA: merge them first), and vitrail would explain another network"
        )


@torch.no_grad()
def check_places(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """A patch stays in its place from block to block."""
    if not vit.patches_attend:
        return  # Pooled between blocks, as their own network says.
    landmarks = _landmarks(vit, image)
    with vit.record(hidden_states=True) as trace:
        vit.logits(_nudged(image, landmarks))
    for tokens in trace.hidden_states:
        if tokens.shape[1] != _num_tokens(vit, image):
            raise UnsupportedModelError(COUNT_CHANGES)
    if not all(_stay(landmarks, _most_changed(vit, tokens)) for tokens in trace.hidden_states):
        _follow_patches_alone(vit, image)  # Attention may have carried the change elsewhere.


def _follow_patches_alone(vit: ViTAdapter, image: Images) -> None:
    """Where every token attends to itself alone, a patch stays in its place, and is the key in its place."""
    landmarks = _landmarks(vit, image)
    keys: list[list[int]] = []

    def itself(weights: Tensor) -> Tensor:
        keys.append(_most_changed_keys(vit, weights))
        return torch.eye(weights.shape[-1], device=weights.device).to(weights).expand_as(weights)

    with vit.intercept_attention(vit.blocks, itself), vit.record(hidden_states=True) as trace:
        vit.logits(_nudged(image, landmarks))
    if any(tokens.shape[1] != _num_tokens(vit, image) for tokens in trace.hidden_states):
        raise UnsupportedModelError(COUNT_CHANGES)
    found = [*keys, *(_most_changed(vit, tokens) for tokens in trace.hidden_states)]
    if not all(_stay(landmarks, places) for places in found):
        raise UnsupportedModelError(
            "its blocks reorder or merge tokens, so that attention cannot be followed from block to block"
        )


def _stay(landmarks: list[Landmark], places: list[int]) -> bool:
    return all(place in (number, NOWHERE) for (_, number), place in zip(landmarks, places, strict=True))


def _most_changed_keys(vit: ViTAdapter, weights: Attentions) -> list[int]:
    """The patch whose weights as a key differ most from those of the first image, per further image."""
    scores = weights.float().log().nan_to_num(neginf=0.0)
    changes = scores[1:] - scores[:1]
    # A key that gains takes the same share from all others: that much is no change of theirs.
    changes = (changes - changes.median(-1, keepdim=True).values)[..., vit.num_prefix_tokens :]
    # As queries, most tokens are what they were: a key has changed where most of them see it.
    largest, place = changes.abs().median(2).values.amax(1).max(-1)
    return torch.where(largest > 8 * torch.finfo(weights.dtype).eps, place, NOWHERE).tolist()


def _num_tokens(vit: ViTAdapter, image: Images) -> int:
    return vit.num_prefix_tokens + math.prod(vit.grid_size(image))


def _landmarks(vit: ViTAdapter, image: Images, far: bool = False) -> list[Landmark]:
    """Two pixels, and the patch of each: no turn, flip or shift of a grid leaves both patches where they are.

    They are the first pixels of their patches, or if `far` the last.
    """
    (rows, cols), (height, width) = vit.grid_size(image), image.shape[2:]

    def pixel(row: int, col: int) -> tuple[int, int]:
        return (row + far) * height // rows - far, (col + far) * width // cols - far

    return [(pixel(row, col), row * cols + col) for row, col in ((0, cols - 1), (rows // 2, 0))]


def _nudged(image: Images, landmarks: list[Landmark]) -> Float[Tensor, "some channels height width"]:
    """An image, and then the same with one other pixel each."""
    images = image.repeat(1 + len(landmarks), 1, 1, 1)
    for changed, ((row, col), _) in zip(images[1:], landmarks, strict=True):
        changed[:, row, col] += 1
    return images


def _changes(vit: ViTAdapter, tokens: Tokens) -> Float[Tensor, "others n"]:
    """How far every patch is from that of the first image, per further image."""
    patches = tokens[:, vit.num_prefix_tokens :].float()
    return (patches[1:] - patches[:1]).norm(dim=-1)


def _most_changed(vit: ViTAdapter, tokens: Tokens) -> list[int]:
    """The patch that differs most from that of the first image, per further image; `NOWHERE` where none does."""
    largest, place = _changes(vit, tokens).max(1)
    return torch.where(largest > 0, place, NOWHERE).tolist()


@torch.no_grad()
def check_parts(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """The parts make the whole, and a pixel of one patch reaches the embedding of no other."""
    for way, logits in vit.rebuilt_logits(image).items():
        if not agree(vit.module, logits, expected):
            raise UnsupportedModelError(
                f"{way} it gives other logits than by itself: hooks, a replaced forward or further parts take part in it, and vitrail "
                "would explain another network; put them into the blocks, or write an adapter"
            )
    landmarks = _landmarks(vit, image)
    patches = vit.patch_embed(_nudged(image, landmarks)).float()
    changes = (patches[1:] - patches[:1]).abs().amax(-1)
    own = torch.tensor([number for _, number in landmarks], device=changes.device)[:, None]
    others = changes.scatter(1, own, 0).amax()
    if others > 1e-3 * changes.amax():
        raise UnsupportedModelError(
            "its patches are not embedded one by one: a pixel of one patch changes others, so that patches cannot be replaced exactly; "
            "choose occlusion or rise on vitrail.adapters.plain.adapt_plain"
        )


@torch.no_grad()
def check_head(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """The head makes the logits from the tokens that leave the last block."""
    with vit.record(hidden_states=True) as trace:
        vit.logits(image)
    if not trace.hidden_states or not agree(vit.module, vit.head(trace.hidden_states[-1]), expected):
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
