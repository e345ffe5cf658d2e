import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.augmentation.transforms import (
    AugmentationConfig,
    RedrawOnError,
    make_label_mixing,
    make_training_transform,
)

POLICIES = [None, "3a", "rand-m9-mstd0.5-inc1", "original"]
GENTLE = {"horizontal_flip": 0, "color_jitter": 0, "crop_scale": (1, 1), "crop_ratio": (1, 1)}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_images_have_the_size_of_the_network(photo, policy, size):
    transform = make_training_transform(AugmentationConfig(auto_augment=policy), Preprocessing(size))
    for _ in range(5):
        image = transform(photo)
        assert image.shape == (3, *size)
        assert image.dtype == torch.float32
        assert image.isfinite().all()


@pytest.mark.parametrize("policy", POLICIES)
def test_images_are_normalized_for_the_network(photo, policy):
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.4)
    transform = make_training_transform(AugmentationConfig(auto_augment=policy), Preprocessing((16, 16), mean=mean, std=std))
    images = torch.stack([transform(photo) for _ in range(10)])
    pixels = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert pixels.std() > 0.05


def test_without_augmentation_a_square_photo_is_only_resized():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0)
    torch.testing.assert_close(
        make_training_transform(AugmentationConfig(**GENTLE), preprocessing)(photo), preprocessing(photo)
    )


def test_horizontal_flip():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0)
    transform = make_training_transform(AugmentationConfig(**GENTLE | {"horizontal_flip": 1}), preprocessing)
    torch.testing.assert_close(transform(photo), preprocessing(photo).flip(2))


def test_the_smallest_crop_is_respected():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    config = AugmentationConfig(**GENTLE | {"crop_scale": (0.25, 0.25)})
    transform = make_training_transform(
        config, Preprocessing((16, 16), interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    spans = [(image[0, 0, -1] - image[0, 0, 0]).item() for image in (transform(ramp.convert("RGB")) for _ in range(10))]
    assert spans == pytest.approx([128 / 255 * 15 / 16] * 10, abs=2 / 255)


def test_random_erasing_changes_a_part_of_the_image(photo):
    flat = Image.new("RGB", (16, 16), (0, 0, 0))
    config = AugmentationConfig(**GENTLE, random_erasing=1.0)
    erased = make_training_transform(config, Preprocessing((16, 16)))(flat)
    background = Preprocessing((16, 16))(flat)[:, :1, :1]
    changed = (erased != background).any(0).float().mean()
    assert 0 < changed < 0.5


@pytest.mark.parametrize("policy", POLICIES)
def test_images_for_a_network_with_one_channel(photo, policy):
    transform = make_training_transform(
        AugmentationConfig(auto_augment=policy), Preprocessing((16, 16), mean=(0.5,), std=(0.5,))
    )
    assert transform(photo).shape == (1, 16, 16)


def only(**changes):
    """No augmentation except `changes`."""
    return AugmentationConfig(**GENTLE | changes)


def flat(pixels, preprocessing=None):
    return (preprocessing or Preprocessing((16, 16), crop_fraction=1.0))(Image.fromarray(pixels))


@pytest.mark.parametrize(("mode", "colors"), [("pixel", 50), ("rand", 1), ("const", 1)])
def test_erased_regions_are_filled_by_erasing_mode(mode, colors):
    red = Image.new("RGB", (16, 16), (200, 0, 0))
    image = make_training_transform(only(random_erasing=1.0, erasing_mode=mode), Preprocessing((16, 16)))(red)
    erased = image[:, ((image - flat(np.asarray(red))).abs() > 0.01).any(0)]
    assert erased.shape[1] >= 8
    assert min(erased.unique(dim=1).shape[1], 50) == min(colors, erased.shape[1])
    assert (mode == "const") == bool((erased == 0).all())


def test_erasing_count_limits_the_number_of_regions():
    transform = make_training_transform(
        only(random_erasing=1.0, erasing_mode="const", erasing_count=4), Preprocessing((64, 64))
    )
    counts = set()
    for _ in range(30):
        erased = (transform(Image.new("RGB", (64, 64), (200, 0, 0))) == 0).all(0).numpy()
        # Count upper left corners; touching rectangles may count as one.
        corners = erased & ~np.pad(erased, ((1, 0), (0, 0)))[:-1] & ~np.pad(erased, ((0, 0), (1, 0)))[:, :-1]
        counts.add(int(corners.sum()))
    assert 1 in counts
    assert 2 <= max(counts) <= 4 + 2


def test_rotation_keeps_the_center_of_the_image():
    disc = np.zeros((33, 33, 3), dtype=np.uint8)
    rows, cols = np.mgrid[-16:17, -16:17]
    disc[rows**2 + cols**2 < 100] = 255
    disc[(rows < -12)] = 90
    preprocessing = Preprocessing((33, 33), crop_fraction=1.0, mean=(0.1,) * 3, std=(1.0,) * 3)
    still, transform = flat(disc, preprocessing), make_training_transform(only(rotation=20), preprocessing)
    turned = [transform(Image.fromarray(disc)) for _ in range(8)]
    inside = torch.from_numpy(rows**2 + cols**2 < 64)
    for image in turned:
        torch.testing.assert_close(image[:, inside], still[:, inside])
    assert any(not torch.equal(image, still) for image in turned)
    # The left end of the band at the top moves down in proportion to the tangent of the angle.
    heights = [int((image[0, :, 4] > 0.2).nonzero().max()) if (image[0, :, 4] > 0.2).any() else 0 for image in turned]
    assert max(heights) <= 4 + 12 * np.tan(np.radians(20)) + 2
    assert any((image == 0).all(0).any() for image in turned)  # corners of the mean color


def test_blur_keeps_the_sum_and_lowers_the_contrast():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0)
    blurred, still = make_training_transform(only(blur=3), preprocessing)(photo), preprocessing(photo)
    assert blurred.std() < 0.95 * still.std()
    assert abs(blurred.mean() - still.mean()) < 0.1
    # A kernel of three pixels does not reach any further.
    dot = np.zeros((17, 17, 3), dtype=np.uint8)
    dot[8, 8] = 255
    preprocessing = Preprocessing((17, 17), crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    spread = make_training_transform(only(blur=3), preprocessing)(Image.fromarray(dot))
    assert spread[0].nonzero().min() >= 7
    assert spread[0].nonzero().max() <= 9
    assert spread[0].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("std", [1.0, 0.1])
def test_noise_is_gaussian_on_the_normalized_image(std):
    preprocessing = Preprocessing((64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    image = make_training_transform(only(noise=std), preprocessing)(Image.new("RGB", (64, 64), (255, 0, 128)))
    assert image.std((1, 2)).tolist() == pytest.approx([std] * 3, rel=0.05)
    assert image.mean((1, 2)).tolist() == pytest.approx([1, -1, 0], abs=0.05)


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
@pytest.mark.parametrize("photo_size", [(32, 32), (60, 20), (10, 40)])
def test_a_simple_crop_shifts_the_image(size, photo_size):
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, photo_size[0]).astype(np.uint8), (photo_size[1], 1))).convert("RGB")
    preprocessing = Preprocessing(size, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    transform = make_training_transform(only(crop="simple"), preprocessing)
    slope = 1 / (photo_size[0] * max(size[0] / photo_size[1], size[1] / photo_size[0]))
    starts = set()
    for _ in range(12):
        image = transform(ramp)
        assert image.shape == (3, *size)
        middle = image[0, :, 6:-6]
        assert middle.diff(dim=1).mean().item() == pytest.approx(slope, rel=0.2)
        starts.add(round(middle[0, 0].item() / slope))
    assert len(starts) > 3


WHOLE = Preprocessing((40, 66), 1.0, "whole", "bilinear", (0.5,) * 3, (0.25,) * 3)


def of_any_size(**changes):
    return AugmentationConfig(crop="detr", mixup=0, cutmix=0, **changes)


@pytest.mark.parametrize("policy", POLICIES)
def test_color_policies_work_at_any_image_size(photo, policy):
    transform = make_training_transform(of_any_size(auto_augment=policy), WHOLE)
    images = [transform(photo) for _ in range(12)]
    assert len({image.shape for image in images}) > 3
    for image in images:
        assert image.shape[0] == 3
        assert max(image.shape) <= 66
        assert (image * 0.25 + 0.5).clamp(0, 1).sub(image * 0.25 + 0.5).abs().max() < 1e-6


def test_all_other_augmentations_work_at_any_image_size():
    red = Image.new("RGB", (60, 40), (200, 0, 0))
    plain = make_training_transform(of_any_size(color_jitter=0), WHOLE)(red)
    assert plain.flatten(1).unique(dim=1).shape[1] == 1
    erased = make_training_transform(of_any_size(color_jitter=0, random_erasing=1.0, erasing_mode="const"), WHOLE)(red)
    assert 0 < (erased == 0).all(0).float().mean() < 0.5
    every = of_any_size(random_erasing=1.0, noise=0.5, rotation=20, blur=3)
    assert make_training_transform(every, WHOLE)(red).isfinite().all()
    gray = Preprocessing((40, 66), 1.0, "whole", mean=(0.5,), std=(0.5,))
    assert make_training_transform(of_any_size(auto_augment="3a"), gray)(red).shape[0] == 1


def test_fixed_and_varying_image_sizes_are_not_mixed():
    with pytest.raises(
        InvalidInputError, match=r"expected data.crop_mode whole with augmentation.crop detr, .* got center; set "
    ):
        make_training_transform(of_any_size(), Preprocessing((40, 66)))
    for crop in ("resized", "simple"):
        with pytest.raises(
            InvalidInputError, match=f"expected augmentation.crop detr with data.crop_mode whole, .* got {crop}; "
        ):
            make_training_transform(AugmentationConfig(crop=crop), WHOLE)


def test_no_mixing_without_mixup_and_cutmix():
    assert make_label_mixing(AugmentationConfig(mixup=0, cutmix=0), 3) is None


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_mixed_labels_sum_to_one(mixup, cutmix):
    mixing = make_label_mixing(AugmentationConfig(mixup=mixup, cutmix=cutmix, label_smoothing=0.1), 5)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    mixed, soft = mixing(images.clone(), labels)
    assert mixed.shape == images.shape
    assert not torch.equal(mixed, images)
    assert soft.shape == (4, 5)
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    assert (soft >= 0.1 / 5 - 1e-6).all()
    assert (soft[:, 4] < 0.1).all()


def test_labels_are_smoothed_if_a_batch_is_not_mixed():
    mixing = make_label_mixing(AugmentationConfig(mix_probability=0, label_smoothing=0.2), 4)
    images = torch.randn(2, 3, 8, 8)
    mixed, soft = mixing(images.clone(), torch.tensor([0, 2]))
    assert torch.equal(mixed, images)
    torch.testing.assert_close(soft, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]]))


def test_mixup_mixes_images_and_labels_equally():
    mixing = make_label_mixing(AugmentationConfig(cutmix=0, label_smoothing=0), 2)
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    mixed, soft = mixing(images, torch.tensor([0, 1]))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), soft[:, 1])
    assert 0 < soft[0, 1] < 1


def shares(mixed):
    """The share of every image that comes from the other image, for alternating images of zeros and ones."""
    own = torch.arange(len(mixed)) % 2
    return (mixed.mean((1, 2, 3)) - own).abs()


@pytest.mark.parametrize(("mode", "kinds"), [("batch", 1), ("pair", 4), ("elem", 8)])
def test_mix_mode_draws_shares_per_batch_pair_or_image(mode, kinds):
    mixing = make_label_mixing(AugmentationConfig(cutmix=0, mix_mode=mode), 8)
    images = torch.arange(8).remainder(2).view(8, 1, 1, 1).expand(8, 3, 4, 4).float().clone()
    drawn = shares(mixing(images, torch.arange(8))[0])
    assert len({round(share, 4) for share in drawn.tolist()}) == kinds


def test_cutmix_sides_limit_the_replaced_region():
    mixing = make_label_mixing(AugmentationConfig(mixup=0, cutmix_sides=(0.25, 0.5), label_smoothing=0), 2)
    for _ in range(20):
        images = torch.arange(2).view(2, 1, 1, 1).expand(2, 3, 32, 32).float().clone()
        mixed, soft = mixing(images, torch.arange(2))
        share = shares(mixed)
        assert (share >= 0.25**2 - 1e-6).all()
        assert (share <= 0.5**2).all()
        torch.testing.assert_close(soft[:, 1], mixed.mean((1, 2, 3)))
    assert make_label_mixing(AugmentationConfig(mixup=0, cutmix=0, cutmix_sides=(0.25, 0.5)), 2) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"crop": "square"},
        {"crop": "detr", "mixup": 0, "cutmix": 1},
        {"crop": "detr", "mixup": 1, "cutmix": 0},
        {"erasing_mode": "black"},
        {"erasing_count": 0},
        {"rotation": -20},
        {"blur": 2},
        {"blur": -3},
        {"noise": -1},
        {"mix_mode": "image"},
        {"cutmix_sides": (0.5, 0.2)},
        {"cutmix_sides": (0.5, 1.2)},
        {"horizontal_flip": 1.5},
        {"random_erasing": -0.1},
        {"mixup": -1},
        {"cutmix": -1},
        {"color_jitter": -0.1},
        {"label_smoothing": 1.0},
        {"mix_probability": 2},
        {"switch_probability": -1},
        {"mix_up": 0.8},
        {"crop_scale": (1.0, 0.08)},
        {"crop_scale": (0.0, 1.0)},
        {"crop_ratio": (2.0, 0.5)},
        {"auto_augment": "no such policy"},
    ],
    ids=str,
)
def test_bad_settings_are_refused(fields):
    with pytest.raises(ValidationError):
        AugmentationConfig(**fields)


def test_a_posterize_with_0_bits_is_drawn_again(photo):
    """timm's RandAugment draws it for about one in a thousand images."""
    results = iter([ValueError("bits must be between or equal to 1 and 8"), photo])

    def colors(image):
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    assert RedrawOnError(colors)(photo) is photo


@pytest.mark.parametrize("crop", ["simple", "resized"])
@pytest.mark.parametrize("size", [(1, 9000), (9000, 1)])
def test_a_thin_photo_does_not_exhaust_memory(crop, size):
    transform = make_training_transform(AugmentationConfig(crop=crop), Preprocessing((224, 224)))
    if crop == "simple":
        with pytest.raises(ImageError, match="expected a photo of ordinary proportions"):
            transform(Image.new("RGB", size))
    else:
        assert transform(Image.new("RGB", size)).shape == (3, 224, 224)
