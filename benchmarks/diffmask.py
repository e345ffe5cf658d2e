"""Vision DiffMask on a ViT-B/16: what a mask and a training step cost, in forward passes of the same batch in the same run.

A mask is read from one forward pass, and should cost hardly more: within 1.2. A training step masks a batch once, goes back to the
gates and steps their optimizer: one pass of the whole images, one of the masked ones, and the way back through frozen weights;
it is compared with two forward passes. It costs more the more gates vote, so there is the last layer and the mean over all.

Before every run comes a forward pass, and the quotient is that of the two, so that a change of the machine's speed meets both. Medians.
Random weights, one process, all its threads.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from measuring import Figures, Task, in_turns, machine
from vitrail.adapters import ViTAdapter, load
from vitrail.explainers import make_explainer
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask
from vitrail.training.diffmask.config import MaskConfig
from vitrail.training.diffmask.losses import mask_once
from vitrail.training.diffmask.optimization import primal_optimizer


def build(name: str, device: str) -> ViTAdapter:
    """A frozen ViT with random weights, of which none is zero."""
    torch.manual_seed(0)
    adapter = load(name, device=device, pretrained=False)
    if not isinstance(adapter, ViTAdapter):
        raise TypeError(f"expected a Vision Transformer, got {name}")
    adapter.module.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in adapter.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return adapter


def draw_images(vit: ViTAdapter, batch: int) -> Tensor:
    """A batch of noise, in the size that the network sees."""
    shape = (batch, len(vit.preprocessing.mean), *vit.preprocessing.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(vit.device)


def forward_pass(vit: ViTAdapter, images: Tensor) -> Task:
    """What everything is compared with."""
    return torch.inference_mode()(lambda: vit.logits(images))


def mask_pass(vit: ViTAdapter, gates: DiffMask, images: Tensor) -> Task:
    """The mask of a batch, through the frame that every method has."""
    explainer = make_explainer("diffmask", vit, checkpoint=TrainedMask(gates), check_weights=False)
    return lambda: explainer.explain(images)


def training_step(vit: ViTAdapter, gates: DiffMask, images: Tensor, layer: int) -> Task:
    """One step of the gates up to a layer, as `MaskLearner` makes it but for the multipliers, which are a dozen numbers."""
    config = MaskConfig(model="timed")
    optimizer = primal_optimizer(gates, config)
    rows, cols = vit.grid_size(images)
    noise = torch.rand(len(images), vit.num_prefix_tokens + rows * cols, layer + 1).to(vit.device)

    def step() -> None:
        masked = mask_once(vit, gates, images, noise)
        loss = (config.alpha * (masked.kl - config.eps) + masked.log_kept).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def mean(figures: Sequence[Figures]) -> Figures:
    """The mean of every figure."""
    return {name: statistics.fmean(each[name] for each in figures) for name in figures[0]}


def main() -> None:
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="timm:vit_base_patch16_224")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="of masks")
    parser.add_argument("--training-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's own choice if not given")
    parser.add_argument("--json", help="also write the figures into this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    vit = build(options.model, options.device)
    gates = DiffMask(DiffMaskConfig(vit.prefix_tokens.shape[-1], len(vit.blocks))).to(vit.device)
    print(f"{machine(options.device)}, {options.model}, {options.repeats} runs each")
    print("fp = one forward pass of the batch; floor in fp")
    print(f"  {'':<32}{'seconds':>9}{'fp':>8}{'1 fp':>9}{'floor':>7}{'over it':>9}")
    found: list[dict[str, object]] = []

    def report(task: str, batch: int, figures: Figures, floor: int) -> None:
        taken, passes = figures["seconds"], figures["ratio"]
        what = f"{task}, {batch} image(s)"
        print(f"  {what:<32}{taken:>9.3f}{passes:>8.2f}{figures['before']:>9.3f}{floor:>7}{passes / floor:>9.2f}", flush=True)
        found.append({"task": task, "batch": batch, "floor": floor, **figures})

    for batch in options.batch:
        images = draw_images(vit, batch)
        [figures] = in_turns([mask_pass(vit, gates, images)], forward_pass(vit, images), options.repeats, options.device)
        report("mask", batch, figures, 1)
    batch, images = options.training_batch, draw_images(vit, options.training_batch)
    steps = [training_step(vit, gates.train(), images, layer) for layer in range(gates.config.num_gates)]
    layers = in_turns(steps, forward_pass(vit, images), options.repeats, options.device)
    report("step, first layer", batch, layers[0], 2)
    report("step, last layer", batch, layers[-1], 2)
    report("step, mean of all", batch, mean(layers), 2)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
