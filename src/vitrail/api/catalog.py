"""Lists of what there is to choose from: models, methods, protocols, metrics and recipes."""

from dataclasses import fields
from typing import Any

from vitrail.adapters import bundled_models
from vitrail.api.models import Model, as_classifier
from vitrail.evaluation.scoring.plan import metric_options
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.explainers._trained_masks import list_bundled_masks
from vitrail.metrics import METRICS, PROTOCOLS
from vitrail.recipes import recipe_file, recipe_names, recipe_summary

MODEL_SOURCES = {
    "timm:<model>": "a classifier, or an image tower without classes; its weights are downloaded",
    "hf:<owner/name or folder>": "a classifier, or a tower such as CLIP, SigLIP or DINOv2; pip install 'vitrail[hf]'",
    "torchvision:<model>": "a classifier, such as vit_b_16; its weights are downloaded",
    "open_clip:<model>/<tag>": "a CLIP for --prompts or --references; its weights are downloaded; pip install 'vitrail[clip]'",
    "hit:<owner/name or file>": "a published HiT from the Hugging Face hub, or on disk",
    "intr:<owner/name or file>": "a published INTR from the Hugging Face hub, or on disk",
    "<file or folder>": "a model trained by vitrail, a published HiT or INTR, a train.py checkpoint, a folder of timm or transformers",
    "<name> --weights <file>": "your weights for a network of timm, hf, torchvision or open_clip, such as timm:vit_base_patch16_224",
    "<file.py>:<function>": "your own code: a function that returns a network or an adapter",
}


def list_models() -> list[dict[str, str]]:
    """List the bundled models and mask predictors, and the sources of other models, with what each needs."""
    bundled = {f"vitrail:{name}": "nothing: bundled with the package" for name in bundled_models()}
    masks = {
        f"vitrail:{name}": "nothing: bundled with the package, for the option checkpoint of the method diffmask"
        for name in list_bundled_masks()
    }
    return [{"name": name, "needs": needs} for name, needs in (bundled | masks | MODEL_SOURCES).items()]


def list_methods(model: Model | None = None) -> list[dict[str, Any]]:
    """List the methods: name, paper, requirements, and options with their defaults. All methods also take `precision`.

    Args:
        model: Only methods that explain this model as it is, found out on noise: a name (`vitrail.load`), a network, or an adapted network.
    """
    usable = EXPLAINERS if model is None else usable_methods(as_classifier(model))
    return [
        {
            "name": name,
            "paper": method.paper,
            "needs_gradients": method.needs_gradients,
            "needs_training": method.needs_training,
            "model": method.needs_model,
            "options": {
                option.name: list(option.default) if isinstance(option.default, tuple) else option.default
                for option in fields(method)
                if option.name not in ("model", "precision")
            },
            "summary": _first_line(method),
        }
        for name, method in EXPLAINERS.items()
        if name in usable
    ]


def list_protocols() -> list[dict[str, str]]:
    """List the protocols of insertion and deletion: name, description and source."""
    return [
        {"name": name, "description": protocol.description, "source": protocol.source} for name, protocol in PROTOCOLS.items()
    ]


def list_metrics() -> list[dict[str, Any]]:
    """List the other metrics: name, paper, measures with their directions, requirements, and options with their defaults."""
    return [
        {
            "name": name,
            "summary": _first_line(metric),
            "paper": metric.paper,
            "measures": {measure.name: measure.better for measure in metric.measures},
            "needs_ground_truth": metric.needs_ground_truth,
            "options": metric_options(name),
        }
        for name, metric in METRICS.items()
    ]


def list_recipes() -> list[dict[str, str | None]]:
    """List the recipes that come with the package: name, summary, network and data set; for `vitrail.train(recipe=...)`."""
    from vitrail.core.yaml_io import read_yaml  # noqa: PLC0415 (only where it is needed)

    recipes = list[dict[str, str | None]]()
    for name in recipe_names():
        content = read_yaml(recipe_file(name).read_text(encoding="utf-8"))
        gates = content.get("diffmask")
        recipes.append(
            {
                "name": name,
                "summary": recipe_summary(name),
                "trains": "a classifier" if gates is None else f"gates for {gates.get('model', 'a ViT')}",
                "model": content.get("model", {}).get("name"),
                "data": content.get("data", {}).get("name", "folder"),
            }
        )
    return recipes


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]
