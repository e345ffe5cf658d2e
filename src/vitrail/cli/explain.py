"""`vitrail explain`: pictures of which patches made the decision."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import DeviceOption, ModelOption, OutOption, OverwriteOption, load_model, report_unreadable

if TYPE_CHECKING:
    from vitrail.explanation import Explanation


def explain(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.", show_default=False)],
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="A method; `vitrail list` names them.")] = "hit",
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain, by name or number; the predicted one if not given.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes and patches to print.")] = 3,
    out: OutOption = Path("vitrail-explain"),
    overwrite: OverwriteOption = False,
    device: DeviceOption = None,
    smooth: Annotated[bool, typer.Option(help="Blend patches in the overlays.")] = False,
) -> None:
    """Write an overlay per photo, a contact sheet, and the raw numbers; print the top classes and the strongest patches."""
    from vitrail.data.photos import list_photos  # noqa: PLC0415 (heavy)
    from vitrail.explainers import make_explainer  # noqa: PLC0415
    from vitrail.files import results_folder  # noqa: PLC0415
    from vitrail.gallery import SHEET, explain_gallery  # noqa: PLC0415
    from vitrail.viz.sheet import MAX_ROWS  # noqa: PLC0415

    # The folder is claimed before the work, so that a bad one is told at once.
    with results_folder(out, overwrite) as folder:
        files = list_photos(photos, taken=[SHEET])
        explainer = make_explainer(method, load_model(model, device))
        explanation, unreadable = explain_gallery(explainer, files, target, folder, "bilinear" if smooth else "nearest")
    report_unreadable(unreadable)
    for one in explanation:
        _describe(one, top)
    error = explanation.completeness_error()
    if error is not None:
        typer.echo(f"completeness error: {error:.1e} (largest |sum of parts - logit| / largest |logit|)")
    first = f" (of the first {MAX_ROWS})" if len(explanation) > MAX_ROWS else ""
    typer.echo(f"wrote {len(explanation)} overlay(s), {SHEET}.png{first}, explanations.npz and .json to {out}")


def _describe(explanation: "Explanation", top: int) -> None:
    from vitrail.explanation import share_of  # noqa: PLC0415 (heavy)

    classes = ", ".join(f"{name} {probability:.1%}" for name, probability in explanation.top_classes(0, top))
    typer.echo(f"{explanation.sources[0]}: {classes}")
    target, logit = explanation.class_name(int(explanation.targets[0])), float(explanation.target_logits()[0])
    patches = explanation.strongest_patches(0, top)
    if explanation.bias is not None:
        parts = ", ".join(f"row {row} column {col} {value:+.3f} ({share_of(value, logit)})" for row, col, value in patches)
        rest = float(explanation.bias[0])
        typer.echo(
            f"  logit of {target} {logit:+.3f} = patches {logit - rest:+.3f} and constants {rest:+.3f}; strongest patches: {parts}"
        )
    else:
        parts = ", ".join(f"row {row} column {col} {value:.3g}" for row, col, value in patches)
        typer.echo(f"  relevance for {target}; strongest patches: {parts}")
