"""Claim a run directory: start a run in an empty folder, resume a run with the same settings, refuse anything else."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.core.distributed import gather, rank
from vitrail.core.errors import FolderTakenError, InvalidInputError, OutputError, failures_as
from vitrail.core.files import discard_partials, output_folder, real_path
from vitrail.core.locking import only_run
from vitrail.datasets.dataset import LabeledFiles, LabeledImages
from vitrail.runs.manifest import RUN_FILE, Manifest
from vitrail.runs.timing import TIMING_FILE

logger = logging.getLogger(__name__)

Options = Mapping[str, Any]


@dataclass(frozen=True)
class RunDirectory:
    """A folder for the results of one run.

    Attributes:
        folder: The folder; created with its parents.
        manifest: The settings of the run.
        overwrite: Whether to start over: earlier results are removed.
        remove_results: Removes the results of these methods.
        subfolders: Subfolders in which a killed run may have left files half-written.
        can_grow: Whether methods may be added to an earlier run, whose results then stay.
    """

    folder: Path
    manifest: Manifest
    overwrite: bool
    remove_results: Callable[[Sequence[str]], None]
    subfolders: Sequence[str] = ()
    can_grow: bool = False

    @contextmanager
    def claimed(self) -> Iterator[Manifest]:
        """Lock and claim the folder in the first process, while the others wait; yield the manifest of all methods in the folder.

        Raises:
            OutputError: The folder holds something else or another run, cannot be written, or is in use by another run.
        """
        if rank():
            gather([None])
            yield self.manifest.to_json_types()
            return
        created = not self.folder.exists()
        try:
            with self._locked() as manifest:
                yield manifest
        except BaseException:
            if created:
                self._remove_if_empty()
            raise

    @contextmanager
    def _locked(self) -> Iterator[Manifest]:
        with only_run(output_folder(self.folder)):
            resumes = not self.overwrite and (self.folder / RUN_FILE).exists()
            manifest = self.claim()
            if resumes:
                logger.info("resuming in %s", self.folder)
            gather([None])  # Other processes must not read the folder before it is claimed.
            yield manifest

    def _remove_if_empty(self) -> None:
        """Remove a folder that holds no result yet."""
        files = {path for path in self.folder.rglob("*") if not path.is_dir()}
        if files <= {self.folder / RUN_FILE, self.folder / TIMING_FILE}:
            with suppress(OSError):
                shutil.rmtree(self.folder)

    def expect_claimable(self) -> None:
        """Refuse a folder that `claim` would refuse, without changing anything in it.

        Raises:
            OutputError: The folder holds something else or another run, or cannot be written.
        """
        folder = self.folder
        # A missing folder is not created: its closest existing parent shows whether it can be.
        existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        output_folder(existing if existing.is_dir() else folder)
        if existing == folder and not self.overwrite:
            self._read_same_run()

    def claim(self) -> Manifest:
        """Claim the folder: an empty one, or one with a run of the same settings, to resume it or to add methods.

        Returns:
            The manifest with all methods that have results in the folder.

        Raises:
            OutputError: The folder holds something else or another run, or cannot be written.
        """
        manifest = self.manifest.to_json_types()
        output_folder(self.folder)
        earlier = self._read_earlier()
        kept = dict(earlier.methods) if earlier else {}
        with failures_as(OutputError, f"cannot write into {self.folder}", "; choose another --out"):
            if self.overwrite:
                kept = self._keep_others(kept, earlier)
                # Results that the manifest does not list do not count: after an interruption here, none is taken for a new one.
                replace(manifest, methods=kept).write(self.folder)
                self.remove_results(list(manifest.methods))
            discard_partials(self.folder, [*kept, *manifest.methods, *self.subfolders])
        merged = replace(manifest, methods={**kept, **manifest.methods})
        merged.write(self.folder)
        return merged

    def _read_earlier(self) -> Manifest | None:
        """Return the manifest of an earlier run; where it is overwritten, of any run that can be read."""
        if not self.overwrite:
            return self._read_same_run()
        try:
            return Manifest.read(self.folder)
        except OutputError:
            return None

    def _keep_others(self, methods: Mapping[str, Options], earlier: Manifest | None) -> dict[str, Options]:
        """Return the methods of an earlier run whose results stay: those of the same settings that are not run again."""
        others = {name: options for name, options in methods.items() if name not in self.manifest.methods}
        if not self.can_grow or earlier is None:
            return {}
        if earlier.settings == self.manifest.to_json_types().settings:
            return others
        for name in sorted(others):
            logger.warning(
                "the results of %s in %s were made with other settings; they stay but are ignored", name, self.folder
            )
        return {}

    def _read_same_run(self) -> Manifest | None:
        """Return the manifest of the folder if its run has the same settings; None if the folder is empty."""
        manifest, earlier = self.manifest.to_json_types(), Manifest.read(self.folder)
        if earlier is None:
            expect_no_other_files(self.folder)
            return None
        differences = earlier.differences(manifest)
        if not self.can_grow and list(earlier.methods) != list(manifest.methods):
            differences.append(f"methods: {', '.join(earlier.methods)} there, {', '.join(manifest.methods)} now")
        if differences:
            raise FolderTakenError(
                f"{self.folder} holds the results of a run with other settings ({'; '.join(differences)}); choose another --out, or add "
                "--overwrite to start over"
            )
        for name in sorted(manifest.methods.keys() - earlier.methods.keys()):
            if any((self.folder / name).rglob("*.npz")):
                raise FolderTakenError(
                    f"{self.folder / name} holds results that {self.folder / RUN_FILE} does not list; choose another --out, or add "
                    "--overwrite"
                )
        return earlier


def expect_no_other_files(folder: Path) -> None:
    """Refuse a folder without a manifest that holds files.

    Raises:
        OutputError: The folder is not empty, or cannot be read.
    """
    with failures_as(OutputError, f"cannot read {folder}", "; choose another --out"):
        occupied = any(not file.name.startswith(".") for file in folder.iterdir())
    if occupied:
        raise FolderTakenError(
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


def expect_none_inside(images: LabeledImages, out: Path) -> None:
    """Refuse listed files below the output folder, where results may replace them.

    Raises:
        InvalidInputError: One of the files lies there.
    """
    if isinstance(images, LabeledFiles):
        folder = os.path.join(os.path.abspath(out), "")  # noqa: PTH100, PTH118 (far faster for a million files)
        for path in images.paths:
            if os.path.abspath(path).startswith(folder):  # noqa: PTH100
                raise InvalidInputError(
                    f"expected images outside of the results, got {path} inside {out}; choose another --out"
                )
