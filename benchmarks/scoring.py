"""Measure perturbation curves of a ViT-B/16 against bare forward passes.

The ceiling is the network's forward passes of as many images in the same batches. Curves of cells and pixels should reach 0.9 of it;
curves that drop patches should exceed it, since their passes are shorter. An evaluation is one pass of one image.

Memory is the growth of a separate process that scores a batch of 16 by the protocol hit on a network of two small layers, since the
memory that depends on the number of classes does not depend on the network.

Random weights, noise and random maps. All times are medians of pairs with their reference, so that changes of the machine's speed
cancel. Curves have few steps, since the number of steps does not change the ratios.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from measuring import (
    CachedTask,
    Figures,
    Task,
    add_noise,
    describe_machine,
    in_own_process,
    peak_memory,
    reset_peak_memory,
    time_alternating,
)
from vitrail.adapters import ViTAdapter, load
from vitrail.core.hooks import forward_pre_hooks
from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, InsertionDeletion, Protocol, perturbation_curves

SMALL = "timm:vit_tiny_patch16_224"
SMALL_PIXELS = 64


def build(name: str, device: str, pixels: int | None, **options: Any) -> ViTAdapter:
    """Build a ViT with random nonzero weights and a head confident enough for probabilities to differ."""
    torch.manual_seed(0)
    if pixels is not None:
        options["img_size"] = (pixels, pixels)
    vit = load(name, device=device, pretrained=False, **options)
    if not isinstance(vit, ViTAdapter):
        raise TypeError(f"expected a Vision Transformer, got {name}")
    vit.module.eval().requires_grad_(False)
    add_noise(vit.module)
    for layer in vit.module.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == vit.num_classes:
            layer.weight.mul_(4)
    return vit


def draw_batch(vit: ViTAdapter, batch: int) -> tuple[Tensor, Explanation]:
    """Draw images of noise, and random maps of the predicted classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, *vit.preprocessing.size, generator=generator).to(vit.device)
    rows, cols = vit.grid_size(images)
    relevance = torch.rand(batch, rows, cols, generator=generator).to(vit.device)
    with torch.inference_mode():
        logits = vit.logits(images)
    return images, Explanation(relevance, logits.argmax(1), logits)


@contextmanager
def record_batch_sizes(vit: ViTAdapter) -> Iterator[list[int]]:
    """Record the number of images in every pass."""
    sizes: list[int] = []
    with forward_pre_hooks([(vit.blocks[0], lambda _, inputs: sizes.append(len(inputs[0])))]):
        yield sizes


def create_passes(vit: ViTAdapter, images: Tensor, sizes: Sequence[int]) -> Task:
    """Return a task that runs bare forward passes of batches of the given sizes."""
    repeated = images[torch.arange(max(sizes)) % len(images)]

    @torch.inference_mode()
    def run() -> None:
        for size in sizes:
            vit.logits(repeated[:size])

    return run


def create_curves(vit: ViTAdapter, images: Tensor, explanation: Explanation, protocol: Protocol, *, bf16: bool = False) -> Task:
    """Return a task that computes the curves of a batch like `vitrail score`."""

    def run() -> object:
        with torch.autocast(vit.device.type, torch.bfloat16, enabled=bf16):
            return perturbation_curves(vit, images, explanation, protocol)

    return run


def measure_score_memory(num_classes: int, device: str) -> Figures:
    """Measure the growth of memory while scoring a batch of 16."""
    vit = build(SMALL, device, SMALL_PIXELS, num_classes=num_classes, depth=2)
    images, explanation = draw_batch(vit, 16)
    metric, before = InsertionDeletion(PROTOCOLS["hit"]), reset_peak_memory(device)
    metric.update(vit, images, explanation)
    return {"bytes": peak_memory(device) - before}


class Bench:
    """Measures and prints, and collects the results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.results = options, list[dict[str, object]]()
        self.vit = build(options.model, options.device, options.pixels)

    def time(self, tasks: Sequence[Task], reference: Task) -> list[Figures]:
        """Time tasks alternating with a reference."""
        return time_alternating(tasks, reference, self.options.repeats, self.options.device)

    def report(self, task: str, batch: int, evaluations: int, figures: Figures, target: str, **differences: float) -> None:
        """Print one line and collect it: the speed of a task relative to its reference."""
        speed = 1 / figures["ratio"]
        more = "".join(f"  {name} {value:.1e}" for name, value in differences.items())
        print(
            f"  {task:<38}{batch:>3} image(s){figures['seconds']:>9.3f}{evaluations:>6}{figures['before']:>9.3f}{speed:>8.3f}"
            f"{target:>8}{more}",
            flush=True,
        )
        self.results.append(
            {"task": task, "batch": batch, "evaluations": evaluations, "speed": speed, **figures, **differences}
        )

    def compare_to_passes(self, batch: int) -> None:
        """Compare curves of cells, pixels and dropped patches to bare forward passes."""
        images, explanation = draw_batch(self.vit, batch)
        steps = max(1, self.options.evaluations // (2 * batch) - 1)
        protocols = {
            "cells": PROTOCOLS["hit"].changed(num_steps=steps, baselines=("zero",)),
            "pixels": PROTOCOLS["rise"].changed(num_steps=steps),
            "tokens": PROTOCOLS["tokens"].changed(num_steps=steps),
        }
        tasks = [create_curves(self.vit, images, explanation, protocol) for protocol in protocols.values()]
        with record_batch_sizes(self.vit) as sizes:
            tasks[0]()
        for name, figures in zip(protocols, self.time(tasks, create_passes(self.vit, images, sizes)), strict=True):
            self.report(f"{name}, relative to the ceiling", batch, sum(sizes), figures, "> 1" if name == "tokens" else "0.9")
        full, reduced = (
            CachedTask(tasks[0]),
            CachedTask(create_curves(self.vit, images, explanation, protocols["cells"], bf16=True)),
        )
        [figures] = self.time([reduced], full)
        difference = float((full.result.auc() - reduced.result.auc()).abs().max())
        self.report("cells in bf16, relative to full", batch, sum(sizes), figures, "", auc=difference)

    def compare_memory(self) -> None:
        """Compare the memory of a thousand classes to that of ten."""
        few, many = (in_own_process(measure_score_memory, count, self.options.device)["bytes"] for count in (10, 1000))
        print(
            f"memory of a score, 16 images: 10 classes {few / 2**20:.0f} MiB, 1000 classes {many / 2**20:.0f} MiB", flush=True
        )
        self.results.append({"task": "memory", "batch": 16, "of 10 classes": few, "of 1000 classes": many})


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="timm:vit_base_patch16_224")
    parser.add_argument("--pixels", type=int, help="side of the images; default: the network's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--evaluations", type=int, default=48, help="approximate number of evaluations per batch")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--quick", action="store_true", help="use a small network, to check that the benchmark runs")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.model, options.pixels, options.repeats = SMALL, SMALL_PIXELS, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    print(f"{describe_machine(options.device)}, {options.model}, {options.repeats} runs each; speed in evaluations per second")
    print(f"  {'':<38}{'':>12}{'seconds':>9}{'eval.':>6}{'ref.':>9}{'speed':>8}{'target':>8}")
    for batch in options.batch:
        bench.compare_to_passes(batch)
    bench.compare_memory()
    if options.json:
        Path(options.json).write_text(json.dumps(bench.results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
