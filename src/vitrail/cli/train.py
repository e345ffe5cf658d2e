"""`vitrail train`: a recipe in, a model out."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="A recipe; see configs/.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Like model.drop_path=0.1 data.root=my/images.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")] = Path("runs/train"),
) -> None:
    """Train a classifier from one YAML recipe; every key can be replaced on the command line."""
    from vitrail.training import read_config  # noqa: PLC0415 (heavy)

    recipe = read_config(config, overrides or [])
    from vitrail.training import train as run  # noqa: PLC0415 (heavier still: a wrong recipe is told before)

    _quieten_lightning()
    best = run(recipe, out)
    typer.echo(f"best model: {best}; use it as --model {best}")


def _quieten_lightning() -> None:
    """Leave out what tells a user nothing: advertisements, hardware that is absent, our own folder being ours."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in ("exists and is not empty", "does not have many workers", "LeafSpec", "logging interval", "GPU available"):
        warnings.filterwarnings("ignore", message=f".*{message}.*", module="lightning.*")
