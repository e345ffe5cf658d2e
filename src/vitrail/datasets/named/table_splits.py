"""The splits of a saved table: Parquet files, or a folder of `save_to_disk`."""

from pathlib import Path

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.named.annotations import read_json

SPLITS_FILE = "dataset_dict.json"
"""File of `save_to_disk` for a table with splits."""

STATE_FILE = "state.json"
"""File of `save_to_disk` for a single table."""

ONLY_SPLIT = "all"
"""Name of the split of a table without splits."""


def is_table(root: Path) -> bool:
    """Return whether a folder holds a table: written by `save_to_disk`, or Parquet files in it or in its folder data."""
    saved = (root / SPLITS_FILE, root / STATE_FILE)
    return any(path.is_file() for path in saved) or any(
        True for folder in (root, root / "data") for _ in folder.glob("*.parquet")
    )


def default_split(root: Path) -> str:
    """Return the split that is read if none is named: test or a validation split, or the only one.

    Raises:
        InvalidInputError: There are several others.
    """
    if is_single_table(root):
        return ONLY_SPLIT
    if (root / SPLITS_FILE).is_file():
        splits = read_json(root / SPLITS_FILE).get("splits", [])
    else:
        try:
            import datasets  # noqa: PLC0415 (an extra)

            splits = datasets.get_dataset_split_names(str(root.resolve()))
        except Exception:  # noqa: BLE001 (of many types; reading the split reports it)
            return "test"
    if len(splits) == 1:
        return str(splits[0])
    for split in ("test", "val", "validation"):
        if split in splits:
            return split
    raise InvalidInputError(f"expected one of the splits {', '.join(splits)} of {root}, got none; name it by --split")


def is_single_table(root: Path) -> bool:
    """Return whether `save_to_disk` wrote a single table there, without splits."""
    return (root / STATE_FILE).is_file() and not (root / SPLITS_FILE).exists()
