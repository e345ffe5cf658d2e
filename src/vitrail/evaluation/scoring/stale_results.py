"""Remove the tables and pictures of an earlier scoring run."""

from collections.abc import Collection
from pathlib import Path

from vitrail.core.errors import OutputError, failures_as
from vitrail.metrics import METRICS, PROTOCOLS

PICTURES = "pictures"
RESULTS = (
    *("images.csv", "summary.json", "cost.json", "comparisons.csv", "curves.csv"),
    *("extremes.png", "masks.png", "index.html"),
)
"""Files that a run writes into its folder, besides shards and pictures."""


def remove_stale_results(folder: Path, written: Collection[Path]) -> None:
    """Remove the tables and pictures of an earlier run that this run has not written.

    Raises:
        OutputError: A file cannot be removed.
    """
    with failures_as(OutputError, f"cannot write into {folder}", "; choose another --out"):
        pictures = [file for file in (folder / PICTURES).glob("*.png") if _is_report_picture(file.stem)]
        for file in [*(folder / name for name in RESULTS), *pictures]:
            if file not in written:
                file.unlink(missing_ok=True)


def _is_report_picture(stem: str) -> bool:
    return stem in METRICS or any(stem == name or stem.startswith(f"curves-{name}") for name in PROTOCOLS)
