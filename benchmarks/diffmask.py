"""Measure masks and training steps of Vision DiffMask on a ViT-B/16, in forward passes of the same batch.

A mask needs one forward pass and should take at most 1.2. A training step needs a forward pass of the whole images, a forward and a
backward pass of the masked ones, and an optimizer step; it is compared to two forward passes. It takes longer the more gates vote, so
the last layer and the mean over all layers are reported.

A forward pass precedes every run, and ratios are within such pairs, so that changes of the machine's speed cancel. Medians; random
weights; one process with all its threads.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from measuring import Figures, Task, add_noise, describe_machine, time_alternating
from vitrail.adapters import ViTAdapter, load
from vitrail.explainers import make_explainer
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask
from vitrail.training.diffmask.config import MaskConfig
from vitrail.training.diffmask.lagrangian import create_primal_optimizer, lagrangian, mask_batch


def build(name: str, device: str) -> ViTAdapter:
    """Build a frozen ViT with random nonzero weights."""
    torch.manual_seed(0)
    adapter = load(name, device=device, pretrained=False)
    if not isinstance(adapter, ViTAdapter):
        raise TypeError(f"expected a Vision Transformer, got {name}")
    adapter.module.eval().requires_grad_(False)
    add_noise(adapter.module)
    return adapter


def draw_images(vit: ViTAdapter, batch: int) -> Tensor:
    """Draw a batch of noise in the network's image size."""
    shape = (batch, len(vit.preprocessing.mean), *vit.preprocessing.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(vit.device)


def create_forward_pass(vit: ViTAdapter, images: Tensor) -> Task:
    """Return the reference task: a forward pass."""
    return torch.inference_mode()(lambda: vit.logits(images))


def create_mask_pass(vit: ViTAdapter, gates: DiffMask, images: Tensor) -> Task:
    """Return a task that explains a batch through the interface of all methods."""
    explainer = make_explainer("diffmask", vit, checkpoint=TrainedMask(gates), check_weights=False)
    return lambda: explainer.explain(images)


def create_training_step(vit: ViTAdapter, gates: DiffMask, images: Tensor, layer: int) -> Task:
    """Return a task like a step of `MaskLearner` on a layer, except for the update of the multipliers, which are a dozen numbers."""
    config = MaskConfig(model="timed")
    optimizer, alpha = create_primal_optimizer(gates, config), torch.tensor(config.alpha, device=vit.device)
    rows, cols = vit.grid_size(images)
    noise = torch.rand(len(images), vit.num_prefix_tokens + rows * cols, layer + 1).to(vit.device)

    def step() -> None:
        masked = mask_batch(vit, gates, images, noise)
        loss = lagrangian(masked, alpha, config.eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def average(figures: Sequence[Figures]) -> Figures:
    """Average every figure."""
    return {name: statistics.fmean(entry[name] for entry in figures) for name in figures[0]}


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="timm:vit_base_patch16_224")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes for masks")
    parser.add_argument("--training-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    vit = build(options.model, options.device)
    gates = DiffMask(DiffMaskConfig(vit.prefix_tokens.shape[-1], len(vit.blocks))).to(vit.device)
    print(f"{describe_machine(options.device)}, {options.model}, {options.repeats} runs each")
    print("fp = one forward pass of the batch; floor in fp")
    print(f"  {'':<32}{'seconds':>9}{'fp':>8}{'1 fp':>9}{'floor':>7}{'over it':>9}")
    results: list[dict[str, object]] = []

    def report(task: str, batch: int, figures: Figures, floor: int) -> None:
        seconds, passes = figures["seconds"], figures["ratio"]
        name = f"{task}, {batch} image(s)"
        print(f"  {name:<32}{seconds:>9.3f}{passes:>8.2f}{figures['before']:>9.3f}{floor:>7}{passes / floor:>9.2f}", flush=True)
        results.append({"task": task, "batch": batch, "floor": floor, **figures})

    for batch in options.batch:
        images = draw_images(vit, batch)
        forward, explain = create_forward_pass(vit, images), create_mask_pass(vit, gates, images)
        [figures] = time_alternating([explain], forward, options.repeats, options.device)
        report("mask", batch, figures, 1)
    batch, images = options.training_batch, draw_images(vit, options.training_batch)
    steps = [create_training_step(vit, gates.train(), images, layer) for layer in range(gates.config.num_gates)]
    layers = time_alternating(steps, create_forward_pass(vit, images), options.repeats, options.device)
    report("step, first layer", batch, layers[0], 2)
    report("step, last layer", batch, layers[-1], 2)
    report("step, mean of all", batch, average(layers), 2)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
