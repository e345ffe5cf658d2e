"""The folder of a run: whose it is, whether it may be resumed, whether it is complete."""

import json
from pathlib import Path
from typing import Any

import lightning

from vitrail.errors import InvalidInputError, OutputError
from vitrail.files import discard_partials, is_left_over, write_text
from vitrail.locking import is_lock
from vitrail.training.callbacks import METRICS, TimeLimit
from vitrail.training.checkpoints import FOLDER
from vitrail.training.config import differences, read_config
from vitrail.training.data import TrainingData
from vitrail.training.learner import Learner
from vitrail.training.sections import Recipe

CONFIG, SUMMARY = "config.yaml", "summary.json"

CHANGEABLE = (
    "data.root",
    "data.num_workers",
    "engine.accelerator",
    "engine.devices",
    "engine.max_minutes",
    "engine.checkpoint_every",
    "engine.loggers",
    "engine.find_unused_parameters",
    "pictures.every",
    "pictures.count",
)
"""Keys that do not change what a run computes (but for rounding, on another kind of device)."""


def claim(out: Path, config: Recipe, resume: bool) -> None:
    """Make sure that a folder is empty, or holds the very run that is to be resumed.

    Raises:
        OutputError: It holds something else.
        InvalidInputError: The run in it followed another recipe.
    """
    if all(is_lock(path) or is_left_over(path) for path in out.iterdir()):
        discard_partials(out)
        return
    if not resume:
        raise OutputError(f"{out} is not empty; choose another --out, or go on with the run in it by --resume")
    if not (out / CONFIG).exists():
        raise OutputError(f"expected a run to resume in {out}, which has no {CONFIG}; choose another --out")
    changed = differences(config, read_config(out / CONFIG), CHANGEABLE)
    if changed:
        raise InvalidInputError(
            f"expected the recipe of the run in {out}, got another {', '.join(changed)}; resume with the run's own {CONFIG}, or "
            "choose another --out"
        )
    discard_partials(out, [FOLDER])


def is_complete(out: Path) -> bool:
    """Whether a run has come to its end."""
    try:
        return bool(json.loads((out / SUMMARY).read_text(encoding="utf-8"))["complete"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_summary(
    out: Path, trainer: lightning.Trainer, learner: Learner, data: TrainingData, best: dict[str, Any], seconds: float
) -> None:
    """Write `summary.json`: the figures of a run, and whether it came to its end."""
    parameters = list(learner.module.parameters())
    summary = {
        "complete": not _stopped_by_time(trainer),
        "best": best,
        "last": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "device": str(trainer.strategy.root_device),
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "num_trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "num_classes": len(data.class_names),
        "num_train_images": data.num_train_images,
        "unreadable": len(learner.unreadable),
        "metrics": METRICS,
    }
    write_text(out / SUMMARY, json.dumps(summary, indent=2) + "\n")


def _stopped_by_time(trainer: lightning.Trainer) -> bool:
    """Whether there is more to do: a limit may also fall on the last batch of an epoch, or of the run."""
    if not any(isinstance(callback, TimeLimit) and callback.stopped for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return False
    if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return True
    out_of_patience = any(callback.stopped_epoch > 0 for callback in trainer.early_stopping_callbacks)
    return trainer.current_epoch < (trainer.max_epochs or 0) and not out_of_patience
