"""`vitrail list`: list models, methods, metrics, data sets and recipes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from vitrail.cli.completion import complete_kinds
from vitrail.cli.model_options import LoadOptions, load_model, model_option
from vitrail.cli.results import print_result
from vitrail.core.errors import InvalidInputError
from vitrail.core.json_io import json_text
from vitrail.core.registry import unknown_name

Entry = Mapping[str, Any]

NO_OPTIONS = LoadOptions()


def list_everything(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="Only models, methods, protocols, metrics, synthetic, data or recipes.",
            show_default=False,
            autocompletion=complete_kinds,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Only the entry of this name; for a data set, also its files and their source.")
    ] = None,
    model: Annotated[
        str | None,
        model_option("Only the methods that explain this model, as in vitrail explain."),
    ] = None,
    options: LoadOptions = NO_OPTIONS,
) -> None:
    """List models, methods, protocols, metrics, data sets and recipes, with requirements and options."""
    if model is not None or options.keywords:
        _list_methods_of(model, options, kind, name)
        return
    from vitrail.models.hit import HIT_SIZES  # noqa: PLC0415 (heavy)
    from vitrail.models.intr.config import INTR_SIZES  # noqa: PLC0415

    entries_by_kind = _select(_list_all(), kind, name)
    sizes = [*HIT_SIZES, *INTR_SIZES] if kind is None and name is None else []

    def print_text() -> None:
        for heading, entries in entries_by_kind.items():
            _print_section(heading, entries, in_full=name is not None)
        if sizes:
            typer.echo(f"sizes of HiT and INTR to train\n  {', '.join(sizes)}")

    print_result(lambda: {**entries_by_kind, **({"recipes_for": sizes} if sizes else {})}, print_text)


def _list_methods_of(model: str | None, options: LoadOptions, kind: str | None, name: str | None) -> None:
    """List the methods that explain a model as it is."""
    if model is None:
        raise InvalidInputError(f"expected --model with --{min(options.keywords).replace('_', '-')}, got none")
    if kind not in (None, "methods"):
        raise InvalidInputError(f"expected --model with methods, got it with {kind}; leave one of them out")
    from vitrail.api import list_methods  # noqa: PLC0415 (heavy)

    classifier = load_model(model, None, options.keywords)
    entries = list_methods(classifier)
    if name is not None:
        entries_by_kind = _select({"methods": list_methods()}, None, name)  # Unknown names are refused.
        entries = [entry for entry in entries if entry in entries_by_kind["methods"]]
        if not entries:
            raise InvalidInputError(
                f"expected a method that explains {classifier.name}, got {name}; vitrail explain says why not"
            )
    print_result(
        lambda: {"methods": entries},
        lambda: _print_section("methods", entries, title=f"methods that explain {classifier.name}"),
    )


def _print_section(heading: str, entries: Sequence[Entry], in_full: bool = False, title: str | None = None) -> None:
    usual_title, describe = SECTIONS[heading]
    typer.echo(title or usual_title)
    for entry in entries:
        first, *more = describe(entry)
        typer.echo(f"  {entry['name']:<26} {first}")
        for line in more:
            typer.echo(f"  {'':<26} {line}")
        if heading == "data" and in_full:
            typer.echo(f"below the root folder:\n{_indent(entry['layout'])}\nto get it:\n{_indent(entry['download'])}")


def _list_all() -> dict[str, Sequence[Entry]]:
    from vitrail.api import list_methods, list_metrics, list_models, list_protocols, list_recipes  # noqa: PLC0415 (heavy)
    from vitrail.datasets.named import list_data  # noqa: PLC0415
    from vitrail.datasets.synthetic.names import list_synthetic  # noqa: PLC0415

    return {
        "models": list_models(),
        "methods": list_methods(),
        "protocols": list_protocols(),
        "metrics": list_metrics(),
        "synthetic": list_synthetic(),
        "data": list_data(),
        "recipes": list_recipes(),
    }


def _select(entries_by_kind: Mapping[str, Sequence[Entry]], kind: str | None, name: str | None) -> dict[str, Sequence[Entry]]:
    if kind is not None and kind not in entries_by_kind:
        raise unknown_name("kind", kind, list(entries_by_kind))
    selected = {key: entries for key, entries in entries_by_kind.items() if kind in (None, key)}
    if name is None:
        return selected
    matches = {key: [entry for entry in entries if entry["name"] == name] for key, entries in selected.items()}
    if not any(matches.values()):
        raise unknown_name("name", name, [entry["name"] for entries in selected.values() for entry in entries])
    return {key: entries for key, entries in matches.items() if entries}


def _describe_method(entry: Entry) -> Iterator[str]:
    needs = [name for name in ("gradients", "training") if entry[f"needs_{name}"]]
    yield entry["summary"]
    models = "any classifier" if entry["model"] == "any" else entry["model"]
    yield f"for {models}; needs {', '.join(needs) or 'neither gradients nor training'}; {entry['paper']}"
    yield from _describe_options(entry)


def _describe_metric(entry: Entry) -> Iterator[str]:
    measures = [name + (f" ({better} is better)" if better else "") for name, better in entry["measures"].items()]
    yield entry["summary"]
    needs = "needs ground truth" if entry["needs_ground_truth"] else ""
    yield "; ".join(filter(None, [f"measures: {', '.join(measures)}", needs, entry["paper"]]))
    yield from _describe_options(entry)


def _describe_data(entry: Entry) -> Iterator[str]:
    yield entry["summary"]
    if entry.get("splits") is not None:
        yield f"splits: {', '.join(entry['splits'])}"
    yield from _describe_options(entry)


def _describe_recipe(entry: Entry) -> Iterator[str]:
    yield entry["summary"]
    network = "" if entry["model"] is None else f", {entry['model']}"
    yield f"trains {entry['trains']}{network}; data: {entry['data']}"


def _describe_options(entry: Entry) -> Iterator[str]:
    if entry["options"]:
        yield "options: " + ", ".join(f"{name}={json_text(default)}" for name, default in entry["options"].items())


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


SECTIONS: Mapping[str, tuple[str, Callable[[Entry], Iterator[str]]]] = {
    "models": ("models", lambda entry: iter([entry["needs"]])),
    "methods": ("methods", _describe_method),
    "protocols": ("protocols", lambda entry: iter([f"{entry['description']}; {entry['source']}"])),
    "metrics": ("metrics", _describe_metric),
    "synthetic": ("synthetic data sets, with ground truth", _describe_data),
    "data": ("data sets; vitrail list data --name NAME shows the files of one and where to get them", _describe_data),
    "recipes": (
        "recipes; vitrail train --recipe NAME starts one, vitrail recipe NAME > mine.yaml copies one",
        _describe_recipe,
    ),
}
