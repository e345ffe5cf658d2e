"""Check that blocks follow on each other; see `vitrail.adapters.checks.verification`."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.checks.landmarks import replace_by_noise
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks, forward_pre_hooks
from vitrail.core.types import Images


@torch.no_grad()
def check_chain(vit: ViTAdapter, image: Images) -> None:
    """Check that every block receives what the block before it returns, or something that depends on it.

    Blocks that run beside each other, on the same tokens, run in order too.
    """
    entering, leaving = _run(vit, image, [])
    between = range(1, len(vit.blocks))
    apart = [index for index in between if not torch.equal(entering[index], leaving[index - 1])]
    if not apart:
        return
    entering, _ = _run(vit, image, apart)
    for copy, index in enumerate(apart, 1):
        if torch.equal(entering[index][copy], entering[index][0]):
            raise UnsupportedModelError(
                f"its block {index} does not receive what block {index - 1} returns: its blocks run beside each other, and attention "
                "cannot be followed from block to block; choose a method that needs no blocks, such as occlusion or rise"
            )


def _run(vit: ViTAdapter, image: Images, noisy: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tokens that enter and leave the blocks, of the image and of one copy per block in which noise comes before that block."""
    everything = range(len(vit.blocks))
    before, after = BlockSequence(vit.blocks, everything), BlockSequence(vit.blocks, everything)
    entering, leaving = list[Tensor](), list[Tensor]()

    def enter(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        before.advance(block)
        entering.append(vit.select_tokens(inputs).clone())

    def leave(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        following = 1 + (after.advance(block) or 0)
        leaving.append(vit.select_tokens(output).clone())
        if following not in noisy:
            return None
        tokens, copy = leaving[-1].clone(), 1 + noisy.index(following)
        tokens[copy] = replace_by_noise(tokens[copy])
        return vit.replace_tokens(output, tokens)

    with (
        forward_pre_hooks([(block, enter) for block in before.modules]),
        forward_hooks([(block, leave) for block in after.modules]),
    ):
        vit.logits(image.repeat(1 + len(noisy), 1, 1, 1))
    before.finish()
    return entering, leaving
