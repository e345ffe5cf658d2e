"""Train a model by a recipe."""

from collections.abc import Sequence
from pathlib import Path

from vitrail.core.errors import InvalidInputError
from vitrail.training import Recipe, read_config
from vitrail.training import train as run_training


def train(
    config: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs/train",
    *,
    resume: bool = False,
    finetune: str | None = None,
) -> Path:
    """Train a classifier, or a DiffMask explainer.

    Args:
        config: A recipe or its YAML file; if None and `resume`, the recipe of the run in `out`.
        overrides: Settings that replace those of the file, such as "model.drop_path=0.1".
        out: The run directory.
        resume: Resume the run in `out`; start it if there is none.
        finetune: Model to start from; short for the override "model.start_from=MODEL".

    Returns:
        The path of the best weights.

    Raises:
        InvalidInputError: The recipe or the data do not fit, or differ from those of the run to resume.
        OutputError: `out` holds an earlier run and `resume` is false, cannot be written, or is in use by another run.
        TrainingError: The loss is no longer finite.
        MissingExtraError: Lightning is not installed.
    """
    if isinstance(config, Recipe):
        if overrides or finetune is not None:
            raise InvalidInputError(
                "expected overrides and finetune together with a file, got a recipe; change the recipe instead"
            )
        return run_training(config, out, resume)
    return run_training(read_recipe(config, overrides, out, resume=resume, finetune=finetune), out, resume)


def read_recipe(
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs/train",
    *,
    resume: bool = False,
    finetune: str | None = None,
) -> Recipe:
    """Read the recipe that `train` uses; arguments and errors as for `train`."""
    if config is None:
        if not resume:
            raise InvalidInputError("expected a recipe by --config, or --resume and the folder of a run by --out")
        config = Path(out) / "config.yaml"
    return read_config(config, [*overrides, *([] if finetune is None else [f"model.start_from={finetune}"])])
