import json
import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.resizing import MAX_RESIZED_PIXELS, resize_within
from vitrail.core.errors import ImageError, InvalidInputError

PHOTO_SIZES = {
    "square": (64, 64),
    "landscape": (60, 97),
    "portrait": (131, 50),
    "tiny": (3, 5),
    "one pixel": (1, 1),
    "odd": (33, 47),
    "large": (301, 257),
    "thin": (7, 120),
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def timms(preprocessing: Preprocessing):
    """Return the evaluation transform of timm's validation script."""
    return create_transform(
        preprocessing.size,
        is_training=False,
        crop_pct=preprocessing.crop_fraction,
        crop_mode=preprocessing.crop_mode,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


@pytest.mark.parametrize("photo_size", PHOTO_SIZES.values(), ids=PHOTO_SIZES)
@pytest.mark.parametrize(("mode", "interpolation"), [("center", "bicubic"), ("center", "bilinear"), ("squash", "bicubic")])
def test_the_same_pixels_as_timm(photo_size, mode, interpolation):
    photo = noise(*photo_size)
    for side, fraction in product((32, 45), (1.0, 0.875, 0.9, 0.955)):
        preprocessing = Preprocessing((side, side), fraction, mode, interpolation, MEAN, STD)
        expected = timms(preprocessing)(photo)
        assert expected.shape == (3, side, side)
        torch.testing.assert_close(preprocessing(photo), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("photo_size", [(64, 64), (60, 97), (131, 50), (40, 60), (60, 40)])
def test_the_same_part_of_the_photo_as_timm_for_networks_that_are_not_square(photo_size):
    """Rounding may move the longer side by one pixel, so smooth photos are compared."""
    height, width = photo_size
    ramp = np.stack(np.broadcast_arrays(np.linspace(20, 230, height)[:, None], np.linspace(230, 20, width), 128.0), 2)
    photo = Image.fromarray(ramp.astype(np.uint8))
    for size, fraction in product(((32, 48), (48, 32)), (1.0, 0.875)):
        preprocessing = Preprocessing(size, fraction, mean=MEAN, std=STD)
        difference = (preprocessing(photo) - timms(preprocessing)(photo)).abs() * torch.tensor(STD).view(3, 1, 1)
        assert difference.max() <= 6 / 255, (size, fraction)


def test_squashing_shows_the_whole_photo_at_fraction_one():
    preprocessing = Preprocessing((20, 30), 1.0, "squash")
    assert preprocessing.resized_size(77, 500) == (20, 30)
    assert preprocessing.visible_box(77, 500) == (0, 0, 500, 77)


def test_a_network_with_one_channel():
    preprocessing = Preprocessing((8, 8), 1.0, mean=(0.25,), std=(0.5,))
    image = preprocessing(Image.new("RGB", (8, 8), (255, 0, 0)))
    assert image.shape == (1, 8, 8)
    torch.testing.assert_close(image, torch.full((1, 8, 8), (76 / 255 - 0.25) / 0.5))


@pytest.mark.parametrize(("mode", "color"), [("L", 51), ("RGBA", (51, 51, 51, 255)), ("1", 1)])
def test_other_kinds_of_photo_become_rgb(mode, color):
    image = Preprocessing((4, 4), mean=(0.0,) * 3, std=(1.0,) * 3)(Image.new(mode, (9, 5), color))
    torch.testing.assert_close(image, torch.full((3, 4, 4), 1.0 if mode == "1" else 0.2))


VISIBLE = [
    ((50, 50), 1.0, "center", (100, 200), (50, 0, 150, 100)),
    ((50, 50), 1.0, "center", (200, 100), (0, 50, 100, 150)),
    ((50, 50), 1.0, "center", (25, 50), (12.5, 0, 37.5, 25)),
    ((50, 50), 0.5, "center", (100, 100), (25, 25, 75, 75)),
    ((50, 50), 0.5, "center", (200, 400), (150, 50, 250, 150)),
    ((40, 80), 1.0, "center", (100, 100), (0, 25, 100, 75)),
    ((80, 40), 1.0, "center", (80, 160), (60, 0, 100, 80)),
    ((40, 80), 1.0, "squash", (300, 100), (0, 0, 100, 300)),
    ((50, 50), 0.5, "squash", (100, 200), (50, 25, 150, 75)),
]


@pytest.mark.parametrize(("size", "fraction", "mode", "photo_size", "box"), VISIBLE)
def test_the_visible_box_in_numbers(size, fraction, mode, photo_size, box):
    assert Preprocessing(size, fraction, mode).visible_box(*photo_size) == pytest.approx(box)


@pytest.mark.parametrize(("size", "fraction", "mode", "photo_size", "box"), VISIBLE)
def test_a_photo_painted_in_its_visible_box_only(size, fraction, mode, photo_size, box):
    left, top, right, bottom = (round(side) for side in box)
    inside = np.zeros((*photo_size, 3), np.uint8)
    inside[top:bottom, left:right] = 255
    preprocessing = Preprocessing(size, fraction, mode, "nearest", (0.0,) * 3, (1.0,) * 3)
    seen = preprocessing(Image.fromarray(inside))
    assert seen[:, 1:-1, 1:-1].eq(1).all()
    shares = seen.mean(), preprocessing(Image.fromarray(255 - inside)).mean()
    assert shares[0] > 0.95
    assert shares[1] < 0.05


@pytest.mark.parametrize("photo_size", [(60, 97), (131, 50), (33, 47), (255, 201), (48, 256), (9, 14)], ids=str)
def test_the_edges_of_the_visible_box_on_a_photo_that_shows_its_coordinates(photo_size):
    """Red encodes the column of a pixel and green its row, so the border of what the network sees shows where the box ends."""
    height, width = photo_size
    rows, cols = np.indices(photo_size)
    photo = Image.fromarray(np.stack([cols, rows, 0 * rows], 2).astype(np.uint8))
    for size, fraction in product(((32, 32), (45, 45), (24, 40)), (1.0, 0.875, 0.9)):
        preprocessing = Preprocessing(size, fraction, "center", "bilinear", (0.0,) * 3, (1.0,) * 3)
        seen = preprocessing(photo) * 255
        left, top, right, bottom = preprocessing.visible_box(height, width)
        for seen_coordinates, low, high, length, limit in (
            (seen[0, 0], left, right, size[1], width),
            (seen[1, :, 0], top, bottom, size[0], height),
        ):
            step = (high - low) / length
            centers = low + (torch.arange(length) + 0.5) * step
            inner = (centers > 0.5 + step) & (centers < limit - 0.5 - step)
            # Half a resized pixel from centering the crop, one gray level from rounding twice.
            assert (seen_coordinates + 0.5 - centers)[inner].abs().max() <= 0.5 * step + 1, (size, fraction)


@pytest.mark.parametrize("photo_size", PHOTO_SIZES.values(), ids=PHOTO_SIZES)
def test_the_visible_box_lies_within_the_photo_and_has_the_networks_proportions(photo_size):
    height, width = photo_size
    for size, fraction in product(((32, 32), (24, 40)), (1.0, 0.875)):
        preprocessing = Preprocessing(size, fraction)
        left, top, right, bottom = preprocessing.visible_box(height, width)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert left == pytest.approx(width - right)
        assert top == pytest.approx(height - bottom)
        resized_height, resized_width = preprocessing.resized_size(height, width)
        assert resized_height >= size[0]
        assert resized_width >= size[1]
        assert min(resized_height / size[0], resized_width / size[1]) == pytest.approx(1 / fraction, rel=1 / min(size))


@pytest.mark.parametrize("channels", [1, 3])
def test_denormalize_undoes_the_normalization(channels):
    preprocessing = Preprocessing((8, 8), 1.0, mean=MEAN[:channels], std=STD[:channels])
    photo = noise(8, 8).convert("RGB" if channels == 3 else "L")
    pixels = torch.from_numpy(np.array(photo)).reshape(8, 8, channels).permute(2, 0, 1) / 255
    torch.testing.assert_close(preprocessing.denormalize(preprocessing(photo)[None])[0], pixels)


def test_denormalize_stays_between_black_and_white():
    images = torch.full((2, 3, 2, 2), 100.0)
    images[1] = -100
    pixels = Preprocessing().denormalize(images)
    assert pixels[0].eq(1).all()
    assert pixels[1].eq(0).all()


def test_denormalize_keeps_the_precision():
    assert Preprocessing().denormalize(torch.zeros(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64


def test_a_description_in_json_gives_the_same_back():
    preprocessing = Preprocessing((24, 40), 0.9, "squash", "bilinear", MEAN, STD)
    described = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(described) == preprocessing
    assert hash(Preprocessing.from_dict(described)) == hash(preprocessing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_mode": "border"}, "expected crop_mode to be one of 'center', 'squash', 'whole', got 'border'"),
        (
            {"crop_mode": "whole"},
            "expected crop_fraction 1 with crop_mode 'whole', which crops nothing, got 0.875; set crop_fr",
        ),
        ({"crop_fraction": 0.0}, "expected 0 < crop_fraction <= 1, got 0.0"),
        ({"crop_fraction": -0.5}, "expected 0 < crop_fraction <= 1, got -0.5"),
        ({"crop_fraction": 1.01}, "expected 0 < crop_fraction <= 1, got 1.01"),
        ({"crop_fraction": float("nan")}, "expected 0 < crop_fraction <= 1, got nan"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'; choose one of: "),
        (
            {"mean": (0.5,)},
            "expected mean and std of one finite number per channel, both of the same length, got (0.5,) and (0.229, 0.224, 0.225)",
        ),
        (
            {"mean": (), "std": ()},
            "expected mean and std of one finite number per channel, both of the same length, got () and ()",
        ),
        ({"std": (0.0, 0.5, 0.5)}, "std"),
        ({"std": (-0.5, 0.5, 0.5)}, "std"),
        ({"size": (0, 224)}, "size"),
        ({"size": (224, -1)}, "size"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        Preprocessing(**arguments)


def test_a_photo_too_thin_is_refused():
    preprocessing = Preprocessing((224, 224), 1.0)
    message = "expected a photo of ordinary proportions, got 30000x10 pixels, which resizes to 672000x224; crop it first"
    with pytest.raises(ImageError, match=f"^{message}$"):
        preprocessing(Image.new("1", (30_000, 10)))
    with pytest.raises(ImageError, match="got 10x30000 pixels, which resizes to 224x672000"):
        preprocessing(Image.new("1", (10, 30_000)))


def test_a_panorama_is_accepted():
    preprocessing = Preprocessing((16, 16), 1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    height, width = preprocessing.resized_size(100, 30_000)
    assert (height, width) == (16, 4800)
    assert height * width < MAX_RESIZED_PIXELS
    assert preprocessing(Image.new("RGB", (30_000, 100), (255, 255, 255))).eq(1).all()


@pytest.mark.parametrize("photo_size", PHOTO_SIZES.values(), ids=PHOTO_SIZES)
def test_a_region_is_resized_and_cropped_as_its_photo(photo_size):
    region = np.random.default_rng(1).random(photo_size) < 0.4
    drawn = Image.fromarray(region.astype(np.uint8) * 255).convert("RGB")
    for size, (mode, fraction) in product(((32, 48), (45, 45)), (("center", 1.0), ("center", 0.875), ("squash", 0.9))):
        preprocessing = Preprocessing(size, fraction, mode, "nearest", MEAN, STD)
        expected = preprocessing.denormalize(preprocessing(drawn)[None])[0, 0] > 0.5
        assert preprocessing.region(region).shape == size
        assert torch.equal(preprocessing.region(region), expected)


@pytest.mark.parametrize("photo_size", [(64, 64), (60, 97), (131, 50), (301, 257)])
@pytest.mark.parametrize(("mode", "fraction"), [("center", 1.0), ("center", 0.7), ("squash", 0.7)])
def test_a_region_lies_where_the_visible_box_says(photo_size, mode, fraction):
    height, width = photo_size
    preprocessing = Preprocessing((96, 64), fraction, mode)
    left, top, right, bottom = preprocessing.visible_box(height, width)
    rows, cols = np.indices(photo_size) + 0.5
    for row, col in ((0.5, 0.5), (0.3, 0.8), (0.7, 0.1)):
        # All that is above and to the left of a point; the point is at the same share of what is seen.
        region = (rows < top + row * (bottom - top)) & (cols < left + col * (right - left))
        seen = preprocessing.region(region)
        assert float(seen.any(1).sum()) == pytest.approx(96 * row, abs=1.5 * max(1, 96 / (bottom - top)))
        assert float(seen.any(0).sum()) == pytest.approx(64 * col, abs=1.5 * max(1, 64 / (right - left)))


def whole(*limits: int, interpolation: str = "bilinear") -> Preprocessing:
    return Preprocessing(limits, 1.0, "whole", interpolation, MEAN, STD)


@pytest.mark.parametrize(
    ("photo_size", "size"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((375, 500), (800, 1066)),
        ((333, 333), (800, 800)),
        ((800, 1333), (800, 1333)),
        ((800, 1334), (799, 1332)),
        ((300, 1000), (400, 1333)),
        ((1000, 300), (1333, 400)),
        ((100, 201), (663, 1332)),
        ((11, 4000), (4, 1454)),
        ((1, 1), (800, 800)),
        ((10, 30_000), (1, 1333)),
        ((30_000, 10), (1333, 1)),
    ],
    ids=str,
)
def test_whole_photos_come_to_the_sizes_of_detr(photo_size, size):
    for limits in ((800, 1333), (1333, 800)):
        assert whole(*limits).resized_size(*photo_size) == whole(*limits).seen_size(*photo_size) == size


def detrs_size(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """The rule in exact fractions, with rounding: the shorter side to the nearest, the longer side down."""
    proportions = Fraction(max(height, width), min(height, width))
    side = shorter if proportions * shorter <= longest else round(longest / proportions)
    sides = side, int(side * proportions)
    return sides if height < width else sides[::-1]


@pytest.mark.parametrize("limits", [(800, 1333), (32, 53), (7, 7), (224, 224), (1, 9)], ids=str)
def test_sizes_of_whole_photos_by_a_rule_in_exact_numbers(limits):
    generator = np.random.default_rng(0)
    for height, width in generator.integers(1, 5000, (400, 2)).tolist():
        expected = detrs_size(height, width, *limits)
        if min(expected):
            assert whole(*limits).resized_size(height, width) == expected
        else:
            assert sorted(whole(*limits).resized_size(height, width)) == [1, limits[1]]
        assert resize_within(height, width, limits[0]) == detrs_size(height, width, limits[0], 10**9)


@pytest.mark.parametrize("photo_size", PHOTO_SIZES.values(), ids=PHOTO_SIZES)
def test_a_whole_photo_is_resized_and_nothing_else(photo_size):
    preprocessing, photo = whole(32, 53, interpolation="bicubic"), noise(*photo_size)
    height, width = detrs_size(*photo_size, 32, 53)
    resized = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    pixels = torch.from_numpy(resized.copy()) / 255
    expected = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(preprocessing(photo), expected, rtol=0, atol=1e-6)
    assert preprocessing.visible_box(*photo_size) == (0, 0, photo_size[1], photo_size[0])
    region = np.random.default_rng(1).random(photo_size) < 0.4
    seen = Image.fromarray(region.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    assert torch.equal(preprocessing.region(region), torch.from_numpy(np.asarray(seen).astype(bool)))


def test_whether_all_photos_come_to_one_size():
    assert [mode for mode in ("center", "squash", "whole") if Preprocessing((8, 8), 1.0, mode).fixed] == ["center", "squash"]
    assert Preprocessing((24, 40)).seen_size(77, 500) == (24, 40)


def test_a_description_of_whole_photos_in_json_gives_the_same_back():
    described = json.loads(json.dumps(whole(800, 1333).to_dict()))
    assert described["crop_mode"] == "whole"
    assert Preprocessing.from_dict(described) == whole(800, 1333)


def test_a_thin_photo_is_taken_whole_within_its_limits():
    assert whole(16, 27)(Image.new("RGB", (30_000, 10))).shape == (3, 1, 27)
