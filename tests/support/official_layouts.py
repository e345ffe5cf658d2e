"""Tiny copies of the layouts in which data sets are published: a few images of 8x8 pixels each."""

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

Part = list[tuple[str, int]]
"""Name below the root (or of the set, for arrays) and label of every image of a split."""


@dataclass(frozen=True)
class Layout:
    """What a writer leaves below a root, and what reading it must give."""

    write: Callable[[Path], None]
    class_names: list[str]
    parts: dict[str, Part]
    in_memory: bool = False


def middle(image: Image.Image) -> torch.Tensor:
    """The pixel in the middle, which tells images apart."""
    return torch.from_numpy(np.asarray(image)[image.height // 2, image.width // 2].astype(np.float32))[:, None, None]


def photo(path: Path, size=(8, 8)):
    """A photo whose color tells it apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = tuple(np.random.default_rng(list(str(path).encode())).integers(0, 256, 3).tolist())
    Image.new("RGB", size, color).save(path)


def text(path: Path, lines: list[str]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def photos(parts: dict[str, Part]):
    return lambda root: [photo(root / name) for part in parts.values() for name, _ in part]


def both(*writers):
    return lambda root: [write(root) for write in writers]


def folder() -> Layout:
    parts = {
        "train": [("train/ant/red/1.png", 0), ("train/ant/2.png", 0), ("train/bee/1.png", 1)],
        "val": [("val/ant/3.png", 0), ("val/bee/3.png", 1)],
        "test": [("test/ant/4.png", 0), ("test/bee/4.png", 1)],
    }
    parts["train"].sort()
    return Layout(photos(parts), ["ant", "bee"], parts)


def imagenet() -> Layout:
    parts = {
        "train": [("train/n01440764/n01440764_18.JPEG", 0), ("train/n01443537/n01443537_2.JPEG", 1)],
        "val": [("val/n01440764/ILSVRC2012_val_00000293.JPEG", 0), ("val/n01443537/ILSVRC2012_val_00000236.JPEG", 1)],
    }
    return Layout(photos(parts), ["n01440764", "n01443537"], parts)


def imagenette() -> Layout:
    home = "imagenette2-320"
    classes = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    }
    parts = {
        split: [(f"{home}/{split}/{identifier}/{identifier}_{number}.JPEG", label) for label, identifier in enumerate(classes)]
        for split, number in (("train", 18), ("val", 2))
    }
    return Layout(photos(parts), list(classes.values()), parts)


def tiny_imagenet() -> Layout:
    home = "tiny-imagenet-200"
    parts = {
        "train": [
            (f"{home}/train/n01443537/images/n01443537_0.JPEG", 0),
            (f"{home}/train/n02124075/images/n02124075_0.JPEG", 1),
            (f"{home}/train/n02124075/images/n02124075_1.JPEG", 1),
        ],
        "val": [(f"{home}/val/images/val_0.JPEG", 1), (f"{home}/val/images/val_1.JPEG", 0)],
    }

    def write(root: Path):
        text(root / home / "wnids.txt", ["n02124075", "n01443537"])
        boxes = ["val_0.JPEG\tn02124075\t0\t32\t44\t62", "val_1.JPEG\tn01443537\t52\t55\t57\t59"]
        text(root / home / "val" / "val_annotations.txt", boxes)

    return Layout(both(photos(parts), write), ["n01443537", "n02124075"], parts)


def cub() -> Layout:
    home = "CUB_200_2011"
    files = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
    ]
    parts = {
        "train": [(f"{home}/images/{files[1]}", 0), (f"{home}/images/{files[2]}", 1)],
        "test": [(f"{home}/images/{files[0]}", 0), (f"{home}/images/{files[3]}", 1)],
    }

    def write(root: Path):
        text(root / home / "images.txt", [f"{i} {name}" for i, name in enumerate(files, 1)])
        text(root / home / "image_class_labels.txt", ["1 1", "2 1", "3 2", "4 2"])
        text(root / home / "train_test_split.txt", ["1 0", "2 1", "3 1", "4 0"])
        text(root / home / "bounding_boxes.txt", [f"{i} 1.0 2.0 {i}.0 3.0" for i in range(1, 5)])
        text(root / home / "classes.txt", ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross"])

    names = ["Black footed Albatross", "Laysan Albatross"]
    return Layout(both(photos(parts), write), names, parts)


def dogs() -> Layout:
    files = {
        "train": ["n02085620-Chihuahua/n02085620_5927.jpg", "n02085782-Japanese_spaniel/n02085782_1.jpg"],
        "test": ["n02085620-Chihuahua/n02085620_2650.jpg", "n02085782-Japanese_spaniel/n02085782_2.jpg"],
    }
    parts = {split: [(f"Images/{name}", label) for label, name in enumerate(names)] for split, names in files.items()}

    def write(root: Path):
        from scipy.io import savemat

        for split, names in files.items():
            cells = np.empty((len(names), 1), object)
            cells[:, 0] = names
            savemat(root / f"{split}_list.mat", {"file_list": cells, "labels": np.array([[1.0], [2.0]])})

    return Layout(both(photos(parts), write), ["Chihuahua", "Japanese spaniel"], parts)


def cars() -> Layout:
    home = "stanford_cars"
    parts = {
        "train": [(f"{home}/cars_train/00001.jpg", 1), (f"{home}/cars_train/00002.jpg", 0)],
        "test": [(f"{home}/cars_test/00001.jpg", 0), (f"{home}/cars_test/00002.jpg", 2)],
    }

    def write(root: Path):
        from scipy.io import savemat

        devkit = root / home / "devkit"
        devkit.mkdir()
        names = np.empty((1, 3), object)
        names[0] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]
        savemat(devkit / "cars_meta.mat", {"class_names": names})
        kind = [(f"bbox_{corner}", object) for corner in ("x1", "y1", "x2", "y2")] + [("class", object), ("fname", object)]
        for split, path in (
            ("train", devkit / "cars_train_annos.mat"),
            ("test", root / home / "cars_test_annos_withlabels.mat"),
        ):
            rows = [(2, 3, 6, 8, label + 1, Path(name).name) for name, label in parts[split]]
            savemat(path, {"annotations": np.array(rows, kind)[None]})

    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]
    return Layout(both(photos(parts), write), names, parts)


def aircraft() -> Layout:
    data = "fgvc-aircraft-2013b/data"
    parts = {
        "train": [(f"{data}/images/1025794.jpg", 0), (f"{data}/images/0034309.jpg", 1)],
        "test": [(f"{data}/images/1514522.jpg", 1)],
    }

    def write(root: Path):
        text(root / data / "variants.txt", ["707-320", "Cessna 172"])
        text(root / data / "families.txt", ["Boeing 707", "Cessna 172"])
        text(root / data / "images_variant_trainval.txt", ["1025794 707-320", "0034309 Cessna 172"])
        text(root / data / "images_variant_test.txt", ["1514522 Cessna 172"])
        text(root / data / "images_family_test.txt", ["1514522 Boeing 707"])

    return Layout(both(photos(parts), write), ["707-320", "Cessna 172"], parts)


def pets() -> Layout:
    home = "oxford-iiit-pet"
    parts = {
        "train": [(f"{home}/images/Abyssinian_100.jpg", 0), (f"{home}/images/american_bulldog_10.jpg", 1)],
        "test": [(f"{home}/images/american_bulldog_1.jpg", 1), (f"{home}/images/Abyssinian_1.jpg", 0)],
    }

    def write(root: Path):
        text(root / home / "annotations" / "trainval.txt", ["Abyssinian_100 1 1 1", "american_bulldog_10 2 2 1"])
        text(root / home / "annotations" / "test.txt", ["american_bulldog_1 2 2 1", "Abyssinian_1 1 1 1"])

    return Layout(both(photos(parts), write), ["Abyssinian", "American Bulldog"], parts)


def inaturalist(year: int) -> Layout:
    home = f"train_val{year}"
    parts = {
        "train": [(f"{home}/Birds/12/a.jpg", 1), (f"{home}/Plants/5/b.jpg", 0), (f"{home}/Birds/20/c.jpg", 2)],
        "val": [(f"{home}/Birds/20/d.jpg", 2)],
    }
    categories = [
        {"id": 12, "name": "Parus major", "genus": "Parus", "class": "Aves"},
        {"id": 5, "name": "Bellis perennis", "genus": "Bellis", "class": "Magnoliopsida"},
        {"id": 20, "name": "Parus minor", "genus": "Parus", "class": "Aves"},
    ]

    def write(root: Path):
        for split, part in parts.items():
            content = {
                "images": [{"id": 7 * i, "file_name": name} for i, (name, _) in enumerate(part)],
                "categories": categories,
                "annotations": [
                    {"id": i, "image_id": 7 * i, "category_id": [5, 12, 20][label]} for i, (_, label) in enumerate(part)
                ],
            }
            text(root / f"{split}{year}.json", [json.dumps(content)])

    return Layout(both(photos(parts), write), ["Bellis perennis", "Parus major", "Parus minor"], parts)


def pickled(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Arrays as Python 2 wrote them.
    path.write_bytes(pickle.dumps(content, protocol=2))


def _pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def cifar10() -> Layout:
    parts = {
        "train": [(f"cifar10/train/{i}", i % 3) for i in range(10)],
        "test": [(f"cifar10/test/{i}", label) for i, label in enumerate([2, 0, 1])],
    }

    def write(root: Path):
        home = root / "cifar-10-batches-py"
        for i in range(5):
            labels = [label for _, label in parts["train"][2 * i : 2 * i + 2]]
            pickled(
                home / f"data_batch_{i + 1}", {"data": _pixels(2, i), "labels": labels, "batch_label": "b", "filenames": ["f"]}
            )
        pickled(home / "test_batch", {"data": _pixels(3, 9), "labels": [2, 0, 1]})
        pickled(home / "batches.meta", {"label_names": ["airplane", "automobile", "bird"], "num_vis": 3072})

    return Layout(write, ["airplane", "automobile", "bird"], parts, in_memory=True)


def cifar100() -> Layout:
    parts = {"train": [("cifar100/train/0", 2), ("cifar100/train/1", 1)], "test": [("cifar100/test/0", 0)]}

    def write(root: Path):
        home = root / "cifar-100-python"
        pickled(home / "train", {"data": _pixels(2, 0), "fine_labels": [2, 1], "coarse_labels": [1, 0]})
        pickled(home / "test", {"data": _pixels(1, 1), "fine_labels": [0], "coarse_labels": [1]})
        pickled(home / "meta", {"fine_label_names": ["apple", "bee", "cat"], "coarse_label_names": ["animal", "fruit"]})

    return Layout(write, ["apple", "bee", "cat"], parts, in_memory=True)


def mnist() -> Layout:
    labels = {"train": [5, 0, 4], "test": [7, 2]}
    parts = {split: [(f"mnist/{split}/{i}", label) for i, label in enumerate(each)] for split, each in labels.items()}

    def write(root: Path):
        home = root / "MNIST" / "raw"
        home.mkdir(parents=True)
        for split, part in (("train", "train"), ("test", "t10k")):
            count = len(labels[split])
            pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28)).astype(np.uint8)
            images = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + pixels.tobytes()
            classes = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(labels[split])
            (home / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
            (home / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(classes))

    return Layout(write, [str(digit) for digit in range(10)], parts, in_memory=True)


LAYOUTS = {
    "folder": folder(),
    "imagenet": imagenet(),
    "imagenette": imagenette(),
    "tiny-imagenet": tiny_imagenet(),
    "cub-200-2011": cub(),
    "stanford-dogs": dogs(),
    "stanford-cars": cars(),
    "fgvc-aircraft": aircraft(),
    "oxford-pets": pets(),
    "inaturalist-2018": inaturalist(2018),
    "inaturalist-2019": inaturalist(2019),
    "cifar10": cifar10(),
    "cifar100": cifar100(),
    "mnist": mnist(),
}
