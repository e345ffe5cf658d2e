"""Compare a training step of `vitrail train` to a bare PyTorch loop, for HiT-B.

Both train on random JPEG photos with the augmentation of the ImageNet recipe, batch 16, AdamW, mixup and cutmix, with one data
loading process. A step is the time of an epoch divided by its steps, waiting for data included. The two alternate, so that changes of
the machine's speed affect both. `forward` is an evaluation forward pass of the same batch, as a unit. Steps of seconds vary by more
than the overhead of `vitrail train`; the variant `tiny` measures that overhead in milliseconds.
"""

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from measuring import in_own_process, seconds, synchronizer
from vitrail.adapters import Preprocessing
from vitrail.datasets.augmentation.transforms import AugmentationConfig, make_label_mixing, make_training_transform
from vitrail.datasets.collate import collate
from vitrail.datasets.folder import ImageFolder
from vitrail.models.hit import HiT
from vitrail.training import train
from vitrail.training.config import validate_config
from vitrail.training.losses import create_label_loss
from vitrail.training.optimization import create_optimizer
from vitrail.training.sections import OptimizerConfig

MODELS: dict[str, dict[str, Any]] = {
    "no-pool": {"name": "hit_base_patch16_224"},
    "pooled": {"name": "hit_base_patch8_224"},
    # Small enough to measure the overhead of the loop.
    "tiny": {"name": "hit_small_patch16_224", "image_size": (32, 32), "depths": (2,), "widths": (48,), "num_heads": 4},
}
NUM_CLASSES = 2
AUGMENTATION = {"auto_augment": "3a", "color_jitter": 0.3, "mixup": 0.8, "cutmix": 1.0}


def write_photos(root: Path, count: int) -> None:
    """Write JPEG files of colored noise with the average size of ImageNet's."""
    generator = np.random.default_rng(0)
    for split, number in (("train", count), ("val", NUM_CLASSES)):
        for index in range(number):
            folder = root / split / f"class{index % NUM_CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(generator.integers(0, 256, (25, 31, 3), dtype=np.uint8))
            coarse.resize((469, 387), Image.Resampling.BICUBIC).save(folder / f"{index:04d}.jpg", quality=90)


def measure_vitrail(variant: str, batch: int, steps: int, precision: str, threads: int) -> dict[str, float]:
    """Measure the seconds per step of the second epoch, and those spent waiting for data."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root / "photos", batch * steps)
        config = validate_config(
            {
                "model": MODELS[variant],
                "data": {"root": root / "photos", "batch_size": batch, "num_workers": 1},
                "augmentation": AUGMENTATION,
                "schedule": {"epochs": 2},
                # Validate at the end only: validation is not part of a step.
                "engine": {"precision": precision, "validate_every": 2, "loggers": []},
            },
            "the benchmark",
        )
        train(config, root / "run")
        with (root / "run" / "metrics.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
    data = float(last["data_seconds"])
    return {"step": data + float(last["step_seconds"]), "data": data}


def measure_bare_loop(variant: str, batch: int, steps: int, precision: str, threads: int) -> dict[str, float]:
    """Measure the seconds per step of a minimal loop, and those of a forward pass."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = HiT.from_name(num_classes=NUM_CLASSES, **MODELS[variant]).to(device).train()
    augmentation = AugmentationConfig(**AUGMENTATION)
    mixing, loss = make_label_mixing(augmentation, NUM_CLASSES), create_label_loss("cross-entropy", 0.1, NUM_CLASSES)
    if mixing is None:
        raise ValueError("expected mixing, as in the recipe")
    optimizer = create_optimizer(model, OptimizerConfig(), batch)
    synchronize = synchronizer(device)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), batch * steps)
        photos = ImageFolder.scan(
            Path(folder) / "train", make_training_transform(augmentation, Preprocessing(model.config.image_size))
        )
        workers = {"num_workers": 1, "persistent_workers": True}
        loader = DataLoader(photos, batch, shuffle=True, drop_last=True, collate_fn=collate, **workers)

        def epoch() -> None:
            for loaded in loader:
                images, shares = mixing(loaded.images.to(device), loaded.labels.to(device))
                with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    value = loss(model(images), shares)
                value.backward()
                optimizer.step()
                optimizer.zero_grad()

        figures = {"step": seconds(epoch, 1, synchronize) / steps}
    model.eval()
    images = torch.randn(batch, 3, *model.config.image_size, device=device)
    with torch.inference_mode():
        figures["forward"] = seconds(lambda: model(images), max(steps // 2, 2), synchronize)
    return figures


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=list(MODELS), action="append", help="default: all")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="steps per measurement, after as many warm-up steps")
    parser.add_argument("--rounds", type=int, default=2, help="how many times the two alternate")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    report = {}
    arguments = (options.batch, options.steps, options.precision, options.threads)
    for variant in options.variant or MODELS:
        rounds = [
            (in_own_process(measure_bare_loop, variant, *arguments), in_own_process(measure_vitrail, variant, *arguments))
            for _ in range(options.rounds)
        ]
        plain, whole, forward, data = (
            statistics.mean(values)
            for values in zip(*((loop["step"], run["step"], loop["forward"], run["data"]) for loop, run in rounds), strict=True)
        )
        report[variant] = {
            "bare": plain,
            "engine": whole,
            "ratio": whole / plain,
            "forward": forward,
            "data_share": data / whole,
        }
        name = "HiT" if variant == "tiny" else f"HiT-B {variant}"
        print(
            f"{name}, batch {options.batch}, {options.precision}: bare loop {plain:.3f} s ({plain / forward:.2f} forward passes of "
            f"{forward:.3f} s), vitrail train {whole:.3f} s, ratio {whole / plain:.3f}, {1000 * (whole - plain):+.1f} ms, "
            f"waiting for data {data / whole:.1%} of a step"
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
