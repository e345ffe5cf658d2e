"""`vitrail train`: a recipe in, a model out, or the gates of an explainer."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vitrail.core.distributed import started_rank
from vitrail.core.errors import InvalidInputError


def train(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A recipe; see configs/. To resume, the run's own if left out.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Like model.drop_path=0.1 data.root=my/images.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")] = Path("runs/train"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out where it was killed or stopped; start it if there is none."),
    ] = False,
    finetune: Annotated[
        str | None,
        typer.Option(
            "--finetune",
            help="Start from this trained model (any --model): short for model.start_from=MODEL.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a classifier, or a DiffMask explainer, from one YAML recipe; every key can be replaced on the command line.

    The same command under torchrun or SLURM trains on many devices and machines.
    """
    from vitrail.training import MaskTrainingConfig, read_config  # noqa: PLC0415 (heavy)

    if config is None:
        if not resume:
            raise InvalidInputError("expected a recipe by --config, or --resume and the folder of a run by --out")
        config = out / "config.yaml"
    given = list(overrides or [])
    if finetune is not None:
        given.append(f"model.start_from={finetune}")
    recipe = read_config(config, given)
    from vitrail.training import train as run  # noqa: PLC0415 (heavier still: a wrong recipe is told before)

    _quieten_lightning()
    best = run(recipe, out, resume)
    if started_rank() != 0:
        return
    gates = isinstance(recipe, MaskTrainingConfig)
    if not best.exists():
        missing = "gates" if gates else "a model"
        typer.echo(
            f"stopped before the first validation, so without {missing} yet; go on by vitrail train --resume --out {out}"
        )
    elif gates:
        typer.echo(f"trained gates: {best}; use them by --method diffmask --method-option diffmask.checkpoint={out}")
    else:
        typer.echo(f"best model: {best}; use it as --model {best}")


def _quieten_lightning() -> None:
    """Leave out what tells a user nothing: advertisements, hardware that is absent, our own folder being ours."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "exists and is not empty",
        "does not have many workers",
        "LeafSpec",
        "logging interval",
        "GPU available",
        "dataloader is not resumable",  # ours is: it asks how many batches are done
        "sync_dist=True",  # the figures are reduced already, by torchmetrics
        "checkpoint directory",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*", module="lightning.*")
