"""`vitrail list`: what there is to choose from."""

import json
from typing import Annotated

import typer


def list_everything(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List models, methods and protocols, and what each needs."""
    from vitrail.adapters import bundled_models  # noqa: PLC0415 (heavy)
    from vitrail.api import list_methods, list_protocols  # noqa: PLC0415
    from vitrail.models.hit import HIT_SIZES  # noqa: PLC0415

    models = [{"name": f"vitrail:{name}", "needs": "nothing: it comes with the package"} for name in bundled_models()]
    models += [
        {"name": "timm:<model>", "needs": "a plain, distilled, EVA, DINOv3 or BEiT model; its weights are downloaded"},
        {
            "name": "hf:<owner/name or folder>",
            "needs": "a ViT, DeiT, DINOv2 or BEiT with a classifier; pip install 'vitrail[hf]'",
        },
        {"name": "torchvision:<model>", "needs": "vit_b_16 and its like; its weights are downloaded"},
        {"name": "hit:<owner/name or file>", "needs": "a published HiT from the Hugging Face hub, or on disk"},
        {
            "name": "<file or folder>",
            "needs": "a model that vitrail trained, a published HiT, a folder saved by timm or by transformers",
        },
    ]
    methods, protocols = list_methods(), list_protocols()
    if as_json:
        typer.echo(
            json.dumps({"models": models, "methods": methods, "protocols": protocols, "recipes_for": list(HIT_SIZES)}, indent=2)
        )
        return
    typer.echo("models")
    for model in models:
        typer.echo(f"  {model['name']:<26} {model['needs']}")
    typer.echo("methods")
    for method in methods:
        needs = [
            name
            for name, needed in (("gradients", method["needs_gradients"]), ("training", method["needs_training"]))
            if needed
        ]
        typer.echo(f"  {method['name']:<26} {method['summary']}")
        typer.echo(
            f"  {'':<26} for {method['model']}; needs {', '.join(needs) or 'neither gradients nor training'}; {method['paper']}"
        )
        if method["options"]:
            options = ", ".join(f"{name}={json.dumps(default)}" for name, default in method["options"].items())
            typer.echo(f"  {'':<26} options: {options}")
    typer.echo("protocols")
    for protocol in protocols:
        typer.echo(f"  {protocol['name']:<26} {protocol['description']}; {protocol['source']}")
    typer.echo("sizes of HiT to train")
    typer.echo(f"  {', '.join(HIT_SIZES)}")
