"""`vitrail train`: train a classifier, or the gates of an explainer, by a recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli.completion import complete_recipes
from vitrail.cli.results import print_result
from vitrail.core.distributed import started_rank
from vitrail.core.errors import InvalidInputError
from vitrail.recipes import recipe_names


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.yaml] [KEY=VALUE]...",
            help="A recipe of yours, and settings such as model.drop_path=0.1 data.root=my/images.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Recipe that comes with vitrail; see vitrail list recipes.",
            show_default=False,
            autocompletion=complete_recipes,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A recipe of yours (default with --resume: the run's own).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; without it, the next free number.")] = Path(
        "runs/train"
    ),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the interrupted run in --out, or the newest one; start it if there is none."),
    ] = False,
    finetune: Annotated[
        str | None,
        typer.Option(
            "--finetune", help="Model to start from (any --model); short for model.start_from=MODEL.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a classifier, or a DiffMask explainer, by a YAML recipe. Under torchrun or SLURM, train on many devices."""
    file, overrides = _split(settings or [], config)
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.training import MaskTrainingConfig  # noqa: PLC0415

    asked = api.read_recipe(file, overrides, out, recipe=recipe, resume=resume, finetune=finetune)
    best = api.train(asked, out=out, resume=resume)
    if started_rank() != 0:
        return
    is_gates, trained = isinstance(asked, MaskTrainingConfig), best.exists()

    def print_text() -> None:
        if not trained:
            missing = "gates" if is_gates else "a model"
            typer.echo(f"stopped before the first validation, without {missing}; resume by vitrail train --resume --out {out}")
        elif is_gates:
            typer.echo(f"trained gates: {best}; use them by --method diffmask --method-option diffmask.checkpoint={out}")
        else:
            typer.echo(f"best model: {best}; use it as --model {best}")

    print_result(lambda: {"out": str(out), "best": str(best) if trained else None, **_read_summary(out)}, print_text)


def _split(settings: list[str], config: Path | None) -> tuple[Path | None, list[str]]:
    """Separate a recipe's file from the settings that change it.

    Raises:
        InvalidInputError: Several files, or the name of a recipe in their place.
    """
    files = [text for text in settings if "=" not in text]
    if not files:
        return config, settings
    [first, *more] = files
    if first in recipe_names() and not Path(first).exists():
        raise InvalidInputError(
            f"expected a file, or settings like model.drop_path=0.1, got the recipe {first}; use --recipe {first}"
        )
    if not first.endswith((".yaml", ".yml")) and not Path(first).is_file():
        raise InvalidInputError(f"expected a recipe's file, or an override like model.drop_path=0.1, got {first!r}")
    if more or config is not None:
        raise InvalidInputError(f"expected one recipe, got {', '.join([*files, *([str(config)] if config else [])])}")
    return Path(first), [text for text in settings if "=" in text]


def _read_summary(out: Path) -> dict[str, Any]:
    from vitrail.core.json_io import read_json  # noqa: PLC0415 (only where it is needed)

    path = out / "summary.json"
    return {"summary": read_json(path) if path.exists() else None}
