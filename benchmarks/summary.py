"""Time and memory of the summary of very many scores: means, intervals, ranks and all paired tests.

    python benchmarks/summary.py 1000000

Compares means, standard errors and p-values with plain numpy on a sample of the columns.
"""

import argparse
import resource
import time

import numpy as np

from vitrail.metrics.statistics import bootstrap_interval, compare_pairs, find_unproven_methods, mean_ranks, ranks

METHODS, COLUMNS = 8, 20


def make_scores(num_images: int) -> dict[str, np.ndarray]:
    """Make up scores of several methods, each a little better than the one before, with undefined numbers."""
    generator = np.random.default_rng(0)
    scores = {}
    common = generator.normal(size=(num_images, COLUMNS))
    for number in range(METHODS):
        values = generator.normal(size=(num_images, COLUMNS))
        values += common
        values += 0.01 * number
        values[generator.random(num_images) < 0.01, 0] = np.nan
        scores["random" if number == 0 else f"method {number}"] = values
    return scores


def peak_gigabytes() -> float:
    """Return the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    """Make up scores, and time their summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=1_000_000)
    num_images = parser.parse_args().images
    start = time.perf_counter()
    scores = make_scores(num_images)
    names = [f"column {number}" for number in range(COLUMNS)]
    size = sum(values.nbytes for values in scores.values()) / 1024**3
    print(f"{num_images:,} images x {METHODS} methods x {COLUMNS} columns: {size:.2f} GiB")
    start = time.perf_counter()
    intervals = {name: bootstrap_interval(values) for name, values in scores.items()}
    means = np.stack([interval.mean for interval in intervals.values()])
    order = mean_ranks(ranks(means, ["higher"] * COLUMNS))
    print(f"means, intervals and ranks: {time.perf_counter() - start:.1f} s, peak {peak_gigabytes():.2f} GiB")
    start = time.perf_counter()
    comparisons = compare_pairs(scores, names)
    unproven = find_unproven_methods(scores, names, ["higher"] * COLUMNS)
    print(
        f"{len(comparisons)} paired tests and {(METHODS - 1) * COLUMNS} against random: {time.perf_counter() - start:.1f} s, "
        f"peak {peak_gigabytes():.2f} GiB; ranks {order.round(2).tolist()}; {len(unproven)} not better than random"
    )
    largest = 0.0
    for entry in comparisons[:: max(len(comparisons) // 10, 1)]:
        column = names.index(entry.measure)
        difference = scores[entry.first][:, column] - scores[entry.second][:, column]
        difference = difference[~np.isnan(difference)]
        error = difference.std() / len(difference) ** 0.5
        expected = [difference.mean(), difference.mean() - 1.959964 * error, difference.mean() + 1.959964 * error]
        largest = max(largest, float(np.abs(np.array(expected) - [entry.difference, entry.low, entry.high]).max() / error))
    print(
        f"largest difference from numpy on a sample, in standard errors: {largest:.1e}; largest bound on a p-value's error: ",
        end="",
    )
    print(f"{max(entry.p_error for entry in comparisons):.1e}")


if __name__ == "__main__":
    main()
