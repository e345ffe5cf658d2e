"""The gates that a run leaves behind."""

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vitrail.core.errors import InvalidInputError
from vitrail.models.diffmask import TrainedMask, write_mask
from vitrail.training.diffmask.learner import MaskLearner
from vitrail.training.export import BEST, LAST, may_be_best


class MaskExport(Callback):
    """Write the validated gates whenever they are the best so far, and always as the last.

    Gates that keep within `eps` nats are better than those that do not; among the former fewer patches win, among the latter the
    smaller divergence.

    Args:
        folder: Where to write.
        mask: The gates that are trained.
        eps: How much divergence is allowed.
    """

    def __init__(self, folder: Path, mask: TrainedMask, eps: float) -> None:
        self.folder, self.mask, self.eps = folder, mask, eps
        self.best: dict[str, Any] = {}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not isinstance(pl_module, MaskLearner):
            return
        figures = {name.removeprefix("val_"): float(value) for name, value in pl_module.validated().items()}
        found: dict[str, Any] = {**figures, "epoch": trainer.current_epoch + 1}
        better = (not self.best or self._order(found) < self._order(self.best)) and may_be_best(trainer, self.folder)
        if better:
            self.best = found
        if trainer.is_global_zero:
            write_mask(self.folder / LAST, self.mask, notes={"validation": found})
            if better:
                write_mask(self.folder / BEST, self.mask, notes={"validation": found})

    def _order(self, found: dict[str, Any]) -> tuple[bool, float]:
        broken = found["kl"] > self.eps
        return broken, found["kl"] if broken else found["kept"]

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "network": self.mask.explained.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["network"] != self.mask.explained.fingerprint:
            raise InvalidInputError(
                f"expected the weights of {self.mask.explained.name} that the run began with, got others: gates learn what one network "
                "needs; put the former back, or start anew with another --out"
            )
        self.best = dict(state_dict["best"])
