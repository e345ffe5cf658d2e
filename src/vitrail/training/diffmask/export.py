"""Callback that writes the gates of a run."""

from pathlib import Path
from typing import Any, final

import lightning
from lightning.pytorch.callbacks import Callback

from vitrail.core.errors import InvalidInputError
from vitrail.models.diffmask import TrainedMask, write_mask
from vitrail.training.diffmask.learner import MaskLearner
from vitrail.training.export import BEST, LAST, may_be_best


@final
class MaskExport(Callback):
    """Write the validated gates: always as the last, and as the best if they beat all before.

    Gates within `eps` nats beat gates above it. Within `eps`, fewer kept patches are better; above it, a smaller divergence.

    Args:
        eps: Allowed KL divergence in nats.
    """

    def __init__(self, folder: Path, mask: TrainedMask, eps: float) -> None:
        self.folder, self.mask, self.eps = folder, mask, eps
        self.best: dict[str, Any] = {}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not isinstance(pl_module, MaskLearner):
            return
        validated = pl_module.compute_validation_figures()
        figures: dict[str, Any] = {name.removeprefix("val_"): float(value) for name, value in validated.items()}
        figures["epoch"] = trainer.current_epoch + 1
        improved = not self.best or self._rank(figures) < self._rank(self.best)
        is_best = improved and may_be_best(trainer, self.folder)
        if is_best:
            self.best = figures
        if trainer.is_global_zero:
            write_mask(self.folder / LAST, self.mask, notes={"validation": figures})
            if is_best:
                write_mask(self.folder / BEST, self.mask, notes={"validation": figures})

    def _rank(self, figures: dict[str, Any]) -> tuple[bool, float]:
        violated = figures["kl"] > self.eps
        return violated, figures["kl"] if violated else figures["kept"]

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "network": self.mask.explained.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["network"] != self.mask.explained.fingerprint:
            raise InvalidInputError(
                f"expected the weights of {self.mask.explained.name} that the run started with, got different ones; gates are valid "
                "for one network only: restore the old weights, or start a new run with another --out"
            )
        self.best = dict(state_dict["best"])
