"""Claim a run directory: start a run in an empty folder, resume a run with the same settings, refuse anything else."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import discard_partials, output_folder, real_path
from vitrail.runs.manifest import RUN_FILE, Manifest
from vitrail.runs.results import remove_results

logger = logging.getLogger(__name__)


def claim(folder: Path, manifest: Manifest, overwrite: bool) -> Manifest:
    """Claim a folder for a run: an empty one, or one with a run of the same settings, to resume it or to add methods.

    Args:
        folder: Folder for the results; created with its parents.
        manifest: The settings of the run.
        overwrite: Whether to start over: earlier results of these methods are removed.

    Returns:
        The manifest with all methods that have results in the folder.

    Raises:
        OutputError: The folder holds something else or another run, or cannot be written.
    """
    manifest = manifest.to_json_types()
    output_folder(folder)
    try:
        earlier = Manifest.read(folder)
    except OutputError:
        if not overwrite:
            raise
        earlier = None
    with report_write_errors(folder):
        if not overwrite:
            _expect_same_run(folder, manifest, earlier)
        kept = dict(earlier.methods) if earlier else {}
        discard_partials(folder, [*kept, *manifest.methods])
        if overwrite:
            if earlier and earlier.settings != manifest.settings:
                for name in sorted(kept.keys() - manifest.methods.keys()):
                    logger.warning(
                        "the results of %s in %s were made with other settings; they stay but are ignored", name, folder
                    )
                kept = {}
            # Results that the manifest does not list are refused: after an interruption here, none is taken for a new one.
            Manifest(manifest.settings, {name: kept[name] for name in kept if name not in manifest.methods}).write(folder)
            for name in manifest.methods:
                remove_results(folder / name)
    merged = Manifest(manifest.settings, {**kept, **manifest.methods})
    merged.write(folder)
    return merged


def expect_no_other_files(folder: Path) -> None:
    """Refuse a folder without a manifest that holds files.

    Raises:
        OutputError: The folder is not empty, or cannot be read.
    """
    try:
        occupied = any(not file.name.startswith(".") for file in folder.iterdir())
    except OSError as error:
        raise OutputError(f"cannot read {folder}: {error.strerror or error}; choose another --out") from error
    if occupied:
        raise OutputError(
            f"{folder} is not empty and holds no run to resume (no {RUN_FILE}); choose another --out, or add --overwrite"
        )


def expect_outside(out: Path, data: Path) -> None:
    """Refuse to write results below the folder of the images, where a later run would take pictures for images.

    Raises:
        InvalidInputError: `out` lies inside `data`.
    """
    if real_path(out).is_relative_to(real_path(data)):
        raise InvalidInputError(
            f"expected an output folder outside of the images, got {out} inside {data}, where pictures would be taken for images; choose "
            "another --out"
        )


def expect_apart(data: Path, out: Path, methods: Sequence[str]) -> None:
    """Refuse results inside the folder of images, and images inside the folder of a method's results.

    Raises:
        InvalidInputError: `out` lies inside `data`, or `data` inside or around the results of a method.
    """
    expect_outside(out, data)
    for name in methods:
        if real_path(data).is_relative_to(real_path(out / name)) or real_path(out / name).is_relative_to(real_path(data)):
            raise InvalidInputError(
                f"expected the images outside of the results, got {data} where the results of {name} go, {out / name}; choose another --out"
            )


@contextmanager
def report_write_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into an OutputError that names the folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error


def _expect_same_run(folder: Path, manifest: Manifest, earlier: Manifest | None) -> None:
    if earlier is None:
        expect_no_other_files(folder)
        return
    if differences := earlier.differences(manifest):
        raise OutputError(
            f"{folder} holds the results of a run with other settings ({'; '.join(differences)}); choose another --out, or add --overwrite "
            "to start over"
        )
    for name in sorted(manifest.methods.keys() - earlier.methods.keys()):
        if any((folder / name).rglob("*.npz")):
            raise OutputError(
                f"{folder / name} holds results that {folder / RUN_FILE} does not list; choose another --out, or add --overwrite"
            )
