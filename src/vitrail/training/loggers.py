"""TensorBoard and Weights & Biases, where asked for."""

from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from vitrail.core.errors import MissingExtraError
from vitrail.training.sections import Recipe


def create_loggers(config: Recipe, out: Path) -> list[Logger]:
    """Create the loggers of a recipe.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    loggers: list[Logger] = []
    for name in dict.fromkeys(config.engine.loggers):
        try:
            if name == "tensorboard":
                loggers.append(TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False))
            else:
                loggers.append(WandbLogger(name=out.name, save_dir=out, config=config.model_dump(mode="json")))
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"logging to {name}", "wandb" if name == "wandb" else "train") from error
    return loggers
