"""Score images in one pass: read every batch once, resume from its shards, and share the batches among processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitrail.adapters import Classifier
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages
from vitrail.evaluation.batches import index_by_name
from vitrail.evaluation.scoring.cost import count_passes_of_first
from vitrail.evaluation.scoring.measuring import BatchMeasurer
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.shards import ScoreShard, expect_one_grid
from vitrail.explainers import Explainer, check_method_names
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.shards import ShardStore


def score(
    classifier: Classifier,
    images: LabeledImages,
    explainers: Sequence[Explainer],
    plan: Plan,
    target: int | str | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    folder: Path | None = None,
    passes: Sequence[float] | None = None,
    key: str = "",
) -> Scores:
    """Explain every image by every method, and measure all explanations by all metrics.

    Batches are a fixed partition of the images. Each is measured as a whole, with the same numbers in any process and in a resumed run.
    Inside `vitrail.core.distributed.process_group`, the processes share the batches and all return the same scores.

    Args:
        images: Images with the model's preprocessing, and with ground truth if a metric needs it.
        target: Class to explain; None for the predicted one, "label" for the label of every image.
        folder: Folder for the results of every batch, shared by all processes; batches with results there are not measured again.
        passes: Cost of each method, if `count_passes_of_first` was called before.
        key: Identifies the run; batches in the folder with another key are measured again.

    Raises:
        InvalidInputError: A method twice, missing labels or ground truth, or relevance maps of several grids for a protocol whose points
            are counted in cells.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    names = check_method_names(explainers)
    batches = Batches(images, batch_size, collate_by_size, num_workers)
    measure = _MeasureShard(BatchMeasurer(classifier, explainers, plan, target, index_by_name(images)))
    store = None if folder is None else ShardStore(folder, key, ScoreShard)
    run = Pass(batches, measure, "scoring", store)
    shards = run.run()
    passes = count_passes_of_first(classifier, images, explainers) if passes is None else passes
    return Scores.from_shards(classifier, names, plan, images, shards, passes, run.reader(shards))


@dataclass(frozen=True, eq=False)
class _MeasureShard:
    """Measures the shard of a batch, and refuses curves that cannot be averaged now, not at the end of the run."""

    measurer: BatchMeasurer
    fractions: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, number: int, batches: Iterator[Sequence[Batch]]) -> ScoreShard:
        shard = self.measurer.measure_shard(next(batches), with_effect=number == 0)
        for name, curves in shard.curves.items():
            expect_one_grid(name, [self.fractions.setdefault(name, curves.fractions), curves.fractions])
        return shard
