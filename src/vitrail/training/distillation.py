"""A student that learns from a trained teacher."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters import Classifier, load
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images, Logits
from vitrail.training.losses import distillation_loss
from vitrail.training.sections import DistillationConfig


def student_logits(module: nn.Module, images: Images) -> tuple[Logits, Logits]:
    """Logits for the labels and logits for the teacher: the same, unless the network has a distillation token."""
    output: Any = module(images)
    if isinstance(output, tuple) and len(output) == 2:  # timm's distilled networks, in training
        return output[0], output[1]
    if hasattr(output, "distillation_logits"):  # Hugging Face's
        return output.cls_logits, output.distillation_logits
    logits = getattr(output, "logits", output)
    return logits, logits


class Teacher:
    """A frozen classifier that is asked for every batch. It is no part of the student, and of no checkpoint.

    Raises:
        InvalidInputError: It has another number of classes than the student, or takes images of another size.
    """

    def __init__(self, config: DistillationConfig, num_classes: int, image_size: tuple[int, int]) -> None:
        self.config = config
        self.classifier: Classifier = load(config.teacher or "", device="cpu")
        if self.classifier.num_classes != num_classes:
            raise InvalidInputError(
                f"expected a teacher of {num_classes} classes, as the data has, got {self.classifier.num_classes} of {config.teacher}"
            )
        self.classifier.module.requires_grad_(False).eval()
        with torch.no_grad():
            self.classifier.logits(torch.zeros(1, len(self.classifier.preprocessing.mean), *image_size))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self  # An average of the student's weights needs no teacher of its own.

    def loss(self, images: Images, student: Logits) -> Tensor:
        """How far the student is from the teacher on a batch."""
        self.classifier.module.to(images.device)
        with torch.no_grad():
            logits = self.classifier.logits(images)
        return distillation_loss(student, logits, self.config.kind == "hard", self.config.temperature)


def enable_distillation(module: nn.Module) -> None:
    """Let a timm network with a distillation token give both logits in training."""
    if callable(getattr(module, "set_distilled_training", None)):
        module.set_distilled_training(True)  # type: ignore[operator]  # timm has no types
