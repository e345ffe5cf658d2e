"""Lightning module that trains a classifier."""

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from vitrail.adapters import Classifier
from vitrail.adapters.intr.adapter import INTRAdapter
from vitrail.core.errors import InvalidInputError, TrainingError
from vitrail.core.types import Images, Logits, Padding
from vitrail.datasets.dataset import Batch
from vitrail.training.config import TrainingConfig
from vitrail.training.distillation import Teacher, student_logits
from vitrail.training.feature_guide import FeatureGuide
from vitrail.training.learner import Learner
from vitrail.training.losses import Labels, Loss, cosub_loss, create_label_loss
from vitrail.training.optimization import create_optimizer, create_schedule

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@final
class ImageClassifier(Learner):
    """A classifier that learns from labels, mixed labels and a teacher.

    Args:
        classifier: Classifier whose network to train.
        config: Recipe.
        mixing: mixup and cutmix of a batch, or None.
        teacher: Teacher for distillation, or None.
        guide: Teaches the tokens of the network features of the teacher, or None.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: TrainingConfig,
        mixing: Mixing | None = None,
        teacher: Teacher | None = None,
        guide: FeatureGuide | None = None,
    ) -> None:
        super().__init__(config.engine.seed)
        self.module, self.guide = classifier.module, guide
        self.classifier, self.config, self.mixing, self.teacher = classifier, config, mixing, teacher
        if config.loss.auxiliary and not (isinstance(classifier, INTRAdapter) and classifier.intr.config.decoder_depth > 1):
            raise InvalidInputError(
                f"expected an INTR with several decoder layers for loss.auxiliary, got {classifier.name}; leave it out"
            )
        num_classes = classifier.num_classes
        self.label_loss: Loss = create_label_loss(config.loss.name, config.augmentation.label_smoothing, num_classes)
        self.top1, self.top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, min(5, num_classes)))
        self.val_loss = MeanMetric()
        self.train_loss = MeanMetric()

    def forward(self, images: Images, padding: Padding | None = None) -> Logits:
        return self.classifier.logits(images) if padding is None else self.classifier.padded_logits(images, padding)

    def running_metrics(self) -> Mapping[str, Metric]:
        return {"train_loss": self.train_loss}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch.images, batch.labels
        if self.mixing is not None and len(images) % 2:
            images, labels = images[:-1], labels[:-1]  # Mixup pairs images, and an unreadable file made their number odd.
        if not len(images):
            # A zero loss that still reaches every parameter: the other processes wait for this one's gradients.
            return torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum() * 0
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
        loss = self.compute_loss(images, labels, batch.padding)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the training loss became {loss.item()} at step {self.global_step}; lower optimizer.learning_rate or clip gradients with "
                "optimizer.gradient_clip"
            )
        self.train_loss.update(loss.detach(), len(images))
        return loss

    def compute_loss(self, images: Images, labels: Labels, padding: Padding | None = None) -> Tensor:
        """Compute the recipe's loss of a batch."""
        if self.config.loss.auxiliary:
            *earlier, last = self.classifier.layer_logits(images, padding)  # type: ignore[attr-defined]  # an INTR
            losses = [self.label_loss(logits, labels) for logits in earlier]
            return self.label_loss(last, labels) + self.config.loss.auxiliary * torch.stack(losses).mean()
        if self.config.loss.cosub:
            first, second = self(torch.cat([images, images])).chunk(2)
            return cosub_loss(first, second, labels, self.label_loss)
        if self.teacher is None:
            return self.label_loss(self(images, padding), labels)
        if self.guide is None:
            return self._distillation_loss(images, labels, self.teacher)
        with self.guide.watch() as seen:
            loss = self._distillation_loss(images, labels, self.teacher)
        return loss + self.guide.loss(seen)

    def _distillation_loss(self, images: Images, labels: Labels, teacher: Teacher) -> Tensor:
        for_labels, for_teacher = student_logits(self.module, images)
        alpha = self.config.distillation.alpha
        return (1 - alpha) * self.label_loss(for_labels, labels) + alpha * teacher.loss(images, for_teacher)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]  # one optimizer

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        if not len(batch.images):
            return
        logits = self(batch.images, batch.padding).float()
        self.top1.update(logits, batch.labels)
        self.top5.update(logits, batch.labels)
        self.val_loss.update(nn.functional.cross_entropy(logits, batch.labels), len(logits))

    def on_validation_epoch_end(self) -> None:
        for name, metric in (("val_top1", self.top1), ("val_top5", self.top5), ("val_loss", self.val_loss)):
            self.log(name, metric.compute())
            metric.reset()

    def configure_optimizers(self) -> Any:
        data, engine = self.config.data, self.config.engine
        images_per_step = data.batch_size * self.trainer.world_size * engine.accumulate
        optimizer = create_optimizer(self.module, self.config.optimizer, images_per_step)
        if self.guide is not None:
            optimizer.add_param_group({"params": list(self.guide.parameters())})
        # The trainer's own estimate would create the data loaders before the checkpoint is loaded.
        num_batches: int = self.trainer.datamodule.num_batches  # type: ignore[attr-defined]  # a TrainingData
        num_steps = math.ceil(num_batches / engine.accumulate) * self.config.schedule.epochs
        schedule = create_schedule(optimizer, self.config.schedule, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Scheduler, metric: Any) -> None:
        scheduler.step_update(num_updates=self.global_step)
