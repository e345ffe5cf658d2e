"""Files that pages of the documentation expect their readers to have."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (80, 64)) -> None:
    """Write a smooth photo of random colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(path)


def _photo(name: str, seed: int) -> Callable[[Path], None]:
    return lambda folder: write_photo(folder / name, seed)


def _photos(folder: Path) -> None:
    for seed in range(3):
        write_photo(folder / "photos" / f"{seed}.jpg", seed)


def _images(folder: Path) -> None:
    for seed, name in enumerate(("cats/7.jpg", "cats/8.jpg", "dogs/1.jpg")):
        write_photo(folder / "images" / name, seed)


def _cifar10(folder: Path) -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for split, count in (("train", 10), ("test", 2)):
        for label, name in enumerate(names):
            for i in range(count):
                write_photo(folder / "data" / "cifar10" / split / name / f"{i:04}.png", 10 * label + i, (32, 32))


def _weights(folder: Path) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict(), folder / "best.pth")


def write_huggingface_vit(folder: Path) -> None:
    """Write an untrained ViT of 8 blocks with the classes of ImageNet as transformers does."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=8, num_attention_heads=3, intermediate_size=48, patch_size=32, num_labels=1000
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


WRITERS: dict[str, Callable[[Path], None]] = {
    "cat.jpg": _photo("cat.jpg", 0),
    "dog.jpg": _photo("dog.jpg", 1),
    "bird.jpg": _photo("bird.jpg", 2),
    "photos": _photos,
    "images": _images,
    "data/cifar10": _cifar10,
    "best.pth": _weights,
}
