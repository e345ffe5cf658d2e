"""Measure the maps of an INTR on a ResNet-50 at 800 pixels against its forward pass, and the forward pass against the backbone.

Maps of the last decoder layer are computed after the pass, for all classes or for one; a pass with maps should take at most 1.02
times one without. Most of the time goes into the backbone, which runs with folded batch norms and channels last. It is compared to
torchvision's with frozen norms, as DETR and the published INTR use it. The published implementation takes 1.30 times that backbone
for a photo of 800x1066 pixels with maps.

The reference runs before every run, and ratios are within such pairs, so that changes of the machine's speed cancel. Medians; random
weights; one process with all its threads.
"""

import argparse
import json
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d

from measuring import Task, describe_machine, time_alternating
from vitrail.adapters import build
from vitrail.models.intr import INTR

PUBLISHED = 1.62 / 1.25
"""Published ratio of a pass with maps to the backbone, both in seconds on two cores."""


def create_torchvision_backbone(images: Tensor) -> Task:
    """Return a task that runs torchvision's ResNet-50 with frozen norms up to its last features."""
    net = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d).eval().to(images.device)
    parts = (net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4)
    return torch.inference_mode()(lambda: torch.nn.Sequential(*parts)(images))


def create_pass_with_maps(intr: INTR, images: Tensor, classes: Tensor | None) -> Task:
    """Return a task that runs a pass and computes the maps of classes in the last layer."""

    def run() -> Tensor:
        search = intr.search(intr.encode(images))
        return intr.attention(search, -1, classes)

    return torch.inference_mode()(run)


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1066], help="height and width in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    classifier = build("intr_resnet50", num_classes=options.classes)
    intr: INTR = classifier.module.to(options.device).eval()  # type: ignore[assignment]  # by its name
    images = torch.randn(options.batch, 3, *options.size, device=options.device)
    one = torch.zeros(options.batch, 1, dtype=torch.long, device=options.device)
    forward = torch.inference_mode()(lambda: classifier.logits(images))
    backbone, plain = torch.inference_mode()(lambda: intr.backbone(images)), create_torchvision_backbone(images)
    print(
        f"{describe_machine(options.device)}, {options.batch} image(s) of {options.size[0]}x{options.size[1]}, {options.classes} classes, "
        f"{options.repeats} runs each"
    )
    print(f"  {'':<34}{'seconds':>9}{'over':>7}  {'':<34}{'seconds':>9}{'expected':>10}")
    comparisons = [
        ("forward, maps of one class", create_pass_with_maps(intr, images, one), "forward", forward, "1.02"),
        ("forward, maps of all classes", create_pass_with_maps(intr, images, None), "forward", forward, "1.02"),
        ("backbone", backbone, "torchvision's backbone", plain, "1"),
        ("forward", forward, "backbone", backbone, ""),
        (
            "forward, maps of all classes",
            create_pass_with_maps(intr, images, None),
            "torchvision's backbone",
            plain,
            f"{PUBLISHED:.2f}",
        ),
    ]
    results: list[dict[str, object]] = []
    for task, run, reference, run_reference, expected in comparisons:
        [figures] = time_alternating([run], run_reference, options.repeats, options.device)
        print(
            f"  {task:<34}{figures['seconds']:>9.3f}{figures['ratio']:>7.3f}  {reference:<34}{figures['before']:>9.3f}{expected:>10}",
            flush=True,
        )
        results.append({"task": task, "compared with": reference, **figures})
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
