"""Base Lightning module: seeds every step by its position and keeps running figures over a resume."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics import Metric

from vitrail.core.distributed import gather
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import Batch
from vitrail.datasets.streaming import StreamedImages
from vitrail.training.reproducibility import derive_seed, seed_all


class Learner(lightning.LightningModule):
    """Abstract base of the Lightning modules that train `self.module`.

    Args:
        seed: Seed of all random numbers within a step.

    Attributes:
        module: Module in training.
        unreadable: Skipped files and the reasons.
    """

    module: nn.Module

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.unreadable: dict[str, str] = {}

    def running_metrics(self) -> Mapping[str, Metric]:
        """Return the figures of the current training epoch, by the names under which they are logged."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        images = self.trainer.datamodule.train_images  # type: ignore[attr-defined]
        if isinstance(images, StreamedImages):
            images.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        # Dropout and label mixing depend on the step only, so that a resumed run need not restore a random state.
        seed_all(derive_seed(self.seed, self.current_epoch, 2, batch_idx, self.global_rank))
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self.trainer.check_val_every_n_epoch = 1  # Always validate the last epoch.

    def on_train_epoch_end(self) -> None:
        # The metrics reduce over processes; every process logs once, even if it could not read any image.
        for name, metric in self.running_metrics().items():
            self.log(name, metric.compute())
            metric.reset()

    def on_train_end(self) -> None:
        self.unreadable = dict(gather(list(self.unreadable.items())))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # One entry per process: a run that is resumed within an epoch reports the figures of the whole epoch.
        states = {
            name: {key: torch.as_tensor(value).cpu() for key, value in metric.metric_state.items()}
            for name, metric in self.running_metrics().items()
        }
        checkpoint["epoch_so_far"] = gather([{"figures": states, "unreadable": dict(self.unreadable)}])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint["epoch_so_far"]
        if len(states) != self.trainer.world_size:
            raise InvalidInputError(
                f"expected {len(states)} processes, as the run started with, got {self.trainer.world_size}: another number changes its "
                "batches"
            )
        for name, metric in self.running_metrics().items():
            for key, value in states[self.global_rank]["figures"][name].items():
                setattr(metric, key, value.to(self.device))
        self.unreadable.update(states[self.global_rank]["unreadable"])
