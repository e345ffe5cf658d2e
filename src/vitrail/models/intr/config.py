"""Configuration of an INTR, and the sizes of the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from vitrail.core.errors import InvalidInputError
from vitrail.core.options import check_option
from vitrail.core.plain_fields import PlainFields

MAX_DEPTH = 100
"""Most layers of encoder or decoder, as a limit for files."""


@dataclass(frozen=True)
class INTRConfig(PlainFields):
    """Configuration of an INTR.

    Args:
        backbone: resnet18, resnet34, resnet50 or resnet101 (torchvision's), or `timm:NAME`.
        backbone_options: `dilation` for a ResNet, any argument of `timm.create_model` for timm.
        frozen: Whether batch norms keep their statistics, and a ResNet's stem and first layer their weights, as published; for
            pretrained backbones.
        num_classes: Number of queries and logits.
        width: Width of tokens and queries; divisible by `num_heads` and, for sine positions, by 4.
        num_heads: Attention heads in every layer.
        mlp_width: Hidden width of the MLPs.
        encoder_depth: Number of layers in which cells attend to each other.
        decoder_depth: Number of layers in which classes attend to each other and then to the image.
        dropout: Dropout after attention, inside MLPs, and on attention weights.
        pre_norm: Whether norms come before attention and MLP, not after.
        positions: Position encoding of the cells: fixed sines, or learned rows and columns.
    """

    backbone: str = "resnet50"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    frozen: bool = True
    num_classes: int = 1000
    width: int = 256
    num_heads: int = 8
    mlp_width: int = 2048
    encoder_depth: int = 6
    decoder_depth: int = 6
    dropout: float = 0.1
    pre_norm: bool = False
    positions: Literal["sine", "learned"] = "sine"

    def __post_init__(self) -> None:
        # Values may come from a recipe or a file and be of any type.
        for name, kind in get_type_hints(INTRConfig).items():
            check_option(name, getattr(self, name), kind)
        if not isinstance(self.backbone_options, Mapping):
            raise InvalidInputError(f"expected backbone_options to be of type Mapping, got {self.backbone_options!r}")
        if max(self.encoder_depth, self.decoder_depth) > MAX_DEPTH:
            raise InvalidInputError(
                f"expected at most {MAX_DEPTH} layers, got {self.encoder_depth} of the encoder and {self.decoder_depth} of the decoder"
            )
        counts = (self.num_classes, self.width, self.num_heads, self.mlp_width, self.decoder_depth)
        if min(counts) < 1 or self.encoder_depth < 0:
            raise InvalidInputError(
                f"expected positive num_classes, width, num_heads, mlp_width and decoder_depth, and no negative encoder_depth, got {self}"
            )
        if self.width % self.num_heads:
            raise InvalidInputError(f"expected a width divisible by num_heads={self.num_heads}, got {self.width}")
        parts = 4 if self.positions == "sine" else 2
        if self.width % parts:
            raise InvalidInputError(f"expected a width divisible by {parts} for {self.positions} positions, got {self.width}")
        if not 0.0 <= self.dropout < 1.0:
            raise InvalidInputError(f"expected 0 <= dropout < 1, got {self.dropout}")


INTR_SIZES = {f"intr_resnet{depth}": INTRConfig(backbone=f"resnet{depth}") for depth in (18, 34, 50, 101)}
"""Configurations by name; intr_resnet50 is the paper's."""

CUSTOM = "intr"
"""Name of an INTR whose configuration is given by fields only."""

INTR_NAMES = (*INTR_SIZES, CUSTOM)
