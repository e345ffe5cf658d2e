"""The sections of a recipe. Every key has a name of its own in docs/train.md, and a default but for `data.root`."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from vitrail.adapters.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Section(BaseModel):
    """Part of a recipe: unknown keys are refused, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The network. The number of classes comes from the data."""

    name: str = "hit_small_patch16_224"
    """A size of HiT (`vitrail.models.hit.HIT_SIZES`), an INTR (intr_resnet50 and its like, or intr), or timm:NAME, hf:NAME-OR-FOLDER,
    torchvision:NAME."""
    image_size: int | tuple[int, int] | None = None
    """Side in pixels, or height and width; null for the network's own."""
    drop_path: float | None = None
    """Largest rate of stochastic depth."""
    attention_dropout: float | None = None
    patch_size: int | None = None
    """Of a HiT, like the keys up to `position_embedding`."""
    depths: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    num_heads: int | None = None
    mlp_ratio: float | None = None
    dropout: float | None = None
    position_embedding: bool | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Of an INTR: fields of `vitrail.models.intr.INTRConfig`. Of other libraries: further arguments of their own functions."""
    pretrained: bool = False
    """Start from the weights that timm, Hugging Face or torchvision have for this name."""
    start_from: str | None = None
    """Start from a trained model: anything that `vitrail.load` knows. Patches and positions are resized, the head is new."""
    query_noise: float | None = Field(None, ge=0)
    """Of an INTR that starts from fewer queries than it has classes: standard deviation of the noise on repeated ones; null for 0.1."""
    keep_head: bool = False
    """Take the head of `start_from` too: for another image size, not for other classes."""
    train: Literal["all", "attention", "head"] = "all"
    """Which weights learn: all; attention, positions and head; the head alone."""


class ImagesConfig(Section):
    """A data set of `vitrail.datasets.named.DATA`, by default image folders: `train/<class>/*`, `val/<class>/*`."""

    name: str = "folder"
    root: Path
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the data set."""
    train: str = "train"
    """The split to train on."""
    validation: str | None = None
    """The split to validate on; null takes `val`, else `test`."""
    holdout: int | float = Field(0, ge=0)
    """Validate on so many (a whole number) or such a share of the training images instead, and train on the others."""
    batch_size: int = Field(256, ge=1)
    """Images per device and step; even where labels are mixed, since mixup pairs images."""
    num_workers: int = Field(2, ge=0)
    repeats: int = Field(1, ge=1)
    """Repeated augmentation: how often an image occurs within an epoch, each time varied anew."""


class DataConfig(ImagesConfig):
    """Images, and what turns a photo into the input of the network."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_fraction: float = Field(0.875, gt=0, le=1)
    crop_mode: Literal["center", "squash", "whole"] = "center"
    """Whether photos that are not square lose their margins, are stretched so that the model sees all of them, or stay whole in
    their own proportions, for networks that take images of any size: then `crop_fraction` is 1, and `model.image_size` limits the
    shorter and the longer side."""


class LossConfig(Section):
    """What is minimized."""

    name: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    cosub: bool = False
    """Train two random sub-networks (by drop path) on every batch, each on the labels and on what the other one says."""
    auxiliary: float = Field(0, ge=0)
    """Of an INTR: weight of the mean loss of the decoder layers before the last, whose queries then learn to find their classes too."""


class DistillationConfig(Section):
    """Learning from a trained teacher."""

    kind: Literal["none", "soft", "hard"] = "none"
    teacher: str | None = None
    """Anything that `vitrail.load` knows, with the same classes."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the teacher in the loss."""
    temperature: float = Field(1.0, gt=0)
    """Of soft distillation."""


class OptimizerConfig(Section):
    """AdamW, or any optimizer that timm knows by name."""

    name: str = "adamw"
    learning_rate: float = Field(8e-4, gt=0)
    scale_to: int | None = Field(None, ge=1)
    """The batch size that `learning_rate` is meant for: it is scaled to the images of a step; null to use it as it stands."""
    backbone_learning_rate: float | None = Field(None, ge=0)
    """Of the backbone of an INTR: null for the same as the rest, 0 to leave it as it is. It goes up and down as the other does."""
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] | None = None
    """Null for the optimizer's own."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of optimizers that have one."""
    epsilon: float | None = Field(None, gt=0)
    """Null for the optimizer's own."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Factor on the learning rate from one block to the one before; null for none."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient, or largest element; null for no clipping."""
    clip_by: Literal["norm", "value"] = "norm"


class ScheduleConfig(Section):
    """How the learning rate goes, and how long: linear warm-up, then down, counted in optimizer steps."""

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    epochs: int = Field(100, ge=1)
    warmup_epochs: float = Field(5, ge=0)
    warmup_learning_rate: float = Field(1e-6, ge=0)
    min_learning_rate: float = Field(1e-5, ge=0)
    """Where cosine and linear end."""
    decay_epochs: float = Field(30, gt=0)
    """Of step: epochs between two drops."""
    decay_rate: float = Field(0.1, gt=0, le=1)
    """Of step: factor of a drop."""
    patience: int | None = Field(None, ge=1)
    """Stop when validation accuracy has not risen for so many validations; null to go on."""


class RunConfig(Section):
    """Where and how exactly the steps of any run are computed."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    """On one machine. Under torchrun and SLURM these decide."""
    seed: int = Field(0, ge=0)
    deterministic: bool = False
    """Only algorithms that give the same bits every time: on GPUs, without it, two runs differ by rounding. Slower there, by how much
    depends on the network, and a network with an operation that has no such algorithm is refused. On CPUs it changes nothing."""
    validate_every: int = Field(1, ge=1)
    """Epochs between two validations; the last epoch is validated in any case."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Optimizer steps between two checkpoints, beside the one after every epoch; null for none in between."""
    max_minutes: float | None = Field(None, gt=0)
    """Stop after this many minutes with a checkpoint to resume from; null for no limit."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Beside metrics.csv."""


class EngineConfig(RunConfig):
    """Where and how exactly the steps of a classifier's training are computed."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"  # type: ignore[assignment]  # one more
    accumulate: int = Field(1, ge=1)
    """Batches per optimizer step."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Exponential moving average of the weights, used for validation and the saved model; null for none."""
    fused_attention: bool | None = None
    """Of timm's networks; null for timm's choice. On CPUs in bfloat16, training is twice as fast without."""
    find_unused_parameters: bool = False
    """On many processes, for networks of which parts get no gradient."""


class Recipe(Section):
    """What every recipe has: images, and where it runs."""

    data: ImagesConfig
    engine: RunConfig = Field(default_factory=RunConfig)

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
