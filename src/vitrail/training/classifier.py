"""A classifier in training, as Lightning sees it."""

import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vitrail.adapters import Classifier
from vitrail.data.labelled import Batch
from vitrail.data.streamed import StreamedImages
from vitrail.distributed import gather
from vitrail.errors import InvalidInputError, TrainingError
from vitrail.training.config import TrainingConfig
from vitrail.training.distillation import Teacher, student_logits
from vitrail.training.losses import Labels, Loss, cosub_loss, label_loss
from vitrail.training.optimization import create_optimizer, create_schedule
from vitrail.training.randomness import derive, seed_all
from vitrail.types import Images, Logits

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ImageClassifier(lightning.LightningModule):
    """A classifier that learns labels, or mixed labels, and what a teacher says.

    Args:
        classifier: Its network learns.
        config: The recipe.
        mixing: mixup / cutmix for a batch, or None.
        teacher: Whom to learn from beside the labels.
    """

    def __init__(
        self, classifier: Classifier, config: TrainingConfig, mixing: Mixing | None = None, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.module = classifier.module
        self.classifier, self.config, self.mixing, self.teacher = classifier, config, mixing, teacher
        num_classes = classifier.num_classes
        self.label_loss: Loss = label_loss(config.loss.name, config.augmentation.label_smoothing, num_classes)
        self.top1, self.top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, min(5, num_classes)))
        self.val_loss = MeanMetric()
        self.train_loss = MeanMetric()
        self.unreadable: dict[str, str] = {}

    def forward(self, images: Images) -> Logits:
        return self.classifier.logits(images)

    def on_train_epoch_start(self) -> None:
        images = self.trainer.datamodule.train_images  # type: ignore[attr-defined]
        if isinstance(images, StreamedImages):
            images.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # What is random within a step (dropout, mixing) depends on the step alone: a resumed run need not restore it.
        seed_all(derive(self.config.engine.seed, self.current_epoch, 2, batch_idx, self.global_rank))
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self.trainer.check_val_every_n_epoch = 1  # The last epoch is validated in any case.

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.unreadable.update(batch.unreadable)
        images, labels = batch.images, batch.labels
        if self.mixing is not None and len(images) % 2:
            images, labels = images[:-1], labels[:-1]  # Mixup pairs images; an unreadable file left one without a partner.
        if not len(images):
            # A loss of nothing that still reaches every parameter: other processes wait for this one's gradients.
            return torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum() * 0
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
        loss = self.loss(images, labels)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the training loss became {loss.item()} at step {self.global_step}; lower the learning rate or clip gradients"
            )
        self.train_loss.update(loss.detach(), len(images))
        return loss

    def loss(self, images: Images, labels: Labels) -> Tensor:
        """The loss of a batch after the recipe."""
        if self.config.loss.cosub:
            first, second = self(torch.cat([images, images])).chunk(2)
            return cosub_loss(first, second, labels, self.label_loss)
        if self.teacher is None:
            return self.label_loss(self(images), labels)
        for_labels, for_teacher = student_logits(self.module, images)
        alpha = self.config.distillation.alpha
        return (1 - alpha) * self.label_loss(for_labels, labels) + alpha * self.teacher.loss(images, for_teacher)

    def on_train_epoch_end(self) -> None:
        # Reduced over processes by the metric itself; so are the figures below, which every process logs once, whether or
        # not it could read an image.
        self.log("train_loss", self.train_loss.compute())
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]  # there is one
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        if not len(batch.images):
            return
        logits = self(batch.images).float()
        self.top1.update(logits, batch.labels)
        self.top5.update(logits, batch.labels)
        self.val_loss.update(nn.functional.cross_entropy(logits, batch.labels), len(logits))

    def on_validation_epoch_end(self) -> None:
        for name, metric in (("val_top1", self.top1), ("val_top5", self.top5), ("val_loss", self.val_loss)):
            self.log(name, metric.compute())
            metric.reset()

    def on_train_end(self) -> None:
        self.unreadable = dict(gather(list(self.unreadable.items())))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Of the epoch so far, by process: a run that is resumed within an epoch reports the loss of all of it.
        loss = {name: torch.as_tensor(value).cpu() for name, value in self.train_loss.metric_state.items()}
        checkpoint["epoch_so_far"] = gather([{"loss": loss, "unreadable": dict(self.unreadable)}])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        so_far = checkpoint["epoch_so_far"]
        if len(so_far) != self.trainer.world_size:
            raise InvalidInputError(
                f"expected {len(so_far)} processes, as the run began with, got {self.trainer.world_size}: batches would be other ones"
            )
        for name, value in so_far[self.global_rank]["loss"].items():
            setattr(self.train_loss, name, value.to(self.device))
        self.unreadable.update(so_far[self.global_rank]["unreadable"])

    def configure_optimizers(self) -> Any:
        data, engine = self.config.data, self.config.engine
        images_per_step = data.batch_size * self.trainer.world_size * engine.accumulate
        optimizer = create_optimizer(self.module, self.config.optimizer, images_per_step)
        # Not the trainer's own estimate, for which it would set up the loaders before it knows what it resumes.
        batches: int = self.trainer.datamodule.num_batches  # type: ignore[attr-defined]  # the trainer has one, ours
        steps = math.ceil(batches / engine.accumulate) * self.config.schedule.epochs
        schedule = create_schedule(optimizer, self.config.schedule, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Scheduler, metric: Any) -> None:
        scheduler.step_update(num_updates=self.global_step)
