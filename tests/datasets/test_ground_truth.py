"""Ground truth from mask files and boxes: which pixels, from which file, and in the pixels that the network sees."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from official_layouts import middle
from PIL import Image
from torch.utils.data import DataLoader

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import LabeledArrays, LabeledFiles, Sample, Unreadable
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.ground_truth import GroundTruthImages, attach_boxes, attach_ground_truth, attach_masks, fill_box
from vitrail.datasets.mask_files import masks_by_image, read_mask
from vitrail.datasets.open import read_data
from vitrail.datasets.synthetic.counting import ColorCounting
from vitrail.datasets.synthetic.generation import read_generated_mask, write_synthetic

WHOLE = Preprocessing((8, 8), crop_fraction=1.0)
SHAPE = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
"""Two rows, three columns."""


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def random_mask(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.3


@pytest.fixture
def folders(tmp_path):
    """Photos of 16x12 pixels in two classes, one in a nested folder, and their masks, which are red in the photos."""
    for seed, name in enumerate(("crow/1", "crow/deep/2.old", "wren/1")):
        mask = random_mask(seed)
        save(tmp_path / "photos" / f"{name}.png", np.where(mask[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8))
        save(tmp_path / "masks" / f"{name}.png", mask.astype(np.uint8) * 255)
    return tmp_path


def scan(folders, transform=WHOLE):
    return ImageFolder.scan(folders / "photos", transform)


def palette(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *[200, 30, 30] * 254, 224, 224, 192])
    return image


def rgb(*shades: int) -> np.ndarray:
    return SHAPE[..., None] * np.array(shades, dtype=np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        SHAPE.astype(np.uint8),
        SHAPE.astype(np.uint8) * 255,
        SHAPE,
        SHAPE.astype(np.uint16) * 3,
        rgb(0, 0, 7),
        rgb(0, 9, 0),
        np.dstack([rgb(1, 0, 0), np.full((2, 3), 255, dtype=np.uint8)]),
        np.dstack([np.full((2, 3, 3), 90, dtype=np.uint8), SHAPE.astype(np.uint8) * 255]),
        np.dstack([np.full((2, 3), 90, dtype=np.uint8), SHAPE.astype(np.uint8)]),
        palette(SHAPE * 5),
    ],
    ids=["ones", "white", "one bit", "16 bits", "blue", "green", "opaque", "cut out", "gray cut out", "palette"],
)
def test_masks_of_every_mode(tmp_path, mask):
    assert np.array_equal(read_mask(save(tmp_path / "mask.png", mask)), SHAPE)


def test_palette_indices_count_except_the_void_border(tmp_path):
    """Indices count instead of colors, and the border of PASCAL VOC does not belong to the object."""
    indices = np.array([[0, 255, 1], [254, 255, 20]])
    found = read_mask(save(tmp_path / "voc.png", palette(indices)))
    assert found.tolist() == [[False, False, True], [True, False, True]]
    gray = read_mask(save(tmp_path / "gray.png", indices.astype(np.uint8)))
    assert gray.tolist() == [[False, True, True], [True, True, True]]
    black = palette(SHAPE * 5)
    black.putpalette([0] * 768)
    assert np.array_equal(read_mask(save(tmp_path / "black.png", black)), SHAPE)
    with pytest.raises(ImageError, match=r"got only 0 and 255, .* if 255 is the object, save the mask in gray"):
        read_mask(save(tmp_path / "white.png", palette(SHAPE * 255)))
    assert not read_mask(save(tmp_path / "none.png", palette(SHAPE * 0))).any()


def test_a_jpeg_mask_is_cut_at_half_of_white(tmp_path):
    """Compression makes many black pixels near an edge brighter than zero."""
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 5:27] = True
    path = save(tmp_path / "mask.jpg", mask.astype(np.uint8) * 255, quality=60)
    assert (np.asarray(Image.open(path)) > 0).sum() > 1.2 * mask.sum()
    assert np.array_equal(read_mask(path), mask)


def test_a_mask_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    found = read_mask(save(tmp_path / "mask.png", SHAPE.astype(np.uint8), exif=exif))
    assert np.array_equal(found, np.rot90(SHAPE, -1))


@pytest.mark.parametrize("content", [b"", b"no mask"], ids=["empty", "damaged"])
def test_damaged_and_missing_masks_are_refused(tmp_path, content):
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"mask\.png"):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="no such image file"):
        read_mask(tmp_path / "other.png")


def test_masks_are_found_by_image_path(tmp_path, monkeypatch):
    pixels = SHAPE.astype(np.uint8)
    for name in ("a/1.BMP", "a/1.png", "a/2.tif", "b/c/3.v2.png", "b/1.png", "4.png", ".hidden/5.png"):
        save(tmp_path / "masks" / name, pixels)
    names = ["a/1.jpg", "a/2.jpeg", "b/c/3.v2.png", "b/1.webp", "4.jpg", ".hidden/5.jpg", "a/6.jpg"]
    expected = ["a/1.png", "a/2.tif", "b/c/3.v2.png", "b/1.png", "4.png"]
    monkeypatch.chdir(tmp_path)
    for paths, root in (
        ([Path("photos", name) for name in names], "photos"),
        ([tmp_path / "photos" / name for name in names], "photos"),
        ([Path("photos", name) for name in names], tmp_path / "photos"),
        ([Path("masks", "..", "photos", name) for name in names], tmp_path / "photos"),
    ):
        found = masks_by_image(paths, "masks", root)
        assert found == {path: Path("masks", mask) for path, mask in zip(paths, expected, strict=False)}
    with pytest.raises(InvalidInputError, match=r"expected images below photos/a, got photos/b"):
        masks_by_image([Path("photos/b/1.webp")], "masks", "photos/a")
    with pytest.raises(InvalidInputError, match="no such folder of masks: nowhere"):
        masks_by_image([], "nowhere", "photos")


def test_a_linked_photo_is_matched_by_the_path_of_the_link(tmp_path):
    save(tmp_path / "store" / "77.png", SHAPE.astype(np.uint8))
    mask = save(tmp_path / "masks" / "a" / "1.png", SHAPE.astype(np.uint8))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    link = tmp_path / "photos" / "a" / "1.png"
    link.symlink_to(tmp_path / "store" / "77.png")
    assert masks_by_image([link], tmp_path / "masks", tmp_path / "photos") == {link: mask}


def test_a_single_photo_is_matched_by_name(folders):
    photo = folders / "photos" / "wren" / "1.png"
    images = attach_masks(ImageFolder.scan(photo, WHOLE), WHOLE, folders / "masks" / "wren", photo)
    assert np.array_equal(images.ground_truth(0), random_mask(2))


def test_attach_masks(folders):
    images = attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos")
    assert isinstance(images, GroundTruthImages)
    assert images.class_names == ["crow", "wren"]
    assert images.labels == [0, 0, 1]
    for index in range(3):
        assert np.array_equal(images.ground_truth(index), random_mask(index))
        sample = images[index]
        assert torch.equal(sample.ground_truth, WHOLE.region(random_mask(index)))
        assert torch.equal(sample.image, WHOLE(images.open(index)))
    batch = next(iter(DataLoader(images, 3, num_workers=2, collate_fn=collate)))
    assert batch.ground_truth.shape == (3, 8, 8)
    assert batch.ground_truth.dtype == torch.bool
    assert batch.paths == [str(path) for path in scan(folders).paths]


@pytest.mark.parametrize("mode", ["center", "squash", "whole"])
def test_masks_are_transformed_like_their_photos(folders, mode):
    """The photos are red inside their masks, and nearest-neighbor interpolation does not mix colors."""
    fraction = 1.0 if mode == "whole" else 0.7
    preprocessing = Preprocessing((6, 9), fraction, mode, interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)
    for sample in attach_masks(scan(folders), preprocessing, folders / "masks", folders / "photos"):
        red = sample.image[0] > 0.5
        assert sample.ground_truth.shape == red.shape
        assert 0 < int(red.sum()) < red.numel()
        assert torch.equal(sample.ground_truth, red)


def test_images_with_ground_truth_support_subsets_labels_and_copies(folders):
    images = attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos")
    part = images.subset([2, 0])
    assert [part.name(0), part.name(1)] == [images.name(2), images.name(0)]
    assert part.labels == [1, 0]
    assert np.array_equal(part.ground_truth(0), random_mask(2))
    relabeled = pickle.loads(pickle.dumps(part.with_labels([7, 8])))
    assert relabeled.subset([1]).labels == [8]
    assert [(sample.label, sample.path) for sample in relabeled] == [(7, images.name(2)), (8, images.name(0))]
    assert [images.labels[0], len(images.subsample(2)), images.box(0)] == [0, 2, None]
    assert type(images.subsample(2)) is type(images)
    other = images.with_transform(replace(WHOLE, size=(4, 4)))
    assert (other[0].image.shape, other[0].ground_truth.shape) == ((3, 4, 4), (4, 4))


def test_samples_of_an_unknown_transform_have_no_ground_truth(folders):
    images = attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos").with_transform(middle)
    assert images[0].ground_truth is None
    assert np.array_equal(images.ground_truth(0), random_mask(0))


def test_plain_images_have_no_ground_truth(folders):
    assert scan(folders).ground_truth(0) is None
    assert attach_ground_truth(scan(folders), WHOLE).ground_truth(0) is None


def test_attach_ground_truth_keeps_existing_ground_truth(folders):
    images = attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos")
    other = attach_ground_truth(images.with_labels([4, 5, 6]), replace(WHOLE, size=(4, 4)))
    assert (other.labels, other[0].ground_truth.shape) == ([4, 5, 6], (4, 4))
    assert np.array_equal(other.ground_truth(1), random_mask(1))


def test_attach_masks_replaces_generated_ground_truth(tmp_path):
    write_synthetic(ColorCounting(grid_size=2, patch_size=4), tmp_path / "data", {"test": 5})
    images = attach_ground_truth(ImageFolder.scan(tmp_path / "data" / "test", WHOLE), WHOLE).with_labels([9, 8, 7, 6, 5])
    for i in range(5):
        assert np.array_equal(images.ground_truth(i), read_generated_mask(images.name(i)))
        save(tmp_path / "own" / Path(images.name(i)).relative_to(tmp_path / "data" / "test"), np.eye(8, dtype=np.uint8))
    own = attach_masks(images, WHOLE, tmp_path / "own", tmp_path / "data" / "test")
    assert own.labels == [9, 8, 7, 6, 5]
    assert all(np.array_equal(own.ground_truth(i), np.eye(8, dtype=bool)) for i in range(5))


def test_images_with_damaged_or_wrongly_sized_masks_are_unreadable(folders):
    (folders / "masks" / "crow" / "1.png").write_bytes(b"no mask")
    save(folders / "masks" / "wren" / "1.png", np.ones((16, 12), dtype=np.uint8))
    batch = collate(list(attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos")))
    assert (len(batch.images), len(batch.ground_truth)) == (1, 1)
    damaged, rotated = batch.unreadable
    assert damaged.path.endswith("photos/crow/1.png")
    assert "expected an image file" in damaged.reason
    assert "masks/crow/1.png" in damaged.reason
    assert "a mask as large as its image, 16x12 pixels, got 12x16 for" in rotated.reason


def test_images_without_a_mask_are_refused_or_skipped(folders, caplog):
    (folders / "masks" / "crow" / "1.png").unlink()
    with pytest.raises(
        InvalidInputError, match=r"found none for 1 of 3 images, the first .*crow.1\.png; .*remove these images"
    ):
        attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos")
    part = attach_masks(scan(folders), WHOLE, folders / "masks", folders / "photos", only_masked=True)
    assert part.labels == [0, 1]
    assert np.array_equal(part.ground_truth(1), random_mask(2))
    assert "skipped 1 of 3 images, which have no mask" in caplog.text
    for only_masked in (False, True):
        with pytest.raises(InvalidInputError, match="found no mask of any image"):
            attach_masks(scan(folders), WHOLE, folders / "masks" / "wren", folders / "photos", only_masked)


def test_attach_masks_refuses_crops_and_arrays(folders):
    files = scan(folders)
    cropped = replace(files, boxes=[(0.0, 0.0, 4.0, 4.0)] * 3, crop_to_box=True)
    with pytest.raises(InvalidInputError, match="got images cropped to boxes"):
        attach_masks(cropped, WHOLE, folders / "masks", folders / "photos")
    arrays = LabeledArrays(np.zeros((2, 8, 8), np.uint8), [0, 1], ["a", "b"], WHOLE, "mnist/test")
    with pytest.raises(InvalidInputError, match=r"expected image files, .* got LabeledArrays"):
        attach_masks(arrays, WHOLE, folders / "masks", folders / "photos")


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2.0, 3.0, 5.0, 9.0), (3, 9), (2, 5)),
        ((-4.0, -1.0, 3.0, 90.0), (0, 12), (0, 3)),
        ((1.6, 0.4, 4.4, 2.6), (0, 3), (2, 4)),
        ((15.0, 11.0, 16.0, 12.0), (11, 12), (15, 16)),
    ],
)
def test_fill_box_clips_to_the_image(box, rows, columns):
    expected = np.zeros((12, 16), dtype=bool)
    expected[slice(*rows), slice(*columns)] = True
    assert np.array_equal(fill_box(box, 12, 16), expected)


def test_attach_boxes(folders):
    boxes = [(2.0, 3.0, 5.0, 9.0), (-9.0, 0.0, -1.0, 9.0), (16.0, 0.0, 20.0, 9.0)]
    files = scan(folders)
    images = attach_boxes(LabeledFiles(files.paths, files.labels, files.class_names, middle, boxes), WHOLE)
    sample, left, right = images
    assert isinstance(sample, Sample)
    assert torch.equal(sample.ground_truth, WHOLE.region(fill_box(boxes[0], 12, 16)))
    assert images.box(0) == boxes[0]
    for unreadable, box in ((left, boxes[1]), (right, boxes[2])):
        assert isinstance(unreadable, Unreadable)
        assert f"expected a box within 16x12 pixels, got {box} for" in unreadable.reason
    # The mask has the size of a crop to the box.
    cropped = replace(images.images, crop_to_box=True).open(0)
    rows, columns = np.nonzero(images.ground_truth(0))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == cropped.size


def test_attach_boxes_accepts_any_data_set_with_boxes(folders):
    class Squares(LabeledArrays):
        def box(self, index):
            return (0.0, 0.0, 2.0 + index, 4.0)

    arrays = Squares(np.zeros((2, 8, 8), np.uint8), [0, 1], ["a", "b"], middle, "squares")
    images = attach_boxes(arrays, WHOLE)
    assert [int(sample.ground_truth.sum()) for sample in images] == [8, 12]


def test_attach_boxes_refuses_data_sets_without_boxes(folders):
    with pytest.raises(InvalidInputError, match=r"found none for any of 3 images; .*cub-200-2011"):
        attach_boxes(scan(folders), WHOLE)
    cropped = replace(scan(folders), boxes=[(0.0, 0.0, 4.0, 4.0)] * 3, crop_to_box=True)
    with pytest.raises(InvalidInputError, match="do not crop it to them"):
        attach_boxes(cropped, WHOLE)


def test_images_without_a_box_are_skipped(folders, caplog):
    boxes = [None, (0.0, 0.0, 4.0, 4.0), None]
    images = attach_boxes(replace(scan(folders), boxes=boxes), WHOLE)
    assert [images.box(i) for i in range(len(images))] == [boxes[1]]
    assert "skipped 2 of 3 images, which have no box" in caplog.text


def write_pets(root, trimap):
    """Write Oxford-IIIT Pet with breeds 2 and 6, and one test image."""
    folder = root / "oxford-iiit-pet"
    save(folder / "images" / "american_bulldog_1.jpg", np.zeros((12, 16, 3), dtype=np.uint8))
    save(folder / "images" / "Bengal_2.jpg", np.zeros((12, 16, 3), dtype=np.uint8))
    save(folder / "annotations" / "trimaps" / "american_bulldog_1.png", trimap)
    save(folder / "annotations" / "trimaps" / "Bengal_2.png", np.full((12, 16), 2, dtype=np.uint8))
    for name in ("test", "trainval"):
        (folder / "annotations" / f"{name}.txt").write_text("Bengal_2 6 1 2\namerican_bulldog_1 2 2 1\n")
    (folder / "annotations" / "xmls").mkdir()
    box = "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>7</xmax><ymax>5</ymax></bndbox>"
    (folder / "annotations" / "xmls" / "american_bulldog_1.xml").write_text(f"<annotation><object>{box}</object></annotation>")
    return folder


TRIMAP = np.full((12, 16), 2, dtype=np.uint8)
TRIMAP[2:8, 3:9], TRIMAP[3:7, 4:8] = 3, 1


def test_trimaps_and_heads_of_pets_are_ground_truth(tmp_path, caplog):
    write_pets(tmp_path, TRIMAP)
    pets = read_data("oxford-pets", tmp_path, "test", WHOLE)
    assert pets.class_names == ["American Bulldog", "Bengal"]
    assert pets.labels == [1, 0]
    nothing, sample = attach_ground_truth(pets, WHOLE)
    assert torch.equal(sample.ground_truth, WHOLE.region(TRIMAP == 1))
    assert not nothing.ground_truth.any()
    [head] = attach_boxes(pets, WHOLE)
    assert torch.equal(head.ground_truth, WHOLE.region(fill_box((2.0, 1.0, 7.0, 5.0), 12, 16)))
    assert "skipped 1 of 2 images, which have no box" in caplog.text
    # Other uses of the images do not read trimaps.
    assert pets[0].ground_truth is None


def test_a_breed_that_one_list_lacks_has_the_same_label_in_both(tmp_path):
    folder = write_pets(tmp_path, TRIMAP)
    (folder / "annotations" / "trainval.txt").write_text("Bengal_2 6 1 2\n")
    train, test = (read_data("oxford-pets", tmp_path, split, WHOLE) for split in ("train", "test"))
    assert train.class_names == test.class_names == ["American Bulldog", "Bengal"]
    assert (train.labels, test.labels) == ([1], [1, 0])


def test_a_trimap_is_no_mask_and_a_mask_is_no_trimap(tmp_path):
    folder = write_pets(tmp_path, np.where(TRIMAP == 1, 255, 0).astype(np.uint8))
    _, unreadable = attach_ground_truth(read_data("oxford-pets", tmp_path, "test", WHOLE), WHOLE)
    assert isinstance(unreadable, Unreadable)
    assert "expected a trimap of 1 (object), 2 and 3 (border), got other pixels in" in unreadable.reason
    trimap = folder / "annotations" / "trimaps" / "Bengal_2.png"
    with pytest.raises(
        ImageError, match=r"got a trimap, which is 2 there, in .*Bengal_2\.png; score with --data-set oxford-pets"
    ):
        read_mask(trimap)


@pytest.mark.parametrize("text", ["<annotation>", "<annotation></annotation>", "<a><bndbox><xmin>?</xmin></bndbox></a>"])
def test_a_damaged_head_is_named(text, tmp_path):
    path = write_pets(tmp_path, TRIMAP) / "annotations" / "xmls" / "american_bulldog_1.xml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"damaged .*american_bulldog_1\.xml: expected XML with a box"):
        read_data("oxford-pets", tmp_path, "test", WHOLE)


def test_boxes_of_cub_are_ground_truth(tmp_path):
    """CUB-200-2011 with a single bird."""
    root = tmp_path / "CUB_200_2011"
    save(root / "images" / "001.Crow" / "1.jpg", np.zeros((12, 16, 3), dtype=np.uint8))
    for name, line in {
        "images": "1 001.Crow/1.jpg",
        "image_class_labels": "1 1",
        "train_test_split": "1 0",
        "bounding_boxes": "1 2.0 3.0 4.0 5.0",
        "classes": "1 001.Crow",
    }.items():
        (root / f"{name}.txt").write_text(line + "\n")
    [sample] = attach_boxes(read_data("cub-200-2011", tmp_path, "test", WHOLE), WHOLE)
    assert torch.equal(sample.ground_truth, WHOLE.region(fill_box((2.0, 3.0, 6.0, 8.0), 12, 16)))
