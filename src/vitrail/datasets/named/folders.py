"""Data sets sorted into folders: your own, ImageNet, Imagenette, Tiny ImageNet.

torchvision's ImageFolder raises an error at the first damaged file, and timm's ImageDataset puts the next image in its place; neither
library reads Tiny ImageNet's validation images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.file_search import images_below
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.named.annotations import labeled_files, labels_by_name, need, official_folder, read_table
from vitrail.datasets.named.base import named_data


@named_data(
    "folder",
    "your own images: any number of classes, one folder each",
    layout="""
train/
  <class>/  any images, also in folders below
val/
  <class>/
test/
  <class>/
""",
    download="put your images there, one folder per class; options give other folder names, as in train=training",
    splits=None,
)
def read_folder(
    root: Path, split: str, transform: Transform, *, train: str = "train", val: str = "val", test: str = "test"
) -> LabeledImages:
    """Read a split from the folder that its option names; any other split is itself the name of a folder."""
    return ImageFolder.scan(need(root / {"train": train, "val": val, "test": test}.get(split, split)), transform)


@named_data(
    "imagenet",
    "ImageNet-1k (ILSVRC 2012): 1,000 classes, 1,281,167 images to train, 50,000 to validate",
    layout="""
train/
  n01440764/  n01440764_10026.JPEG ...
  n01443537/  ...
val/
  n01440764/  ILSVRC2012_val_00000293.JPEG ...
  n01443537/  ...
""",
    download="""download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from
https://image-net.org/challenges/LSVRC/2012/2012-downloads.php (after registering). The first holds one tar file per class: extract
each into a folder of its name in train. Extract the second into val, and sort its images into folders by class""",
    splits=("train", "val"),
    note="the labels of its test images are not public",
)
def read_imagenet(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read the folder of a split; class names are WordNet IDs."""
    folder = need(root / split)
    images = ImageFolder.scan(folder, transform)
    if not images.class_names:
        raise InvalidInputError(
            f"expected one folder per class (n01440764, ...) in {folder}, found {len(images)} images without a class; sort them: "
            "with the archives ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz in an empty folder DIR, "
            "torchvision.datasets.ImageNet('DIR', split='val') extracts them into DIR/val/<class>/"
        )
    return images


IMAGENETTE_CLASSES = {
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
"""Names by WordNet ID, in the order of the labels."""


@named_data(
    "imagenette",
    "Imagenette: 10 classes of ImageNet, 9,469 images to train, 3,925 to validate",
    layout="""
imagenette2-320/ (or imagenette2-160/, imagenette2/, or this folder itself)
  train/
    n01440764/  n01440764_10026.JPEG ...
  val/
    n01440764/  n01440764_10042.JPEG ...
""",
    download="""download imagenette2-320.tgz, or another size, from https://github.com/fastai/imagenette and extract it there; the option
size takes 160, 320 or full""",
    splits=("train", "val"),
    note="its validation images are the only ones held out",
)
def read_imagenette(
    root: Path, split: str, transform: Transform, *, size: Literal[160, 320, "full", "any"] = "any"
) -> LabeledImages:
    """Read Imagenette; `size` names the published archive by its shorter side, "any" takes whichever is there."""
    archives = {"full": "imagenette2", 320: "imagenette2-320", 160: "imagenette2-160"}
    home = official_folder(root, *archives.values()) if size == "any" else need(root / archives[size])
    images = ImageFolder.scan(need(home / split), transform)
    if list(images.class_names) != list(IMAGENETTE_CLASSES):
        raise InvalidInputError(
            f"expected the ten folders of Imagenette ({', '.join(IMAGENETTE_CLASSES)}) in {home / split}, found "
            f"{', '.join(images.class_names[:12]) or 'no folders'}; for your own classes, use the data set folder"
        )
    return replace(images, class_names=list(IMAGENETTE_CLASSES.values()))


@named_data(
    "tiny-imagenet",
    "Tiny ImageNet: 200 classes, 100,000 images to train, 10,000 to validate, 64x64",
    layout="""
tiny-imagenet-200/ (or this folder itself)
  wnids.txt
  train/
    n01443537/
      images/  n01443537_0.JPEG ...
  val/
    images/  val_0.JPEG ...
    val_annotations.txt
""",
    download="download http://cs231n.stanford.edu/tiny-imagenet-200.zip and extract it there",
    splits=("train", "val"),
    note="the labels of its test images were never published",
)
def read_tiny_imagenet(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read Tiny ImageNet; class names are WordNet IDs, in sorted order."""
    root = official_folder(root, "tiny-imagenet-200")
    class_names = sorted(name for (name,) in read_table(root / "wnids.txt", str))
    if split == "train":
        pairs = [(path, label) for label, name in enumerate(class_names) for path in images_below(need(root / "train" / name))]
        return labeled_files([path for path, _ in pairs], [label for _, label in pairs], class_names, transform, root / "train")
    source, folder = root / "val" / "val_annotations.txt", need(root / "val" / "images")
    rows = read_table(source, str, str, str)  # file, class, box
    labels = labels_by_name([name for _, name, _ in rows], class_names, source)
    return labeled_files([folder / file for file, *_ in rows], labels, class_names, transform, source)
