"""Sections of a recipe; docs/recipe.md documents every key. All keys but `data.root` have defaults."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from vitrail.adapters.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Section(BaseModel):
    """Part of a recipe; rejects unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """Network; the data determines the number of classes."""

    name: str = "hit_small_patch16_224"
    """Size of a HiT (`vitrail.models.hit.HIT_SIZES`), name of an INTR (such as intr_resnet50, or intr), or timm:NAME,
    hf:NAME-OR-FOLDER, torchvision:NAME."""
    image_size: int | tuple[int, int] | None = None
    """Side in pixels, or [height, width]; null for the network's default."""
    drop_path: float | None = None
    """Largest stochastic depth rate; grows linearly from 0 over the blocks."""
    attention_dropout: float | None = None
    """Dropout on attention weights."""
    patch_size: int | None = None
    """HiT only, like the keys up to `position_embedding`."""
    depths: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    num_heads: int | None = None
    mlp_ratio: float | None = None
    dropout: float | None = None
    position_embedding: bool | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """For an INTR, fields of `vitrail.models.intr.INTRConfig`; for other libraries, arguments of their model builders."""
    pretrained: bool = False
    """Load the pretrained weights that timm, Hugging Face or torchvision have for this name."""
    initialization: Literal["default", "mimetic"] = "default"
    """With `mimetic`, the attention of an untrained timm ViT begins like that of a trained one (arXiv:2305.09828), for small data sets."""
    start_from: str | None = None
    """Transfer weights from a trained model, by any name that `vitrail.load` takes: patches and positions are resized, the head is new."""
    query_noise: float | None = Field(None, ge=0)
    """INTR only: standard deviation of the noise on repeated queries, if `start_from` has fewer queries than there are classes; null for
    0.1."""
    keep_head: bool = False
    """Transfer the head of `start_from` too, for the same classes at another image size."""
    train: Literal["all", "attention", "head"] = "all"
    """Weights to train: all; attention, positions and head; or the head only."""


class ImagesConfig(Section):
    """Data set of `vitrail.datasets.named.DATA`, by default image folders: `train/<class>/*`, `val/<class>/*`."""

    name: str = "folder"
    root: Path
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the data set."""
    train: str = "train"
    """Split to train on."""
    validation: str | None = None
    """Split to validate on; null for `val`, or `test` if there is no `val`."""
    holdout: int | float = Field(0, ge=0)
    """Number (an integer) or share of training images to hold out for validation instead."""
    batch_size: int = Field(256, ge=1)
    """Images per device and step; must be even for mixup and cutmix, which pair images."""
    num_workers: int = Field(2, ge=0)
    """Data loading processes per training process."""
    short_side: int | None = Field(None, ge=1)
    """Scale training photos down to this shorter side in pixels before they are augmented, which is faster; null for their own size."""
    cache: Literal["none", "ram"] = "none"
    """With `ram`, every training process decodes all photos once, at the start, and keeps their pixels in memory; the results are the
    same. Not for streams."""
    repeats: int = Field(1, ge=1)
    """Repeated augmentation: how many times an image occurs within an epoch, each time augmented differently."""


class DataConfig(ImagesConfig):
    """Images and their preprocessing."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_fraction: float = Field(0.875, gt=0, le=1)
    crop_mode: Literal["center", "squash", "whole"] = "center"
    """How to fit photos that are not square: crop the center, squash the whole photo into the image size, or keep its aspect ratio,
    for networks that take images of any size. With `whole`, `crop_fraction` must be 1, and `model.image_size` limits the shorter and
    the longer side."""


class LossConfig(Section):
    """Training loss."""

    name: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    cosub: bool = False
    """Cosub: train two random sub-networks (by drop path) on every batch, each on the labels and on the other's prediction."""
    auxiliary: float = Field(0, ge=0)
    """INTR only: weight of the mean loss of the decoder layers before the last."""


class FeatureConfig(Section):
    """Features of a convolutional teacher that the student's patch tokens learn to predict."""

    layer: str
    """Module of the teacher that returns a feature map, such as "s3" of a RegNet of timm."""
    block: int = Field(ge=0)
    """Number of the student's block whose tokens predict it."""
    weight: float = Field(0.1, gt=0)


class DistillationConfig(Section):
    """Distillation from a trained teacher."""

    kind: Literal["none", "soft", "hard"] = "none"
    teacher: str | None = None
    """Trained model with the same classes, by any name that `vitrail.load` takes."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher in the loss. Soft distillation is a mean over classes, so its share falls with their number; 1 for the teacher
    alone."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of soft distillation."""
    features: FeatureConfig | None = None


class OptimizerConfig(Section):
    """Optimizer: AdamW, or any other of timm."""

    name: str = "adamw"
    learning_rate: float = Field(8e-4, gt=0)
    scale_to: int | None = Field(None, ge=1)
    """Batch size that `learning_rate` is meant for: the rate is scaled linearly to the images of a step; null for no scaling."""
    backbone_learning_rate: float | None = Field(None, ge=0)
    """INTR only: learning rate of the backbone, on the same schedule; null for `learning_rate`, 0 to freeze the backbone."""
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] | None = None
    """Null for the optimizer's default."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """For optimizers that have momentum."""
    epsilon: float | None = Field(None, gt=0)
    """Null for the optimizer's default."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Factor by which the learning rate shrinks from each block to the one before; null for none. timm networks only."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm or element of the gradient, see `clip_by`; null for no clipping."""
    clip_by: Literal["norm", "value"] = "norm"


class ScheduleConfig(Section):
    """Learning rate schedule: linear warm-up, then decay, per optimizer step."""

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    epochs: int = Field(100, ge=1)
    warmup_epochs: float = Field(5, ge=0)
    warmup_learning_rate: float = Field(1e-6, ge=0)
    min_learning_rate: float = Field(1e-5, ge=0)
    """Final learning rate of cosine and linear."""
    decay_epochs: float = Field(30, gt=0)
    """Step schedule: epochs between two drops."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """Step schedule: factor of a drop."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: number of validations without better accuracy after which to stop; null for none."""


class RunConfig(Section):
    """Devices, precision, seed, checkpoints and logs of any run."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Single precision, or mixed precision in bfloat16 (autocast)."""
    accelerator: str = "auto"
    """Lightning's name of the device type: auto, cpu, gpu, ..."""
    devices: int | str = 1
    """Number of devices on one machine; torchrun and SLURM override it."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers."""
    deterministic: bool = False
    """Use deterministic algorithms only, so that two runs on a GPU agree bit by bit. Slower on GPUs, without effect on CPUs; networks
    with an operation that has no deterministic algorithm are rejected."""
    validate_every: int = Field(1, ge=1)
    """Epochs between two validations; the last epoch is validated in any case."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Optimizer steps between two checkpoints within an epoch; null for a checkpoint after every epoch only."""
    max_minutes: float | None = Field(None, gt=0)
    """Time limit: stop with a checkpoint to resume from; null for none."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Loggers besides metrics.csv."""


class EngineConfig(RunConfig):
    """Settings of a run that trains a classifier."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"  # type: ignore[assignment]  # one more
    """Single precision, or mixed precision in bfloat16 or float16 (autocast)."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimizer step."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is validated and saved; null for none."""
    fused_attention: bool | None = None
    """Whether timm networks use fused attention; null for timm's default. On CPUs in bfloat16, training is twice as fast without."""
    channels_last: bool = False
    """Whether convolutions, the teacher's too, store weights channels last: 1.5 times as fast for many convolutional networks."""
    find_unused_parameters: bool = False
    """Needed in distributed training of networks of which some parts get no gradient."""


class Recipe(Section):
    """Common part of all recipes."""

    data: ImagesConfig
    engine: RunConfig = Field(default_factory=RunConfig)

    def to_yaml(self) -> str:
        """Return the full recipe as YAML, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
