"""The folder of a run: whose it is, whether it may be resumed, whether it is complete."""

from pathlib import Path
from typing import Any

import lightning

from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import discard_partials, is_left_over, write_text
from vitrail.core.json_io import json_text, read_json
from vitrail.core.locking import is_lock
from vitrail.training.callbacks import METRICS, TimeLimit
from vitrail.training.checkpoints import FOLDER
from vitrail.training.config import differences, read_config
from vitrail.training.data import TrainingData
from vitrail.training.learner import Learner
from vitrail.training.sections import Recipe

CONFIG, DATA, SUMMARY = "config.yaml", "data.json", "summary.json"

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


def record_data(out: Path, data: TrainingData, resumed: bool, first: bool) -> None:
    """Write down what a run is trained on, or make sure that a resumed one finds the same.

    Args:
        out: The folder of the run.
        data: What is there now.
        resumed: Whether the run goes on from a checkpoint.
        first: Whether this process writes the files.

    Raises:
        InvalidInputError: A resumed run would go on with other classes or images.
    """
    now = data.describe()
    try:
        before = read_json(out / DATA) if resumed else None
    except FileNotFoundError:
        before = None  # Of a version that wrote none.
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read what the run in {out} was trained on, {out / DATA}: {error}") from error
    if isinstance(before, dict) and before != now:
        raise InvalidInputError(
            f"expected the images that the run in {out} was trained on, got others ({_changes(before, now)}): it would go on with "
            "other labels or another order; put them back as they were, or start a new run with another --out"
        )
    if first and before is None:
        write_text(out / DATA, json_text(now, indent=2) + "\n")


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two descriptions of data, in words."""
    words = []
    old, new = (list(each.get("class_names") or []) for each in (before, now))
    removed, added = ([name for name in one if name not in set(other)] for one, other in ((old, new), (new, old)))
    for name, found in (("removed", removed), ("added", added)):
        if found:
            words.append(f"classes {name}: {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}")
    if old != new and not words:
        words.append("the classes are in another order")
    for key in ("train_images", "validation_images"):
        if before.get(key) != now.get(key):
            words.append(f"{key.replace('_', ' ')}: {before.get(key)} then, {now.get(key)} now")
    return "; ".join(words) or "images have other labels"


def is_complete(out: Path) -> bool:
    """Whether a run has come to its end."""
    try:
        return bool(read_json(out / SUMMARY)["complete"])
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
    write_text(out / SUMMARY, json_text(summary, indent=2) + "\n")


def _stopped_by_time(trainer: lightning.Trainer) -> bool:
    """Whether there is more to do: a limit may also fall on the last batch of an epoch, or of the run."""
    if not any(isinstance(callback, TimeLimit) and callback.stopped for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return False
    if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return True
    out_of_patience = any(callback.stopped_epoch > 0 for callback in trainer.early_stopping_callbacks)
    return trainer.current_epoch < (trainer.max_epochs or 0) and not out_of_patience
