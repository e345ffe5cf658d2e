"""Check that tokens keep their place, and that nothing but attention mixes them; see `vitrail.adapters.checks.verification`."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.checks.block_chain import check_chain
from vitrail.adapters.checks.landmarks import (
    all_in_place,
    change_halves,
    change_landmarks,
    choose_landmarks,
    count_tokens,
    find_changed_keys,
    find_changed_patches,
    measure_token_changes,
)
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_pre_hooks
from vitrail.core.types import Images, Logits

COUNT_CHANGES = "its blocks add, merge or drop tokens, so that patches cannot be followed from block to block"


@torch.no_grad()
def check_places(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Check that patches keep their index from block to block."""
    if not vit.patches_attend:
        return  # A HiT pools between its blocks, by its own definition.
    check_chain(vit, image)
    landmarks = choose_landmarks(vit, image)
    with vit.record(hidden_states=True) as trace:
        vit.logits(change_landmarks(image, landmarks))
    for tokens in trace.hidden_states:
        if tokens.shape[1] != count_tokens(vit, image):
            raise UnsupportedModelError(COUNT_CHANGES)
    if not all(all_in_place(landmarks, find_changed_patches(vit, tokens)) for tokens in trace.hidden_states):
        follow_isolated_tokens(vit, image)  # Attention may have carried the change elsewhere.


def follow_isolated_tokens(vit: ViTAdapter, image: Images) -> list[Tensor]:
    """Check, with every token attending to itself only, that patches keep their index as tokens and as keys; return hidden states.

    They are those of the image, of one copy per landmark, of two copies in which a half of the patches is changed, and of one whose prefix
    tokens are changed before the first block.
    """
    landmarks = choose_landmarks(vit, image)
    copies = torch.cat([change_landmarks(image, landmarks), *change_halves(vit, image), image])
    count = 1 + len(landmarks)
    indices: list[list[int]] = []

    def isolate(weights: Tensor) -> Tensor:
        indices.append(find_changed_keys(vit, weights[:count]))
        return torch.eye(weights.shape[-1], device=weights.device).to(weights).expand_as(weights)

    def change_prefix(block: nn.Module, inputs: tuple[Any, ...]) -> Any:
        if sequence.advance(block) is None:
            return None
        entering.append(vit.select_tokens(inputs).clone())
        entering[0][-1, : vit.num_prefix_tokens] *= -1
        return vit.replace_tokens(inputs, entering[0])

    entering: list[Tensor] = []
    sequence = BlockSequence(vit.blocks, [0])
    # Last, since the other contexts may have to check the network first.
    with (
        vit.intercept_attention(vit.blocks, isolate),
        vit.record(hidden_states=True) as trace,
        forward_pre_hooks([(block, change_prefix) for block in sequence.modules]),
    ):
        vit.logits(copies)
    if any(tokens.shape[1] != count_tokens(vit, image) for tokens in trace.hidden_states):
        raise UnsupportedModelError(COUNT_CHANGES)
    indices += [find_changed_patches(vit, tokens[:count]) for tokens in trace.hidden_states]
    if not all(all_in_place(landmarks, changed) for changed in indices):
        raise UnsupportedModelError(
            "its blocks reorder or merge tokens, so that attention cannot be followed from block to block"
        )
    return entering + trace.hidden_states[1:]


@torch.no_grad()
def check_isolation(vit: ViTAdapter, image: Images) -> None:
    """Check that no token changes with another one where every token attends to itself only."""
    states = follow_isolated_tokens(vit, image)
    untouched = measure_token_changes(states[0]) == 0
    for state in states[1:]:
        changes = measure_token_changes(state)
        rounding = 100 * torch.finfo(state.dtype).eps * state.float().norm(dim=-1).max()
        if bool((changes[untouched] > torch.maximum(1e-4 * changes.max(), rounding)).any()):
            raise UnsupportedModelError(
                "its tokens change each other without attending to each other: its blocks mix tokens in another way, or some attention is "
                "not shown; list all blocks, or choose a method that needs no attention, such as occlusion or rise"
            )
