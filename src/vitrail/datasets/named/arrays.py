"""Small data sets that are published as a few large files and held in memory: CIFAR-10, CIFAR-100, MNIST.

Not read by torchvision.datasets: its CIFAR readers call pickle.load, which runs any code in the file, and its MNIST reader takes
only extracted files and fails on damaged ones with a bare assertion. timm's "torch/..." readers are torchvision's.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitrail.core.errors import InvalidInputError
from vitrail.core.files import regular_file
from vitrail.datasets.dataset import LabeledArrays, LabeledImages, Transform
from vitrail.datasets.named.annotations import check_labels, damaged, need, official_folder
from vitrail.datasets.named.base import NO_VALIDATION, named_data
from vitrail.datasets.named.pickles import read_pickle

MAX_IDX_BYTES = 4_000_000_000
"""Largest content of an idx file; MNIST's training images take 47 MB."""


@named_data(
    "cifar10",
    "CIFAR-10: 10 classes, 50,000 images to train, 10,000 to test, 32x32",
    layout="""
cifar-10-batches-py/ (or this folder itself)
  data_batch_1 ... data_batch_5
  test_batch
  batches.meta
""",
    download="download cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and extract it there",
    note=NO_VALIDATION,
)
def read_cifar10(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read CIFAR-10 in its Python version."""
    folder = _expect_original_files(official_folder(root, "cifar-10-batches-py"), "cifar10")
    files = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    class_names = _read_class_names(folder / "batches.meta", "label_names")
    return _read_cifar([folder / file for file in files], "labels", class_names, transform, f"cifar10/{split}")


@named_data(
    "cifar100",
    "CIFAR-100: 100 classes (20 coarse ones), 50,000 images to train, 10,000 to test, 32x32",
    layout="""
cifar-100-python/ (or this folder itself)
  train
  test
  meta
""",
    download="download cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and extract it there",
    note=NO_VALIDATION,
)
def read_cifar100(root: Path, split: str, transform: Transform, *, level: Literal["fine", "coarse"] = "fine") -> LabeledImages:
    """Read CIFAR-100 in its Python version."""
    folder = _expect_original_files(official_folder(root, "cifar-100-python"), "cifar100")
    class_names = _read_class_names(folder / "meta", f"{level}_label_names")
    return _read_cifar([folder / split], f"{level}_labels", class_names, transform, f"cifar100/{split}")


@named_data(
    "mnist",
    "MNIST: 10 handwritten digits, 60,000 images to train, 10,000 to test, 28x28, gray",
    layout="""
MNIST/raw/ (or raw/, or this folder itself)
  train-images-idx3-ubyte.gz (or without .gz, like the others)
  train-labels-idx1-ubyte.gz
  t10k-images-idx3-ubyte.gz
  t10k-labels-idx1-ubyte.gz
""",
    download="download the four files from http://yann.lecun.com/exdb/mnist/, or from https://ossci-datasets.s3.amazonaws.com/mnist/FILE",
    note=NO_VALIDATION,
)
def read_mnist(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read MNIST."""
    folder = _expect_original_files(official_folder(root, "MNIST/raw", "raw"), "mnist")
    part = "train" if split == "train" else "t10k"
    pixels = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", num_axes=3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", num_axes=1)
    return _labeled_arrays(pixels, labels.tolist(), [str(digit) for digit in range(10)], transform, f"mnist/{split}", folder)


def _expect_original_files(folder: Path, name: str) -> Path:
    """Refuse a copy of the data set as folders of images."""
    for split in ("train", "test"):
        if any(path.is_dir() for path in (folder / split).glob("*")):
            raise InvalidInputError(
                f"expected the original files of {name} in {folder}, found folders of images ({split}/<class>/); read them as the "
                "data set 'folder'"
            )
    return folder


def _read_class_names(file: Path, key: str) -> list[str]:
    return [str(name) for name in _get_list(read_pickle(file), key, file)]


def _read_cifar(files: Sequence[Path], labels: str, class_names: list[str], transform: Transform, source: str) -> LabeledImages:
    batches, classes = list[np.ndarray](), list[Any]()
    for file in files:
        content = read_pickle(file)
        batch_classes, pixels = _get_list(content, labels, file), content.get("data")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(batch_classes), 3072):
            raise damaged(file, f"expected {len(batch_classes)} images of 3x32x32 bytes")
        batches.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        classes += batch_classes
    return _labeled_arrays(np.concatenate(batches), classes, class_names, transform, source, files[0])


def _get_list(content: Any, key: str, file: Path) -> list[Any]:
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list) or not values:
        raise damaged(file, f"expected a dictionary with a list {key!r}")
    return values


def _read_idx(path: Path, num_axes: int) -> np.ndarray:
    """Read an array of bytes in the idx format: two zeros, 8 for bytes, the number of axes, their lengths, the content."""
    plain = path.with_suffix("")
    start = 4 + 4 * num_axes
    try:
        with regular_file(plain).open("rb") if plain.exists() else gzip.open(regular_file(need(path))) as file:
            head = file.read(start)
            shape = np.frombuffer(head[4:], ">u4").astype(int).tolist() if len(head) == start else []
            size = math.prod(shape)
            if head[:4] != bytes([0, 0, 8, num_axes]) or len(shape) != num_axes:
                raise damaged(path, f"expected an idx file of bytes with {num_axes} axes")
            if size > MAX_IDX_BYTES:
                raise damaged(path, f"expected an idx file of at most {MAX_IDX_BYTES:,} bytes, its header announces {size:,}")
            content = file.read(size + 1)  # A few bytes may decompress to any number; read no more than announced.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, str(error)) from None
    if len(content) != size:
        raise damaged(
            path, f"expected {size:,} bytes, as in its header, got {'more' if len(content) > size else f'{len(content):,}'}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _labeled_arrays(
    pixels: np.ndarray, labels: list[Any], class_names: list[str], transform: Transform, name: str, source: Path
) -> LabeledImages:
    if len(pixels) != len(labels):
        raise damaged(source, f"expected as many labels as images, got {len(labels)} and {len(pixels)}")
    if not labels:
        raise damaged(source, f"expected classes 0 to {len(class_names) - 1}, got none")
    check_labels(labels, class_names, source)
    return LabeledArrays(pixels, labels, class_names, transform, name)
