"""`vitrail explain`: pictures of which patches made the decision."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import (
    BatchOption,
    DeviceOption,
    ImageSizeOption,
    LimitOption,
    MethodOptionOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    PrecisionOption,
    WorkersOption,
    load_model,
    make_explainers_from_options,
    model_options,
    report_unreadable,
)
from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.explanation import Explanation
    from vitrail.runs.explain_folder import FolderResults
    from vitrail.viz.overlay import Smoothing

COMPLETENESS = "largest |sum of parts - logit| / largest |logit|"


def explain(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Instead of photos: a folder of images, flat or with sub-folders, of any size. Results are written as they come, one "
            "file an image and method; a run that was stopped goes on when it is started again.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; `vitrail list` names them. If not given: hit for a HiT, intr for an INTR, else chefer.",
            show_default=False,
        ),
    ] = None,
    method_option: MethodOptionOption = None,
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain, by name or number; the predicted one if not given.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes and patches to print for a photo.")] = 3,
    out: OutOption = Path("vitrail-explain"),
    overwrite: OverwriteOption = False,
    limit: LimitOption = None,
    batch_size: BatchOption = 16,
    workers: WorkersOption = 0,
    precision: PrecisionOption = "full",
    device: DeviceOption = None,
    smooth: Annotated[bool, typer.Option(help="Blend patches in the overlays.")] = False,
) -> None:
    """Write an overlay per photo and method, a contact sheet, and the raw numbers; print the top classes and the strongest patches."""
    if bool(photos) == (data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if photos else 'neither'}")
    if data is None and (limit is not None or workers):
        raise InvalidInputError("expected --limit and --workers together with --data, got photos")
    from vitrail.core.files import results_folder  # noqa: PLC0415
    from vitrail.datasets.photos import list_photos  # noqa: PLC0415 (heavy)
    from vitrail.runs.explain_folder import explain_folder  # noqa: PLC0415
    from vitrail.runs.explain_photos import SHEET, explain_photos_into, method_folders, refuse_overwriting  # noqa: PLC0415

    smoothing: Smoothing = "bilinear" if smooth else "nearest"
    if data is not None:
        classifier = load_model(model, device, model_arg, image_size)
        explainers = make_explainers_from_options(classifier, method, [], method_option, precision)
        options = model_options(model_arg)
        results = explain_folder(
            explainers, data, out, target, limit, batch_size, workers, smoothing, overwrite, model_options=options
        )
        report_unreadable(results.unreadable)
        _print_folder(results, classifier.name, out)
        return
    # The folder is claimed before the work, so that a bad one is told at once.
    with results_folder(out, overwrite) as folder:
        files = list_photos(photos or [], taken=[SHEET])
        classifier = load_model(model, device, model_arg, image_size)
        explainers = make_explainers_from_options(classifier, method, [], method_option, precision)
        folders = method_folders([explainer.name for explainer in explainers], out)
        refuse_overwriting(files, list(folders.values()), out / f"{SHEET}.png")
        explanations, unreadable = explain_photos_into(explainers, files, target, folder, smoothing, batch_size)
    report_unreadable(unreadable)
    _print_photos(explanations, top, out)


def _print_folder(results: "FolderResults", model: str, out: Path) -> None:
    before = f", {results.num_before} of them before" if results.num_before else ""
    typer.echo(f"{model}: {results.num_images} images explained by {', '.join(results.methods)}{before}")
    for name, error in results.completeness.items():
        typer.echo(f"completeness error of {name}: {error:.1e} ({COMPLETENESS})")
    typer.echo(f"wrote images.csv, contact_sheet.png, run.json and a folder per method to {out}")


def _print_photos(explanations: "Mapping[str, Sequence[Explanation]]", top: int, out: Path) -> None:
    from vitrail.runs.explain_photos import EXPLANATIONS, SHEET  # noqa: PLC0415 (heavy)
    from vitrail.viz.sheet import MAX_ROWS  # noqa: PLC0415

    several = len(explanations) > 1
    each = {name: [one for saved in files for one in saved] for name, files in explanations.items()}
    first, count = next(iter(each.values())), len(next(iter(each.values())))
    for i in range(count):
        classes = ", ".join(f"{name} {probability:.1%}" for name, probability in first[i].top_classes(0, top))
        typer.echo(f"{first[i].sources[0]}: {classes}")
        for name, found in each.items():
            typer.echo(f"  {f'{name}: ' if several else ''}{_describe(found[i], top)}")
    for name, files in explanations.items():
        errors = [error for saved in files if (error := saved.completeness_error()) is not None]
        if errors:
            typer.echo(f"completeness error{f' of {name}' if several else ''}: {max(errors):.1e} ({COMPLETENESS})")
    # Photos whose maps differ in their grids have a file each.
    apart = len(next(iter(explanations.values()))) > 1
    arrays = ".npz and .json per photo" if apart else f"{EXPLANATIONS}.npz and .json"
    part = f" (of the first {MAX_ROWS})" if count > MAX_ROWS else ""
    if several:
        typer.echo(f"wrote {SHEET}.png{part}, and {count} overlay(s), {arrays} per method ({', '.join(explanations)}) to {out}")
    else:
        typer.echo(f"wrote {count} overlay(s), {SHEET}.png{part}, {arrays} to {out}")


def _describe(explanation: "Explanation", top: int) -> str:
    from vitrail.explanation import format_share  # noqa: PLC0415 (heavy)

    target, logit = explanation.class_name(int(explanation.targets[0])), float(explanation.target_logits()[0])
    patches = explanation.strongest_patches(0, top)
    if explanation.bias is None:
        parts = ", ".join(f"row {row} column {col} {value:.3g}" for row, col, value in patches)
        return f"relevance for {target}; strongest patches: {parts}"
    parts = ", ".join(f"row {row} column {col} {value:+.3f} ({format_share(value, logit)})" for row, col, value in patches)
    rest = float(explanation.bias[0])
    return f"logit of {target} {logit:+.3f} = patches {logit - rest:+.3f} and constants {rest:+.3f}; strongest patches: {parts}"
