"""Say how long a scoring run will take before it starts, where that is more than a minute."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vitrail.core.distributed import world_size
from vitrail.core.progress import format_seconds
from vitrail.datasets.dataset import LabeledImages
from vitrail.evaluation.batches import FEW_IMAGES, read_first
from vitrail.evaluation.scoring.measuring import BatchMeasurer
from vitrail.runs.shards import FOLDER

logger = logging.getLogger(__name__)

LONG_RUN = 60.0
"""Seconds; the expected time of longer runs is reported."""


def tell_expected_time(
    measurer: BatchMeasurer,
    images: LabeledImages,
    batch_size: int,
    folder: Path,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Measure one image, and log the expected time of all that are left.

    Args:
        folder: The run directory, where batches of an interrupted run may lie.
    """
    num_left = len(images) - batch_size * len(list((folder / FOLDER).glob("*.npz")))
    # Of few images, one would take a large part of the run.
    if num_left < FEW_IMAGES or not (batches := read_first(images)):
        return
    start = clock()
    measurer.measure_shard(batches, with_effect=False)
    # One image alone takes longer than its share of a batch: an upper bound.
    seconds = (clock() - start) * num_left / world_size()
    if seconds > LONG_RUN:
        logger.info(
            "scoring %d images by %s will take up to about %s; --limit takes fewer images",
            num_left,
            ", ".join(explainer.name for explainer in measurer.explainers),
            format_seconds(seconds),
        )
