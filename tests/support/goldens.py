"""Recorded networks of the published implementations, rebuilt."""

import json
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitrail.adapters import Preprocessing, ViTAdapter, adapt
from vitrail.models.diffmask import DiffMask, read_mask
from vitrail.models.hit import HiT

FOLDER = Path(__file__).parents[1] / "goldens"

PRECISIONS = [(torch.float32, "out.", 1e-5), (torch.float64, "out64.", 1e-10)]
"""Working precision, where its outputs are recorded, and the relative tolerance."""


@dataclass(frozen=True)
class Golden:
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.below("param.")

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    def model(self, dtype: torch.dtype = torch.float32) -> HiT:
        config = self.about["config"]
        model = HiT(
            image_size=(config["image_size"],) * 2,
            patch_size=config["patch_size"],
            depths=tuple(config.get("blocks", [config.get("num_layers")])),
            widths=tuple(config.get("block_dims", [config.get("hidden_dim")])),
            num_heads=config["num_heads"],
            mlp_ratio=float(config["mlp_ratio"]),
            num_classes=config["num_classes"],
            position_embedding=config.get("use_pos_tokens", True),
        )
        return model.load_published(self.weights).eval().to(dtype)

    def images(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.tensors["in.x"].to(dtype)


@lru_cache
def golden(name: str) -> Golden:
    return Golden(load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text()))


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Largest difference over largest magnitude."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= relative * float(expected.abs().max())


@lru_cache
def published_vit(name: str, dtype: torch.dtype = torch.float32) -> ViTAdapter:
    """A recorded network of transformers 4.40, loaded as its user loads it today."""
    transformers = pytest.importorskip("transformers")
    case = golden(name)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(case.about["config"]))
        save_file(case.weights, config.with_name("model.safetensors"), metadata={"format": "pt"})
        # In memory before the folder is gone.
        network = transformers.AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).to(torch.float64)
    return adapt(network.to(dtype).eval(), name=name, preprocessing=Preprocessing((case.about["config"]["image_size"],) * 2))


def lightning_file(state: dict[str, Tensor], settings: dict[str, Any], **others: Any) -> dict[str, Any]:
    """What Lightning 1.9 writes for the published DiffMask, under its names; optimizers have one parameter here."""
    slow = {140611669967888: {"slow_buffer": torch.ones(2)}}
    state_of_adam = {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}}
    group = {"lr": 2e-5, "betas": (0.9, 0.999), "eps": 1e-08, "foreach": None, "lookahead_k": 6, "params": [0]}
    return {
        "epoch": 0,
        "global_step": 28,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}, "current": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "dirpath": "checkpoints"}},
        "optimizer_states": [{"state": state_of_adam, "slow_state": slow, "param_groups": [group]}],
        "lr_schedulers": [{"base_lrs": [2e-5], "last_epoch": 14, "_step_count": 15, "lr_lambdas": [{}]}],
        "hparams_name": "kwargs",
        "hyper_parameters": settings,
        **others,
    }


@lru_cache
def published_mask(name: str, dtype: torch.dtype = torch.float32) -> DiffMask:
    """Recorded gates, read from a checkpoint as its user has it."""
    case = golden(name)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(lightning_file(case.below("mask."), case.about["settings"]), Path(folder) / "mask.ckpt")
        return read_mask(Path(folder) / "mask.ckpt").network.to(dtype)
