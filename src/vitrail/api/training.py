"""Train a model by a recipe."""

from collections.abc import Sequence
from pathlib import Path

from vitrail.core.errors import InvalidInputError
from vitrail.recipes import recipe_file
from vitrail.training import Recipe, read_config
from vitrail.training import train as run_training


def train(
    config: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs/train",
    *,
    recipe: str | None = None,
    resume: bool = False,
    finetune: str | None = None,
) -> Path:
    """Train a classifier, or a DiffMask explainer.

    Args:
        config: A recipe or its YAML file; if there is neither `config` nor `recipe`, with `resume`, the recipe of the run in `out`.
        overrides: Settings that replace those of the file, such as "model.drop_path=0.1".
        out: The run directory.
        recipe: Instead of `config`: the name of a recipe that comes with the package (`vitrail.list_recipes`).
        resume: Resume the run in `out`; start it if there is none.
        finetune: Model to start from; short for the override "model.start_from=MODEL".

    Returns:
        The path of the best weights.

    Raises:
        InvalidInputError: The recipe or the data do not fit, or differ from those of the run to resume.
        OutputError: `out` holds an earlier run and `resume` is false, cannot be written, or is in use by another run.
        TrainingError: The loss is no longer finite.
        MissingExtraError: Lightning is not installed.

    Example:
        >>> import vitrail
        >>> vitrail.train(recipe="cifar10-hit", overrides=["data.root=cifar10"], out="runs/cifar10")  # doctest: +SKIP
    """
    if isinstance(config, Recipe):
        if overrides or finetune is not None or recipe is not None:
            raise InvalidInputError(
                "expected overrides, finetune and recipe without a Recipe object, got both; change the object instead"
            )
        return run_training(config, out, resume)
    asked = read_recipe(config, overrides, out, recipe=recipe, resume=resume, finetune=finetune)
    return run_training(asked, out, resume)


def read_recipe(
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs/train",
    *,
    recipe: str | None = None,
    resume: bool = False,
    finetune: str | None = None,
) -> Recipe:
    """Read the recipe that `train` uses; arguments and errors as for `train`."""
    if recipe is not None:
        if config is not None:
            raise InvalidInputError(f"expected a recipe's name or a file, got both: {recipe} and {config}; leave one out")
        config = recipe_file(recipe)
    if config is None:
        if not resume:
            raise InvalidInputError(
                "expected a recipe by --recipe (see vitrail list recipes) or --config, or --resume and a run's folder by --out"
            )
        config = Path(out) / "config.yaml"
    return read_config(config, [*overrides, *([] if finetune is None else [f"model.start_from={finetune}"])])
