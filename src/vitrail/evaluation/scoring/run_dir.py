"""Claim a run directory for scoring: start, resume a run with the same settings, or refuse."""

from collections.abc import Collection
from pathlib import Path

from vitrail.core.errors import OutputError
from vitrail.core.files import discard_partials, output_folder
from vitrail.evaluation.scoring.shards import FOLDER
from vitrail.metrics import METRICS, PROTOCOLS
from vitrail.runs.manifest import RUN_FILE, Manifest
from vitrail.runs.run_dir import expect_no_other_files, report_write_errors

PICTURES = "pictures"
RESULTS = (
    *("images.csv", "summary.json", "cost.json", "comparisons.csv", "curves.csv"),
    *("extremes.png", "masks.png", "index.html"),
)
"""Files that a run writes into its folder, besides shards and pictures."""


def expect_claimable(folder: Path, manifest: Manifest, overwrite: bool) -> None:
    """Refuse a folder that `claim` would refuse, without changing anything in it.

    Raises:
        OutputError: The folder holds something else or another run, or cannot be written.
    """
    # A missing folder is not created: its closest existing parent shows whether it can be.
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    output_folder(existing if existing.is_dir() else folder)
    if existing == folder and not overwrite:
        _read_same_run(folder, manifest)


def claim(folder: Path, manifest: Manifest, overwrite: bool) -> bool:
    """Claim a folder for a run: an empty one, or one with a run of the same settings, to resume it.

    Args:
        folder: Folder for the results; created with its parents.
        manifest: The settings of the run.
        overwrite: Whether to start over: earlier shards are removed. Tables and pictures stay until new ones replace them.

    Returns:
        Whether there is a run to resume.

    Raises:
        OutputError: The folder holds something else or another run, or cannot be written.
    """
    output_folder(folder)
    earlier = None if overwrite else _read_same_run(folder, manifest)
    with report_write_errors(folder):
        if overwrite:
            # The manifest first: shards without one are ignored.
            (folder / RUN_FILE).unlink(missing_ok=True)
            for shard in (folder / FOLDER).glob("[0-9]" * 6 + ".npz"):
                shard.unlink()
        discard_partials(folder, [FOLDER, PICTURES])
    if earlier is None:
        manifest.write(folder)
    return earlier is not None


def remove_stale_results(folder: Path, written: Collection[Path]) -> None:
    """Remove the tables and pictures of an earlier run that this run has not written.

    Raises:
        OutputError: A file cannot be removed.
    """
    with report_write_errors(folder):
        pictures = [file for file in (folder / PICTURES).glob("*.png") if _is_report_picture(file.stem)]
        for file in [*(folder / name for name in RESULTS), *pictures]:
            if file not in written:
                file.unlink(missing_ok=True)


def _is_report_picture(stem: str) -> bool:
    return stem in METRICS or any(stem == name or stem.startswith(f"curves-{name}") for name in PROTOCOLS)


def _read_same_run(folder: Path, manifest: Manifest) -> Manifest | None:
    """Return the manifest of a folder if its run has the same settings; None if the folder is empty."""
    manifest, earlier = manifest.to_json_types(), Manifest.read(folder)
    if earlier is None:
        expect_no_other_files(folder)
        return None
    differences = earlier.differences(manifest)
    measured = [list(run.settings.get("metrics", {})) for run in (earlier, manifest)]
    if measured[0] != measured[1]:
        # One line instead of one per option of each metric that only one of them measures.
        differences = [line for line in differences if not line.startswith("metrics.")]
        differences.append(f"protocols and metrics: {', '.join(measured[0])} there, {', '.join(measured[1])} now")
    if list(earlier.methods) != list(manifest.methods):
        differences.append(f"methods: {', '.join(earlier.methods)} there, {', '.join(manifest.methods)} now")
    if differences:
        raise OutputError(
            f"{folder} holds the scores of a run with other settings ({'; '.join(differences)}); choose another --out, or add --overwrite "
            "to start over"
        )
    return earlier
