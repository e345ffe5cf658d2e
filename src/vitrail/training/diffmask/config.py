"""Recipe of a DiffMask explainer."""

from typing import Any, Literal

from pydantic import Field, model_validator

from vitrail.datasets.augmentation.transforms import AugmentationConfig, Range
from vitrail.training.sections import Recipe, Section

MASK_SECTION = "diffmask"
"""Section that makes a recipe one of a DiffMask explainer instead of a classifier."""

Sampling = Literal["uniform", "weighted", "last"]
"""Which layer a step trains: each equally often, learned ones a tenth as often, or always the last, whose mask is the explanation."""


class MaskConfig(Section):
    """Gates and their optimization."""

    model: str
    """Network to explain, by any name that `vitrail.load` takes; its weights stay frozen."""
    model_options: dict[str, Any] = Field(default_factory=dict)
    """Options of timm, Hugging Face and torchvision, as `vitrail.load` takes them."""
    hidden: int | None = Field(None, ge=1)
    """Width of the gates' hidden layer; null for a quarter of the network's width."""
    mul_activation: float = Field(15.0, gt=0)
    """Scale of the part of a gate's logit that depends on the tokens."""
    add_activation: float = 8.0
    """Initial bias of a gate's logit: how far open gates start."""
    placeholder: bool = True
    """Whether the vector that replaces removed patches is learned; otherwise it is zero."""
    eps: float = Field(0.1, ge=0)
    """Allowed KL divergence between the predictions for the whole and the masked image, in nats."""
    layers: Sampling = "uniform"
    """How to sample the layer of a step."""
    alpha: float = Field(20.0, ge=0)
    """Initial Lagrange multiplier of every layer."""
    max_alpha: float = Field(200.0, gt=0)
    """Largest Lagrange multiplier."""
    learning_rate: float = Field(2e-5, gt=0)
    """Learning rate of the gates."""
    placeholder_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the placeholder."""
    alpha_learning_rate: float = Field(0.3, gt=0)
    """Learning rate of the Lagrange multipliers."""
    lookahead_alpha: float = Field(0.5, gt=0, le=1)
    """Step of Lookahead's slow weights toward the fast ones, as a share of their distance."""
    lookahead_steps: int = Field(6, ge=1)
    """Optimizer steps between two updates of Lookahead's slow weights."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest gradient norm of gates and placeholder; null for no clipping."""

    @model_validator(mode="after")
    def _fits_together(self) -> "MaskConfig":
        if self.alpha > self.max_alpha:
            raise ValueError(f"expected an alpha of at most max_alpha, got alpha {self.alpha} and max_alpha {self.max_alpha}")
        return self


class MaskScheduleConfig(Section):
    """Linear warm-up, then a constant learning rate."""

    epochs: int = Field(10, ge=1)
    warmup_steps: int = Field(1200, ge=0)
    """Warm-up steps of the learning rates of gates and placeholder."""


class MaskAugmentationConfig(AugmentationConfig):
    """Augmentation of training images: none by default, and no mixing of labels."""

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
                "expected mixup, cutmix and label_smoothing to be 0: gates learn from the network's output, not from labels"
            )
        return self


class PicturesConfig(Section):
    """Pictures of the masks during training, next to attention rollout and Grad-CAM of the same images."""

    every: int | None = Field(1000, ge=1)
    """Steps between two contact sheets; null for none."""
    count: int = Field(8, ge=1, le=24)
    """Validation images per contact sheet."""


class MaskTrainingConfig(Recipe):
    """Recipe of a DiffMask explainer."""

    diffmask: MaskConfig
    augmentation: MaskAugmentationConfig = Field(default_factory=MaskAugmentationConfig)
    schedule: MaskScheduleConfig = Field(default_factory=MaskScheduleConfig)
    pictures: PicturesConfig = Field(default_factory=PicturesConfig)
