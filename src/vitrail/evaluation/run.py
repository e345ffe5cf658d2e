"""Run an evaluation into a run directory: claim it, resume from its shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitrail.adapters import Classifier
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.source import DataSource
from vitrail.runs.claim import RunDirectory
from vitrail.runs.manifest import Manifest, describe_environment, describe_model, fingerprint_images
from vitrail.runs.shards import FOLDER, remove_shards


@contextmanager
def claimed_for(
    command: str,
    folder: Path,
    classifier: Classifier,
    source: DataSource,
    images: LabeledImages,
    batch_size: int,
    overwrite: bool,
) -> Iterator[str]:
    """Claim a folder for a command; yield the key of the run.

    Args:
        command: Name of the command; another command's run in the folder is refused.
        folder: The run directory, shared by all processes.
        batch_size: Images per batch; rounding depends on it.

    Raises:
        OutputError: The folder holds something else or another run, cannot be written, or is in use by another run.
    """
    settings = {
        "command": command,
        **describe_model(classifier, None),
        **source.describe(),
        "batch_size": batch_size,
        "num_images": len(images),
        "images": fingerprint_images(images),
    }
    manifest = Manifest(settings, {}, describe_environment(classifier))
    directory = RunDirectory(folder, manifest, overwrite, lambda methods: remove_shards(folder), [FOLDER])
    with directory.claimed():
        yield manifest.key
