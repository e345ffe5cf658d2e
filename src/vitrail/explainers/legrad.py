"""LeGrad: how sensitive every block's own prediction is to its attention."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from vitrail.adapters import Check, Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.hooks import forward_pre_hooks
from vitrail.core.types import Images
from vitrail.explainers._attention import on_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer
from vitrail.models.hit import HiT


@EXPLAINERS.register("legrad")
@final
@dataclass(frozen=True, eq=False)
class LeGrad(OwnPassExplainer):
    """The head reads every block as if it were the last; positive gradients by that block's attention, averaged over all.

    Args:
        model: Any ViT; of HiTs those whose width stays the same.
        starting_block: The first block that counts.

    Source: Bousselham et al. 2024, section 3.2, arXiv:2404.03214.

    Differs: the score of a block is the target's logit by the classifier's own head, not a similarity to a text; the map is not
    scaled to [0, 1].
    """

    starting_block: int = 0

    paper: ClassVar[str] = "Bousselham et al. 2024, arXiv:2404.03214"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "head", "gradients")

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, HiT) and len(set(model.module.config.widths)) > 1:
            return "its head reads every block, but the width of this HiT changes from stage to stage"
        return super().refusal(model)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.starting_block < len(self.vit.blocks):
            raise InvalidInputError(
                f"expected a starting_block from 0 to {len(self.vit.blocks) - 1}, got {self.starting_block}"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        blocks, counted = self.vit.blocks, slice(self.starting_block, None)
        # Every block's score depends on its own attention alone, so that one backward pass serves all, a block deep.
        with (
            forward_pre_hooks([(block, _cut) for block in blocks]),
            self.vit.record(attentions=True, hidden_states=True, blocks=counted) as trace,
        ):
            logits = self.vit.logits(images)
        targets = choose(logits)
        scores = torch.stack([self.vit.head(tokens) for tokens in trace.hidden_states[1:][counted]]).sum(0)
        gradients = target_gradients(scores, targets, trace.attentions)
        prefix, grid_size = self.vit.num_prefix_tokens, self.vit.grid_size(images)
        maps = [on_grid(gradient.clamp_min(0).mean((1, 2)), prefix, grid_size) for gradient in gradients]
        return Attribution(logits, targets, sum(maps[1:], maps[0]) / len(maps))


def _cut(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Start the graph anew at a block's inputs."""
    return tuple(
        part.detach().requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part for part in inputs
    )
