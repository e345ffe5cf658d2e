"""Whether scoring may go on in a folder."""

import json
import shutil
from pathlib import Path

from vitrail.errors import OutputError
from vitrail.evaluation.scoring.parts import FOLDER
from vitrail.files import discard_partials, output_folder
from vitrail.run import RUN_FILE, Run


def claim(folder: Path, run: Run, overwrite: bool) -> bool:
    """Make a folder the place of a run: a new one, or one of the same settings to go on with.

    Args:
        folder: For the results; created with its parents.
        run: What is going to be done.
        overwrite: Whether to start afresh: batches that were measured before are removed.

    Returns:
        Whether there was something to go on with.

    Raises:
        OutputError: The folder holds something else, or another run, or cannot be written.
    """
    run = Run(*json.loads(json.dumps([run.settings, run.methods])))  # As it will be read again.
    output_folder(folder)
    try:
        if overwrite:
            # First the batches: a description of them that is gone is refused, and one that is wrong is believed.
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
            (folder / RUN_FILE).unlink(missing_ok=True)
            earlier = None
        else:
            earlier = Run.read(folder)
            _expect_own(folder, run, earlier)
        discard_partials(folder, [FOLDER])
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error
    if earlier is None:
        run.write(folder)
    return earlier is not None


def _expect_own(folder: Path, run: Run, earlier: Run | None) -> None:
    if earlier is None:
        if any(not file.name.startswith(".") for file in folder.iterdir()):
            raise OutputError(
                f"{folder} exists, is not empty and holds no run to go on with ({RUN_FILE}); choose another --out, or add --overwrite"
            )
        return
    differences = earlier.differences(run)
    if list(earlier.methods) != list(run.methods):
        differences.append(f"methods: {', '.join(earlier.methods)} there, {', '.join(run.methods)} now")
    if differences:
        raise OutputError(
            f"{folder} holds the scores of another run ({'; '.join(differences)}); choose another --out, or add --overwrite to start "
            "afresh"
        )
