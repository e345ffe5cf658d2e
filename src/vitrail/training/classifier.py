"""A classifier in training, as Lightning sees it."""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from vitrail.data.folders import Batch
from vitrail.errors import TrainingError
from vitrail.models.hit import HiT
from vitrail.training.config import TrainingConfig
from vitrail.types import Images, Logits

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ImageClassifier(lightning.LightningModule):
    """Cross-entropy on labels or on mixed labels, AdamW, cosine with warm-up.

    Args:
        module: From images to logits.
        config: The recipe.
        num_classes: Number of logits.
        mixing: mixup / cutmix for a batch, or None.
    """

    def __init__(self, module: HiT, config: TrainingConfig, num_classes: int, mixing: Mixing | None = None) -> None:
        super().__init__()
        self.module = module
        self.config = config
        self.mixing = mixing
        self.hard_loss = nn.CrossEntropyLoss(label_smoothing=config.augmentation.label_smoothing)
        self.soft_loss = SoftTargetCrossEntropy()
        top5 = min(5, num_classes)
        self.top1, self.top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, top5))
        self.unreadable: dict[str, str] = {}

    def forward(self, images: Images) -> Logits:
        return self.module(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.unreadable.update(batch.unreadable)
        images, labels = batch.images, batch.labels
        if self.mixing is not None and len(images) % 2:
            images, labels = images[:-1], labels[:-1]  # Mixup pairs images; an unreadable file left one without a partner.
        if not len(images):
            # A loss of nothing that still reaches every parameter: other processes wait for this one's gradients.
            return torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum() * 0
        loss: Tensor
        if self.mixing is not None:
            images, soft_labels = self.mixing(images, labels)
            loss = self.soft_loss(self(images), soft_labels)
        else:
            loss = self.hard_loss(self(images), labels)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the training loss became {loss.item()} at step {self.global_step}; lower the learning rate or clip gradients"
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.unreadable.update(batch.unreadable)
        if not len(batch.images):
            return
        logits = self(batch.images).float()
        for name, metric in (("val_top1", self.top1), ("val_top5", self.top5)):
            metric.update(logits, batch.labels)
            self.log(name, metric, on_step=False, on_epoch=True, batch_size=len(batch.images))
        loss = nn.functional.cross_entropy(logits, batch.labels)
        self.log("val_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.images), sync_dist=True)

    def configure_optimizers(self) -> Any:
        config, schedule = self.config.optimizer, self.config.schedule
        optimizer = create_optimizer_v2(
            self.module, opt=config.name, lr=config.learning_rate, weight_decay=config.weight_decay, betas=config.betas
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = min(round(steps * schedule.warmup_epochs / schedule.epochs), steps - 1)
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=steps,
            lr_min=schedule.min_learning_rate,
            warmup_t=warmup,
            warmup_lr_init=schedule.warmup_learning_rate,
            t_in_epochs=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: CosineLRScheduler, metric: Any) -> None:
        scheduler.step_update(num_updates=self.global_step)
