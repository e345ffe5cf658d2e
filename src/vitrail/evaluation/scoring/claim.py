"""Whether scoring may go on in a folder."""

from collections.abc import Collection
from pathlib import Path

from vitrail.core.errors import OutputError
from vitrail.core.files import discard_partials, output_folder
from vitrail.core.json_io import json_text, parse_json
from vitrail.evaluation.scoring.shards import FOLDER
from vitrail.metrics import METRICS, PROTOCOLS
from vitrail.runs.manifest import RUN_FILE, Run

PICTURES = "pictures"
RESULTS = (
    *("images.csv", "summary.json", "cost.json", "comparisons.csv", "curves.csv"),
    *("extremes.png", "masks.png", "index.html"),
)
"""What a run leaves in its folder, besides its batches and pictures."""


def expect_place(folder: Path, run: Run, overwrite: bool) -> None:
    """Refuse a folder that `claim` would refuse, and change nothing in it.

    Raises:
        OutputError: The folder holds something else, or another run, or cannot be written.
    """
    # A folder that is not there is not made: its parent tells whether it can be.
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    output_folder(existing if existing.is_dir() else folder)
    if existing == folder and not overwrite:
        _earlier(folder, run)


def claim(folder: Path, run: Run, overwrite: bool) -> bool:
    """Make a folder the place of a run: a new one, or one of the same settings to go on with.

    Args:
        folder: For the results; created with its parents.
        run: What is going to be done.
        overwrite: Whether to start afresh: batches that were measured before are removed. Tables and pictures stay until new ones
            take their place.

    Returns:
        Whether there was something to go on with.

    Raises:
        OutputError: The folder holds something else, or another run, or cannot be written.
    """
    output_folder(folder)
    earlier = None if overwrite else _earlier(folder, run)
    try:
        if overwrite:
            # First the description: batches without one are not believed.
            (folder / RUN_FILE).unlink(missing_ok=True)
            for part in (folder / FOLDER).glob("[0-9]" * 6 + ".npz"):
                part.unlink()
        discard_partials(folder, [FOLDER, PICTURES])
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error
    if earlier is None:
        run.write(folder)
    return earlier is not None


def remove_other_results(folder: Path, written: Collection[Path]) -> None:
    """Remove the tables and pictures of an earlier run that this one has not written anew.

    Raises:
        OutputError: One cannot be removed.
    """
    try:
        pictures = [file for file in (folder / PICTURES).glob("*.png") if _is_ours(file.stem)]
        for file in [*(folder / name for name in RESULTS), *pictures]:
            if file not in written:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error


def _is_ours(stem: str) -> bool:
    """Whether a picture is one that reports have."""
    return stem in METRICS or any(stem == name or stem.startswith(f"curves-{name}") for name in PROTOCOLS)


def _earlier(folder: Path, run: Run) -> Run | None:
    """The run that a folder holds, if it is the same one; None where it holds nothing."""
    run, earlier = Run(*parse_json(json_text([run.settings, run.methods]))), Run.read(folder)
    if earlier is None:
        try:
            occupied = any(not file.name.startswith(".") for file in folder.iterdir())
        except OSError as error:
            raise OutputError(f"cannot read {folder}: {error.strerror or error}; choose another --out") from error
        if occupied:
            raise OutputError(
                f"{folder} exists, is not empty and holds no run to go on with ({RUN_FILE}); choose another --out, or add --overwrite"
            )
        return None
    differences = earlier.differences(run)
    measured = [list(each.settings.get("metrics", {})) for each in (earlier, run)]
    if measured[0] != measured[1]:
        # Not every option of what only one of them measures.
        differences = [words for words in differences if not words.startswith("metrics.")]
        differences.append(f"protocols and metrics: {', '.join(measured[0])} there, {', '.join(measured[1])} now")
    if list(earlier.methods) != list(run.methods):
        differences.append(f"methods: {', '.join(earlier.methods)} there, {', '.join(run.methods)} now")
    if differences:
        raise OutputError(
            f"{folder} holds the scores of another run ({'; '.join(differences)}); choose another --out, or add --overwrite to start "
            "afresh"
        )
    return earlier
