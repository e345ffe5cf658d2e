"""Time and memory of the summary of very many scores, as `vitrail score` makes it from its shards.

    python benchmarks/summary.py 1000000

Two measurements, each in a process of its own: means, intervals, ranks and all paired tests of numbers in memory, compared with
plain numpy on a sample; and all of a report (images.csv, comparisons, pictures, page) from shards of 16 images, as a resumed run makes it.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import vitrail
from measuring import in_own_process, peak_memory
from vitrail.datasets.dataset import LabeledFiles
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.report import write_results
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.shards import ScoreShard
from vitrail.metrics.statistics import bootstrap_interval, compare_pairs, find_unproven_methods, mean_ranks, ranks
from vitrail.runs.shards import ShardStore

METHODS, COLUMNS, BATCH = 8, 20, 16
NAMES = ["random", *(f"method {number}" for number in range(1, METHODS))]
METRICS = ("masks", "localization", "complexity", "sparseness")
"""Metrics with 20 columns, together with completeness."""


def make_scores(num_images: int, seed: int = 0) -> np.ndarray:
    """Make up scores (methods, images, columns), each method a little better than the one before, with undefined numbers."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(num_images, COLUMNS))
    scores = np.empty((METHODS, num_images, COLUMNS))
    for number in range(METHODS):
        scores[number] = generator.normal(size=(num_images, COLUMNS))
        scores[number] += common + 0.01 * number
        scores[number, generator.random(num_images) < 0.01, 0] = np.nan
    return scores


def gigabytes() -> float:
    """Return the largest memory of this process so far."""
    return peak_memory("cpu") / 1024**3


def summarize(num_images: int) -> dict[str, float]:
    """Time the statistics, and compare them with numpy on a sample."""
    scores = dict(zip(NAMES, make_scores(num_images), strict=True))
    names = [f"column {number}" for number in range(COLUMNS)]
    before = gigabytes()
    start = time.perf_counter()
    intervals = {name: bootstrap_interval(values) for name, values in scores.items()}
    means = np.stack([interval.mean for interval in intervals.values()])
    mean_ranks(ranks(means, ["higher"] * COLUMNS))
    figures = {"means, intervals and ranks [s]": time.perf_counter() - start}
    start = time.perf_counter()
    comparisons = compare_pairs(scores, names)
    find_unproven_methods(scores, names, ["higher"] * COLUMNS)
    figures |= {"paired tests [s]": time.perf_counter() - start, "number of paired tests": len(comparisons)}
    largest = 0.0
    for entry in comparisons[:: max(len(comparisons) // 10, 1)]:
        column = names.index(entry.measure)
        difference = scores[entry.first][:, column] - scores[entry.second][:, column]
        difference = difference[~np.isnan(difference)]
        error = difference.std() / len(difference) ** 0.5
        expected = [difference.mean(), difference.mean() - 1.959964 * error, difference.mean() + 1.959964 * error]
        largest = max(largest, float(np.abs(np.array(expected) - [entry.difference, entry.low, entry.high]).max() / error))
    return figures | {
        "largest difference from numpy [standard errors]": largest,
        "largest bound on a p-value's error": max(entry.p_error for entry in comparisons),
        "peak before the statistics [GiB]": before,
        "peak [GiB]": gigabytes(),
    }


def make_shards(num_images: int) -> Iterator[ScoreShard]:
    """Make up shards of `BATCH` images."""
    for first in range(0, num_images, 1000 * BATCH):
        scores = make_scores(min(1000 * BATCH, num_images - first), first)
        for start in range(0, scores.shape[1], BATCH):
            values = scores[:, start : start + BATCH]
            indices = np.arange(first + start, first + start + values.shape[1])
            yield ScoreShard(indices, indices % 10, values, np.ones(METHODS))


def write_shards(num_images: int, folder: str) -> dict[str, float]:
    """Time how long made-up shards take to write."""
    start = time.perf_counter()
    (Path(folder) / "shards").mkdir()
    store = ShardStore(Path(folder), "key", ScoreShard)
    count = 0
    for number, shard in enumerate(make_shards(num_images)):
        store.save(number, shard)
        count = number + 1
    return {"shards": count, "writing shards [s]": time.perf_counter() - start}


def report(num_images: int, folder: str) -> dict[str, float]:
    """Time a report from shards."""
    plan, model = Plan.create((), METRICS), vitrail.load("vitrail:hit-cifar10", device="cpu")
    assert len(plan.columns) == COLUMNS
    paths = [Path(f"images/{number // 1000}/{number}.jpg") for number in range(num_images)]
    images = LabeledFiles(paths, [0] * num_images, (), model.preprocessing)
    figures = {"peak before the report [GiB]": gigabytes()}
    store = ShardStore(Path(folder), "key", ScoreShard)
    num_shards = -(-num_images // BATCH)
    start = time.perf_counter()
    shards = list(store.load_finished(num_shards).values())
    figures |= {"reading shards [s]": time.perf_counter() - start, "peak after reading [GiB]": gigabytes()}
    scores = Scores.from_shards(model, NAMES, plan, images, shards, [1.0] * METHODS, lambda: store.read_all(num_shards))
    del shards
    figures["peak after filling the table [GiB]"] = gigabytes()
    start = time.perf_counter()
    write_results(Path(folder), scores.table)
    figures |= {"writing the report [s]": time.perf_counter() - start, "peak [GiB]": gigabytes()}
    return figures | {"images.csv [GB]": (Path(folder) / "images.csv").stat().st_size / 1e9}


def main() -> None:
    """Make up scores, and time their summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=1_000_000)
    num_images = parser.parse_args().images
    size = METHODS * num_images * COLUMNS * 8 / 1024**3
    print(f"{num_images:,} images x {METHODS} methods x {COLUMNS} columns: {size:.2f} GiB")
    with tempfile.TemporaryDirectory() as folder:
        for task, arguments in ((summarize, ()), (write_shards, (folder,)), (report, (folder,))):
            print(task.__name__)
            for name, figure in in_own_process(task, num_images, *arguments).items():
                print(f"    {name}: {figure:.3g}", flush=True)


if __name__ == "__main__":
    main()
