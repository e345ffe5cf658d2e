"""The adapter of image classifiers that are not Vision Transformers: ConvNeXt, ResNet, Swin and others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.logits import configured_output
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.types import Images, Logits

CELL_SIZE = 16
"""Default side of a cell in pixels: the most common patch size of ViTs, so that heatmaps and scores of both are comparable."""

UNPOOLED = ("", "none", "soft", "merge", "align")
"""Values of timm's `global_pool` with which networks return several vectors per image."""


@final
@dataclass(frozen=True, eq=False)
class PlainClassifier(Classifier):
    """A network of which vitrail knows only images and logits: to train, test, score and explain as a black box.

    Attributes:
        cell_size: Side of the square cells in pixels; where it does not divide the image, cells are larger, to fill it.
        reason: Why it is not seen as a Vision Transformer, for messages; empty where nobody asked.
    """

    cell_size: int = CELL_SIZE
    reason: str = ""

    def grid_size(self, images: Images) -> tuple[int, int]:
        height, width = images.shape[-2:]
        return max(height // self.cell_size, 1), max(width // self.cell_size, 1)

    def logits(self, images: Images) -> Logits:
        try:
            output: Any = self.module(images)
        except RuntimeError as error:
            if "channels" not in str(error):
                raise
            raise InvalidInputError(f"{self.name} takes no images of {images.shape[1]} channels: {error}") from error
        # Hugging Face's models, and those with auxiliary heads, return an object with logits.
        return self._to_logits(output if self.output_key is not None else getattr(output, "logits", output), len(images))


def adapt_plain(
    module: nn.Module,
    name: str,
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    cell_size: int = CELL_SIZE,
    reason: str = "",
) -> PlainClassifier:
    """Adapt any image classifier as a black box.

    Raises:
        UnsupportedModelError: It returns features, or the class names are not one per logit.
        InvalidInputError: The cell size is not positive.
    """
    if cell_size < 1:
        raise InvalidInputError(f"expected a cell_size of at least 1 pixel, got {cell_size}")
    pooling = getattr(module, "global_pool", None)  # timm's
    if isinstance(pooling, str) and pooling in UNPOOLED:
        raise UnsupportedModelError(
            f"expected one vector per image, got a {type(module).__name__} that gives one per patch (global_pool={pooling!r}); create it "
            "with a pooling, such as global_pool='avg'"
        )
    head = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]  # timm's
    if isinstance(head, nn.Identity):
        raise UnsupportedModelError(
            f"expected a classifier, got a {type(module).__name__} that gives features; create it with num_classes=..."
        )
    classifier = PlainClassifier(
        module,
        preprocessing or Preprocessing(),
        tuple(class_names),
        name,
        cell_size=cell_size,
        reason=reason,
        output=configured_output(module),
    )
    if class_names:
        check_class_names(class_names, classifier.num_classes, classifier.output)
    return classifier


def count_head_outputs(module: nn.Module) -> int:
    """Return the number of logits of a classifier's last layer; 0 where there is none."""
    layers = head_layers(module)
    if not layers:
        return 0
    return layers[-1].out_features if isinstance(layers[-1], nn.Linear) else layers[-1].out_channels


def head_layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """Return the last linear layer of each head of a classifier, or a 1x1 convolution in its place."""
    head: Any = module.get_classifier() if hasattr(module, "get_classifier") else module  # type: ignore[operator]  # timm's
    heads = [
        [layer for layer in part.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        for part in (head if isinstance(head, tuple) else (head,))
    ]
    return [layers[-1] for layers in heads if layers]
