"""What all training has in common, as Lightning sees it: randomness by place, and figures that survive a stop."""

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
from vitrail.training.randomness import derive, seed_all


class Learner(lightning.LightningModule):
    """Abstract: trains `self.module`.

    Args:
        seed: Of everything random within a step.

    Attributes:
        module: What learns.
        unreadable: Files left out so far, and why.
    """

    module: nn.Module

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.unreadable: dict[str, str] = {}

    def running_metrics(self) -> Mapping[str, Metric]:
        """Figures of the training epoch that goes on, by the names under which they are logged."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        images = self.trainer.datamodule.train_images  # type: ignore[attr-defined]
        if isinstance(images, StreamedImages):
            images.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        # What is random within a step (dropout, mixing) depends on the step alone: a resumed run need not restore it.
        seed_all(derive(self.seed, self.current_epoch, 2, batch_idx, self.global_rank))
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self.trainer.check_val_every_n_epoch = 1  # The last epoch is validated in any case.

    def on_train_epoch_end(self) -> None:
        # Reduced over processes by the metrics themselves; every process logs once, whether or not it could read an image.
        for name, metric in self.running_metrics().items():
            self.log(name, metric.compute())
            metric.reset()

    def on_train_end(self) -> None:
        self.unreadable = dict(gather(list(self.unreadable.items())))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Of the epoch so far, by process: a run that is resumed within an epoch reports the figures of all of it.
        states = {
            name: {key: torch.as_tensor(value).cpu() for key, value in metric.metric_state.items()}
            for name, metric in self.running_metrics().items()
        }
        checkpoint["epoch_so_far"] = gather([{"figures": states, "unreadable": dict(self.unreadable)}])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint["epoch_so_far"]
        if len(states) != self.trainer.world_size:
            raise InvalidInputError(
                f"expected {len(states)} processes, the number the run began with, got {self.trainer.world_size}: its batches would change"
            )
        for name, metric in self.running_metrics().items():
            for key, value in states[self.global_rank]["figures"][name].items():
                setattr(metric, key, value.to(self.device))
        self.unreadable.update(states[self.global_rank]["unreadable"])
