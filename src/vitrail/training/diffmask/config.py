"""The recipe of a DiffMask explainer."""

from typing import Any, Literal

from pydantic import Field, model_validator

from vitrail.datasets.augmentation.transforms import AugmentationConfig, Range
from vitrail.training.sections import ImagesConfig, Recipe, Section

MASK_SECTION = "diffmask"
"""The section that tells this recipe from that of a classifier."""


class MaskConfig(Section):
    """The gates and what they learn."""

    model: str
    """The network to explain: anything that `vitrail.load` knows. It is not changed."""
    model_options: dict[str, Any] = Field(default_factory=dict)
    """For timm, Hugging Face and torchvision, as `vitrail.load` takes them."""
    hidden: int | None = Field(None, ge=1)
    """Width of the gates' hidden layer; null for a quarter of the network's width."""
    mul_activation: float = Field(15.0, gt=0)
    """Largest part of a gate's logit that the tokens decide."""
    add_activation: float = 8.0
    """What is added to it at the start: how far open the gates begin."""
    placeholder: bool = True
    """Whether what replaces a removed patch is learned; else it is zero."""
    eps: float = Field(0.1, ge=0)
    """How much KL divergence between the whole and the masked prediction is allowed."""
    layers: Literal["uniform", "weighted"] = "uniform"
    """How the layer of a step is drawn: all alike, or those that have learned their task less often."""
    alpha: float = Field(20.0, ge=0)
    """The Lagrange multiplier of every layer at the start: what a nat of KL divergence costs."""
    max_alpha: float = Field(200.0, gt=0)
    learning_rate: float = Field(2e-5, gt=0)
    """Of the gates."""
    placeholder_learning_rate: float = Field(1e-3, gt=0)
    alpha_learning_rate: float = Field(0.3, gt=0)
    lookahead_alpha: float = Field(0.5, gt=0, le=1)
    """How far the slow weights follow the fast ones."""
    lookahead_steps: int = Field(6, ge=1)
    """Steps between two times that they do."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient of gates and placeholder; null for no clipping."""

    @model_validator(mode="after")
    def _fits_together(self) -> "MaskConfig":
        if self.alpha > self.max_alpha:
            raise ValueError(f"expected an alpha of at most max_alpha, got alpha {self.alpha} and max_alpha {self.max_alpha}")
        return self


class MaskScheduleConfig(Section):
    """How long gates learn: linear warm-up, then a constant learning rate."""

    epochs: int = Field(10, ge=1)
    warmup_steps: int = Field(1200, ge=0)
    """Steps until the learning rate of gates and placeholder is reached."""


class MaskAugmentationConfig(AugmentationConfig):
    """How training images are varied: not at all unless asked. There are no labels to mix."""

    crop_scale: Range = (1.0, 1.0)
    crop_ratio: Range = (1.0, 1.0)
    horizontal_flip: float = Field(0.0, ge=0, le=1)
    color_jitter: float = Field(0.0, ge=0)
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    @model_validator(mode="after")
    def _without_labels(self) -> "MaskAugmentationConfig":
        if self.mixup or self.cutmix or self.label_smoothing:
            raise ValueError(
                "expected no mixup, cutmix and label_smoothing: gates learn from the network's output, not from labels"
            )
        return self


class PicturesConfig(Section):
    """Masks drawn while gates learn, beside attention rollout and Grad-CAM of the same images."""

    every: int | None = Field(1000, ge=1)
    """Steps between two sheets; null for none."""
    count: int = Field(8, ge=1, le=24)
    """Validation images on a sheet."""


class MaskTrainingConfig(Recipe):
    """The recipe of a DiffMask explainer."""

    diffmask: MaskConfig
    data: ImagesConfig
    augmentation: MaskAugmentationConfig = Field(default_factory=MaskAugmentationConfig)
    schedule: MaskScheduleConfig = Field(default_factory=MaskScheduleConfig)
    pictures: PicturesConfig = Field(default_factory=PicturesConfig)
