"""Recipes: YAML files, validated, with dotted overrides from the command line."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from vitrail.core.errors import InvalidInputError, failures_as
from vitrail.core.files import read_text
from vitrail.core.registry import unknown_name
from vitrail.core.yaml_io import YAML_ERRORS, read_yaml
from vitrail.datasets.augmentation.transforms import AugmentationConfig
from vitrail.models.intr.config import INTR_NAMES
from vitrail.training.diffmask.config import MASK_SECTION, MaskTrainingConfig
from vitrail.training.sections import (
    DataConfig,
    DistillationConfig,
    EngineConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
)


class TrainingConfig(Recipe):
    """Recipe of a classifier."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    distillation: DistillationConfig = Field(default_factory=DistillationConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingConfig":
        mixes = self.augmentation.mixup > 0 or self.augmentation.cutmix > 0
        if mixes and self.data.batch_size % 2:
            raise ValueError(
                f"expected an even data.batch_size, since mixup and cutmix pair images, got {self.data.batch_size}"
            )
        if (self.distillation.kind == "none") != (self.distillation.teacher is None):
            raise ValueError(
                "expected distillation.kind soft or hard together with a distillation.teacher, got "
                f"kind {self.distillation.kind} and teacher {self.distillation.teacher}"
            )
        if self.distillation.features is not None and self.distillation.teacher is None:
            raise ValueError("expected a distillation.teacher for distillation.features, got none")
        if self.loss.cosub and self.distillation.kind != "none":
            raise ValueError("expected loss.cosub or distillation, got both: each defines its own loss")
        if self.loss.cosub and not self.model.drop_path:
            raise ValueError(
                f"expected a model.drop_path above 0 for loss.cosub, which trains two random sub-networks, got {self.model.drop_path}"
            )
        own_loss = self.loss.cosub or self.distillation.kind != "none"
        if own_loss and self.data.crop_mode == "whole":
            raise ValueError(
                "expected data.crop_mode center or squash for loss.cosub and distillation, which do not support padding, got whole"
            )
        if own_loss and self.loss.auxiliary:
            raise ValueError(
                "expected only one of loss.auxiliary, loss.cosub and distillation, got several: each defines its own loss"
            )
        if self.model.query_noise is not None and (self.model.start_from is None or self.model.name not in INTR_NAMES):
            raise ValueError("expected model.query_noise only for an INTR with model.start_from; leave it out")
        if self.model.pretrained and self.model.start_from is not None:
            raise ValueError("expected model.pretrained or model.start_from, got both")
        if self.model.keep_head and self.model.start_from is None:
            raise ValueError("expected model.start_from for model.keep_head, which keeps its head, got none")
        return self


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides like `model.drop_path=0.1`; a section `diffmask` makes it one of an explainer.

    Raises:
        InvalidInputError: The file does not exist or is no YAML, or it has unknown keys or invalid values; the message names each.
    """
    path = Path(path)
    try:
        content = read_yaml(read_text(path))
    except FileNotFoundError:
        raise InvalidInputError(f"no such configuration file: {path}") from None
    except (OSError, *YAML_ERRORS) as error:
        raise InvalidInputError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(
            f"expected sections ({', '.join(_recipe_class(()).model_fields)}) in {path}, got {type(content).__name__}"
        )
    for override in overrides:
        _apply_override(content, override)
    return validate_config(content, str(path))


def validate_config(content: Mapping[str, Any], source: str) -> Recipe:
    """Validate a recipe given as nested dictionaries."""
    recipe_class = _recipe_class(content)
    try:
        return recipe_class.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'recipe'}: {_format_error(e, recipe_class)}" for e in error.errors()]
        raise InvalidInputError(f"{source} is not a valid recipe:\n" + "\n".join(lines)) from None


def _recipe_class(content: Container[str]) -> type[Recipe]:
    return MaskTrainingConfig if MASK_SECTION in content else TrainingConfig


def find_differences(first: Recipe, second: Recipe, ignored: Sequence[str] = ()) -> list[str]:
    """Return the dotted keys whose values differ between two recipes.

    Args:
        ignored: Dotted keys that may differ.
    """
    one, other = (_flatten(config.model_dump(mode="json")) for config in (first, second))
    return [key for key in {**one, **other} if one.get(key) != other.get(key) and key not in ignored]


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}


def _format_error(error: Mapping[str, Any], recipe_class: type[Recipe]) -> str:
    if error["type"] == "extra_forbidden":
        *sections, key = error["loc"]
        if recipe_class is MaskTrainingConfig and not sections and key in TrainingConfig.model_fields:
            return _explain_classifier_section(key)
        section: Any = recipe_class
        for name in sections:
            section = section.model_fields[name].annotation
        return str(unknown_name("key", str(key), list(section.model_fields)))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if error["type"] in ("missing", "value_error") else f"{message} (got {error['input']!r})"


def _explain_classifier_section(section: str) -> str:
    """Explain why a recipe with a section `diffmask` cannot have a section of classifiers."""
    known = f"a recipe with a section {MASK_SECTION} has {', '.join(MaskTrainingConfig.model_fields)}"
    if section == "model":
        return f"{known}; set the network to explain by {MASK_SECTION}.model: it stays frozen, so --finetune does not apply"
    return f"only recipes of classifiers have this section; {known}"


def _apply_override(content: dict[str, Any], override: str) -> None:
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
    with failures_as(InvalidInputError, f"cannot read the value of {override!r}", causes=YAML_ERRORS):
        node[last] = read_yaml(value)
