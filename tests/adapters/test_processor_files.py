"""Descriptions of Hugging Face image processors give the same pixels as the processors."""

import json

import networks
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.adapters.huggingface.family_preprocessing import family_preprocessing
from vitrail.adapters.huggingface.processor_files import processor_description, processor_preprocessing
from vitrail.core.errors import InvalidInputError, UnsupportedModelError

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DEFAULT = Preprocessing()

PUBLISHED = {
    "ViT": ("ViTImageProcessor", {"do_normalize": True, "do_resize": True, "resample": 2, "size": 224, **HALF}),
    "ViT, newer": (
        "ViTImageProcessor",
        {
            "do_rescale": True,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": 224, "width": 224},
            "resample": 2,
            **HALF,
        },
    ),
    "DeiT": ("DeiTImageProcessor", {"crop_size": 224, "do_center_crop": True, "resample": 3, "size": 256, **IMAGENET}),
    "DINOv2": (
        "BitImageProcessor",
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
            **IMAGENET,
        },
    ),
    "BEiT": ("BeitImageProcessor", {"crop_size": 224, "do_center_crop": False, "resample": 2, "size": 224, **HALF}),
    "ConvNeXt": ("ConvNextImageProcessor", {"crop_pct": 0.875, "do_resize": True, "resample": 3, "size": 224, **IMAGENET}),
    "ConvNeXt, large": (
        "ConvNextImageProcessor",
        {"crop_pct": 1.0, "resample": 3, "size": {"shortest_edge": 384}, **IMAGENET},
    ),
    "not normalized": ("ViTImageProcessor", {"do_normalize": False, "resample": 3, "size": {"height": 48, "width": 64}}),
}
"""By the class that reads them, as they stand on the hub."""


def photo(height: int, width: int) -> Image.Image:
    """Blurred noise with edges: insensitive to the rounding of sizes, sensitive to shifts."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", [(300, 400), (400, 301), (97, 60), (256, 256)], ids=str)
@pytest.mark.parametrize("model", PUBLISHED)
def test_the_same_pixels_as_the_processor(model, size):
    kind, described = PUBLISHED[model]
    processor = getattr(transformers, kind)(**described)
    theirs = processor(photo(*size), return_tensors="pt")["pixel_values"][0]
    saved = json.loads(processor.to_json_string())
    for description in (described, saved):
        ours = processor_preprocessing(description, DEFAULT)(photo(*size))
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.06)
        assert (ours - theirs).abs().mean() < 1e-3


@pytest.mark.parametrize("model", ["ViT", "DeiT", "DINOv2"])
def test_another_crop_changes_the_pixels(model):
    kind, described = PUBLISHED[model]
    theirs = getattr(transformers, kind)(**described)(photo(300, 400), return_tensors="pt")["pixel_values"][0]
    other = Preprocessing((224, 224), 0.95, "center", "bicubic", tuple(described["image_mean"]), tuple(described["image_std"]))
    assert (other(photo(300, 400)) - theirs).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({}, DEFAULT.size),
        ({"size": 96}, (96, 96)),
        ({"size": {"height": 48, "width": 64}}, (48, 64)),
        ({"size": {"shortest_edge": 80}}, (80, 80)),
        ({"size": {"shortest_edge": 80}, "crop_size": 64}, (64, 64)),
        ({"size": 80, "crop_size": {"height": 64, "width": 64}, "do_center_crop": False}, (80, 80)),
    ],
)
def test_sizes(described, expected):
    assert processor_preprocessing(described, DEFAULT).size == expected


def test_where_a_description_is_silent():
    default = Preprocessing((64, 64), 1.0, "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert processor_preprocessing({}, default) == default
    plain = processor_preprocessing({"do_normalize": False}, default)
    assert (plain.mean, plain.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            {"size": {"longest_edge": 3}},
            "expected a size of height and width or shortest_edge in preprocessor_config.json, got",
        ),
        ({"do_rescale": False}, r"expected pixels scaled to \[0, 1\] in preprocessor_config.json, got rescale_factor None"),
        ({"rescale_factor": 1 / 127.5}, r"expected pixels scaled to \[0, 1\] .* got rescale_factor 0.0078"),
        ({"rescale_factor": "a"}, r"expected pixels scaled to \[0, 1\] .* got rescale_factor a"),
        ({"size": {"shortest_edge": 0}}, "expected a size of whole pixels, at least 1, .* got 0"),
        ({"size": {"height": 32.5, "width": 32}}, "expected a size of whole pixels, at least 1, .* got 32.5"),
        ({"size": {"height": "x", "width": 32}}, "expected a size of whole pixels, at least 1, .* got 'x'"),
        ({"size": {"height": True, "width": 32}}, "expected a size of whole pixels, at least 1, .* got True"),
        ({"size": -32}, "expected a size of whole pixels, at least 1, .* got -32"),
        ({"size": None}, "expected a size of height and width or shortest_edge .* got None"),
        ({"size": [32, 32]}, r"expected a size of height and width or shortest_edge .* got \[32, 32\]"),
        ({"crop_size": [1]}, r"expected a crop_size of height and width .* got \[1\]"),
        ({"crop_size": True}, "expected a crop_size of whole pixels, at least 1, .* got True"),
        ({"crop_size": {"height": 32}}, "expected a crop_size of whole pixels, at least 1, .* got None"),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0}, "expected a crop_pct above 0, at most 1, .* got 0"),
        ({"size": {"shortest_edge": 32}, "crop_pct": float("inf")}, "expected a crop_pct above 0, at most 1, .* got inf"),
        ({"size": {"shortest_edge": 32}, "crop_pct": "half"}, "expected a crop_pct above 0, at most 1, .* got 'half'"),
        ({"resample": "cubic"}, r"expected a resample of 0 \(nearest\), .* got 'cubic'"),
        ({"resample": 99}, r"expected a resample of 0 \(nearest\), .* got 99"),
        ({"resample": [3]}, r"expected a resample of 0 \(nearest\), .* got \[3\]"),
        ({"image_mean": 0.5}, "expected a list with one number per channel as image_mean .* got 0.5"),
        ({"image_std": "abc"}, "expected a list with one number per channel as image_std .* got 'abc'"),
        ({"image_std": [1, "a", 1]}, r"expected a list with one number per channel as image_std .* got \[1, 'a', 1\]"),
        ({"do_normalize": "no"}, "expected do_normalize to be true or false .* got 'no'"),
        ([1], "expected a JSON object in preprocessor_config.json, got a list"),
    ],
)
def test_other_processing_is_refused(described, message):
    with pytest.raises(InvalidInputError, match=message):
        processor_preprocessing(described, DEFAULT)


@pytest.mark.parametrize(
    ("name", "crop", "mode", "interpolation", "mean"),
    [
        ("hf-vit", 1.0, "squash", "bilinear", 0.5),
        ("hf-beit", 1.0, "squash", "bicubic", 0.5),
        ("hf-deit", 0.875, "squash", "bicubic", 0.485),
        ("hf-deit-teacher", 0.875, "squash", "bicubic", 0.485),
        ("hf-dinov2", 0.875, "center", "bicubic", 0.485),
        ("hf-registers", 0.875, "center", "bicubic", 0.485),
    ],
)
def test_a_familys_own_preprocessing(name, crop, mode, interpolation, mean):
    ours = family_preprocessing(networks.NETWORKS[name]().config)
    assert (ours.size, ours.crop_fraction, ours.crop_mode, ours.interpolation) == ((32, 32), crop, mode, interpolation)
    assert ours.mean[0] == mean


def test_sizes_of_two_numbers():
    config = transformers.ViTConfig(image_size=(48, 64), patch_size=8)
    assert family_preprocessing(config).size == (48, 64)


def test_processors_of_classifiers_cannot_keep_whole_photos():
    with pytest.raises(UnsupportedModelError, match=r"crop_mode='whole'.*; save the model by vitrail.save"):
        processor_description(Preprocessing((32, 48), 1.0, "whole"))
