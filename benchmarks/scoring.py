"""Scoring a ViT-B/16: how close curves come to bare forward passes, and to peers that make the same evaluations, in one run.

The ceiling is the network's own passes over as many images, in the batches in which a curve of cells runs. Curves of cells and
pixels should reach 0.9 of it; where patches are taken out, passes are shorter, and curves should be above it. An evaluation is one
pass of one image.

Quantus (`PixelFlipping`) removes the same cells in the same order, one step a batch; captum (`FeatureAblation`) removes blocks of
cells one by one, as the metric faithfulness-estimate does. Their numbers are compared too, as a share of what they range over.
Peers that are not installed are left out.

Memory is the growth of a process of its own, by scoring a batch of 16 by the whole protocol hit, on a network of two small
layers: what hangs on the number of classes does not hang on the network.

Random weights, noise and random maps. All times are medians of pairs with what they are compared with, so that a change of the
machine's speed meets both. Curves have few steps, since their number changes no quotient.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from measuring import Figures, Task, in_own_process, in_turns, machine, peak_memory
from peers import captum_drops, quantus_deletion
from vitrail.adapters import ViTAdapter, load
from vitrail.core.hooks import forward_pre_hooks
from vitrail.explanation import Explanation
from vitrail.metrics import METRICS, PROTOCOLS, InsertionDeletion, Protocol, View, perturbation_curves

SMALL = "timm:vit_tiny_patch16_224"
SMALL_PIXELS = 64
AGREEMENT = 1e-4
"""How far the numbers of peers may be from ours, which are the same but for rounding."""


def build(name: str, device: str, pixels: int | None, **options: Any) -> ViTAdapter:
    """A ViT with random weights, of which none is zero, and a head that is sure enough for probabilities to differ."""
    torch.manual_seed(0)
    if pixels is not None:
        options["img_size"] = (pixels, pixels)
    vit = load(name, device=device, pretrained=False, **options)
    if not isinstance(vit, ViTAdapter):
        raise TypeError(f"expected a Vision Transformer, got {name}")
    vit.module.eval().requires_grad_(False)
    for parameter in vit.module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)
    for layer in vit.module.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == vit.num_classes:
            layer.weight.mul_(4)
    return vit


def draw(vit: ViTAdapter, batch: int, block: int = 1) -> tuple[Tensor, Explanation]:
    """Images of noise, and random maps of the predicted classes whose cells are blocks of patches."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, *vit.preprocessing.size, generator=generator).to(vit.device)
    rows, cols = vit.grid_size(images)
    relevance = torch.rand(batch, rows // block, cols // block, generator=generator).to(vit.device)
    with torch.inference_mode():
        logits = vit.logits(images)
    return images, Explanation(relevance, logits.argmax(1), logits)


@contextmanager
def counting(vit: ViTAdapter) -> Iterator[list[int]]:
    """The number of images in every pass."""
    sizes: list[int] = []
    with forward_pre_hooks([(vit.blocks[0], lambda _, inputs: sizes.append(len(inputs[0])))]):
        yield sizes


def passes(vit: ViTAdapter, images: Tensor, sizes: Sequence[int]) -> Task:
    """Bare forward passes of batches of these sizes."""
    many = images[torch.arange(max(sizes)) % len(images)]

    @torch.inference_mode()
    def run() -> None:
        for size in sizes:
            vit.logits(many[:size])

    return run


def curves(vit: ViTAdapter, images: Tensor, explanation: Explanation, protocol: Protocol, *, bf16: bool = False) -> Task:
    """The curves of a batch, as `vitrail score` measures them."""

    def run() -> object:
        with torch.autocast(vit.device.type, torch.bfloat16, enabled=bf16):
            return perturbation_curves(vit, images, explanation, protocol)

    return run


class Kept:
    """A task whose last result is kept, so that nothing runs for its result alone."""

    result: Any = None

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self) -> None:
        self.result = self.task()


def memory_of_score(num_classes: int, device: str) -> Figures:
    """Growth of memory by scoring a batch of 16."""
    vit = build(SMALL, device, SMALL_PIXELS, num_classes=num_classes, depth=2)
    images, explanation = draw(vit, 16)
    metric, before = InsertionDeletion(PROTOCOLS["hit"]), peak_memory(device)
    metric.update(vit, images, explanation)
    return {"bytes": peak_memory(device) - before}


class Bench:
    """Measures and prints, and remembers the figures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.found = options, list[dict[str, object]]()
        self.vit = build(options.model, options.device, options.pixels)

    def time(self, tasks: Sequence[Task], yardstick: Task) -> list[Figures]:
        """`in_turns`, as often as asked."""
        return in_turns(tasks, yardstick, self.options.repeats, self.options.device)

    def say(self, what: str, batch: int, evaluations: int, figures: Figures, wanted: str, **others: float) -> None:
        """A line: how fast this is, as a share of what came before it."""
        speed = 1 / figures["ratio"]
        more = "".join(f"  {name} {value:.1e}" for name, value in others.items())
        print(
            f"  {what:<38}{batch:>3} image(s){figures['seconds']:>9.3f}{evaluations:>6}{figures['before']:>9.3f}{speed:>8.3f}"
            f"{wanted:>8}{more}",
            flush=True,
        )
        self.found.append({"task": what, "batch": batch, "evaluations": evaluations, "speed": speed, **figures, **others})

    def against_passes(self, batch: int) -> None:
        """Curves of cells, of pixels and of patches that are taken out, against bare forward passes."""
        images, explanation = draw(self.vit, batch)
        steps = max(1, self.options.evaluations // (2 * batch) - 1)
        protocols = {
            "cells": PROTOCOLS["hit"].changed(num_steps=steps, baselines=("zero",)),
            "pixels": PROTOCOLS["rise"].changed(num_steps=steps),
            "tokens": PROTOCOLS["tokens"].changed(num_steps=steps),
        }
        tasks = [curves(self.vit, images, explanation, protocol) for protocol in protocols.values()]
        with counting(self.vit) as sizes:
            tasks[0]()
        for name, figures in zip(protocols, self.time(tasks, passes(self.vit, images, sizes)), strict=True):
            self.say(f"{name}, of the ceiling", batch, sum(sizes), figures, "> 1" if name == "tokens" else "0.9")
        full, reduced = Kept(tasks[0]), Kept(curves(self.vit, images, explanation, protocols["cells"], bf16=True))
        [figures] = self.time([reduced], full)
        difference = float((full.result.auc() - reduced.result.auc()).abs().max())
        self.say("cells in bf16, of full precision", batch, sum(sizes), figures, "", auc=difference)

    def against_quantus(self, batch: int) -> None:
        """The same cells in the same order: an image, and a step at a time without more of them."""
        images, explanation = draw(self.vit, batch)
        num_cells, most = explanation.relevance[0].numel(), max(1, self.options.evaluations // batch)
        per_step = next(size for size in range(1, num_cells + 1) if num_cells % size == 0 and num_cells // size <= most)
        protocol = Protocol("", "", cells_per_step=per_step, baselines=("zero",), scores=("logit",), directions=("deletion",))
        ours = Kept(curves(self.vit, images, explanation, protocol))
        theirs = Kept(quantus_deletion(self.vit, images, explanation, per_step))
        [figures] = self.time([theirs], ours)
        exact, found = ours.result.scores[:, 0, 1:].cpu(), torch.tensor(np.asarray(theirs.result))
        count = batch * num_cells // per_step
        # Ours has the image as it is, too: per evaluation.
        figures["ratio"] *= (count + batch) / count
        self.say("Quantus, of ours", batch, count, figures, "", difference=relative(exact, found))

    def against_captum(self, batch: int) -> None:
        """Single cells, each a block of patches: as many evaluations, and the image's own."""
        rows, cols = self.vit.grid_size(draw(self.vit, 1)[0])
        images, explanation = draw(self.vit, batch, 2 if rows % 2 == cols % 2 == 0 else 1)
        metric = METRICS["faithfulness-estimate"](score="logit")
        # A view anew: it remembers what the network said.
        ours = Kept(lambda: metric.checked(View(self.vit, images), explanation).flatten().cpu())
        with counting(self.vit) as sizes:
            ours()
        theirs = Kept(captum_drops(self.vit, images, explanation, max(sizes)))
        [figures] = self.time([theirs], ours)
        pairs = zip(explanation.relevance.flatten(1).cpu(), theirs.result.cpu(), strict=True)
        found = torch.stack([torch.corrcoef(torch.stack(both))[0, 1] for both in pairs])
        difference = float((ours.result - found).abs().max())
        self.say("captum, of ours", batch, sum(sizes), figures, "", difference=difference)

    def check(self) -> None:
        """Fail where peers measured something else: then their times say nothing."""
        apart = [each["task"] for each in self.found if float(each.get("difference", 0)) > AGREEMENT]  # type: ignore[arg-type]
        if apart:
            raise RuntimeError(f"expected the same numbers within {AGREEMENT}, got others: {', '.join(map(str, apart))}")

    def memory(self) -> None:
        """A thousand classes against ten."""
        few, many = (in_own_process(memory_of_score, count, self.options.device)["bytes"] for count in (10, 1000))
        print(
            f"memory of a score, 16 images: 10 classes {few / 2**20:.0f} MiB, 1000 classes {many / 2**20:.0f} MiB", flush=True
        )
        self.found.append({"task": "memory", "batch": 16, "of 10 classes": few, "of 1000 classes": many})


def relative(exact: Tensor, found: Tensor) -> float:
    """The largest difference, as a share of the range."""
    return float((exact - found).abs().max() / (exact.max() - exact.min()))


def main() -> None:
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="timm:vit_base_patch16_224")
    parser.add_argument("--pixels", type=int, help="side of the images; the network's own if not given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--evaluations", type=int, default=48, help="of the curves of a batch, about")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="torch's own choice if not given")
    parser.add_argument("--quick", action="store_true", help="a small network, to see that all of it runs")
    parser.add_argument("--json", help="also write the figures into this file")
    options = parser.parse_args()
    if options.quick:
        options.model, options.pixels, options.repeats = SMALL, SMALL_PIXELS, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    print(f"{machine(options.device)}, {options.model}, {options.repeats} runs each; speed in evaluations per second")
    print(f"  {'':<38}{'':>12}{'seconds':>9}{'eval.':>6}{'of':>9}{'speed':>8}{'wanted':>8}")
    for batch in options.batch:
        bench.against_passes(batch)
        if find_spec("quantus"):
            bench.against_quantus(batch)
        if find_spec("captum") and batch == min(options.batch):
            bench.against_captum(batch)
    bench.memory()
    if options.json:
        Path(options.json).write_text(json.dumps(bench.found, indent=1), encoding="utf-8")
    bench.check()


if __name__ == "__main__":
    main()
