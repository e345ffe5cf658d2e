"""Tiny trained networks of the libraries, and files as their training scripts write them."""

import argparse
from typing import Any

import timm
import torch
from networks import shaken
from torch import nn

TIMM = "vit_tiny_patch16_224"
SHAPE = {"depth": 1, "embed_dim": 24, "num_heads": 3}


def trained_timm(name: str = TIMM, seed: int = 0, **options: Any) -> nn.Module:
    """A timm network with weights unlike those of its initialization."""
    torch.manual_seed(seed)
    return shaken(timm.create_model(name, **{"num_classes": 3, **SHAPE, **options}), seed)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def train_py(module: nn.Module, **arguments: Any) -> dict[str, Any]:
    """What `CheckpointSaver` of timm's train.py saves."""
    defaults = {"model": TIMM, "num_classes": None, "gp": None, "img_size": None, "in_chans": None, "input_size": None}
    defaults |= {"mean": None, "std": None, "crop_pct": None, "interpolation": "", "class_map": "", "model_kwargs": SHAPE}
    args = argparse.Namespace(**{**defaults, "lr": 0.1, "smoothing": 0.1, **arguments})
    optimizer = torch.optim.AdamW(module.parameters())
    return {
        "epoch": 3,
        "arch": args.model,
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": args,
        "metric": 81.5,
    }


def images(size: int = 224, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def same_logits(classifier: Any, module: nn.Module, inputs: torch.Tensor) -> None:
    """Compare with the trained network's own forward pass."""
    output = module.eval()(inputs)
    expected = getattr(output, "logits", output)
    torch.testing.assert_close(
        classifier.module(inputs) if isinstance(output, torch.Tensor) else classifier.logits(inputs), expected
    )
    torch.testing.assert_close(classifier.logits(inputs), expected)
