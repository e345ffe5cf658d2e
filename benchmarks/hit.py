"""Measure explanations and insertion curves of HiT-B, in forward passes of the same network in the same run.

Two units: `fp` is vitrail's forward pass, which needs no projected keys and values for the single query of the class token; `std fp`
is the standard computation of published implementations, a packed multi-head attention that projects every patch.

Random weights, one and eight images, both variants at 224 pixels. Brute force is timed on a subset of the steps and extrapolated
(`--full` runs every step). Every measurement runs in a process of its own, whose growth is the peak memory.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from measuring import add_noise, in_own_process, peak_memory, reset_peak_memory, seconds, synchronizer
from vitrail.adapters import ViTAdapter, adapt
from vitrail.models.hit import HIT_SIZES, HiT

MODELS = {"no-pool": "hit_base_patch16_224", "pooled": "hit_base_patch8_224"}
TASKS = ("standard", "forward", "explain", "incremental", "both", "brute")


def build(variant: str) -> ViTAdapter:
    """Build HiT-B with random nonzero weights."""
    torch.manual_seed(0)
    model = HiT(HIT_SIZES[MODELS[variant]]).eval()
    add_noise(model)
    adapter = adapt(model)
    if not isinstance(adapter, ViTAdapter):
        raise TypeError(f"expected a ViTAdapter, got {type(adapter).__name__}")
    return adapter


def standard_forward(model: HiT, images: Tensor) -> Tensor:
    """Run the network by the standard computation: keys and values of every patch, then attention."""
    tokens = model.assemble(model.patch_embed(images))
    class_tokens, patches = tokens[:, :1], tokens[:, 1:]
    rows, cols = model.config.grid_size
    layers = [(stage, layer) for stage in model.stages for layer in stage.layers]
    for i, (stage, layer) in enumerate(layers):
        if stage.pooled and layer is stage.layers[0]:
            patches = stage.enter(patches.unflatten(1, (rows, cols))).flatten(1, 2)
            class_tokens, rows, cols = stage.project(class_tokens), rows // 2, cols // 2
        attention, width = layer.attention, patches.shape[2]
        key_value = nn.functional.linear(layer.norm1(patches), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        key, value = (side.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for side in key_value.chunk(2, dim=2))
        query = attention.query(layer.norm1(class_tokens)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        class_tokens = class_tokens + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        if i + 1 < len(layers):
            patches = layer.advance(patches)
    return model.classify(class_tokens[:, 0])


def create_curve_mask(batch: int, num_patches: int) -> Tensor:
    """Create the mask of an insertion curve: one patch per step, in random order."""
    ranks = torch.stack([torch.randperm(num_patches, generator=torch.Generator().manual_seed(i)) for i in range(batch)])
    return ranks[:, None] < torch.arange(num_patches + 1)[:, None]


@torch.inference_mode()
def measure(variant: str, batch: int, device: str, task: str, full: bool) -> dict[str, float]:
    """Time one task between forward passes."""
    adapter = build(variant)
    adapter.module.to(device)
    synchronize = synchronizer(device)
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    baseline = torch.zeros_like(images[:1])
    rows, cols = adapter.grid_size(images)
    inserted = create_curve_mask(batch, rows * cols).to(device)
    model = adapter.module
    result: dict[str, float] = {}
    forward = seconds(lambda: model(images), 5, synchronize)
    before = reset_peak_memory(device)
    if task == "standard":
        torch.testing.assert_close(standard_forward(model, images), model(images), rtol=1e-3, atol=1e-4)
        result["seconds"] = seconds(lambda: standard_forward(model, images), 9, synchronize)
    elif task == "forward":
        result["seconds"] = seconds(lambda: model(images), 9, synchronize)
    elif task == "explain":
        result["seconds"] = seconds(lambda: model.contributions(images, 0), 9, synchronize)
    elif task == "incremental":
        result["seconds"] = seconds(lambda: adapter.perturbed_logits(images, baseline, inserted), 3, synchronize)
    elif task == "both":
        keep = torch.cat([inserted, ~inserted], 1)
        result["seconds"] = seconds(lambda: adapter.perturbed_logits(images, baseline, keep), 3, synchronize)
    else:
        steps = range(inserted.shape[1]) if full else torch.linspace(0, inserted.shape[1] - 1, 16).long().tolist()
        subset = inserted[:, steps]
        fast = adapter.perturbed_logits(images, baseline, inserted)[:, steps]
        start = time.perf_counter()
        slow = ViTAdapter.perturbed_logits(adapter, images, baseline, subset)
        synchronize()
        result["seconds"] = (time.perf_counter() - start) / len(steps) * inserted.shape[1]
        result["curve difference"] = float((slow.softmax(-1) - fast.softmax(-1)).abs().max())
        result["logit difference"] = float((slow - fast).abs().max() / slow.abs().max())
    result["memory"] = peak_memory(device) - before
    # The speed of the machine may have changed: average forward passes from before and after.
    result["forward"] = (forward + seconds(lambda: model(images), 5, synchronize)) / 2
    return result


def main() -> None:
    """Print a table and optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--variant", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--full", action="store_true", help="run brute force on every step")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    figures = []
    print(
        f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; fp = one forward pass of the whole batch"
    )
    for variant in options.variant:
        for batch in options.batch:
            points = HIT_SIZES[MODELS[variant]].grid_size[0] ** 2 + 1
            print(f"HiT-B {variant}, {batch} image(s), curves of {points} points")
            standard = 0.0
            for task in TASKS:
                result = in_own_process(measure, variant, batch, options.device, task, options.full)
                passes = result["seconds"] / result["forward"]
                # Relative to the passes of the same process, so that changes of the machine's speed cancel.
                standard = passes if task == "standard" else standard
                line = f"  {task:<12} {result['seconds']:9.3f} s {passes:8.2f} fp {passes / standard:8.2f} std fp"
                line += f" {result['memory'] / 2**20:8.0f} MiB"
                for name in ("curve difference", "logit difference"):
                    line += f"   {name} {result[name]:.1e}" if name in result else ""
                print(line, flush=True)
                figures.append({"variant": variant, "batch": batch, "task": task, **result})
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
