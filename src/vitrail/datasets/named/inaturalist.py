"""iNaturalist 2018 and 2019: photos of species, with their taxonomy.

torchvision.datasets.INaturalist numbers the classes by folders and ignores the published splits, which are in the JSON files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import LabeledImages, Transform
from vitrail.datasets.named.annotations import damaged, labeled_files, need, read_json
from vitrail.datasets.named.base import named_data

Level = Literal["name", "genus", "family", "order", "class", "phylum", "kingdom", "supercategory"]

LAYOUT = """
train_val{year}/  Plants/ ... (the folders of the archive)
train{year}.json
val{year}.json
categories.json (optional: the real names, which the other files obfuscate)
"""

DOWNLOAD = (
    "download train_val{year}.tar.gz, train{year}.json.tar.gz, val{year}.json.tar.gz and categories.json.tar.gz from "
    "https://github.com/visipedia/inat_comp/tree/master/{year} and extract them there"
)


def read_inaturalist(root: Path, split: str, transform: Transform, level: Level, year: int) -> LabeledImages:
    """Read the photos of a year.

    Args:
        root: Folder with the annotations and the folder of photos.
        split: "train" or "val".
        level: Taxonomic rank of the classes: species ("name"), "genus", "family", ...
        year: 2018 or 2019.
    """
    source = root / f"{split}{year}.json"
    content = read_json(source)
    names = root / "categories.json"
    obfuscated = not names.exists()
    categories = _get_rows(
        content if obfuscated else {"categories": read_json(names)}, "categories", source if obfuscated else names
    )
    class_names, index = _make_classes(categories, level, source if obfuscated else names)
    need(root / f"train_val{year}")
    try:
        files = {image["id"]: root / image["file_name"] for image in _get_rows(content, "images", source)}
        pairs = [(files[row["image_id"]], index[row["category_id"]]) for row in _get_rows(content, "annotations", source)]
    except (KeyError, TypeError) as error:
        raise damaged(source, f"an image, a category or a field of one is missing: {error}") from None
    return labeled_files([path for path, _ in pairs], [label for _, label in pairs], class_names, transform, source)


def _make_classes(categories: Sequence[Mapping[str, Any]], level: Level, source: Path) -> tuple[list[str], dict[int, int]]:
    """Return the class names, and the class index of every category."""
    levels = [key for key in categories[0] if key != "id"]
    if "id" not in categories[0] or "name" not in levels:
        raise damaged(source, "expected 'id' and 'name' of every category")
    if level not in levels:
        raise InvalidInputError(f"expected level to be one of {', '.join(levels)}, as in {source}, got {level!r}")
    if incomplete := next((category for category in categories if not {"id", level} <= set(category)), None):
        raise damaged(source, f"expected 'id' and {level!r} of every category, got {dict(incomplete)}")
    ordered = sorted(categories, key=lambda category: int(category["id"]))
    if level == "name":
        # Every category is a class; categories of the same name get their IDs appended.
        num_uses = Counter(category["name"] for category in ordered)
        names = [category["name"] + (f" ({category['id']})" if num_uses[category["name"]] > 1 else "") for category in ordered]
        return names, {category["id"]: label for label, category in enumerate(ordered)}
    names = sorted({category[level] for category in ordered})
    return names, {category["id"]: names.index(category[level]) for category in ordered}


def _get_rows(content: Any, name: str, source: Path) -> list[Mapping[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise damaged(source, f"expected a list of {name}")
    return rows


def _register(year: int, summary: str) -> None:
    @named_data(
        f"inaturalist-{year}",
        f"iNaturalist {year}: {summary}",
        layout=LAYOUT.format(year=year),
        download=DOWNLOAD.format(year=year),
        splits=("train", "val"),
        note="the labels of its test images are not public",
    )
    def read(root: Path, split: str, transform: Transform, *, level: Level = "name") -> LabeledImages:
        return read_inaturalist(root, split, transform, level, year)


_register(2018, "8,142 species, 437,513 images to train, 24,426 to validate")
_register(2019, "1,010 species of 72 genera, 265,213 images to train, 3,030 to validate")
