"""Logs of a run: metrics.csv, the learning curve, a line or a bar per epoch, TensorBoard and Weights & Biases."""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any, final

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from vitrail.core.errors import MissingExtraError
from vitrail.core.files import atomic_write
from vitrail.training.sections import Recipe
from vitrail.viz.curves import plot_learning_curve

logger = logging.getLogger(__name__)

Row = dict[str, int | float]

METRICS = "metrics.csv"
LEARNING_CURVE = "learning_curve.png"


def create_loggers(config: Recipe, out: Path) -> list[Logger]:
    """Create the TensorBoard and Weights & Biases loggers of a recipe.

    Raises:
        MissingExtraError: The package of a logger is not installed.
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


def create_progress_callbacks() -> list[Callback]:
    """Create a progress bar for a terminal, or plain lines for a log file."""
    return [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]


def collect_epoch_figures(trainer: lightning.Trainer) -> Row:
    """Collect the figures of the current epoch; epochs count from 1."""
    # Lightning keeps the figures of the last validation until the next one.
    validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    metrics = sorted(trainer.callback_metrics.items())
    figures = {name: float(value) for name, value in metrics if validated or not name.startswith("val_")}
    return {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **figures}


# The two callbacks below derive from Checkpoint because Lightning calls those last, when the figures of an epoch are complete.


@final
class EpochLines(Checkpoint):
    """Log one line of figures per epoch."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.start_time = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        seconds, self.start_time = time.monotonic() - self.start_time, time.monotonic()
        if not trainer.is_global_zero:
            return
        row = collect_epoch_figures(trainer)
        shown = [(name, value) for name, value in row.items() if name.startswith(("train_", "val_"))]
        figures = "  ".join(f"{name} {value:.4f}" for name, value in sorted(shown, key=lambda item: _sort_key(item[0])))
        waiting = row["data_seconds"] / max(row["data_seconds"] + row["step_seconds"], 1e-9)
        logger.info(
            "epoch %d/%s  %s  learning_rate %.1e  %.0f s, %.0f %% of a step waiting for data",
            row["epoch"],
            trainer.max_epochs,
            figures,
            row["learning_rate"],
            seconds,
            100 * waiting,
        )


def _sort_key(figure: str) -> tuple[bool, bool, str]:
    """Sort training before validation, losses first."""
    return figure.startswith("val_"), not figure.endswith("_loss"), figure


@final
class RunLog(Checkpoint):
    """Rewrite `metrics.csv` and `learning_curve.png` after every epoch.

    The rows are part of the checkpoints, so that a resumed run continues its table; Lightning's CSV logger would start a new file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.rows.append(collect_epoch_figures(trainer))
        if trainer.is_global_zero:
            write_rows(self.rows, self.folder / METRICS)
            plot_learning_curve(self.rows, self.folder / LEARNING_CURVE)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]


def write_rows(rows: list[Row], path: Path) -> None:
    """Write a CSV table atomically; figures that an epoch lacks stay empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
