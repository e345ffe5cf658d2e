"""Oxford-IIIT Pet: breeds of cats and dogs, with a trimap of every pet and a box around many heads.

torchvision.datasets has a reader too, but without boxes, and with errors that do not name the damaged file and line.
"""

from pathlib import Path
from xml.etree import ElementTree

from vitrail.datasets.dataset import Box, LabeledImages, Transform
from vitrail.datasets.named.annotations import damaged, labeled_files, need, official_folder, read_table
from vitrail.datasets.named.base import named_data


@named_data(
    "oxford-pets",
    "Oxford-IIIT Pet: 37 breeds of cats and dogs, 3,680 images to train, 3,669 to test",
    layout="""
oxford-iiit-pet/ (or this folder itself)
  images/       Abyssinian_1.jpg ...
  annotations/  trainval.txt test.txt
    trimaps/    Abyssinian_1.png ... (optional)
    xmls/       Abyssinian_1.xml ... (optional)
""",
    download="download images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ and extract them there",
    note="train is the official trainval; hold out a part of it",
)
def read_pets(root: Path, split: str, transform: Transform) -> LabeledImages:
    """Read the pets of all breeds that the lists name, with the boxes around their heads; most test images have none."""
    root = official_folder(root, "oxford-iiit-pet")
    sources = {split: root / "annotations" / f"{name}.txt" for split, name in (("train", "trainval"), ("test", "test"))}
    source, folder = need(sources[split]), need(root / "images")
    # Both lists, so that a breed has the same label in both, although one of them may lack it. american_bulldog_100
    tables = {path: read_table(path, str, int, int, int) for path in sources.values() if path.exists()}
    rows, listed = tables[source], [row for table in tables.values() for row in table]
    breeds = {number: image.rpartition("_")[0].replace("_", " ").title() for image, number, _, _ in listed}
    labels = {number: label for label, number in enumerate(sorted(breeds))}
    if (first := min(breeds)) < 1:
        raise damaged(source, f"expected numbers of breeds from 1, got {first}")
    names = [image for image, *_ in rows]
    trimaps, heads = root / "annotations" / "trimaps", root / "annotations" / "xmls"
    return labeled_files(
        [folder / f"{name}.jpg" for name in names],
        [labels[number] for _, number, _, _ in rows],
        [breeds[number] for number in labels],
        transform,
        source,
        [_read_head(heads / f"{name}.xml") for name in names] if heads.is_dir() else None,
        trimaps=[trimaps / f"{name}.png" for name in names] if trimaps.is_dir() else None,
    )


def _read_head(path: Path) -> Box | None:
    """Read the box around a head, whose corners count pixels from 1 and are inclusive."""
    if not path.exists():
        return None
    try:
        box = ElementTree.parse(path)
        left, top, right, bottom = (float(box.findtext(f".//bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    except (ElementTree.ParseError, ValueError) as error:
        raise damaged(path, f"expected XML with a box, {error}") from None
    return left - 1, top - 1, right, bottom
