"""What `vitrail score` wrote to a folder, read again."""

import csv
from pathlib import Path

import numpy as np

RESULTS = ("summary.json", "images.csv", "comparisons.csv", "curves.csv")
"""What has the same bytes whenever the same work is done."""


def rows_of(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def list_components(folder: Path) -> dict[str, np.ndarray]:
    """What the batches of a run hold, put together along the images; points of curves as they are."""
    found = dict[str, list[np.ndarray]]()
    for path in sorted((folder / "shards").glob("*.npz")):
        with np.load(path) as arrays:
            for name in arrays.files:
                found.setdefault(name, []).append(arrays[name])
    axes = {"indices": 0, "targets": 0, "values": 1}
    axes |= {name: 1 for name in found if name.endswith((".scores", ".ends"))}
    return {name: np.concatenate(some, axes[name]) if name in axes else some[0] for name, some in found.items()}


def results_of(folder: Path) -> dict[str, bytes]:
    """The files that the same work always writes alike."""
    return {name: (folder / name).read_bytes() for name in RESULTS if (folder / name).is_file()}
