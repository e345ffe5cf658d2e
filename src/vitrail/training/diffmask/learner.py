"""Gates in training, as Lightning sees them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import TrainingError
from vitrail.datasets.dataset import Batch
from vitrail.models.diffmask import DiffMask
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.diffmask.layers import LayerChoice
from vitrail.training.diffmask.losses import Masked, mask_once
from vitrail.training.diffmask.optimization import dual_optimizer, primal_optimizer, warm_up
from vitrail.training.learner import Learner
from vitrail.training.randomness import derive

LAYER, NOISE, VALIDATION = 3, 4, 5
"""What a seed is for, beside its place in the run; smaller numbers are taken by order, transforms and dropout."""


class MaskLearner(Learner):
    """Gates that keep as few patches as they can while a frozen ViT's output stays within `eps` nats.

    In every step one layer is drawn, the same in every process; its gates and those before it mask the batch. Gates and
    placeholder descend on alpha * (KL - eps) + log norm; the layer's multiplier alpha ascends on KL - eps.

    Args:
        vit: The frozen ViT; not part of the state.
        mask: Its gates learn.
        config: The recipe.

    Source: Nalmpantis et al. 2023, section 3.3, arXiv:2304.06391.

    Differs: Multipliers ascend, as in the paper; the published code descends with them by mistake. One pass trains both players,
        where the published code draws another layer and runs the network again for the multipliers.
    """

    module: DiffMask

    def __init__(self, vit: ViTAdapter, mask: DiffMask, config: MaskTrainingConfig) -> None:
        super().__init__(config.engine.seed)
        # Backward, clipping and two optimizers with a different sense of uphill.
        self.automatic_optimization = False
        self.module, self.vit, self.config = mask, vit, config
        num_layers = mask.config.num_gates
        self.alphas = nn.ParameterList(nn.Parameter(torch.tensor(config.diffmask.alpha)) for _ in range(num_layers))
        self.layers = LayerChoice(num_layers, config.diffmask.layers == "weighted")
        self.figures = _means_of("train_loss", "train_kl", "train_kept", "train_agreement")
        self.measured = _means_of("val_kl", "val_kept", "val_agreement")

    def on_fit_start(self) -> None:
        self.vit.module.to(self.device).eval().requires_grad_(False)

    def running_metrics(self) -> Mapping[str, Metric]:
        return _metrics(self.figures)

    def validated(self) -> Mapping[str, Tensor]:
        """Figures of the validation that ends, over all processes.

        Raises:
            TrainingError: One of them is not finite.
        """
        figures = {name: metric.compute() for name, metric in _metrics(self.measured).items()}
        for name, value in figures.items():
            self._expect_finite(name, value)
        return figures

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        place = (self.config.engine.seed, self.current_epoch)
        layer = self.layers.draw(derive(*place, LAYER, batch_idx))
        noise = self._noise(len(batch.images), layer + 1, derive(*place, NOISE, batch_idx))
        masked = mask_once(self.vit, self.module, batch.images, noise) if len(batch.images) else None
        self.step(masked, layer)

    def step(self, masked: Masked | None, layer: int) -> None:
        """Let both players answer one masking, which is None where a process could read no image of its batch."""
        primal, dual = self.optimizers()  # type: ignore[attr-defined]  # there are two
        config, alpha = self.config.diffmask, self.alphas[layer]
        warm_up(primal.optimizer, self.global_step, self.config.schedule.warmup_steps)
        if masked is None:
            # A loss of nothing that still reaches the gates: other processes wait for this one's gradients.
            loss = torch.stack([parameter.sum() for parameter in self._asked(layer)]).sum() * 0
        else:
            loss = (alpha.detach() * (masked.kl - config.eps) + masked.log_kept).mean()
        self._expect_finite("the loss of the gates", loss.detach())
        primal.zero_grad()
        self.manual_backward(loss)
        length = nn.utils.clip_grad_norm_(self.module.parameters(), config.gradient_clip or math.inf)
        # Before the step, so that no checkpoint ever holds what follows from it.
        self._expect_finite("the gradient of the gates", length)
        primal.step()
        means = self._means(masked)
        if means is not None:
            kl, agreement, norm = means
            self._ascend(dual.optimizer, layer, kl - config.eps)
            self.layers.update(layer, agreement, norm)
        if masked is not None:
            self._note(masked, loss.detach())

    def _expect_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"{what} became {value.item()} at step {self.global_step}; lower diffmask.learning_rate or diffmask.max_alpha, clip "
                f"gradients by diffmask.gradient_clip, and make sure that {self.vit.name} itself answers in finite numbers"
            )

    def _ascend(self, dual: Any, layer: int, constraint: Tensor) -> None:
        """Raise a layer's multiplier where the constraint is broken, lower it where there is room."""
        dual.zero_grad()
        self.alphas[layer].grad = -constraint.to(self.alphas[layer])
        # Not through Lightning, which would count it as a step of its own.
        dual.step()
        with torch.no_grad():
            self.alphas[layer].clamp_(0, self.config.diffmask.max_alpha)

    def _note(self, masked: Masked, loss: Tensor) -> None:
        count = len(masked.kl)
        for name, value in (
            ("train_loss", loss),
            ("train_kl", masked.kl.detach().mean()),
            ("train_kept", masked.kept.detach().mean()),
            ("train_agreement", masked.agrees.float().mean()),
        ):
            self.running_metrics()[name].update(value, count)

    def _asked(self, layer: int) -> Iterator[Tensor]:
        """The weights that a step on a layer trains."""
        for gate in self.module.gates[: layer + 1]:
            yield from gate.parameters()
        if self.module.placeholder is not None:
            yield self.module.placeholder

    def _noise(self, count: int, num_gates: int, seed: int) -> Float[Tensor, "b t gates"]:
        """This process's rows of the noise that one process would draw for all images of the step."""
        world, size = self.trainer.world_size, self.config.data.batch_size
        num_tokens = self._num_tokens()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(size * world, num_tokens, num_gates, generator=generator, device="cpu")
        return noise[self.global_rank :: world][:count].to(self.device)

    def _num_tokens(self) -> int:
        height, width = self.vit.preprocessing.size
        empty = torch.zeros(1, 1, 1, 1).expand(1, len(self.vit.preprocessing.mean), height, width)
        rows, cols = self.vit.grid_size(empty)
        return self.vit.num_prefix_tokens + rows * cols

    def _means(self, masked: Masked | None) -> tuple[Tensor, ...] | None:
        """KL, agreement and norm, averaged over the processes that have any: the same in all of them; None where none has."""
        own = torch.zeros(4, device=self.device)
        if masked is not None:
            means = [figure.detach().float().mean() for figure in (masked.kl, masked.agrees, masked.norm)]
            own = torch.stack([*means, own.new_ones(())])
        *sums, count = self.trainer.strategy.reduce(own, reduce_op="sum")
        return tuple(total / count for total in sums) if count else None

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("alpha", torch.stack([alpha.detach() for alpha in self.alphas]).mean())
        self.log("learning_rate", self.optimizers()[0].param_groups[0]["lr"])  # type: ignore[index]  # there are two

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        if not len(batch.images):
            return
        # All gates vote; the noise is the same in every epoch, and for any number of processes.
        shape, size = (self._num_tokens(), self.module.config.num_gates), self.config.data.batch_size
        first = self.global_rank + self.trainer.world_size * size * batch_idx
        places = [first + self.trainer.world_size * i for i in range(len(batch.images))]
        seeds = [derive(self.config.engine.seed, VALIDATION, place) for place in places]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.rand(shape, generator=generator, device="cpu") for generator in generators])
        masked = mask_once(self.vit, self.module, batch.images, noise.to(self.device))
        for name, value in (("val_kl", masked.kl), ("val_kept", masked.kept), ("val_agreement", masked.agrees.float())):
            _metrics(self.measured)[name].update(value)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.validated().items():
            self.log(name, value)
        for metric in _metrics(self.measured).values():
            metric.reset()

    def configure_optimizers(self) -> Any:
        return [primal_optimizer(self.module, self.config.diffmask), dual_optimizer(self.alphas, self.config.diffmask)]


def _means_of(*names: str) -> nn.ModuleDict:
    # By default they leave NaN out, without which the rest looks well.
    return nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in names})


def _metrics(modules: nn.ModuleDict) -> dict[str, Metric]:
    return {name: metric for name, metric in modules.items() if isinstance(metric, Metric)}
