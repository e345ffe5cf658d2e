"""LeGrad: gradients of every block's own prediction with respect to its attention."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from vitrail.adapters import Check, Classifier
from vitrail.core.hooks import forward_pre_hooks
from vitrail.core.types import Images, Tokens
from vitrail.explainers._attention import check_starting_block, to_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer
from vitrail.models.hit import HiT


@EXPLAINERS.register("legrad")
@final
@dataclass(frozen=True, eq=False)
class LeGrad(Explainer):
    """Apply the head to every block as if it were the last, and average the positive gradients of its logit by that block's attention.

    Args:
        model: Any ViT; a HiT only if its width is constant.
        starting_block: First block to use.
        pooling: What the head reads of a block: "head" its own tokens, "mean" the mean of all tokens in place of each, as the published
            code does for CLIP.

    Source: Bousselham et al. 2024, section 3.2, arXiv:2404.03214.

    Differs: the score of a block is the target logit of the network's own head; the map is not scaled to [0, 1], and is the mean over
    blocks, not the sum. The published map for CLIP and one text is, up to that scale, `vitrail.similarity(model, prompts=[text])` with
    pooling "mean" and the last two blocks (`starting_block` = number of blocks - 2).
    """

    starting_block: int = 0
    pooling: Literal["head", "mean"] = "head"

    paper: ClassVar[str] = "Bousselham et al. 2024, arXiv:2404.03214"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "head", "gradients")

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, HiT) and len(set(model.module.config.widths)) > 1:
            return "its head must read every block, but the width of this HiT changes from stage to stage"
        return super().refusal(model)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_starting_block(self.starting_block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        blocks, used = self.vit.blocks, slice(self.starting_block, None)
        # Blocks are detached from each other, so each score only depends on its own block and one backward pass serves all.
        with (
            forward_pre_hooks([(block, _detach_inputs) for block in blocks]),
            self.vit.record(attentions=True, hidden_states=True, blocks=used) as trace,
        ):
            logits = self.vit.logits(images)
        targets = choose(logits)
        scores = torch.stack([self.vit.head(self._pool(tokens)) for tokens in trace.hidden_states[1:][used]]).sum(0)
        gradients = target_gradients(scores, targets, trace.attentions)
        prefix, grid_size = self.vit.num_prefix_tokens, self.vit.grid_size(images)
        maps = [to_grid(gradient.clamp_min(0).mean((1, 2)), prefix, grid_size) for gradient in gradients]
        return Attribution(logits, targets, sum(maps[1:], maps[0]) / len(maps))

    def _pool(self, tokens: Tokens) -> Tokens:
        # In place of every token, because heads differ in which they read.
        return tokens if self.pooling == "head" else tokens.mean(1, keepdim=True).expand_as(tokens)


def _detach_inputs(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Start a new graph at the inputs of a block."""
    return tuple(
        part.detach().requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part for part in inputs
    )
