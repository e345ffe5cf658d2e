"""Lightning module that trains DiffMask gates."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import TrainingError
from vitrail.datasets.dataset import Batch
from vitrail.models.diffmask import DiffMask
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.diffmask.lagrangian import (
    LagrangeMultipliers,
    MaskedBatch,
    create_dual_optimizer,
    create_primal_optimizer,
    lagrangian,
    mask_batch,
    warm_up,
)
from vitrail.training.diffmask.layer_sampling import LayerSampler
from vitrail.training.learner import Learner
from vitrail.training.reproducibility import derive_seed

LAYER, NOISE, VALIDATION = 3, 4, 5
"""Purposes of a seed besides its position in the run; order, transforms and dropout take the smaller numbers."""


@final
class MaskLearner(Learner):
    """Gates that keep as few patches as possible while the output of a frozen ViT stays within `eps` nats.

    Every step samples one layer, the same in all processes; the gates up to that layer mask the batch. Gates and placeholder
    descend on the Lagrangian alpha * (KL - eps) + log norm; the layer's multiplier alpha ascends on KL - eps.

    Args:
        vit: Frozen ViT; not part of the state.
        mask: Gates and placeholder to train.
        config: Recipe.

    Source: Nalmpantis et al. 2023, section 3.3, arXiv:2304.06391.

    Differs: Multipliers ascend, as in the paper; the published code descends by mistake. One forward pass updates both gates and
        multipliers; the published code samples a second layer and runs the network again for the multipliers.
    """

    module: DiffMask

    def __init__(self, vit: ViTAdapter, mask: DiffMask, config: MaskTrainingConfig) -> None:
        super().__init__(config.engine.seed)
        # One step minimizes over the gates and maximizes over the multipliers.
        self.automatic_optimization = False
        self.module, self.vit, self.config = mask, vit, config
        num_layers, settings = mask.config.num_gates, config.diffmask
        # The names of these attributes are keys of the checkpoints.
        self.alphas = LagrangeMultipliers(num_layers, settings.alpha, settings.max_alpha)
        self.layers = LayerSampler(num_layers, settings.layers)
        self.figures = _create_means("train_loss", "train_kl", "train_kept", "train_agreement")
        self.measured = _create_means("val_kl", "val_kept", "val_agreement")

    def on_fit_start(self) -> None:
        self.vit.move_to(self.device)
        self.vit.module.eval().requires_grad_(False)

    def running_metrics(self) -> Mapping[str, Metric]:
        return _metrics(self.figures)

    def compute_validation_figures(self) -> Mapping[str, Tensor]:
        """Compute the figures of the current validation over all processes.

        Raises:
            TrainingError: A figure is not finite.
        """
        figures = {name: metric.compute() for name, metric in _metrics(self.measured).items()}
        for name, value in figures.items():
            self._check_finite(name, value)
        return figures

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        position = (self.config.engine.seed, self.current_epoch)
        layer = self.layers.sample(derive_seed(*position, LAYER, batch_idx))
        noise = self._draw_noise(len(batch.images), layer + 1, derive_seed(*position, NOISE, batch_idx))
        masked = mask_batch(self.vit, self.module, batch.images, noise) if len(batch.images) else None
        self.step(masked, layer)

    def step(self, masked: MaskedBatch | None, layer: int) -> None:
        """Update gates and multiplier after one masked batch; None if this process could not read any image of its batch."""
        primal, dual = self.optimizers()  # type: ignore[attr-defined]  # two optimizers
        config = self.config.diffmask
        warm_up(primal.optimizer, self.global_step, self.config.schedule.warmup_steps)
        if masked is None:
            # A zero loss that still reaches the gates: the other processes wait for this one's gradients.
            loss = torch.stack([parameter.sum() for parameter in self._trained_parameters(layer)]).sum() * 0
        else:
            loss = lagrangian(masked, self.alphas[layer], config.eps)
        self._check_finite("the loss of the gates", loss.detach())
        primal.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), config.gradient_clip or math.inf)
        # Check before the step, so that no checkpoint contains the result of a bad gradient.
        self._check_finite("the gradient of the gates", norm)
        primal.step()
        means = self._average_over_processes(masked)
        if means is not None:
            kl, agreement, kept = means
            self.alphas.ascend(dual.optimizer, layer, kl - config.eps)
            self.layers.update(layer, agreement, kept)
        if masked is not None:
            self._update_metrics(masked, loss.detach())

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"{what} became {value.item()} at step {self.global_step}; lower diffmask.learning_rate or diffmask.max_alpha, clip "
                f"gradients with diffmask.gradient_clip, and check that the outputs of {self.vit.name} are finite"
            )

    def _update_metrics(self, masked: MaskedBatch, loss: Tensor) -> None:
        for name, value in (
            ("train_loss", loss),
            ("train_kl", masked.kl.detach().mean()),
            ("train_kept", masked.kept.detach().mean()),
            ("train_agreement", masked.agrees.float().mean()),
        ):
            self.running_metrics()[name].update(value, len(masked.kl))

    def _trained_parameters(self, layer: int) -> Iterator[Tensor]:
        """Yield the weights that a step on a layer trains."""
        for gate in self.module.gates[: layer + 1]:
            yield from gate.parameters()
        if self.module.placeholder is not None:
            yield self.module.placeholder

    def _draw_noise(self, num_images: int, num_gates: int, seed: int) -> Float[Tensor, "b t gates"]:
        """Return this process's rows of the noise that a single process would draw for all images of the step."""
        world_size = self.trainer.world_size
        shape = (self.config.data.batch_size * world_size, self._num_tokens(), num_gates)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), device="cpu")
        return noise[self.global_rank :: world_size][:num_images].to(self.device)

    def _num_tokens(self) -> int:
        height, width = self.vit.preprocessing.size
        empty = torch.zeros(1, 1, 1, 1).expand(1, len(self.vit.preprocessing.mean), height, width)
        rows, cols = self.vit.grid_size(empty)
        return self.vit.num_prefix_tokens + rows * cols

    def _average_over_processes(self, masked: MaskedBatch | None) -> tuple[Tensor, ...] | None:
        """Average KL, agreement and norm over the processes that read images; None if none did. Equal in all processes."""
        local = torch.zeros(4, device=self.device)
        if masked is not None:
            means = [figure.detach().float().mean() for figure in (masked.kl, masked.agrees, masked.norm)]
            local = torch.stack([*means, local.new_ones(())])
        *sums, count = self.trainer.strategy.reduce(local, reduce_op="sum")
        return tuple(total / count for total in sums) if count else None

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("alpha", self.alphas.mean())
        self.log("learning_rate", self.optimizers()[0].param_groups[0]["lr"])  # type: ignore[index]  # two optimizers

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        if not len(batch.images):
            return
        # All gates vote; every image gets the same noise in every epoch, for any number of processes.
        shape, batch_size = (self._num_tokens(), self.module.config.num_gates), self.config.data.batch_size
        world_size = self.trainer.world_size
        first = self.global_rank + world_size * batch_size * batch_idx
        positions = [first + world_size * i for i in range(len(batch.images))]
        seeds = [derive_seed(self.config.engine.seed, VALIDATION, position) for position in positions]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.rand(shape, generator=generator, device="cpu") for generator in generators])
        masked = mask_batch(self.vit, self.module, batch.images, noise.to(self.device))
        for name, value in (("val_kl", masked.kl), ("val_kept", masked.kept), ("val_agreement", masked.agrees.float())):
            _metrics(self.measured)[name].update(value)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.compute_validation_figures().items():
            self.log(name, value)
        for metric in _metrics(self.measured).values():
            metric.reset()

    def configure_optimizers(self) -> Any:
        settings = self.config.diffmask
        return [create_primal_optimizer(self.module, settings), create_dual_optimizer(self.alphas, settings)]


def _create_means(*names: str) -> nn.ModuleDict:
    # By default MeanMetric ignores NaN, and the mean of the other values would hide it.
    return nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in names})


def _metrics(modules: nn.ModuleDict) -> dict[str, Metric]:
    return {name: metric for name, metric in modules.items() if isinstance(metric, Metric)}
