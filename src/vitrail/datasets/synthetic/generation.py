"""Writing synthetic data sets as folders of images with their masks, and reading the masks.

The layout, where CLASS is a class name and NUMBER the index of the sample in its split, with six digits:

    OUT/SPLIT/CLASS/NUMBER.png               image, 8-bit RGB
    OUT/masks/answer/SPLIT/CLASS/NUMBER.png  ground truth, 8-bit gray: 255 for the pixels that decide the class, else 0
    OUT/masks/parts/SPLIT/CLASS/NUMBER.png   further regions, if there are any: bit k belongs to the k-th entry of "parts"
    OUT/task.json                            description of the data set, written last: a folder with this file is complete
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.core.errors import ImageError, InvalidInputError, OutputError, failures_as
from vitrail.core.files import is_left_over, real_path, results_folder, write_text
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.locking import is_lock
from vitrail.core.progress import progress
from vitrail.datasets.image_io import read_image
from vitrail.datasets.mask_files import Mask
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SyntheticDataset
from vitrail.datasets.synthetic.names import describe_synthetic

FORMAT = "vitrail task 1"
DESCRIPTION_FILE = "task.json"
SPLITS = ("train", "val", "test")
MAX_COUNT = 1_000_000
MAX_PARTS = 16
CHUNK_SIZE = 16
GROUND_TRUTH_FOLDER, PARTS_FOLDER = "answer", "parts"
MASKS_HINT = "only images written by `vitrail generate` have masks"

Job = tuple[str, int]
"""Split and index of a sample."""


def write_synthetic(dataset: SyntheticDataset, out: str | Path, counts: Mapping[str, int], num_workers: int = 0) -> None:
    """Draw the first samples of a synthetic data set into a folder, in the layout of this module.

    Args:
        out: A folder that is empty or does not exist yet.
        counts: Number of samples per split: train, val, test. A split without samples gets no folder.
        num_workers: Number of worker processes; 0 draws in this process. The files do not depend on it.

    Raises:
        InvalidInputError: `counts` has unknown splits, no samples, or too few for one sample per class.
        OutputError: `out` is not empty, or cannot be written. A failed run leaves no files.
    """
    out = Path(out)
    _check_counts(dataset, counts, num_workers)
    _expect_empty(out)
    jobs = [(split, index) for split in SPLITS for index in range(counts.get(split, 0))]
    parts = [name for name in dataset.draw(*jobs[0]).masks if name != GROUND_TRUTH]
    if len(parts) > MAX_PARTS:
        raise InvalidInputError(f"expected at most {MAX_PARTS} masks beside the ground truth, got {len(parts)}")
    with results_folder(out) as folder:
        writer = _Writer(dataset, folder, parts)
        writer.make_folders([split for split in SPLITS if counts.get(split, 0)])
        drawing = map(writer, jobs) if num_workers == 0 else _write_in_processes(writer, jobs, num_workers)
        for _ in progress(drawing, len(jobs), "drawing"):
            pass
    content = {
        "format": FORMAT,
        "vitrail": version("vitrail"),
        **describe_synthetic(dataset),
        "counts": {split: counts.get(split, 0) for split in SPLITS},
        "parts": parts,
    }
    write_text(out / DESCRIPTION_FILE, json_text(content, indent=2))


def has_ground_truth(image: str | Path) -> bool:
    """Return whether `write_synthetic` wrote a ground-truth mask for an image."""
    image = real_path(image)
    return len(image.parents) >= 3 and _mask_path(image, GROUND_TRUTH_FOLDER).is_file()


def read_generated_mask(image: str | Path) -> Mask:
    """Read the ground truth of an image that `write_synthetic` wrote: True for the pixels that decide its class.

    Args:
        image: Path of the image, OUT/SPLIT/CLASS/NUMBER.png.

    Raises:
        ImageError: The mask is missing or cannot be read.
    """
    return np.asarray(_read_mask_image(image, GROUND_TRUTH_FOLDER).convert("L")) > 127


def read_parts(image: str | Path) -> dict[str, Mask]:
    """Read the further regions of an image that `write_synthetic` wrote, by name.

    Args:
        image: Path of the image, OUT/SPLIT/CLASS/NUMBER.png.

    Raises:
        ImageError: The data set has no parts, or they cannot be read.
    """
    mask = _read_mask_image(image, PARTS_FOLDER)
    text = mask.info.get("parts", "")
    try:
        names = parse_json(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        got = repr(text[:80]) if text else "one without names"
        raise ImageError(f"expected a mask that names its parts, got {got}, for {image}; {MASKS_HINT}")
    pixels = np.asarray(mask)
    return {name: (pixels >> bit & 1).astype(bool) for bit, name in enumerate(names)}


@dataclass(frozen=True)
class _Writer:
    """Draws samples and writes their files below a folder."""

    dataset: SyntheticDataset
    folder: Path
    parts: Sequence[str]

    def make_folders(self, splits: Sequence[str]) -> None:
        """Make all folders before any process writes into them."""
        mask_folders = [GROUND_TRUTH_FOLDER, *([PARTS_FOLDER] if self.parts else [])]
        for split in splits:
            for name in self.dataset.class_names:
                image = self.folder / split / name / "any.png"
                for file in (image, *(_mask_path(image, mask_folder) for mask_folder in mask_folders)):
                    file.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, job: Job) -> None:
        split, index = job
        sample = self.dataset.draw(split, index)
        image = self.folder / split / self.dataset.class_names[sample.label] / f"{index:06d}.png"
        sample.image.save(image)
        Image.fromarray(sample.masks[GROUND_TRUTH].astype(np.uint8) * 255).save(_mask_path(image, GROUND_TRUTH_FOLDER))
        if self.parts:
            bits = sum(sample.masks[name].astype(np.uint16) << bit for bit, name in enumerate(self.parts))
            names = PngInfo()
            names.add_text("parts", json_text(self.parts))
            dtype = np.uint8 if len(self.parts) <= 8 else np.uint16
            Image.fromarray(np.asarray(bits, dtype=dtype)).save(_mask_path(image, PARTS_FOLDER), pnginfo=names)


def _write_in_processes(writer: _Writer, jobs: Sequence[Job], num_workers: int) -> Iterator[None]:
    # Spawned on every system: a forked process copies locks that other threads hold, and may wait for them forever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(writer,))
    try:
        yield from pool.map(_write_sample, jobs, chunksize=CHUNK_SIZE)
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker process was killed, probably because memory ran out; free memory, or use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_writers: list[_Writer] = []
"""The writer of a worker process, sent to it only once, since a data set may hold a long list of files."""


def _start_worker(writer: _Writer) -> None:
    signal(SIGINT, SIG_IGN)  # Ctrl+C interrupts the parent too, which shuts down the pool.
    _writers[:] = [writer]
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent exits, even if it was killed and could not shut down the pool."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _write_sample(job: Job) -> None:
    _writers[0](job)


def _check_counts(dataset: SyntheticDataset, counts: Mapping[str, int], num_workers: int) -> None:
    if unknown := sorted(set(counts) - set(SPLITS)):
        raise InvalidInputError(f"expected counts for {', '.join(SPLITS)}, got {', '.join(unknown)}")
    if num_workers < 0:
        raise InvalidInputError(f"expected num_workers of at least 0, got {num_workers}")
    if not any(counts.values()):
        raise InvalidInputError("expected at least one image to draw, got 0 for every split")
    num_classes = len(dataset.class_names)
    for split, count in counts.items():
        # A class without images would have no folder, and all classes after it would get other numbers.
        if count != 0 and not num_classes <= count <= MAX_COUNT:
            raise InvalidInputError(
                f"expected 0 images for {split}, or at least one for each of the {num_classes} classes and at most {MAX_COUNT}, got {count}"
            )


def _expect_empty(out: Path) -> None:
    with failures_as(OutputError, f"cannot read {out}", "; choose another --out"):
        # Leftovers of a killed run are removed later, and the lock of a running one is checked elsewhere.
        occupied = out.is_dir() and any(not is_lock(entry) and not is_left_over(entry) for entry in out.iterdir())
    if occupied:
        raise OutputError(f"{out} exists and is not empty; choose another --out")


def _mask_path(image: Path, mask_folder: str) -> Path:
    """Return the path of a mask of the image OUT/SPLIT/CLASS/NUMBER.png."""
    return image.parents[2] / "masks" / mask_folder / image.relative_to(image.parents[2])


def _read_mask_image(image: str | Path, mask_folder: str) -> Image.Image:
    image = real_path(image)  # A relative path may not contain the folders of class and split.
    if len(image.parents) < 3:
        raise ImageError(f"expected the path of an image in the folders of its split and class, got {image}; {MASKS_HINT}")
    path = _mask_path(image, mask_folder)
    try:
        return read_image(path, lambda mask: mask)
    except ImageError as error:
        raise ImageError(f"cannot read the mask {path}: {error}; {MASKS_HINT}") from error
