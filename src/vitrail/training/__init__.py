"""Training of classifiers and DiffMask explainers from YAML recipes, on Lightning."""

from pathlib import Path

from vitrail.core.errors import MissingExtraError
from vitrail.training.config import TrainingConfig, read_config
from vitrail.training.diffmask.config import MaskTrainingConfig
from vitrail.training.reproducibility import preserve_random_state
from vitrail.training.sections import Recipe

__all__ = ["MaskTrainingConfig", "Recipe", "TrainingConfig", "read_config", "train"]


def train(config: Recipe, out: str | Path, resume: bool = False) -> Path:
    """Train a classifier or a DiffMask explainer by a recipe; see `vitrail.training.recipe.train`.

    Raises:
        MissingExtraError: Lightning is not installed.
    """
    with preserve_random_state():  # Rich, which Lightning imports, draws random numbers.
        try:
            import lightning  # noqa: F401, PLC0415 (an extra)
        except ImportError as error:
            raise MissingExtraError("training", "train") from error
        from vitrail.training.recipe import train as run  # noqa: PLC0415 (needs the extra)

    return run(config, out, resume)
