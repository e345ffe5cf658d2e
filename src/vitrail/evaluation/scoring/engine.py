"""Score images in one pass: read every batch once, resume from its shards, and share the batches among processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from vitrail.adapters import Classifier
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import output_folder
from vitrail.core.progress import progress
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.sampler import fixed_generator, read_on_cpu
from vitrail.datasets.workers import FEWER_WORKERS_HINT, explain_killed_workers
from vitrail.evaluation.batches import index_by_name
from vitrail.evaluation.scoring.cost import count_passes_of_first
from vitrail.evaluation.scoring.measuring import BatchMeasurer
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.shards import FOLDER, Shard, expect_one_grid, shard_file
from vitrail.explainers import Explainer, check_method_names
from vitrail.runs.results import expect_readable


@explain_killed_workers(FEWER_WORKERS_HINT)
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
        classifier: The model.
        images: Images with the model's preprocessing, and with ground truth if a metric needs it.
        explainers: Methods tied to the model.
        plan: What to measure.
        target: Class to explain; None for the predicted one, "label" for the label of every image.
        batch_size: Images per batch.
        num_workers: Processes that read images.
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
    if batch_size < 1 or num_workers < 0:
        raise InvalidInputError(
            f"expected a batch_size of at least 1 and num_workers of at least 0, got {batch_size} and {num_workers}"
        )
    measurer = BatchMeasurer(classifier, explainers, plan, target, index_by_name(images))
    store = None if folder is None else ShardStore(folder, key)
    shards = _ScoringPass(images, measurer, batch_size, num_workers, store).run()
    unreadable = [file for shard in shards for file in shard.unreadable]
    expect_readable(sum(len(shard.indices) for shard in shards), len(images), unreadable)
    passes = count_passes_of_first(classifier, images, explainers) if passes is None else passes
    read_curves = _keep(shards) if store is None else store.reader(len(shards))
    return Scores.from_shards(classifier, names, plan, images, shards, passes, read_curves)


@dataclass(frozen=True)
class ShardStore:
    """The shards of a run in a folder that all processes share.

    Attributes:
        folder: The run directory.
        key: Identifies the run.
    """

    folder: Path
    key: str

    def load_finished(self, num_shards: int) -> dict[int, Shard]:
        """Load the shards that are there, without their curves, by number."""
        output_folder(self.folder / FOLDER)
        shards = ((number, self._load(number, with_curves=False)) for number in range(num_shards))
        return {number: shard for number, shard in shards if shard is not None}

    def save(self, number: int, shard: Shard) -> None:
        """Write a shard."""
        shard.save(shard_file(self.folder, number), self.key)

    def read(self, number: int, with_curves: bool = True) -> Shard:
        """Read a shard that this or another process has written.

        Raises:
            OutputError: It is not there.
        """
        shard = self._load(number, with_curves)
        if shard is None:
            raise OutputError(
                f"expected {shard_file(self.folder, number)}, written by another process; give all processes an --out that they share"
            )
        return shard

    def reader(self, num_shards: int) -> Callable[[], Iterator[Shard]]:
        """Return a function that reads all shards with their curves, one after the other."""
        return lambda: (self.read(number) for number in range(num_shards))

    def _load(self, number: int, with_curves: bool) -> Shard | None:
        return Shard.load(shard_file(self.folder, number), with_curves, self.key)


@dataclass(frozen=True, eq=False)
class _ScoringPass:
    """One pass over the images; without a store, shards stay in memory."""

    images: LabeledImages
    measurer: BatchMeasurer
    batch_size: int
    num_workers: int
    store: ShardStore | None

    def run(self) -> list[Shard]:
        """Measure the batches that have no shard yet; return the shards of all processes in order."""
        num_shards = -(-len(self.images) // self.batch_size)
        shards = {} if self.store is None else self.store.load_finished(num_shards)
        # Before anything is written: all processes must see the same shards as finished.
        gather([None])
        pending = [number for number in range(num_shards) if number not in shards][rank() :: world_size()]
        fractions = dict[str, Any]()
        for number, shard in zip(pending, self._measure(pending), strict=True):
            for name, curves in shard.curves.items():  # Fail now, not at the end of the run.
                expect_one_grid(name, [fractions.setdefault(name, curves.fractions), curves.fractions])
            if self.store is None:
                shards[number] = shard
            else:
                self.store.save(number, shard)
                shards[number] = shard.without_curves()
        if self.store is None:
            return [shard for _, shard in sorted(gather(list(shards.items())), key=lambda entry: entry[0])]
        gather([None])  # Wait until the last process has written its last shard.
        return [shards.get(number) or self.store.read(number, with_curves=False) for number in range(num_shards)]

    def _measure(self, numbers: Sequence[int]) -> Iterator[Shard]:
        size = self.batch_size
        batches = [list(range(number * size, min((number + 1) * size, len(self.images)))) for number in numbers]
        loader: DataLoader[Any] = DataLoader(
            self.images,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate_by_size,
            generator=fixed_generator(),
        )
        batches_by_size = read_on_cpu(loader)
        shown = progress(batches_by_size, len(batches), "scoring") if rank() == 0 else batches_by_size
        for number, same_size_batches in zip(numbers, shown, strict=True):
            yield self.measurer.measure_shard(same_size_batches, with_effect=number == 0)


def _keep(shards: Sequence[Shard]) -> Callable[[], Iterator[Shard]]:
    return lambda: iter(shards)
