"""One YAML a recipe: validated, with dotted overrides from the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitrail.adapters.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vitrail.data.augmentation import AugmentationConfig
from vitrail.errors import InvalidInputError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ModelConfig(_Section):
    """A HiT: one of the named sizes, any field of `HiTConfig` replaced. The number of classes comes from the data."""

    name: str = "hit_small_patch16_224"
    """One of the named sizes of `vitrail.models.hit.HIT_SIZES`."""
    image_size: int | tuple[int, int] | None = None
    patch_size: int | None = None
    depths: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    num_heads: int | None = None
    mlp_ratio: float | None = None
    dropout: float | None = None
    attention_dropout: float | None = None
    drop_path: float | None = None


class DataConfig(_Section):
    """Image folders: `train/<class>/*` and `test|val/<class>/*` below `root`."""

    root: Path
    train: str = "train"
    validation: str | None = None
    """Sub-folder of the validation images; null takes `val`, else `test`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_fraction: float = Field(0.875, gt=0, le=1)
    crop_mode: Literal["center", "squash"] = "center"
    """Whether photos that are not square lose their margins, or are stretched so that the model sees all of them."""
    batch_size: int = Field(256, ge=2, multiple_of=2)
    """Images per device and step; even, since mixup pairs them."""
    num_workers: int = Field(2, ge=0)


class OptimizerConfig(_Section):
    """AdamW, or any optimiser that timm knows by name."""

    name: str = "adamw"
    learning_rate: float = Field(8e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; null for no clipping."""


class ScheduleConfig(_Section):
    """Linear warm-up, then half a cosine, counted in optimiser steps."""

    epochs: int = Field(100, ge=1)
    warmup_epochs: float = Field(5, ge=0)
    warmup_learning_rate: float = Field(1e-6, ge=0)
    min_learning_rate: float = Field(1e-5, ge=0)


class EngineConfig(_Section):
    """Where and how exactly the steps are computed."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Exponential moving average of the weights, used for validation and the saved model; null for none."""
    seed: int = 0
    max_minutes: float | None = Field(None, gt=0)
    """Stop after this many minutes; null for no limit."""


class TrainingConfig(_Section):
    """A whole recipe."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a recipe and apply overrides like `model.drop_path=0.1`.

    Raises:
        InvalidInputError: No such file, not YAML, an unknown key, or a value out of range; each is named.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(f"no such configuration file: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(
            f"expected sections ({', '.join(TrainingConfig.model_fields)}) in {path}, got {type(content).__name__}"
        )
    for override in overrides:
        _apply(content, override)
    return validate_config(content, str(path))


def validate_config(content: Mapping[str, Any], source: str) -> TrainingConfig:
    """Check a recipe given as nested dictionaries."""
    try:
        return TrainingConfig.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {_explain(e)}" for e in error.errors()]
        raise InvalidInputError(f"{source} is no valid recipe:\n" + "\n".join(lines)) from None


def _explain(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key; see the recipes in configs/ for the known ones"
    return f"{error['msg']}" + ("" if error["type"] == "missing" else f" (got {error['input']!r})")


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InvalidInputError(f"expected an override like model.drop_path=0.1, got {override!r}")
    *sections, last = key.split(".")
    node: Any = content
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise InvalidInputError(f"cannot set {key}: {section} is a value, not a section")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"cannot read the value of {override!r}: {error}") from error
