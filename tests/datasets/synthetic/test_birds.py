"""The data set of birds: masks, classes that differ in single parts, and the spurious cue."""

from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SYNTHETIC, SyntheticSample
from vitrail.datasets.synthetic.birds import PARTS, SPECIES, Birds, separating_parts
from vitrail.datasets.synthetic.birds.cue import choose_cue

CLASSES = len(SPECIES)
SIZES = (64, 96, 256)


@cache
def all_species(size: int, index: int) -> list[SyntheticSample]:
    """Every species, painted with the same random numbers."""
    dataset = Birds(size=size, num_classes=CLASSES)
    return [dataset.paint(label, dataset.random("val", index)) for label in range(CLASSES)]


def pixels(sample: SyntheticSample) -> np.ndarray:
    return np.asarray(sample.image)


def dilate(mask: np.ndarray, distance: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * distance + 1))) > 0


def same(a: SyntheticSample, b: SyntheticSample) -> bool:
    return (
        a.label == b.label
        and np.array_equal(pixels(a), pixels(b))
        and a.masks.keys() == b.masks.keys()
        and all(np.array_equal(a.masks[name], b.masks[name]) for name in a.masks)
    )


def test_the_data_set_is_registered():
    assert SYNTHETIC["birds"] is Birds


def test_a_sample_depends_only_on_fields_split_and_index():
    first = Birds(seed=3).draw("train", 5)
    assert same(first, Birds(seed=3).draw("train", 5))
    for other in (Birds(seed=4).draw("train", 5), Birds(seed=3).draw("val", 5), Birds(seed=3).draw("train", 14)):
        assert not np.array_equal(pixels(first), pixels(other))


def test_classes_are_balanced():
    labels = Counter(Birds(size=64, num_classes=5).draw("test", index).label for index in range(10))
    assert labels == dict.fromkeys(range(5), 2)


def test_names_of_species():
    names = Birds().class_names
    assert len(names) == 9
    assert names[0] == "common finch"
    assert len({species.name for species in SPECIES}) == CLASSES >= 13
    assert Counter(species.part for species in SPECIES[1:]) == dict.fromkeys(PARTS, 2)


@pytest.mark.parametrize("size", SIZES)
def test_masks_have_the_shape_of_the_image_and_do_not_touch_its_border(size):
    dataset = Birds(size=size)
    assert dataset.image_size == (size, size)
    for sample in all_species(size, 0):
        assert sample.image.mode == "RGB"
        assert sample.image.size == (size, size)
        assert sample.masks.keys() == {*PARTS, "bird", GROUND_TRUTH}
        for mask in sample.masks.values():
            assert mask.dtype == bool
            assert mask.shape == (size, size)
            assert mask.sum() == mask[1:-1, 1:-1].sum()


@pytest.mark.parametrize(("size", "index"), [(64, 0), (64, 1), (96, 0), (96, 1), (256, 0)])
def test_the_ground_truth_is_large_enough_to_be_visible(size, index):
    for sample in all_species(size, index):
        # At least about 5x5 pixels at the smallest image size.
        assert sample.masks[GROUND_TRUTH].sum() >= 25 * (size / 64) ** 2


def test_parts_are_disjoint_and_belong_to_the_bird():
    for sample in all_species(96, 1):
        parts = np.sum([sample.masks[part] for part in PARTS], axis=0)
        assert parts.max() == 1
        assert not (parts.astype(bool) & ~sample.masks["bird"]).any()


def test_the_ground_truth_is_the_part_that_differs_from_the_common_bird():
    common, *others = all_species(96, 1)
    for sample in others:
        (part,) = separating_parts(0, sample.label)
        assert np.array_equal(sample.masks[GROUND_TRUTH], sample.masks[part])
    union = np.any([common.masks[part] for part in PARTS], axis=0)
    assert np.array_equal(common.masks[GROUND_TRUTH], union)
    assert not common.masks["crest"].any()


def test_the_ground_truth_of_the_common_bird_covers_only_parts_of_the_classes():
    sample = Birds(num_classes=3).draw("train", 0)
    assert np.array_equal(sample.masks[GROUND_TRUTH], sample.masks["beak"] | sample.masks["wing"])


def test_two_species_differ_in_one_or_two_parts():
    for a, b in combinations(range(CLASSES), 2):
        parts = separating_parts(a, b)
        assert len(parts) in (1, 2)
        assert parts == separating_parts(b, a)
        assert set(parts) == {SPECIES[a].part, SPECIES[b].part} - {None}
    assert separating_parts(4, 4) == ()


@pytest.mark.parametrize(("size", "index"), [(64, 0), (64, 1), (96, 0), (96, 1)])
def test_two_species_differ_only_in_their_separating_parts(size, index):
    for a, b in combinations(all_species(size, index), 2):
        assert_equal_elsewhere(a, b)


def test_large_birds_differ_only_in_their_separating_parts():
    common, *others = all_species(256, 0)
    for other in others:
        assert_equal_elsewhere(common, other)


def assert_equal_elsewhere(a: SyntheticSample, b: SyntheticSample) -> None:
    region = np.any([bird.masks[part] for bird in (a, b) for part in separating_parts(a.label, b.label)], axis=0)
    different = (pixels(a) != pixels(b)).any(axis=2)
    assert (different & region).sum() >= 12 * (len(region) / 64) ** 2
    # A part that ends in a thin wedge between two others covers less than half of its last few pixels.
    assert (different & ~dilate(region, 2)).sum() <= 5
    assert not (different & ~dilate(region, 6)).any()


def test_birds_look_left_and_right():
    tails_left = 0
    for index in range(16):
        masks = Birds(size=64, num_classes=2).draw("train", index).masks
        tails_left += np.argwhere(masks["tail"])[:, 1].mean() < np.argwhere(masks["beak"])[:, 1].mean()
    assert 3 < tails_left < 13


def test_without_a_cue_there_is_no_cue_mask():
    assert "cue" not in Birds().draw("train", 0).masks


@pytest.mark.parametrize("size", [64, 96])
def test_the_cue_is_fully_visible_and_changes_nothing_else(size):
    for index in range(3):
        cued = Birds(size=size, spurious=0.5).draw("train", index)
        plain = Birds(size=size).draw("train", index)
        cue = cued.masks["cue"]
        assert cue.sum() > 0.008 * size**2
        assert not (pixels(cued) != pixels(plain)).any(axis=2)[~dilate(cue, 2)].any()
        assert all(np.array_equal(cued.masks[name], plain.masks[name]) for name in plain.masks)


@pytest.mark.parametrize("spurious", [0.0, 0.6, 1.0])
def test_the_cue_agrees_with_probability_spurious_and_else_is_uniform(spurious):
    random = np.random.default_rng(0)
    cues = Counter(choose_cue(2, 5, spurious, random) for _ in range(4000))
    assert cues[2] / 4000 == pytest.approx(spurious, abs=0.03)
    for other in (0, 1, 3, 4):
        assert cues[other] / 4000 == pytest.approx((1 - spurious) / 4, abs=0.03)


def test_the_colors_of_cues_are_distinct():
    dataset = Birds(size=64, num_classes=CLASSES, spurious=1.0)
    samples = [dataset.paint(label, dataset.random("train", 0)) for label in range(CLASSES)]
    colors = [pixels(sample)[sample.masks["cue"]].mean(axis=0) for sample in samples]
    assert min(np.abs(a - b).max() for a, b in combinations(colors, 2)) > 10


def test_the_cue_indicates_the_other_class_with_probability_one_minus_spurious():
    never, always = (Birds(size=64, num_classes=2, spurious=share) for share in (1e-9, 1.0))
    for index in range(3):
        shown = never.draw("train", index)
        other = always.paint(1 - shown.label, always.random("train", index))
        cue = shown.masks["cue"]
        assert np.array_equal(pixels(shown)[cue], pixels(other)[cue])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 63}, "expected a size of 64 to 256 pixels, got 63"),
        ({"size": 257}, "expected a size of 64 to 256 pixels, got 257"),
        ({"num_classes": 1}, "expected 2 to 13 classes, got 1"),
        ({"num_classes": 14}, "expected 2 to 13 classes, got 14"),
        ({"spurious": -0.1}, "expected spurious to be a probability from 0 to 1, got -0.1"),
        ({"spurious": 1.5}, "expected spurious to be a probability from 0 to 1, got 1.5"),
        ({"spurious": float("nan")}, "expected spurious to be a probability from 0 to 1, got nan"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        Birds(**fields)


def test_bad_indices_and_labels_are_refused():
    with pytest.raises(InvalidInputError, match="expected an index of at least 0, got -1"):
        Birds().draw("train", -1)
    with pytest.raises(InvalidInputError, match="expected a class of 0 to 8, got 9"):
        Birds().paint(9, np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="expected a class of 0 to 12, got 13"):
        separating_parts(0, 13)
