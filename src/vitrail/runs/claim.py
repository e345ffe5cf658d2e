"""Whether a run may go on in a folder of results."""

import logging
from pathlib import Path

from vitrail.core.errors import OutputError
from vitrail.core.files import discard_partials, output_folder
from vitrail.core.json_io import json_text, parse_json
from vitrail.runs.manifest import RUN_FILE, Run
from vitrail.runs.results import remove_results

logger = logging.getLogger(__name__)


def claim(folder: Path, run: Run, overwrite: bool) -> Run:
    """Make a folder the place of a run: a new one, or one of the same settings to go on with or to add methods to.

    Args:
        folder: For the results; created with its parents.
        run: What is going to be done.
        overwrite: Whether to start afresh: earlier results of these methods are removed.

    Returns:
        The run with all methods that have results in the folder.

    Raises:
        OutputError: The folder holds something else, or another run, or cannot be written.
    """
    run = Run(*parse_json(json_text([run.settings, run.methods])))  # As it will be read again.
    output_folder(folder)
    try:
        earlier = Run.read(folder)
    except OutputError:
        if not overwrite:
            raise
        earlier = None
    try:
        if not overwrite:
            _expect_own(folder, run, earlier)
        others = dict(earlier.methods) if earlier else {}
        discard_partials(folder, [*others, *run.methods])
        if overwrite:
            if earlier and earlier.settings != run.settings:
                for name in sorted(others.keys() - run.methods.keys()):
                    logger.warning("the results of %s in %s are left, but are no part of this run", name, folder)
                others = {}
            # Results without a description are refused: stopped here, an old result cannot be taken for a new one.
            Run(run.settings, {name: options for name, options in others.items() if name not in run.methods}).write(folder)
            for name in run.methods:
                remove_results(folder / name)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error
    whole = Run(run.settings, {**others, **run.methods})
    whole.write(folder)
    return whole


def _expect_own(folder: Path, run: Run, earlier: Run | None) -> None:
    if earlier is None:
        if any(not file.name.startswith(".") for file in folder.iterdir()):
            raise OutputError(
                f"{folder} exists, is not empty and holds no run to go on with ({RUN_FILE}); choose another --out, or add --overwrite"
            )
        return
    differences = earlier.differences(run)
    if differences:
        raise OutputError(
            f"{folder} holds the results of another run ({'; '.join(differences)}); choose another --out, or add --overwrite to start "
            "afresh"
        )
    for name in sorted(run.methods.keys() - earlier.methods.keys()):
        if any((folder / name).rglob("*.npz")):
            raise OutputError(
                f"{folder / name} holds results that {folder / RUN_FILE} does not describe; choose another --out, or add --overwrite to "
                "replace them"
            )
