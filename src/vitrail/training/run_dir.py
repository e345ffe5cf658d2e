"""Run folder: claim it, compare recipe and images before a resume, write the summary."""

from pathlib import Path
from typing import Any

import lightning

from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import discard_partials, is_left_over, write_text
from vitrail.core.json_io import json_text, read_json
from vitrail.core.locking import is_lock
from vitrail.training.callbacks import TimeLimit
from vitrail.training.checkpoints import FOLDER
from vitrail.training.config import find_differences, read_config
from vitrail.training.data import TrainingData
from vitrail.training.learner import Learner
from vitrail.training.loggers import METRICS
from vitrail.training.sections import Recipe

CONFIG, DATA, SUMMARY = "config.yaml", "data.json", "summary.json"

NAMES = "names"
"""What descriptions of data did not tell at first."""

CHANGEABLE = (
    "data.root",
    "data.num_workers",
    "data.cache",
    "engine.accelerator",
    "engine.devices",
    "engine.max_minutes",
    "engine.checkpoint_every",
    "engine.loggers",
    "engine.find_unused_parameters",
    "pictures.every",
    "pictures.count",
)
"""Keys that may differ in a resumed run: they change its results at most by rounding, on another kind of device."""


def claim_run(out: Path, config: Recipe, resume: bool) -> None:
    """Check that a folder is empty or holds the run to resume, and remove half-written files.

    Raises:
        OutputError: The folder holds something else.
        InvalidInputError: The run in the folder follows another recipe.
    """
    if all(is_lock(path) or is_left_over(path) for path in out.iterdir()):
        discard_partials(out)
        return
    if not resume:
        raise OutputError(f"{out} is not empty; choose another --out, or continue the run in it with --resume")
    if not (out / CONFIG).exists():
        raise OutputError(f"expected a run to resume in {out}, found no {CONFIG}; choose another --out")
    changed = find_differences(config, read_config(out / CONFIG), CHANGEABLE)
    if changed:
        raise InvalidInputError(
            f"expected the recipe of the run in {out}, got a different {', '.join(changed)}; resume without --config, or choose "
            "another --out"
        )
    discard_partials(out, [FOLDER])


def record_data(out: Path, data: TrainingData, resumed: bool, first: bool) -> None:
    """Record the classes and images of a new run, or check that a resumed run finds the same.

    Args:
        out: Run folder.
        data: Current images.
        resumed: Whether the run resumes from a checkpoint.
        first: Whether this process writes the files.

    Raises:
        InvalidInputError: A resumed run finds other classes or images.
    """
    now = data.describe()
    try:
        before = read_json(out / DATA) if resumed else None
    except FileNotFoundError:
        before = None  # Early versions wrote none.
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read {out / DATA}, which lists the images of the run in {out}: {error}") from error
    if isinstance(before, dict) and before != {key: value for key, value in now.items() if key in before or key != NAMES}:
        raise InvalidInputError(
            f"expected the images that the run in {out} started with, got different ones ({_describe_changes(before, now)}); restore "
            "them, or start a new run with another --out"
        )
    if first and before is None:
        write_text(out / DATA, json_text(now, indent=2) + "\n")


def _describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    changes = []
    old, new = (list(description.get("class_names") or []) for description in (before, now))
    removed, added = [name for name in old if name not in set(new)], [name for name in new if name not in set(old)]
    for kind, names in (("removed", removed), ("added", added)):
        if names:
            changes.append(f"classes {kind}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}")
    if old != new and not changes:
        changes.append("the classes are in another order")
    for key in ("train_images", "validation_images"):
        if before.get(key) != now.get(key):
            changes.append(f"{key.replace('_', ' ')}: {before.get(key)} then, {now.get(key)} now")
    if not changes and before.get("labels") != now.get("labels"):
        changes.append("images have other labels")
    return "; ".join(changes) or "images have other names, or were moved to another class"


def is_complete(out: Path) -> bool:
    """Return whether a run has finished, by its summary."""
    try:
        return bool(read_json(out / SUMMARY)["complete"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_summary(
    out: Path, trainer: lightning.Trainer, learner: Learner, data: TrainingData, best: dict[str, Any], seconds: float
) -> None:
    """Write `summary.json`: the figures of a run, and whether it is complete."""
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
    """Return whether the time limit left work to do: it may also fall on the last batch of the run."""
    if not any(isinstance(callback, TimeLimit) and callback.stopped for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return False
    if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return True
    out_of_patience = any(callback.stopped_epoch > 0 for callback in trainer.early_stopping_callbacks)
    return trainer.current_epoch < (trainer.max_epochs or 0) and not out_of_patience
