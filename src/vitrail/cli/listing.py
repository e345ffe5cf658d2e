"""`vitrail list`: what there is to choose from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from vitrail.core.json_io import json_text
from vitrail.core.registry import unknown_name

Entry = Mapping[str, Any]


def list_everything(
    kind: Annotated[
        str | None, typer.Argument(help="Only models, methods, protocols, metrics, tasks or data.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Only what has this name; of a data set, also its files and where to get them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List models, methods, protocols, metrics, generated tasks and data sets, and what each needs."""
    from vitrail.models.hit import HIT_SIZES  # noqa: PLC0415 (heavy)
    from vitrail.models.intr.config import INTR_SIZES  # noqa: PLC0415

    chosen = _choose(_everything(), kind, name)
    sizes = [*HIT_SIZES, *INTR_SIZES] if kind is None and name is None else []
    if as_json:
        typer.echo(json_text({**chosen, **({"recipes_for": sizes} if sizes else {})}, indent=2))
        return
    for heading, entries in chosen.items():
        title, lines = SECTIONS[heading]
        typer.echo(title)
        for entry in entries:
            first, *more = lines(entry)
            typer.echo(f"  {entry['name']:<26} {first}")
            for line in more:
                typer.echo(f"  {'':<26} {line}")
            if heading == "data" and name is not None:
                typer.echo(f"below the root folder:\n{_indented(entry['layout'])}\nto get it:\n{_indented(entry['download'])}")
    if sizes:
        typer.echo(f"sizes of HiT and INTR to train\n  {', '.join(sizes)}")


def _everything() -> dict[str, Sequence[Entry]]:
    from vitrail.adapters import bundled_models  # noqa: PLC0415 (heavy)
    from vitrail.api import list_methods, list_metrics, list_protocols  # noqa: PLC0415
    from vitrail.datasets.named import list_data  # noqa: PLC0415
    from vitrail.datasets.synthetic.names import list_synthetic  # noqa: PLC0415
    from vitrail.explainers._trained_masks import bundled_masks  # noqa: PLC0415

    comes = "nothing: it comes with the package"
    models = [{"name": f"vitrail:{name}", "needs": comes} for name in bundled_models()]
    gates = [
        {"name": f"vitrail:{name}", "needs": f"{comes}; of the method diffmask, by checkpoint"} for name in bundled_masks()
    ]
    models += [
        *gates,
        {"name": "timm:<model>", "needs": "a plain, distilled, EVA, DINOv3 or BEiT model; its weights are downloaded"},
        {
            "name": "hf:<owner/name or folder>",
            "needs": "a ViT, DeiT, DINOv2 or BEiT with a classifier; pip install 'vitrail[hf]'",
        },
        {"name": "torchvision:<model>", "needs": "vit_b_16 and its like; its weights are downloaded"},
        {"name": "hit:<owner/name or file>", "needs": "a published HiT from the Hugging Face hub, or on disk"},
        {"name": "intr:<owner/name or file>", "needs": "a published INTR from the Hugging Face hub, or on disk"},
        {
            "name": "<file or folder>",
            "needs": "a model that vitrail trained, a published HiT or INTR, a folder saved by timm or by transformers",
        },
    ]
    return {
        "models": models,
        "methods": list_methods(),
        "protocols": list_protocols(),
        "metrics": list_metrics(),
        "tasks": list_synthetic(),
        "data": list_data(),
    }


def _choose(everything: Mapping[str, Sequence[Entry]], kind: str | None, name: str | None) -> dict[str, Sequence[Entry]]:
    if kind is not None and kind not in everything:
        raise unknown_name("kind", kind, list(everything))
    chosen = {key: entries for key, entries in everything.items() if kind in (None, key)}
    if name is None:
        return chosen
    found = {key: [entry for entry in entries if entry["name"] == name] for key, entries in chosen.items()}
    if not any(found.values()):
        raise unknown_name("name", name, [entry["name"] for entries in chosen.values() for entry in entries])
    return {key: entries for key, entries in found.items() if entries}


def _method(entry: Entry) -> Iterator[str]:
    needed = {"gradients": entry["needs_gradients"], "training": entry["needs_training"]}
    needs = ", ".join(what for what, needs_it in needed.items() if needs_it) or "neither gradients nor training"
    yield entry["summary"]
    yield f"for {entry['model']}; needs {needs}; {entry['paper']}"
    yield from _options(entry)


def _metric(entry: Entry) -> Iterator[str]:
    words = [name + (f" ({better} is better)" if better else "") for name, better in entry["measures"].items()]
    yield entry["summary"]
    yield f"measures: {', '.join(words)}{'; needs known ground_truth' if entry['needs_ground_truth'] else ''}"
    yield from _options(entry)


def _task(entry: Entry) -> Iterator[str]:
    yield entry["summary"]
    yield from _options(entry)


def _data(entry: Entry) -> Iterator[str]:
    yield entry["summary"]
    if entry["splits"] is not None:
        yield f"splits: {', '.join(entry['splits'])}"
    yield from _options(entry)


def _options(entry: Entry) -> Iterator[str]:
    if entry["options"]:
        yield "options: " + ", ".join(f"{name}={json_text(default)}" for name, default in entry["options"].items())


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


SECTIONS: Mapping[str, tuple[str, Callable[[Entry], Iterator[str]]]] = {
    "models": ("models", lambda entry: iter([entry["needs"]])),
    "methods": ("methods", _method),
    "protocols": ("protocols", lambda entry: iter([f"{entry['description']}; {entry['source']}"])),
    "metrics": ("metrics", _metric),
    "tasks": ("tasks to generate, with known ground_truth", _task),
    "data": ("data sets; `vitrail list data --name NAME` tells the files of one and where to get them", _data),
}
