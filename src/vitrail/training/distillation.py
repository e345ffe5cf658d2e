"""Distillation from a trained teacher."""

from typing import Any, final

import torch
from torch import Tensor, nn

from vitrail.adapters import Classifier, load
from vitrail.core.errors import InvalidInputError
from vitrail.core.listing import shorten_list
from vitrail.core.types import Images, Logits
from vitrail.training.losses import distillation_loss
from vitrail.training.sections import DistillationConfig


def student_logits(module: nn.Module, images: Images) -> tuple[Logits, Logits]:
    """Return the logits for the labels and those for the teacher; they differ only in networks with a distillation token."""
    output: Any = module(images)
    if isinstance(output, tuple) and len(output) == 2:  # timm's distilled networks in training mode
        return output[0], output[1]
    if hasattr(output, "distillation_logits"):  # Hugging Face's distilled networks
        return output.cls_logits, output.distillation_logits
    logits = getattr(output, "logits", output)
    return logits, logits


@final
class Teacher:
    """Frozen classifier that predicts every batch; not part of the student's modules or checkpoints.

    Args:
        config: Section `distillation` of the recipe.
        student: The network in training. The teacher sees the same images, normalized as it expects them.

    Raises:
        InvalidInputError: The teacher has other classes or channels than the student, its classes are in another order, or it takes
            images of another size.
    """

    def __init__(self, config: DistillationConfig, student: Classifier) -> None:
        self.config = config
        self.classifier: Classifier = load(config.teacher or "", device="cpu")
        self.preprocessing = student.preprocessing
        if self.classifier.num_classes != student.num_classes:
            raise InvalidInputError(
                f"expected a teacher with the {student.num_classes} classes of the data, got {config.teacher} with "
                f"{self.classifier.num_classes}"
            )
        names, expected = self.classifier.class_names, student.class_names
        if names != expected and sorted(names) == sorted(expected):
            raise InvalidInputError(
                f"expected a teacher whose classes are in the order of the data, {shorten_list(expected)}, got {config.teacher} with "
                f"{shorten_list(names)}; train the teacher on the same data"
            )
        if self.classifier.preprocessing.num_channels != self.preprocessing.num_channels:
            raise InvalidInputError(
                f"expected a teacher for images of {self.preprocessing.num_channels} channels, as in the data, got {config.teacher} for "
                f"{self.classifier.preprocessing.num_channels}"
            )
        self.classifier.module.requires_grad_(False).eval()
        with torch.no_grad():
            self.classifier.logits(torch.zeros(1, self.preprocessing.num_channels, *self.preprocessing.size))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self  # The EMA copy of the student shares the teacher.

    def loss(self, images: Images, student: Logits) -> Tensor:
        """Compute the distillation loss of a batch."""
        self.classifier.move_to(images.device)
        with torch.no_grad():
            logits = self.classifier.logits(self.preprocessing.renormalize(images, self.classifier.preprocessing))
        return distillation_loss(student, logits, self.config.kind == "hard", self.config.temperature)


def enable_distillation(module: nn.Module) -> None:
    """Make a timm network with a distillation token return both logits in training."""
    if callable(getattr(module, "set_distilled_training", None)):
        module.set_distilled_training(True)  # type: ignore[operator]  # timm has no types
