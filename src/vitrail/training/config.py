"""One YAML a recipe: validated, with dotted overrides from the command line."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from vitrail.core.errors import InvalidInputError
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
    """The recipe of a classifier."""

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
        if self.loss.cosub and self.distillation.kind != "none":
            raise ValueError("expected loss.cosub or distillation, got both: they have a target of their own each")
        if self.loss.cosub and not self.model.drop_path:
            raise ValueError(
                f"expected a model.drop_path above 0 for loss.cosub, which trains two random sub-networks, got {self.model.drop_path}"
            )
        alone = self.loss.cosub or self.distillation.kind != "none"
        if alone and self.data.crop_mode == "whole":
            raise ValueError("expected data.crop_mode center or squash for loss.cosub and distillation, which know no padding")
        if alone and self.loss.auxiliary:
            raise ValueError(
                "expected loss.auxiliary, or loss.cosub, or distillation, got several: they have a loss of their own each"
            )
        if self.model.query_noise is not None and (self.model.start_from is None or self.model.name not in INTR_NAMES):
            raise ValueError("expected model.query_noise with an INTR and its model.start_from only; leave it out")
        if self.model.pretrained and self.model.start_from is not None:
            raise ValueError("expected model.pretrained or model.start_from, got both")
        if self.model.keep_head and self.model.start_from is None:
            raise ValueError("expected model.start_from, whose head model.keep_head is about, got none")
        return self


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides like `model.drop_path=0.1`; one with a section `diffmask` is that of an explainer.

    Raises:
        InvalidInputError: No such file, not YAML, an unknown key, or a value out of range; each is named.
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
            f"expected sections ({', '.join(_kind(()).model_fields)}) in {path}, got {type(content).__name__}"
        )
    for override in overrides:
        _apply(content, override)
    return validate_config(content, str(path))


def validate_config(content: Mapping[str, Any], source: str) -> Recipe:
    """Check a recipe given as nested dictionaries."""
    kind = _kind(content)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'recipe'}: {_explain(e, kind)}" for e in error.errors()]
        raise InvalidInputError(f"{source} is no valid recipe:\n" + "\n".join(lines)) from None


def _kind(content: Container[str]) -> type[Recipe]:
    return MaskTrainingConfig if MASK_SECTION in content else TrainingConfig


def differences(first: Recipe, second: Recipe, ignored: Sequence[str] = ()) -> list[str]:
    """The dotted keys whose values differ between two recipes.

    Args:
        first: A recipe.
        second: Another one.
        ignored: Dotted keys that may differ.
    """
    one, other = (_flat(config.model_dump(mode="json")) for config in (first, second))
    return [key for key in {**one, **other} if one.get(key) != other.get(key) and key not in ignored]


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}


def _explain(error: Mapping[str, Any], kind: type[Recipe]) -> str:
    if error["type"] == "extra_forbidden":
        *sections, key = error["loc"]
        if kind is MaskTrainingConfig and not sections and key in TrainingConfig.model_fields:
            return _of_classifiers(key)
        section: Any = kind
        for name in sections:
            section = section.model_fields[name].annotation
        return str(unknown_name("key", str(key), list(section.model_fields)))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if error["type"] in ("missing", "value_error") else f"{message} (got {error['input']!r})"


def _of_classifiers(section: str) -> str:
    """Why a section is refused beside `diffmask`."""
    known = f"a recipe with a section {MASK_SECTION} has {', '.join(MaskTrainingConfig.model_fields)}"
    if section == "model":
        return (
            f"{known}; the network to explain is {MASK_SECTION}.model, and stays as it is: {MASK_SECTION} knows no --finetune"
        )
    return f"a section of classifiers' recipes; {known}"


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
        node[last] = read_yaml(value)
    except YAML_ERRORS as error:
        raise InvalidInputError(f"cannot read the value of {override!r}: {error}") from error
