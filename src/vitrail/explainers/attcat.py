"""AttCAT: attention times activation times gradient, summed over blocks."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from vitrail.adapters import Check, Classifier
from vitrail.core.types import Images
from vitrail.explainers._attention import expect_all_patches, propagate_row, to_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers._libra import balanced_gradients
from vitrail.explainers._presence import reads_patches
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("attcat")
@final
@dataclass(frozen=True, eq=False)
class AttentiveClassActivation(Explainer):
    """Token times the gradient of the target logit, weighted by the attention the token receives, summed over blocks.

    Args:
        model: Any ViT.
        queries: Whose attention weighs the patches: "read" the tokens that the head reads, "all" the mean over all tokens, as the
            published code does.
        states: Of which tokens the activation is: "leaving" the block, as in the paper's equations, or "entering" it, as in the published
            code.
        libra: Balance gradients with LibraGrad, see `vitrail.explainers._libra`.

    Source: Qiang et al. 2022 (AttCAT), equations 5 to 7, NeurIPS 2022.

    Differs: if the head averages patches, their mean attention is used; the map is not scaled. The published code, for BERT, is `queries`
    "all" and `states` "entering". With a class token, the last two
    blocks contribute nothing: nothing reads the patches after the last block, and the patches before it pass through a norm, which
    ignores their length, so that token times gradient is zero. With `libra` only the last block contributes nothing.
    """

    queries: Literal["read", "all"] = "read"
    states: Literal["leaving", "entering"] = "leaving"
    libra: bool = False

    paper: ClassVar[str] = "Qiang et al. 2022, NeurIPS 2022"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights", "gradients")

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        reason = super().refusal(model)
        if reason is None and len(model.blocks) <= 2 and not reads_patches(model):  # type: ignore[attr-defined, arg-type]
            return (
                "it needs more than two blocks: with a class token, the last two contribute only rounding errors; choose chefer"
            )
        return reason

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.vit.grid_size(images)
        with (
            balanced_gradients(self.vit, enabled=self.libra),
            self.vit.record(attentions=lambda weights: weights.detach().mean(1), hidden_states=True) as trace,
        ):
            logits = self.vit.logits(images.requires_grad_())
        targets = choose(logits)
        states = trace.hidden_states[1:] if self.states == "leaving" else trace.hidden_states[:-1]
        gradients = target_gradients(logits, targets, states)
        maps = []
        for state, gradient, weights in zip(states, gradients, trace.attentions, strict=True):
            read = (
                self.vit.pooling_weights(weights.shape[2]) if self.queries == "read" else weights.new_ones(1) / weights.shape[1]
            )
            row = read.to(weights).expand(len(weights), weights.shape[2])
            activation = (state.detach() * gradient).sum(-1)
            expect_all_patches(self.vit, activation.shape[1], grid_size)
            # Attention is to tokens that enter a block, and the activation may be of those that leave it; patches keep their order.
            maps.append(to_grid(activation * propagate_row(row, weights), self.vit, grid_size))
        return Attribution(logits, targets, sum(maps[1:], maps[0]))
