import numpy as np
import pytest
import torch
from PIL import Image
from samples import noisy_photo

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.viz.overlay import fade, heatmap, overlay

GRAY = Image.new("RGB", (64, 64), (120, 120, 120))
WHOLE = (0.0, 0.0, 64.0, 64.0)


def hot(row=1, col=2, value=1.0, size=4):
    relevance = torch.zeros(size, size)
    relevance[row, col] = value
    return relevance


def pixels(image):
    return np.asarray(image).astype(int)


def colorfulness(image):
    values = pixels(image.convert("RGB"))
    return values.max(-1) - values.min(-1)


def test_one_hot_patch_colors_its_block_and_no_other():
    colored = colorfulness(overlay(GRAY, hot(row=1, col=2), WHOLE, side=64)) > 20
    expected = np.zeros((64, 64), dtype=bool)
    expected[16:32, 32:48] = True
    np.testing.assert_array_equal(colored, expected)


def test_block_lies_inside_the_box():
    photo = Image.new("RGB", (160, 64), (120, 120, 120))
    picture = overlay(photo, hot(row=3, col=0), (48.0, 0.0, 112.0, 64.0), side=64)
    assert picture.size == (160, 64)
    rows, cols = np.nonzero(colorfulness(picture) > 20)
    # Two pixels at the rim belong to the frame.
    assert (rows.min(), rows.max()) == (48, 64 - 3)
    assert (cols.min(), cols.max()) == (48 + 2, 48 + 15)


@pytest.mark.parametrize("smoothing", ["nearest", "bilinear"])
def test_zero_relevance_leaves_the_photo_uncolored(smoothing):
    photo = noisy_photo(0, (64, 64))
    assert np.array_equal(pixels(heatmap(torch.zeros(4, 4), (64, 64), smoothing))[..., 3], np.zeros((64, 64)))
    plain = overlay(GRAY, torch.zeros(4, 4), WHOLE, side=64, smoothing=smoothing)
    assert colorfulness(plain).max() == 0
    assert len(set(pixels(overlay(photo, torch.zeros(4, 4), WHOLE, side=64))[0, :, 0])) > 1  # The photo is still there.


def test_signed_heatmaps_are_red_for_and_blue_against():
    relevance = hot(0, 0, 1.0) + hot(3, 3, -1.0)
    values = pixels(overlay(GRAY, relevance, WHOLE, side=64))
    for_it, against = values[8, 8], values[56, 56]
    assert for_it[0] > for_it[2] + 40
    assert against[2] > against[0] + 40
    assert np.ptp(values[8, 56]) == 0


def test_half_the_relevance_is_fainter():
    relevance = hot(0, 0, 1.0) + hot(3, 3, 0.5)
    alpha = pixels(heatmap(relevance, (64, 64)))[..., 3]
    assert alpha[8, 8] == 255
    assert 0 < alpha[56, 56] < 255


def test_scale_gets_the_full_color():
    own, larger, smaller = (pixels(heatmap(hot(value=2.0), (8, 8), scale=scale)) for scale in (None, 4.0, 0.5))
    np.testing.assert_array_equal(own, pixels(heatmap(hot(value=1.0), (8, 8))))
    assert larger[2, 4, 3] < own[2, 4, 3] == 255
    np.testing.assert_array_equal(smaller, own)  # Clipped, not wrapped round.
    np.testing.assert_array_equal(larger, pixels(heatmap(hot(value=1.0), (8, 8), scale=2.0)))


def test_smoothing_blends_patches():
    assert len(np.unique(pixels(heatmap(hot(), (64, 64)))[..., 3])) == 2
    assert len(np.unique(pixels(heatmap(hot(), (64, 64), "bilinear"))[..., 3])) > 10


def test_outside_of_the_box_is_dimmed_and_gray():
    photo = Image.new("RGB", (160, 64), (200, 30, 30))
    picture = overlay(photo, torch.zeros(4, 4), (48.0, 0.0, 112.0, 64.0), side=64)
    values = pixels(picture)
    outside = np.concatenate([values[:, :48], values[:, 112:]], axis=1)
    assert np.ptp(outside, axis=-1).max() == 0
    assert np.unique(outside).size == 1
    luminance = pixels(photo.convert("L"))[0, 0]
    assert outside[0, 0, 0] > luminance + 50
    assert (values[2:-2, 50:110] < outside[0, 0]).all()
    assert (values[32, 48] == 255).all()  # The frame.


def test_box_of_the_whole_photo_has_no_frame():
    assert pixels(overlay(GRAY, torch.zeros(4, 4), WHOLE, side=64)).max() < 255


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (448, 448)), ((100, 50), (896, 448)), ((50, 100), (448, 896)), ((1000, 500), (896, 448))]
)
def test_shorter_side_has_the_given_size(size, expected):
    photo = noisy_photo(0, size)
    assert overlay(photo, hot(), (0.0, 0.0, *map(float, size))).size == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 3000), (3000, 7), (3, 5)])
@pytest.mark.parametrize("model_size", [(16, 16), (16, 32)])
def test_thin_photos_are_drawn(size, model_size):
    width, height = size
    box = Preprocessing(model_size).visible_box(height, width)
    picture = overlay(noisy_photo(0, size), hot(), box)
    assert min(picture.size) >= 1
    assert max(picture.size) <= 4 * 448


def test_relevance_is_unchanged_and_can_be_half_precision():
    relevance = hot(value=3.0)
    first = pixels(overlay(GRAY, relevance, WHOLE, side=64))
    assert relevance.max() == 3.0
    np.testing.assert_array_equal(first, pixels(overlay(GRAY, hot(value=3.0).half(), WHOLE, side=64)))


def test_signed_heatmap_without_negative_numbers_is_red():
    picture = pixels(overlay(GRAY, hot(1, 2), WHOLE, side=64, signed=True))
    mixed = pixels(overlay(GRAY, hot(1, 2) + hot(3, 3, -1.0), WHOLE, side=64))
    np.testing.assert_array_equal(picture[16:32, 32:48], mixed[16:32, 32:48])


def test_kept_cells_are_unchanged_and_removed_cells_are_faded():
    photo, keep = noisy_photo(0, (64, 64)), hot(row=1, col=2) + hot(row=3, col=0)
    kept = keep.bool().numpy().repeat(16, axis=0).repeat(16, axis=1)
    picture, original = pixels(fade(photo, keep, WHOLE, side=64)), pixels(photo)
    np.testing.assert_array_equal(picture[kept], original[kept])
    assert np.ptp(picture[~kept], axis=-1).max() == 0  # Gray,
    assert (picture[~kept][:, 0] >= 0.7 * 255 - 1).all()  # and light,
    assert len(np.unique(picture[~kept])) > 1  # but still to be seen.
    np.testing.assert_array_equal(pixels(fade(photo, torch.ones(4, 4), WHOLE, side=64)), original)


def test_partly_kept_cells_are_partly_faded():
    photo = noisy_photo(0, (64, 64))
    whole, half, none = (pixels(fade(photo, torch.full((4, 4), keep), WHOLE, side=64)) for keep in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(half, (whole + none) / 2, atol=2)
    mixed = pixels(fade(photo, hot(value=0.5), WHOLE, side=64))
    np.testing.assert_array_equal(mixed[16:32, 32:48], half[16:32, 32:48])
    np.testing.assert_array_equal(mixed[32:], none[32:])


def test_cells_lie_inside_the_box_and_the_rest_is_faded():
    photo = Image.new("RGB", (160, 64), (200, 30, 30))
    picture = fade(photo, hot(row=3, col=0), (48.0, 0.0, 112.0, 64.0), side=64)
    assert picture.size == (160, 64)
    rows, cols = np.nonzero(colorfulness(picture))
    # One pixel at the rim belongs to the frame.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (48, 64 - 2, 48 + 1, 48 + 15)
    assert (pixels(picture)[32, [48, 111]] == 128).all()
    assert (pixels(picture)[32, [47, 112]] > 200).all()


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (3, 5)])
def test_masks_of_thin_photos_are_drawn(size):
    box = Preprocessing((16, 32)).visible_box(size[1], size[0])
    assert fade(noisy_photo(0, size), hot(), box).size == overlay(noisy_photo(0, size), hot(), box).size
