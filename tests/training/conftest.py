"""A tiny recipe and tiny images of two colours, as fixtures."""

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


def write_images(folder, count, seed):
    generator = np.random.default_rng(seed)
    for name, channel in CHANNELS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 160
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


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


class Recorder(Callback):
    """Learning rates before every batch, raw weights after every optimiser step, and the trainer itself."""

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
