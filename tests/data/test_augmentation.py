import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.data.augmentation import AugmentationConfig, DrawnAgain, label_mixing, training_transform

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
def test_the_transform_gives_the_networks_size(photo, policy, size):
    transform = training_transform(AugmentationConfig(auto_augment=policy), Preprocessing(size))
    for _ in range(5):
        image = transform(photo)
        assert image.shape == (3, *size)
        assert image.dtype == torch.float32
        assert image.isfinite().all()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_transform_normalises_as_the_network_wants(photo, policy):
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.4)
    transform = training_transform(AugmentationConfig(auto_augment=policy), Preprocessing((16, 16), mean=mean, std=std))
    images = torch.stack([transform(photo) for _ in range(10)])
    pixels = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert pixels.std() > 0.05


def test_without_augmentation_a_square_photo_is_only_resized():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0)
    torch.testing.assert_close(training_transform(AugmentationConfig(**GENTLE), preprocessing)(photo), preprocessing(photo))


def test_horizontal_flip():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0)
    transform = training_transform(AugmentationConfig(**GENTLE | {"horizontal_flip": 1}), preprocessing)
    torch.testing.assert_close(transform(photo), preprocessing(photo).flip(2))


def test_the_smallest_crop_is_respected():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    config = AugmentationConfig(**GENTLE | {"crop_scale": (0.25, 0.25)})
    transform = training_transform(config, Preprocessing((16, 16), interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3))
    spans = [(image[0, 0, -1] - image[0, 0, 0]).item() for image in (transform(ramp.convert("RGB")) for _ in range(10))]
    assert spans == pytest.approx([128 / 255 * 15 / 16] * 10, abs=2 / 255)


def test_random_erasing_changes_a_part_of_the_image(photo):
    flat = Image.new("RGB", (16, 16), (0, 0, 0))
    config = AugmentationConfig(**GENTLE, random_erasing=1.0)
    erased = training_transform(config, Preprocessing((16, 16)))(flat)
    background = Preprocessing((16, 16))(flat)[:, :1, :1]
    changed = (erased != background).any(0).float().mean()
    assert 0 < changed < 0.5


@pytest.mark.parametrize("policy", POLICIES)
def test_a_network_with_one_channel_gets_one(photo, policy):
    transform = training_transform(AugmentationConfig(auto_augment=policy), Preprocessing((16, 16), mean=(0.5,), std=(0.5,)))
    assert transform(photo).shape == (1, 16, 16)


def test_no_mixing_where_both_are_off():
    assert label_mixing(AugmentationConfig(mixup=0, cutmix=0), 3) is None


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_mixed_labels_sum_to_one(mixup, cutmix):
    mixing = label_mixing(AugmentationConfig(mixup=mixup, cutmix=cutmix, label_smoothing=0.1), 5)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    mixed, soft = mixing(images.clone(), labels)
    assert mixed.shape == images.shape
    assert not torch.equal(mixed, images)
    assert soft.shape == (4, 5)
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    assert (soft >= 0.1 / 5 - 1e-6).all()
    assert (soft[:, 4] < 0.1).all()


def test_labels_are_smoothed_where_a_batch_is_not_mixed():
    mixing = label_mixing(AugmentationConfig(mix_probability=0, label_smoothing=0.2), 4)
    images = torch.randn(2, 3, 8, 8)
    mixed, soft = mixing(images.clone(), torch.tensor([0, 2]))
    assert torch.equal(mixed, images)
    torch.testing.assert_close(soft, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]]))


def test_mixup_mixes_images_and_labels_alike():
    mixing = label_mixing(AugmentationConfig(cutmix=0, label_smoothing=0), 2)
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    mixed, soft = mixing(images, torch.tensor([0, 1]))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), soft[:, 1])
    assert 0 < soft[0, 1] < 1


@pytest.mark.parametrize(
    "fields",
    [
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
def test_settings_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValidationError):
        AugmentationConfig(**fields)


def test_a_posterize_of_no_bits_is_drawn_again(photo):
    """timm's RandAugment draws it once in about a thousand images, and a run sees millions."""
    answers = iter([ValueError("bits must be between or equal to 1 and 8"), photo])

    def colours(image):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert DrawnAgain(colours)(photo) is photo
