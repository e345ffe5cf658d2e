"""`vitrail train`: train a classifier, or the gates of an explainer, by a recipe."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vitrail.core.distributed import started_rank


def train(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Recipe; see configs/ (default with --resume: the run's own).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Such as model.drop_path=0.1 data.root=my/images.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory.")] = Path("runs/train"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the interrupted run in --out; start it if there is none.")
    ] = False,
    finetune: Annotated[
        str | None,
        typer.Option(
            "--finetune", help="Model to start from (any --model); short for model.start_from=MODEL.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a classifier, or a DiffMask explainer, by a YAML recipe. Under torchrun or SLURM, train on many devices."""
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.training import MaskTrainingConfig  # noqa: PLC0415

    recipe = api.read_recipe(config, overrides or [], out, resume=resume, finetune=finetune)
    _quieten_lightning()
    best = api.train(recipe, out=out, resume=resume)
    if started_rank() != 0:
        return
    is_gates = isinstance(recipe, MaskTrainingConfig)
    if not best.exists():
        missing = "gates" if is_gates else "a model"
        typer.echo(f"stopped before the first validation, without {missing}; resume by vitrail train --resume --out {out}")
    elif is_gates:
        typer.echo(f"trained gates: {best}; use them by --method diffmask --method-option diffmask.checkpoint={out}")
    else:
        typer.echo(f"best model: {best}; use it as --model {best}")


def _quieten_lightning() -> None:
    """Silence messages of Lightning that do not help: advertisements, missing hardware, and the folder not being empty."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "exists and is not empty",
        "does not have many workers",
        "LeafSpec",
        "logging interval",
        "GPU available",
        "dataloader is not resumable",  # Ours resumes by the number of finished batches.
        "sync_dist=True",  # torchmetrics has reduced the numbers already.
        "checkpoint directory",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*", module="lightning.*")
