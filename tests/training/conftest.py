"""A tiny recipe and tiny images of two colors, as fixtures."""

import numpy as np
import pytest
import yaml
from PIL import Image

from vitrail.training import read_config

pytest.importorskip("lightning")

from lightning.pytorch.callbacks import Callback

BASE = {
    "model": {
        "name": "hit_small_patch16_224",
        "image_size": 16,
        "patch_size": 4,
        "depths": [1],
        "widths": [12],
        "num_heads": 2,
        "attention_dropout": 0.0,
    },
    "data": {"crop_fraction": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "batch_size": 4, "num_workers": 0},
    "augmentation": {"color_jitter": 0.0, "crop_scale": [0.8, 1.0]},
    "schedule": {"epochs": 2, "warmup_epochs": 0.5},
    "engine": {"accelerator": "cpu", "loggers": []},
}
CHANNELS = {"blue": 2, "red": 0}


INTR = {
    **BASE,
    "model": {
        "name": "intr",
        "image_size": [24, 40],
        "options": {
            "backbone": "timm:convnext_atto",
            "backbone_options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "output_stride": 8},
            "width": 16,
            "num_heads": 2,
            "mlp_width": 24,
            "encoder_depth": 1,
            "decoder_depth": 2,
        },
    },
    "data": {**BASE["data"], "crop_mode": "whole"},
    "augmentation": {"crop": "detr", "color_jitter": 0.0, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
    "optimizer": {"backbone_learning_rate": 1e-4, "gradient_clip": 0.1},
}
"""Photos are taken whole, so that batches are padded."""


def write_images(folder, count, seed, sizes=((16, 16),)):
    generator = np.random.default_rng(seed)
    for name, channel in CHANNELS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 90, (*sizes[i % len(sizes)], 3), dtype=np.uint8)
            pixels[..., channel] += 160
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def learning_curves():
    """Asked for by tests that look at the picture of the learning curve: it is drawn."""


@pytest.fixture(autouse=True)
def _no_other_learning_curves(request, monkeypatch):
    """Drawing one takes longer than to train a tiny network for an epoch; all other tests find an empty file."""
    if "learning_curves" not in request.fixturenames:
        monkeypatch.setattr("vitrail.training.callbacks.plot_learning_curve", lambda rows, path: path.write_bytes(b""))


@pytest.fixture
def images(tmp_path):
    """Eight images of red and blue to train on, four to test."""
    write_images(tmp_path / "images" / "train", 4, 0)
    write_images(tmp_path / "images" / "test", 2, 1)
    return tmp_path / "images"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return path


@pytest.fixture
def configured(recipe, images):
    """A function from overrides to a checked recipe."""
    return lambda *overrides: read_config(recipe, [f"data.root={images}", *overrides])


@pytest.fixture
def intr_recipe(tmp_path):
    path = tmp_path / "intr.yaml"
    path.write_text(yaml.safe_dump(INTR))
    return path


@pytest.fixture
def shapes(tmp_path):
    """Images of red and blue in three shapes."""
    for split, count, seed in (("train", 4, 0), ("test", 3, 1)):
        write_images(tmp_path / "shapes" / split, count, seed, ((16, 16), (14, 30), (40, 20)))
    return tmp_path / "shapes"


@pytest.fixture
def intr_configured(intr_recipe, shapes):
    """A function from overrides to a checked recipe of an INTR."""
    return lambda *overrides: read_config(intr_recipe, [f"data.root={shapes}", *overrides])


class Recorder(Callback):
    """Learning rates before every batch, raw weights after every optimizer step, and the trainer itself."""

    def __init__(self):
        self.rates, self.weights, self.trainer = [], [], None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trainer = trainer
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append({name: tensor.detach().clone() for name, tensor in pl_module.module.state_dict().items()})


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("vitrail.training.engine.progress", lambda: [recorder])
    return recorder
