"""Measure what half precision, channels last and `torch.compile` gain over single precision, and how far they move the result.

    python benchmarks/precision.py --write

A forward pass of a batch, and whole explanations. Each alternates with the same in single precision; the difference is the largest one,
over the largest logit or relevance. Random weights. vitrail does not compile networks: it looks into them, which compiled code does not
allow, so those rows only show what it does without.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from measuring import CachedTask, Task, add_noise, describe_machine, time_alternating, write_section
from vitrail.adapters import adapt
from vitrail.core.autocast import Precision
from vitrail.explainers import make_explainer

Change = Literal["bf16", "channels last", "compiled"]
NETWORKS = ("vit_base_patch16_224", "resnet50", "convnext_tiny")
METHODS: dict[str, dict[str, Any]] = {"rollout": {}, "chefer": {}, "rise": {"num_masks": 32}}


@dataclass(frozen=True)
class Gain:
    """Time of single precision over that of a change, from the slowest to the fastest repeat, and the difference of results."""

    network: str
    task: str
    change: str
    single_seconds: float
    gain: float
    low: float
    high: float
    difference: float


def build(name: str, device: str) -> nn.Module:
    """Build a network with random nonzero weights."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval().to(device)
    add_noise(network)
    return network


def forward(network: nn.Module, images: Tensor, change: Change | None) -> Task:
    """Return a task that computes logits."""
    if change == "channels last":
        network, images = network.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    run_network = torch.compile(network) if change == "compiled" else network

    @torch.inference_mode()
    def run() -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=change == "bf16"):
            return run_network(images)

    return run


def explain(network: nn.Module, images: Tensor, method: str, precision: Precision) -> Task:
    """Return a task that explains by a method."""
    explainer = make_explainer(method, adapt(network), precision=precision, **METHODS[method])
    return lambda: explainer.explain(images).relevance


def compare(network: str, title: str, change: str, tasks: tuple[Task, Task], repeats: int, device: str) -> Gain:
    """Time a task beside that in single precision."""
    single, changed = (CachedTask(task) for task in tasks)
    [figures] = time_alternating([changed], single, repeats, device)
    difference = (changed.result.float() - single.result).abs().max() / single.result.abs().max()
    return Gain(
        network,
        title,
        change,
        figures["before"],
        1 / figures["ratio"],
        1 / figures["high"],
        1 / figures["low"],
        float(difference),
    )


def measure(batch: int, repeats: int, device: str) -> list[Gain]:
    """Measure all networks and methods."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    gains = []
    changes: tuple[Change, ...] = ("bf16", "channels last", "compiled")
    for name in NETWORKS:
        for change in changes:
            tasks = forward(build(name, device), images, None), forward(build(name, device), images, change)
            gains.append(compare(name, "forward pass", change, tasks, repeats, device))
            print(gains[-1], flush=True)
    for method in METHODS:
        network = build(NETWORKS[0], device)
        tasks = explain(network, images, method, "full"), explain(network, images, method, "bf16")
        gains.append(compare(NETWORKS[0], method, "bf16", tasks, repeats, device))
        print(gains[-1], flush=True)
    return gains


def format_table(gains: Sequence[Gain]) -> str:
    """Write the table in Markdown."""
    lines = [
        "| network | task | change | time of single precision over its time | range | single precision | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{gain.network}` | {gain.task} | {gain.change} | {gain.gain:.2f} | {gain.low:.2f} to {gain.high:.2f} "
        f"| {gain.single_seconds:.3g} s | {gain.difference:.0e} |"
        for gain in gains
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write numbers and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/precision"), help="folder of precision.json and precision.md")
    parser.add_argument("--write", action="store_true", help="also write the table of docs/performance.md")
    options = parser.parse_args()
    print(describe_machine(options.device))
    gains = measure(options.batch, options.repeats, options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "precision.json").write_text(json.dumps([asdict(gain) for gain in gains], indent=1), encoding="utf-8")
    (options.out / "precision.md").write_text(format_table(gains), encoding="utf-8")
    if options.write:
        write_section(Path(__file__).parents[1] / "docs" / "performance.md", "precision", format_table(gains))


if __name__ == "__main__":
    main()
