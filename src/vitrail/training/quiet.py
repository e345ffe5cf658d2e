"""Silence messages of Lightning that do not help: advertisements, missing hardware, and the folder not being empty."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")

MESSAGES = (
    "exists and is not empty",
    "does not have many workers",
    "LeafSpec",
    "logging interval",
    "GPU available",
    "dataloader is not resumable",  # Ours resumes by the number of finished batches.
    "sync_dist=True",  # torchmetrics has reduced the numbers already.
    "checkpoint directory",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence them inside the block; loggers and warnings are as before after it."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        for message in MESSAGES:
            warnings.filterwarnings("ignore", message=f".*{message}.*", module="lightning.*")
        try:
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
