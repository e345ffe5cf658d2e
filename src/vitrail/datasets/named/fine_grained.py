"""Fine-grained data sets: birds, dogs, cars and aircraft.

torchvision.datasets has readers of cars and aircraft, but without the boxes of the cars, and with errors that do not name the
damaged file and line; neither torchvision nor timm reads CUB-200-2011 or Stanford Dogs.
"""

from pathlib import Path
from typing import Literal

from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.named.annotations import (
    class_names_by_label,
    damaged,
    labeled_files,
    labels_by_name,
    need,
    official_folder,
    read_matlab,
    read_per_image,
    read_table,
)
from vitrail.datasets.named.base import NO_VALIDATION, named_data


@named_data(
    "cub-200-2011",
    "Caltech-UCSD Birds 200-2011: 200 classes, 5,994 images to train, 5,794 to test, with a box around every bird",
    layout="""
CUB_200_2011/ (or this folder itself)
  images/  001.Black_footed_Albatross/ ...
  images.txt
  image_class_labels.txt
  train_test_split.txt
  bounding_boxes.txt
  classes.txt
""",
    download="download CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ and extract it there",
    note=NO_VALIDATION,
)
def read_cub(root: Path, split: str, transform: Transform, *, crop_to_box: bool = False) -> LabeledImages:
    """Read the birds; `crop_to_box` crops every image to its bird."""
    root = official_folder(root, "CUB_200_2011")
    folder, source = need(root / "images"), root / "image_class_labels.txt"
    files = dict(read_table(root / "images.txt", int, str))
    training = read_per_image(root / "train_test_split.txt", list(files), int)
    images = [image for image, (flag,) in zip(files, training, strict=True) if flag == (split == "train")]
    corners = read_per_image(root / "bounding_boxes.txt", images, float, float, float, float)
    classes = read_table(root / "classes.txt", int, str)
    return labeled_files(
        [folder / files[image] for image in images],
        [number - 1 for (number,) in read_per_image(source, images, int)],
        # 001.Black_footed_Albatross
        class_names_by_label(
            [(_replace_underscores(name.split(".", 1)[-1]), number) for number, name in classes], root / "classes.txt"
        ),
        transform,
        source,
        [(left, top, left + width, top + height) for left, top, width, height in corners],
        crop_to_box,
    )


@named_data(
    "stanford-dogs",
    "Stanford Dogs: 120 classes, 12,000 images to train, 8,580 to test",
    layout="""
Images/  n02085620-Chihuahua/ ...
train_list.mat
test_list.mat
""",
    download="download images.tar and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ and extract them there",
    note=NO_VALIDATION,
)
def read_dogs(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read the dogs."""
    folder = need(official_folder(root, "Images", "images"))
    source = root / f"{split}_list.mat"
    files, numbers = read_matlab(source, "file_list", "labels")
    try:
        labels = [int(number) for number in numbers]
        # n02085620-Chihuahua/n02085620_5927.jpg
        breeds = [_replace_underscores(Path(file).parent.name.partition("-")[2]) for file in files]
        class_names = class_names_by_label(list(zip(breeds, labels, strict=True)), source)
    except (TypeError, ValueError) as error:
        raise damaged(source, f"expected a file name and a class per image, {error}") from None
    return labeled_files([folder / file for file in files], [label - 1 for label in labels], class_names, transform, source)


@named_data(
    "stanford-cars",
    "Stanford Cars: 196 classes, 8,144 images to train, 8,041 to test, with a box around every car",
    layout="""
stanford_cars/ (or this folder itself)
  cars_train/  00001.jpg ...
  cars_test/   00001.jpg ...
  cars_test_annos_withlabels.mat (or in devkit)
  devkit/
    cars_meta.mat
    cars_train_annos.mat
""",
    download="""download the images, car_devkit.tgz and cars_test_annos_withlabels.mat, and extract them there. Their official page,
https://ai.stanford.edu/~jkrause/cars/car_dataset.html, is gone; https://github.com/pytorch/vision/issues/7545 lists copies""",
    note=NO_VALIDATION,
)
def read_cars(root: Path, split: str, transform: Transform, *, crop_to_box: bool = False) -> LabeledImages:
    """Read the cars; `crop_to_box` crops every image to its car."""
    root = official_folder(root, "stanford_cars")
    folder = need(root / f"cars_{split}")
    devkit = root / "devkit"
    source = devkit / "cars_train_annos.mat" if split == "train" else root / "cars_test_annos_withlabels.mat"
    if not source.exists() and (devkit / source.name).exists():
        source = devkit / source.name
    (class_names,) = read_matlab(devkit / "cars_meta.mat", "class_names")
    (cars,) = read_matlab(source, "annotations")
    try:
        # Corners count pixels from 1 and are inclusive.
        boxes = [(float(left) - 1, float(top) - 1, float(right), float(bottom)) for left, top, right, bottom, _, _ in cars]
        labels, files = [int(car[4]) - 1 for car in cars], [str(car[5]) for car in cars]
    except (TypeError, ValueError, IndexError) as error:
        raise damaged(source, f"expected a box, a class and a file name per image, {error}") from None
    return labeled_files([folder / file for file in files], labels, class_names, transform, source, boxes, crop_to_box)


@named_data(
    "fgvc-aircraft",
    "FGVC-Aircraft: 100 variants (70 families, 30 manufacturers), 6,667 images to train, 3,333 to test",
    layout="""
fgvc-aircraft-2013b/ (or this folder itself)
  data/
    images/  0034309.jpg ...
    variants.txt
    images_variant_trainval.txt
    images_variant_test.txt
""",
    download="download fgvc-aircraft-2013b.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/ and extract it there",
    note="train is the official trainval; hold out a part of it",
)
def read_aircraft(
    root: Path, split: str, transform: Transform, *, level: Literal["variant", "family", "manufacturer"] = "variant"
) -> LabeledImages:
    """Read the aircraft; `level` chooses the classes: variants, families or manufacturers."""
    root = official_folder(root, "fgvc-aircraft-2013b") / "data"
    source, folder = root / f"images_{level}_{'trainval' if split == 'train' else 'test'}.txt", need(root / "images")
    plural = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}[level]
    class_names = [name for (name,) in read_table(root / f"{plural}.txt", str)]
    rows = read_table(source, str, str)
    labels = labels_by_name([name for _, name in rows], class_names, source)
    return labeled_files([folder / f"{image}.jpg" for image, _ in rows], labels, class_names, transform, source)


def _replace_underscores(name: str) -> str:
    return name.replace("_", " ")
