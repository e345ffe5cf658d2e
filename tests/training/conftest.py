"""Fixtures: tiny recipes, tiny images of two colors, and runs that are killed."""

import numpy as np
import pytest
import yaml
from PIL import Image

from vitrail.training import read_config, train

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
"""Photos keep their aspect ratio, so that batches are padded."""


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
    """Draw learning curves in this test."""


@pytest.fixture(autouse=True)
def _skip_learning_curves(request, monkeypatch):
    """Write empty files instead of learning curves, which take longer than to train a tiny network for an epoch."""
    if "learning_curves" not in request.fixturenames:
        monkeypatch.setattr("vitrail.training.loggers.plot_learning_curve", lambda rows, path: path.write_bytes(b""))


@pytest.fixture
def images(tmp_path):
    """Eight training and four test images in red and blue."""
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
    """Return a function that reads the recipe with overrides."""
    return lambda *overrides: read_config(recipe, [f"data.root={images}", *overrides])


@pytest.fixture
def configured_for(recipe, images):
    """Return a function that reads the recipe without the keys of HiTs."""
    content = yaml.safe_load(recipe.read_text())
    content["model"] = {"image_size": 32}
    recipe.write_text(yaml.safe_dump(content))
    return lambda *overrides: read_config(recipe, [f"data.root={images}", *overrides])


@pytest.fixture
def intr_recipe(tmp_path):
    path = tmp_path / "intr.yaml"
    path.write_text(yaml.safe_dump(INTR))
    return path


@pytest.fixture
def shapes(tmp_path):
    """Images in red and blue with three shapes."""
    for split, count, seed in (("train", 4, 0), ("test", 3, 1)):
        write_images(tmp_path / "shapes" / split, count, seed, ((16, 16), (14, 30), (40, 20)))
    return tmp_path / "shapes"


@pytest.fixture
def intr_configured(intr_recipe, shapes):
    """Return a function that reads the recipe of an INTR with overrides."""
    return lambda *overrides: read_config(intr_recipe, [f"data.root={shapes}", *overrides])


class Recorder(Callback):
    """Record learning rates before every batch, weights after every batch, and the trainer."""

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
    monkeypatch.setattr("vitrail.training.engine.create_progress_callbacks", lambda: [recorder])
    return recorder


class KilledError(Exception):
    """Ends a run as a kill would."""


@pytest.fixture
def train_until_killed(monkeypatch):
    """Return a function that trains and dies after a batch, counted over all epochs, or in a validation."""
    from vitrail.training.checkpoints import Checkpoints
    from vitrail.training.diffmask.export import MaskExport
    from vitrail.training.export import Export

    def run(config, out, batch=None, validation=None, resume=False):
        left = {"batch": batch, "validation": validation}

        def dying(name, hook):
            def call(self, *args, **kwargs):
                hook(self, *args, **kwargs)
                left[name] = left[name] and left[name] - 1
                if left[name] == 0:
                    raise KilledError

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_end", dying("batch", Checkpoints.on_train_batch_end))
            for export in (Export, MaskExport):
                patch.setattr(export, "on_validation_epoch_end", dying("validation", export.on_validation_epoch_end))
            with pytest.raises(KilledError):
                train(config, out, resume)

    return run
