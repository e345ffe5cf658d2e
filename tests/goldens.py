"""Recorded networks of the published implementations, rebuilt."""

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitrail.adapters import Preprocessing, ViTAdapter, adapt
from vitrail.models.hit import HiT

FOLDER = Path(__file__).parent / "goldens"

PRECISIONS = [(torch.float32, "out.", 1e-5), (torch.float64, "out64.", 1e-10)]
"""Working precision, where its outputs are recorded, and the relative tolerance."""


@dataclass(frozen=True)
class Golden:
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name.removeprefix("param."): tensor for name, tensor in self.tensors.items() if name.startswith("param.")}

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
