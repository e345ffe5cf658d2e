"""Callback that writes the models of a run."""

from pathlib import Path
from typing import Any, final

import lightning
from lightning.pytorch.callbacks import Callback

from vitrail.adapters import Classifier, save
from vitrail.training.classifier import ImageClassifier

BEST, LAST = "best.safetensors", "last.safetensors"


def may_be_best(trainer: lightning.Trainer, folder: Path) -> bool:
    """Return whether this validation may choose the best weights of a run.

    When a run stops within an epoch, Lightning validates once more after the checkpoint. That validation must not count, or the
    resumed run would end with other best weights than an uninterrupted one.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or not (folder / BEST).exists()


@final
class Export(Callback):
    """Write the validated model (with EMA, the averaged weights): always as the last, and as the best if it beats all before.

    Must come before the EMA callback, which swaps the averaged weights out at the same hook.
    """

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        self.folder, self.classifier = folder, classifier
        self.best: dict[str, Any] = {"top1": -1.0, "epoch": 0}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, ImageClassifier):
            return
        figures = {"top1": float(pl_module.top1.compute()), "epoch": trainer.current_epoch + 1}
        is_best = figures["top1"] > self.best["top1"] and may_be_best(trainer, self.folder)
        if is_best:
            self.best = figures
        if trainer.is_global_zero:
            save(self.classifier, self.folder / LAST, notes={"validation": figures})
            if is_best:
                save(self.classifier, self.folder / BEST, notes={"validation": figures})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict["best"])
