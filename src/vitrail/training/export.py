"""The models that a run leaves behind, and its summary."""

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vitrail.adapters import Classifier, save
from vitrail.training.classifier import ImageClassifier

BEST, LAST = "best.safetensors", "last.safetensors"


def may_be_best(trainer: lightning.Trainer, folder: Path) -> bool:
    """Whether this validation may choose the best weights of a run.

    Where a run stops within an epoch, Lightning validates once more, after the checkpoint: the resumed run knows nothing of it,
    and would leave other best weights than one that was not disturbed.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or not (folder / BEST).exists()


class Export(Callback):
    """Write the validated model, under EMA its averaged weights, whenever it is the best so far, and always as the last.

    Must stand before the EMA callback, which takes the averaged weights away again at the same hook.

    Args:
        folder: Where to write.
        classifier: Whose network is trained.
    """

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        self.folder, self.classifier = folder, classifier
        self.best: dict[str, Any] = {"top1": -1.0, "epoch": 0}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, ImageClassifier):
            return
        found = {"top1": float(pl_module.top1.compute()), "epoch": trainer.current_epoch + 1}
        better = found["top1"] > self.best["top1"] and may_be_best(trainer, self.folder)
        if better:
            self.best = found
        if trainer.is_global_zero:
            save(self.classifier, self.folder / LAST, notes={"validation": found})
            if better:
                save(self.classifier, self.folder / BEST, notes={"validation": found})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict["best"])
