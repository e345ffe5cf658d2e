"""Check that a network uses the attention weights that it shows, and no others; see `vitrail.adapters.checks.verification`."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.block_sequence import BlockSequence
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks, forward_pre_hooks
from vitrail.core.types import Attentions, Images


def check_use(vit: ViTAdapter, image: Images) -> None:
    """Check that every block continues with the weights that `intercept` returns.

    Two copies of the image get the same tokens and other weights in every block, so that its outputs differ if it uses them.
    """
    everything = range(len(vit.blocks))
    entering, leaving = BlockSequence(vit.blocks, everything), BlockSequence(vit.blocks, everything)
    unused: list[int] = []

    def equalize(block: nn.Module, inputs: tuple[Any, ...]) -> Any:
        entering.advance(block)
        return vit.replace_tokens(inputs, vit.select_tokens(inputs)[:1].repeat(2, 1, 1))

    def look_at_last_key(weights: Attentions) -> Attentions:
        changed = torch.zeros_like(weights)
        changed[..., -1] = 1
        return torch.cat([weights[:1], changed[1:]])

    def compare(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        index, tokens = leaving.advance(block), vit.select_tokens(output).float()
        if index is not None and not bool(
            (tokens[1] - tokens[0]).abs().max() > 4 * torch.finfo(image.dtype).eps * tokens.abs().max()
        ):
            unused.append(index)

    with (
        forward_pre_hooks([(block, equalize) for block in entering.modules]),
        forward_hooks([(block, compare) for block in leaving.modules]),
        vit.intercept_attention(vit.blocks, look_at_last_key),
    ):
        vit.logits(image.repeat(2, 1, 1, 1))
    if unused and not _is_in_graph(vit, image, unused):
        raise UnsupportedModelError(
            f"block {unused[0]} shows attention weights that the network does not use: replacing them changes nothing; let show_attention "
            "continue with what intercept returns"
        )


def _is_in_graph(vit: ViTAdapter, image: Images, indices: list[int]) -> bool:
    """Return whether the logits are computed from the weights of blocks, if only by a factor of zero, as in an untrained network."""
    factors: list[Tensor] = []

    def scale(weights: Attentions) -> Attentions:
        factors.append(weights.new_ones(()).requires_grad_())
        return weights * factors[-1]

    with torch.enable_grad(), vit.intercept_attention([vit.blocks[index] for index in indices], scale):
        logit = vit.logits(image).sum()
    if not logit.requires_grad:
        return False
    return all(gradient is not None for gradient in torch.autograd.grad(logit, factors, allow_unused=True))
