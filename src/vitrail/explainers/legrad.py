"""LeGrad: gradients of every block's own prediction with respect to its attention."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from vitrail.adapters import Check, Classifier
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.hooks import forward_hooks, forward_pre_hooks
from vitrail.core.types import Attentions, Images, Logits, Tokens
from vitrail.explainers._attention import check_starting_block, to_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers._head_attention import HeadAttention
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
        attention: Which attention the gradients are taken by: that of the "blocks", or that by which the "head" pools the tokens, as
            published for SigLIP.
        final_norm: False skips the normalization between the blocks and the head, as the published code does for SigLIP.

    Source: Bousselham et al. 2024, section 3.2, arXiv:2404.03214.

    Differs: the score of a block is the target logit of the network's own head; the map is not scaled to [0, 1], and is the mean over
    blocks, not the sum. The published map for CLIP and one text is, up to that scale, `vitrail.similarity(model, prompts=[text])` with
    pooling "mean" and the last two blocks (`starting_block` = number of blocks - 2), and for SigLIP with attention "head" and without
    the final norm; that map is then set to zero where the map of an empty text exceeds 0.8 of its range.
    """

    starting_block: int = 0
    pooling: Literal["head", "mean"] = "head"
    attention: Literal["blocks", "head"] = "blocks"
    final_norm: bool = True

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
        if self.attention == "head" and self.pooling == "mean":
            raise InvalidInputError(
                'expected pooling "head" with attention "head", since mean tokens need no attention, got pooling "mean"'
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        blocks, used, by_blocks = self.vit.blocks, slice(self.starting_block, None), self.attention == "blocks"
        # Blocks are detached from each other, so each score only depends on its own block and one backward pass serves all. Those that
        # are not used need no graph.
        with (
            forward_pre_hooks([(block, _detach_inputs) for block in blocks[used]]),
            self.vit.record(attentions=by_blocks, hidden_states=True, blocks=used) as trace,
        ):
            logits = self.vit.logits(images)
        targets = choose(logits)
        states = trace.hidden_states[1:][used]
        if by_blocks:
            scored = [*zip(map(self._score, states), trace.attentions, strict=True)]
        else:
            scored = [self._score_by_attention(tokens.detach()) for tokens in states]
        scores, attentions = zip(*scored, strict=True)
        gradients = target_gradients(torch.stack(scores).sum(0), targets, attentions)
        grid_size = self.vit.grid_size(images)
        maps = [to_grid(gradient.clamp_min(0).mean((1, 2)), self.vit, grid_size) for gradient in gradients]
        return Attribution(logits, targets, sum(maps[1:], maps[0]) / len(maps))

    def _score(self, tokens: Tokens) -> Logits:
        """Apply the head to the tokens of a block."""
        if self.pooling == "mean":
            # In place of every token, because heads differ in which they read.
            tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
        with nullcontext() if self.final_norm else _no_norm_of(tokens, self.vit.module):
            return self.vit.head(tokens)

    def _score_by_attention(self, tokens: Tokens) -> tuple[Logits, Attentions]:
        """Apply the head to the tokens of a block, as a function of the weights by which it pools them."""
        seen = list[Tensor]()

        def show(weights: Tensor) -> Tensor:
            seen.append(weights.detach().requires_grad_())
            return seen[-1]

        with HeadAttention(show):
            logits = self._score(tokens)
        if [weights.shape[-1] for weights in seen] != [tokens.shape[1]]:
            raise UnsupportedModelError(
                'expected a head that pools all tokens by one attention for attention "head", as in SigLIP, got '
                f"{len(seen) or 'no'} attentions in it; leave attention out"
            )
        return logits, seen[0]


def _detach_inputs(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Start a new graph at the inputs of a block."""
    return tuple(
        part.detach().requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part for part in inputs
    )


@contextmanager
def _no_norm_of(tokens: Tokens, module: nn.Module) -> Iterator[None]:
    """Let the normalization of these tokens return them as they are, inside a `with` block."""
    skipped = list[nn.Module]()

    def skip(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if inputs[0] is not tokens:
            return output
        skipped.append(norm)
        return tokens

    with forward_hooks([(part, skip) for part in module.modules() if isinstance(part, nn.LayerNorm)]):
        yield
    if not skipped:
        raise UnsupportedModelError("expected a head that normalizes tokens first for final_norm=false; leave final_norm out")
