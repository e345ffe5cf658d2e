"""What a person sees of a training run: a bar or plain lines, and a learning curve."""

import csv
import logging
import sys
import time
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, RichProgressBar

from vitrail.viz.curves import plot_learning_curve

logger = logging.getLogger(__name__)


def progress() -> list[Callback]:
    """A progress bar on a terminal, plain lines in a log."""
    return [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]


class EpochLines(Callback):
    """One line of figures an epoch."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = sorted((name, float(value)) for name, value in trainer.callback_metrics.items() if not name.startswith("lr-"))
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics)
        rate, seconds = trainer.optimizers[0].param_groups[0]["lr"], time.monotonic() - self.started
        logger.info(
            "epoch %d/%s  %s  learning_rate %.1e  %.0f s", trainer.current_epoch + 1, trainer.max_epochs, figures, rate, seconds
        )


class LearningCurve(Callback):
    """Redraws `learning_curve.png` from `metrics.csv` after every epoch, and at the end, when the last epoch's loss is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._draw(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: lightning.Trainer) -> None:
        if not trainer.is_global_zero or trainer.logger is None:
            return
        trainer.logger.save()
        log = self.folder / "metrics.csv"
        if log.exists():
            with log.open(newline="") as file:
                plot_learning_curve(list(csv.DictReader(file)), self.folder / "learning_curve.png")
