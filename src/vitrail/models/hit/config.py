"""Configuration of a HiT, and the sizes of the paper."""

from dataclasses import dataclass

from vitrail.core.errors import InvalidInputError
from vitrail.core.plain_fields import PlainFields

MAX_STAGES = 16
"""More would pool away the largest grid of patches."""


@dataclass(frozen=True)
class HiTConfig(PlainFields):
    """Configuration of a HiT.

    Args:
        image_size: Height and width in pixels; both divisible by `patch_size`.
        patch_size: Side of a patch in pixels.
        depths: Layers per stage. Every stage after the first begins with a 2x2 average pool over the patch grid, so one
            stage is the no-pool variant.
        widths: Token width per stage.
        num_heads: Attention heads in every stage; divides every width.
        mlp_ratio: Hidden width of the MLPs over token width.
        num_classes: Number of logits.
        in_channels: Image channels.
        position_embedding: Learned positions for the class token and the patches.
        dropout: Dropout on residual branches and inside MLPs.
        attention_dropout: Dropout on the attention weights.
        drop_path: Largest stochastic depth rate; grows linearly from 0 at the first layer.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    depths: tuple[int, ...] = (12,)
    widths: tuple[int, ...] = (384,)
    num_heads: int = 6
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    in_channels: int = 3
    position_embedding: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        height, width = self.image_size
        if len(self.depths) != len(self.widths) or not self.depths or min(*self.depths, *self.widths, 1) < 1:
            raise InvalidInputError(
                f"expected as many depths as widths, all positive, got depths={self.depths} and widths={self.widths}"
            )
        if len(self.depths) > MAX_STAGES:
            raise InvalidInputError(f"expected at most {MAX_STAGES} stages, got {len(self.depths)} depths")
        if min(self.patch_size, self.num_heads, self.num_classes, self.in_channels) < 1 or self.mlp_ratio <= 0:
            raise InvalidInputError(
                f"expected positive patch_size, num_heads, num_classes, in_channels and mlp_ratio, got {self}"
            )
        if min(height, width) < 1 or height % self.patch_size or width % self.patch_size:
            raise InvalidInputError(
                f"expected an image size divisible by the patch size {self.patch_size}, got {height}x{width} pixels"
            )
        rows, cols, pooling = *self.grid_size, 2 ** (len(self.depths) - 1)
        if rows % pooling or cols % pooling:
            raise InvalidInputError(
                f"expected a patch grid divisible by {pooling} for {len(self.depths)} stages with 2x2 pooling between them, got "
                f"{rows}x{cols}; choose another image_size, patch_size or number of stages"
            )
        for width in self.widths:
            if width % self.num_heads:
                raise InvalidInputError(f"expected widths divisible by num_heads={self.num_heads}, got {self.widths}")
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InvalidInputError(f"expected 0 <= {name} < 1, got {getattr(self, name)}")

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches before any pooling."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_layers(self) -> int:
        return sum(self.depths)


HIT_SIZES: dict[str, HiTConfig] = {
    "hit_small_patch8_224": HiTConfig(patch_size=8, depths=(4, 4, 4), widths=(384,) * 3, num_heads=6, attention_dropout=0.2),
    "hit_base_patch8_224": HiTConfig(patch_size=8, depths=(4, 4, 4), widths=(768,) * 3, num_heads=12, attention_dropout=0.2),
    "hit_small_patch16_224": HiTConfig(patch_size=16, depths=(12,), widths=(384,), num_heads=6, attention_dropout=0.2),
    "hit_base_patch16_224": HiTConfig(patch_size=16, depths=(12,), widths=(768,), num_heads=12, attention_dropout=0.2),
}
"""The paper's models: patch 8 with pooling (the main ones), patch 16 without."""
