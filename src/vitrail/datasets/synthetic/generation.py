"""Generated tasks as folders of images, with the mask of every image's answer beside them.

The layout, where CLASS is a name of a class and NUMBER the sample's index in its split, of six digits:

    OUT/SPLIT/CLASS/NUMBER.png               the image, 8-bit RGB
    OUT/masks/answer/SPLIT/CLASS/NUMBER.png  the answer: 8-bit gray, 255 where the class is decided, else 0
    OUT/masks/parts/SPLIT/CLASS/NUMBER.png   further regions, if the task has any: bit k is the k-th of the task's parts
    OUT/task.json                            what was drawn; written last: a folder that has it is whole
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

from vitrail.core.errors import ImageError, InvalidInputError, OutputError
from vitrail.core.files import is_left_over, real_path, results_folder, write_text
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.locking import is_lock
from vitrail.core.progress import progress
from vitrail.datasets.image_io import read_image
from vitrail.datasets.synthetic.base import ANSWER, Mask, SyntheticDataset
from vitrail.datasets.synthetic.names import describe_synthetic

FORMAT = "vitrail task 1"
DESCRIPTION_FILE = "task.json"
SPLITS = ("train", "val", "test")
MAX_COUNT = 1_000_000
MAX_PARTS = 16
JOBS_AT_ONCE = 16
WRITTEN_BY = "masks lie beside images that `vitrail generate` wrote"

Job = tuple[str, int]
"""Split and index of a sample."""


def write_synthetic(task: SyntheticDataset, out: str | Path, counts: Mapping[str, int], num_workers: int = 0) -> None:
    """Draw a task's first samples into a folder, laid out as this module says.

    Args:
        task: What to draw.
        out: A folder that is empty or not there yet.
        counts: Samples per split: train, val, test. A split that is left out, or has 0, gets no folder.
        num_workers: Processes that draw; 0 draws here. The files are the same.

    Raises:
        InvalidInputError: Counts that cannot be used: unknown splits, nothing at all, or too few for one sample per class.
        OutputError: `out` holds something already, or cannot be written. Nothing stays half-written.
    """
    out = Path(out)
    _check(task, counts, num_workers)
    _expect_empty(out)
    jobs = [(split, index) for split in SPLITS for index in range(counts.get(split, 0))]
    parts = [name for name in task.draw(*jobs[0]).masks if name != ANSWER]
    if len(parts) > MAX_PARTS:
        raise InvalidInputError(f"expected at most {MAX_PARTS} masks beside the answer, got {len(parts)}")
    with results_folder(out) as folder:
        writer = _Writer(task, folder, parts)
        writer.make_folders([split for split in SPLITS if counts.get(split, 0)])
        written = _write_here(writer, jobs) if num_workers == 0 else _write_in_processes(writer, jobs, num_workers)
        for _ in progress(written, len(jobs), "drawing"):
            pass
    content = {
        "format": FORMAT,
        "vitrail": version("vitrail"),
        **describe_synthetic(task),
        "counts": {split: counts.get(split, 0) for split in SPLITS},
        "parts": parts,
    }
    write_text(out / DESCRIPTION_FILE, json_text(content, indent=2))


def has_ground_truth(image: str | Path) -> bool:
    """Whether there is a mask of an image's answer where `write_synthetic` puts it."""
    image = real_path(image)
    return len(image.parents) >= 3 and _mask_path(image, "answer").is_file()


def read_generated_mask(image: str | Path) -> Mask:
    """Read the answer of an image that `write_synthetic` wrote: True where its class is decided.

    Args:
        image: Path of the image, OUT/SPLIT/CLASS/NUMBER.png.

    Raises:
        ImageError: There is no mask to it, or none that can be read.
    """
    return np.asarray(_read_mask(image, "answer").convert("L")) > 127


def read_parts(image: str | Path) -> dict[str, Mask]:
    """Read the further regions of an image that `write_synthetic` wrote, by their names.

    Args:
        image: Path of the image, OUT/SPLIT/CLASS/NUMBER.png.

    Raises:
        ImageError: The task has no parts, or they cannot be read.
    """
    mask = _read_mask(image, "parts")
    text = mask.info.get("parts", "")
    try:
        names = parse_json(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        got = repr(text[:80]) if text else "one that names none"
        raise ImageError(f"expected a mask that names its parts, got {got}, beside {image}; {WRITTEN_BY}")
    pixels = np.asarray(mask)
    return {name: (pixels >> bit & 1).astype(bool) for bit, name in enumerate(names)}


@dataclass(frozen=True)
class _Writer:
    """Draws samples and writes their files below a folder."""

    task: SyntheticDataset
    folder: Path
    parts: Sequence[str]

    def make_folders(self, splits: Sequence[str]) -> None:
        """Make all folders, before anyone writes into them."""
        for split in splits:
            for name in self.task.class_names:
                image = self.folder / split / name / "any.png"
                for file in (image, _mask_path(image, "answer"), *([_mask_path(image, "parts")] if self.parts else [])):
                    file.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, job: Job) -> None:
        split, index = job
        sample = self.task.draw(split, index)
        image = self.folder / split / self.task.class_names[sample.label] / f"{index:06d}.png"
        sample.image.save(image)
        Image.fromarray(sample.masks[ANSWER].astype(np.uint8) * 255).save(_mask_path(image, "answer"))
        if self.parts:
            code = sum(sample.masks[name].astype(np.uint16) << bit for bit, name in enumerate(self.parts))
            names = PngInfo()
            names.add_text("parts", json_text(self.parts))
            kind = np.uint8 if len(self.parts) <= 8 else np.uint16
            Image.fromarray(np.asarray(code, dtype=kind)).save(_mask_path(image, "parts"), pnginfo=names)


def _write_here(writer: _Writer, jobs: Sequence[Job]) -> Iterator[None]:
    for job in jobs:
        writer(job)
        yield


def _write_in_processes(writer: _Writer, jobs: Sequence[Job], num_workers: int) -> Iterator[None]:
    # Spawned, as on every system: a fork copies the threads' locks too, and may wait for one for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start_process, initargs=(writer,))
    try:
        yield from pool.map(_write_one, jobs, chunksize=JOBS_AT_ONCE)
    except BrokenProcessPool as error:
        raise OutputError(
            "a process that drew was stopped from outside; free some memory, or draw with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_writers: list[_Writer] = []
"""The one of this process, where it is one of a pool: sent once, since a task may hold a long list of files."""


def _start_process(writer: _Writer) -> None:
    signal(SIGINT, SIG_IGN)  # The parent is stopped by the same key, and stops the pool.
    _writers[:] = [writer]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed can stop nobody."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _write_one(job: Job) -> None:
    _writers[0](job)


def _check(task: SyntheticDataset, counts: Mapping[str, int], num_workers: int) -> None:
    if unknown := sorted(set(counts) - set(SPLITS)):
        raise InvalidInputError(f"expected counts for {', '.join(SPLITS)}, got {', '.join(unknown)}")
    if num_workers < 0:
        raise InvalidInputError(f"expected num_workers of at least 0, got {num_workers}")
    if not any(counts.values()):
        raise InvalidInputError("expected at least one image to draw, got none of any split")
    num_classes = len(task.class_names)
    for split, count in counts.items():
        # A class without an image would have no folder, and those after it would get other numbers.
        if count != 0 and not num_classes <= count <= MAX_COUNT:
            raise InvalidInputError(
                f"expected 0 images for {split}, or at least one for each of the {num_classes} classes and at most {MAX_COUNT}, got {count}"
            )


def _expect_empty(out: Path) -> None:
    try:
        # What a killed run left is removed; a run that goes on is refused where its lock is asked for.
        inside = any(not is_lock(entry) and not is_left_over(entry) for entry in out.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"cannot read {out}: {error.strerror or error}; choose another --out") from error
    if inside:
        raise OutputError(f"{out} exists and is not empty; choose another --out")


def _mask_path(image: Path, kind: str) -> Path:
    """The place of a mask of an image OUT/SPLIT/CLASS/NUMBER.png."""
    return image.parents[2] / "masks" / kind / image.relative_to(image.parents[2])


def _read_mask(image: str | Path, kind: str) -> Image.Image:
    image = real_path(image)  # The path may be shorter than what is counted from its end.
    if len(image.parents) < 3:
        raise ImageError(f"expected the path of an image in the folder of its class and split, got {image}; {WRITTEN_BY}")
    path = _mask_path(image, kind)
    try:
        return read_image(path, lambda mask: mask)
    except ImageError as error:
        raise ImageError(f"cannot read the mask {path}: {error}; {WRITTEN_BY}") from error
