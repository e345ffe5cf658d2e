"""INTR on a ResNet-50 at 800 pixels: what its maps cost, and how far a whole pass is from its backbone alone.

Maps of the last decoder layer are computed after the fact, for all classes or for one; a pass with them should take at most 1.02
times one without. Most of the time goes into the backbone, whose batch norms are folded into the convolutions and whose channels come
last; it is compared with torchvision's own under frozen norms, which is how DETR and the published INTR run it. The published
implementation takes 1.30 times that backbone for a photo of 800x1066 pixels with its maps.

Before every run comes one of what it is compared with, and the quotient is that of the two, so that a change of the machine's
speed meets both. Medians. Random weights, one process, all its threads.
"""

import argparse
import json
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d

from measuring import Task, in_turns, machine
from vitrail.adapters import build
from vitrail.models.intr import INTR

PUBLISHED = 1.62 / 1.25
"""A pass with maps over the backbone alone, both in seconds on two cores."""


def plain_backbone(images: Tensor) -> Task:
    """torchvision's ResNet-50 with frozen norms, up to its last features."""
    net = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d).eval().to(images.device)
    parts = (net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4)
    return torch.inference_mode()(lambda: torch.nn.Sequential(*parts)(images))


def with_maps(intr: INTR, images: Tensor, classes: Tensor | None) -> Task:
    """A pass, and where classes looked in the last layer."""

    def run() -> Tensor:
        search = intr.search(intr.encode(images))
        return intr.attention(search, -1, classes)

    return torch.inference_mode()(run)


def main() -> None:
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1066], help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's own choice if not given")
    parser.add_argument("--json", help="also write the figures into this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    classifier = build("intr_resnet50", num_classes=options.classes)
    intr: INTR = classifier.module.to(options.device).eval()  # type: ignore[assignment]  # it was asked for
    images = torch.randn(options.batch, 3, *options.size, device=options.device)
    one = torch.zeros(options.batch, 1, dtype=torch.long, device=options.device)
    forward = torch.inference_mode()(lambda: classifier.logits(images))
    own, plain = torch.inference_mode()(lambda: intr.backbone(images)), plain_backbone(images)
    print(
        f"{machine(options.device)}, {options.batch} image(s) of {options.size[0]}x{options.size[1]}, {options.classes} classes, "
        f"{options.repeats} runs each"
    )
    print(f"  {'':<34}{'seconds':>9}{'over':>7}  {'':<34}{'seconds':>9}{'expected':>10}")
    comparisons = [
        ("forward, maps of one class", with_maps(intr, images, one), "forward", forward, "1.02"),
        ("forward, maps of all classes", with_maps(intr, images, None), "forward", forward, "1.02"),
        ("backbone", own, "torchvision's backbone", plain, "1"),
        ("forward", forward, "backbone", own, ""),
        ("forward, maps of all classes", with_maps(intr, images, None), "torchvision's backbone", plain, f"{PUBLISHED:.2f}"),
    ]
    found: list[dict[str, object]] = []
    for task, run, yardstick, before, expected in comparisons:
        [figures] = in_turns([run], before, options.repeats, options.device)
        print(
            f"  {task:<34}{figures['seconds']:>9.3f}{figures['ratio']:>7.3f}  {yardstick:<34}{figures['before']:>9.3f}{expected:>10}",
            flush=True,
        )
        found.append({"task": task, "compared with": yardstick, **figures})
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
