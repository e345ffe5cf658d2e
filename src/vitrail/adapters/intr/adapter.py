"""The adapter of INTR: a classifier on its backbone's grid of cells."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images, Logits, Padding
from vitrail.models.intr import INTR

INTR_PREPROCESSING = Preprocessing((800, 1333), crop_fraction=1.0, crop_mode="whole", interpolation="bilinear")
"""The paper's: whole photos, the shorter side 800 pixels unless the longer one would exceed 1333."""


@final
@dataclass(frozen=True, eq=False)
class INTRAdapter(Classifier):
    """INTR: images of any size, optionally padded; a cell is as large as the backbone's stride."""

    @property
    def intr(self) -> INTR:
        """The network."""
        return self.module  # type: ignore[return-value]  # `adapt` made sure

    @property
    def num_classes(self) -> int:
        return self.intr.config.num_classes

    def grid_size(self, images: Images) -> tuple[int, int]:
        return self.intr.grid_size(images.shape[2], images.shape[3])

    def padded_logits(self, images: Images, padding: Padding) -> Logits:
        return self.module(images, padding)

    def layer_logits(self, images: Images, padding: Padding | None = None) -> Float[Tensor, "l b c"]:
        """Return the logits after every decoder layer; the last are the model's logits."""
        return self.intr.score_presence(self.intr.search(self.intr.encode(images, padding)).states)

    def bytes_per_image(self, images: Images) -> int:
        config, size = self.intr.config, images.element_size()
        rows, cols = self.grid_size(images)
        # Besides the backbone's early feature maps: tokens, and attention scores where no kernel avoids storing them.
        tokens = rows * cols + config.num_classes
        wide = tokens * (8 * config.width + config.mlp_width) + config.num_heads * tokens * max(rows * cols, config.num_classes)
        return super().bytes_per_image(images) + wide * size


def adapt_intr(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> INTRAdapter:
    """Adapt an INTR; the preprocessing defaults to the paper's.

    Raises:
        UnsupportedModelError: The module is only a part of an INTR.
    """
    if not isinstance(module, INTR):
        raise UnsupportedModelError(f"expected a whole INTR, got its part {type(module).__name__}")
    return INTRAdapter(module, preprocessing or INTR_PREPROCESSING, class_names, name)
