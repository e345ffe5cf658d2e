"""How many passes a sampler of Shapley values needs for the same standard error: vitrail's, shap's and captum's, on the same game.

    python benchmarks/shapley.py photo.jpg --model vitrail:vit-imagenette --image-size 112 --json shapley.json

Subsets of patches are run as vitrail runs them: tokens of absent patches are removed. shap's KernelExplainer and captum's KernelShap (which
needs scikit-learn) sample the same values. Each sampler runs with several seeds; its error is the spread between them, as the root mean
square over patches, in percent of the difference between the logit with all and with no patches.
"""

import argparse
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import vitrail
from measuring import describe_machine, seconds
from vitrail.adapters import ViTAdapter
from vitrail.explainers import make_explainer
from vitrail.explainers._presence import absence_logits, presence_logits

Sampler = Callable[[int, int], np.ndarray]
"""Returns the relevance of all patches, from a number of passes and a seed."""

WANTED = 2.0
"""Standard error in percent, for which passes are compared."""


class Game:
    """The logit of the answer, as a function of the patches that are present; counts its passes."""

    def __init__(self, model: ViTAdapter, image: Tensor) -> None:
        self.model, self.image, self.passes = model, image, 0
        rows, cols = model.grid_size(image)
        self.num_patches = rows * cols
        everything = torch.ones(1, 1, self.num_patches, dtype=torch.bool)
        logits = presence_logits(model, image, everything, None)[0, 0]
        self.target = int(logits.argmax())
        self.difference = float(logits[self.target] - absence_logits(model, image, None)[0, self.target])

    def __call__(self, present: Any) -> Tensor:
        keep = torch.as_tensor(present).bool()
        self.passes += len(keep)
        return presence_logits(self.model, self.image, keep[None], None)[0, :, self.target]


def sample_by_vitrail(game: Game, passes: int, seed: int, estimator: str) -> np.ndarray:
    """Run the method `shapley`, whatever its errors."""
    explainer = make_explainer("shapley", game.model, num_passes=passes, max_error=0.0, seed=seed, estimator=estimator)
    game.passes += passes
    return explainer.explain(game.image, game.target).relevance.flatten().double().numpy()


def sample_by_shap(game: Game, passes: int, seed: int) -> np.ndarray:
    """Run KernelSHAP as published, on all patches."""
    shap = importlib.import_module("shap")
    np.random.seed(seed)  # noqa: NPY002: shap draws from the global state.
    none, everyone = np.zeros((1, game.num_patches)), np.ones((1, game.num_patches))
    explainer = shap.KernelExplainer(lambda present: game(present).double().numpy(), none, silent=True)
    return cast("np.ndarray", explainer.shap_values(everyone, nsamples=passes - 2, l1_reg=False, silent=True)[0])


def sample_by_captum(game: Game, passes: int, seed: int) -> np.ndarray:
    """Run captum's KernelSHAP."""
    attr = importlib.import_module("captum.attr")
    torch.manual_seed(seed)
    everyone = torch.ones(1, game.num_patches)
    values = attr.KernelShap(game).attribute(everyone, n_samples=passes - 2, perturbations_per_eval=64)
    return cast("np.ndarray", values[0].double().numpy())


def measure(game: Game, sampler: Sampler, passes: int, runs: int) -> dict[str, float]:
    """Run a sampler with several seeds."""
    game.passes, found, times = 0, [], []
    for seed in range(runs):
        times.append(seconds(lambda seed=seed: found.append(sampler(passes, seed)), 1, lambda: None, warm_up=False))
    error = 100 * np.sqrt(np.stack(found).var(0, ddof=1).mean()) / abs(game.difference)
    used = game.passes / runs
    return {
        "passes": used,
        "seconds": float(np.median(times)),
        "error": float(error),
        "passes_for_wanted": used * (float(error) / WANTED) ** 2,
    }


def load(name: str, image_size: int | None) -> ViTAdapter:
    """Load a ViT of timm, and give it another input size."""
    model = cast("ViTAdapter", vitrail.load(name))
    if image_size is None:
        return model
    size = (image_size, image_size)
    model.module.set_input_size(img_size=size)
    return cast("ViTAdapter", vitrail.adapt(model.module, name=name, preprocessing=replace(model.preprocessing, size=size)))


def main() -> None:
    """Print a table for every photo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--model", default="vitrail:vit-imagenette")
    parser.add_argument("--image-size", type=int, help="side in pixels, for a ViT of timm")
    parser.add_argument("--passes", type=int, default=3000, help="per photo, sampler and run")
    parser.add_argument("--runs", type=int, default=4, help="seeds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load(options.model, options.image_size)
    print(describe_machine("cpu"))
    results = []
    for photo in options.photos:
        with torch.no_grad(), model.inspecting():
            game = Game(model, model.preprocessing(Image.open(photo))[None])
            samplers: dict[str, Sampler] = {
                "vitrail, kernel": partial(sample_by_vitrail, game, estimator="kernel"),
                "vitrail, permutation": partial(sample_by_vitrail, game, estimator="permutation"),
                "shap.KernelExplainer": partial(sample_by_shap, game),
                "captum.attr.KernelShap": partial(sample_by_captum, game),
            }
            print(f"\n{photo.name}: {game.num_patches} patches, class {game.target}, difference {game.difference:.3f}")
            print(f"| sampler | passes | seconds | error, % | passes for {WANTED:.0f}% |\n| --- | --- | --- | --- | --- |")
            for name, sampler in samplers.items():
                try:
                    row = measure(game, sampler, options.passes, options.runs)
                except ImportError as error:
                    print(f"| {name} | not there: {error} | | | |")
                    continue
                print(
                    "| {} | {passes:.0f} | {seconds:.1f} | {error:.2f} | {passes_for_wanted:.0f} |".format(name, **row),
                    flush=True,
                )
                results.append({"photo": photo.name, "sampler": name, "difference": game.difference, **row})
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
