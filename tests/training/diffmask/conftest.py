"""Fixtures: a tiny ViT to explain, a tiny recipe of gates, and a record of training steps."""

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from networks import shaken
from run_files import read_metrics

from vitrail.adapters import Preprocessing, build, save
from vitrail.training import read_config, train
from vitrail.training.diffmask import mask_pictures

RECIPE = {
    "data": {"batch_size": 2, "num_workers": 0},
    # Learning rates at which a few steps are visible.
    "diffmask": {"hidden": 6, "mul_activation": 2.0, "add_activation": 1.0, "learning_rate": 1e-2, "lookahead_steps": 3},
    "schedule": {"epochs": 2, "warmup_steps": 2},
    "pictures": {"every": None},
    "engine": {"accelerator": "cpu", "loggers": []},
}


def save_vit(path, seed=0):
    """Save a ViT of 16x16 pixels, 4x4 patches and one block, with a head that separates blue from red confidently."""
    options = {"patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
    preprocessing = Preprocessing((16, 16), crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    vit = build("timm:vit_tiny_patch16_224", num_classes=2, image_size=(16, 16), preprocessing=preprocessing, **options)
    shaken(vit.module, seed=seed, spread=0.3)
    colors = torch.full((2, 3, 16, 16), -1.6)
    colors[0, 2], colors[1, 0] = 0.9, 0.9
    with torch.no_grad():
        blue, red = vit.module.forward_head(vit.module.forward_features(colors), pre_logits=True)
        axis = 8 * (blue - red) / (blue - red).square().sum()
        vit.module.head.weight.copy_(torch.stack([axis, -axis]) / 2)
        vit.module.head.bias.copy_(torch.stack([-axis, axis]) / 2 @ (blue + red) / 2)
    save(vit, path)
    return path


@pytest.fixture
def write_vit():
    """Return a function that saves such a ViT to a path and returns the path."""
    return save_vit


@pytest.fixture
def vit_file(tmp_path):
    return save_vit(tmp_path / "vit.safetensors")


@pytest.fixture
def mask_recipe(tmp_path, images, vit_file):
    """Path of a complete recipe."""
    content = {**RECIPE, "diffmask": {"model": str(vit_file), **RECIPE["diffmask"]}}
    content["data"] = {"root": str(images), **RECIPE["data"]}
    path = tmp_path / "mask.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def mask_configured(mask_recipe):
    """Return a function that reads the recipe with overrides."""
    return lambda *overrides: read_config(mask_recipe, overrides)


class Steps(Callback):
    """Record the state after every step: gates, multipliers, optimizer, sampled layers."""

    def __init__(self):
        self.taken, self.learner, self.trainer = [], None, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trainer, self.learner = trainer, pl_module
        if not self.taken:
            self.taken.append(self.now(trainer, pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.taken.append(self.now(trainer, pl_module))

    @staticmethod
    def now(trainer, learner):
        primal, _dual = trainer.optimizers
        mask, alphas = learner.module, learner.alphas
        moments = primal.state_dict()["state"]
        names = [name for name, _ in mask.gates.named_parameters()] + ["placeholder"]
        kept = {name: {k: v.clone() for k, v in moments[i].items()} for i, name in enumerate(names) if i in moments}
        return {
            "step": trainer.global_step,
            "weights": {name: tensor.clone() for name, tensor in mask.state_dict().items()},
            "moments": kept,
            "alphas": torch.stack([alpha.detach().clone() for alpha in alphas]),
            "counts": learner.layers.steps.clone(),
            "rates": [group["lr"] for group in primal.param_groups],
        }


@pytest.fixture
def steps(monkeypatch):
    steps = Steps()
    monkeypatch.setattr("vitrail.training.engine.create_progress_callbacks", lambda: [steps])
    return steps


@pytest.fixture
def trained_steps(mask_configured, steps, tmp_path):
    """Return a function from overrides to the states before the first step and after every step."""

    def run(*overrides, out="run"):
        steps.taken.clear()
        train(mask_configured(*overrides), tmp_path / out)
        return list(steps.taken)

    return run


@pytest.fixture
def table():
    """Return a function from a run folder to the rows of its metrics.csv."""
    return read_metrics


@pytest.fixture
def sheets(monkeypatch):
    """Collect the rows of every contact sheet, and write empty files: drawing takes longer than training."""
    drawn = []
    monkeypatch.setattr(mask_pictures, "contact_sheet", lambda rows, path: drawn.append(rows) or path.touch())
    return drawn
