"""Measure every method on a ViT-B/16 at 224 pixels, in forward passes of the same batch in the same run.

The floor is the least work of a method in forward passes: a backward pass to the activations counts as one; a mask of MUTEX counts
by its share of the tokens. Methods of many passes run with fewer masks or steps than by default, and their floor accounts for it.
Random weights. Every measurement runs in a process of its own, whose growth is the peak memory.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import timm
import torch

from measuring import add_noise, in_own_process, peak_memory, reset_peak_memory, seconds, synchronizer
from vitrail.adapters import ViTAdapter, adapt
from vitrail.explainers import Explainer, make_explainer
from vitrail.explainers.mutex import Mutex

OPTIONS: dict[str, dict[str, Any]] = {
    "attention": {},
    "rollout": {},
    "grad-cam": {},
    "chefer": {},
    "legrad": {},
    "attcat": {},
    "input-x-gradient": {},
    "integrated-gradients": {"num_steps": 4},
    "mutex": {},
    "rise": {"num_masks": 32},
    "occlusion": {"window": 10},
}
BACKWARD = ("grad-cam", "chefer", "legrad", "attcat", "input-x-gradient")


def build(device: str) -> ViTAdapter:
    """Build a ViT-B/16 with random nonzero weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    add_noise(model)
    adapter = adapt(model.to(device))
    if not isinstance(adapter, ViTAdapter):
        raise TypeError(f"expected a ViTAdapter, got {type(adapter).__name__}")
    return adapter


def compute_floor(explainer: Explainer, name: str, images: torch.Tensor) -> float:
    """Compute the forward passes per image that the method needs at least."""
    options = OPTIONS[name]
    if name == "integrated-gradients":
        return 2 + 2 * options["num_steps"]  # Logits of image and baseline; forward and backward per step.
    if name == "rise":
        return 1 + options["num_masks"]
    if name == "occlusion":
        rows, cols = explainer.model.grid_size(images)
        return 1 + (rows - options["window"] + 1) * (cols - options["window"] + 1)
    if isinstance(explainer, Mutex):
        return compute_mutex_floor(explainer, images)
    return 2 if name in BACKWARD else 1


def compute_mutex_floor(explainer: Mutex, images: torch.Tensor) -> float:
    """Count one pass, and the distinct masks by their share of the tokens."""
    with explainer.model.inspecting(), torch.no_grad():
        with explainer.vit.record(attentions=explainer._degrees) as trace:
            explainer.vit.logits(images)
        masks = explainer.masks(torch.stack(trace.attentions, -2))
    prefix, whole = explainer.vit.num_prefix_tokens, masks.shape[-1]
    kept = [(mask.sum(1) + prefix)[mask.any(1)].sum() for mask in (one.unique(dim=0) for one in masks)]
    return 1 + float(sum(kept)) / len(images) / (prefix + whole)


def measure(name: str, batch: int, device: str, precision: str) -> dict[str, float]:
    """Time one method between forward passes."""
    adapter, synchronize = build(device), synchronizer(device)
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    explainer = make_explainer(name, adapter, precision=precision, **OPTIONS[name])
    floor = compute_floor(explainer, name, images)

    @torch.inference_mode()
    def forward() -> object:
        with explainer._inspecting():
            return adapter.logits(images)

    def explain() -> object:
        return explainer.explain(images)

    repeats = 1 if floor > 10 and device == "cpu" else 5
    before_time = seconds(forward, 5, synchronize)
    explain()  # The first explanation of a network also checks it.
    before_memory = reset_peak_memory(device)
    explain_time = seconds(explain, repeats, synchronize, warm_up=False)
    memory = peak_memory(device) - before_memory
    # The speed of the machine may have changed: average forward passes from before and after.
    forward_time = (before_time + seconds(forward, 5, synchronize)) / 2
    return {"seconds": explain_time, "forward": forward_time, "memory": memory, "floor": floor}


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--method", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--precision", default="full", choices=["full", "bf16", "fp16"])
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {options.device} ({name}), {options.precision} precision, ViT-B/16, 224 pixels")
    figures = []
    for batch in options.batch:
        print(f"{batch} image(s); fp = one forward pass of the batch")
        print(f"  {'method':<22}{'seconds':>9}{'fp':>8}{'floor':>8}{'over it':>9}{'MiB':>8}")
        for method in options.method:
            result = in_own_process(measure, method, batch, options.device, options.precision)
            passes = result["seconds"] / result["forward"]
            print(
                f"  {method:<22}{result['seconds']:>9.3f}{passes:>8.2f}{result['floor']:>8.2f}{passes / result['floor']:>9.2f}"
                f"{result['memory'] / 2**20:>8.0f}",
                flush=True,
            )
            figures.append({"method": method, "batch": batch, **result})
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
