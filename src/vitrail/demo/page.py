"""The page of the demo."""

from pathlib import Path

from vitrail.core.command import running_command
from vitrail.demo.birds import HIT, INTR, SHEET, VIT, BirdResults
from vitrail.demo.photos import OTHERS_SHEET, OtherAnswers
from vitrail.explainers import EXPLAINERS
from vitrail.explanation import Explanation
from vitrail.metrics import Curves
from vitrail.viz.report import Picture, Section, Table, write_report
from vitrail.viz.report_tables import auc_table, class_table, patch_table

PHOTO, CURVES, SCORES = "photo.png", "curves.png", "scores"
"""Names in the output folder; `SCORES` is the folder of the scores."""


def write_page(
    folder: Path,
    explanations: dict[str, Explanation],
    curves: dict[str, Curves],
    others: OtherAnswers | None,
    birds: BirdResults,
    caption: str,
) -> None:
    """Write the page `index.html`.

    Args:
        folder: Has the pictures.
        explanations: Of the photo, by method.
        curves: Insertion and deletion of the photo, by method.
        others: Answers for photos of other things, if there are any.
        birds: Results on drawn birds.
        caption: Below the photo.
    """
    hit = explanations["hit"]
    target, logit = hit.class_name(int(hit.targets[0])), float(hit.target_logits()[0])
    bias = float(hit.bias[0]) if hit.bias is not None else 0.0
    summaries = {name: (EXPLAINERS[name].__doc__ or "").strip().splitlines()[0].replace("`", "") for name in explanations}
    pictures = [Picture(folder / PHOTO, caption)]
    pictures += [Picture(folder / f"{name}.png", f"{name}: {summary}") for name, summary in summaries.items()]
    sections = [
        Section(
            "Which patches made the decision",
            "In orange and blue heatmaps, orange patches are evidence for the class and blue ones against it; stronger colors count more. "
            "The other heatmaps have no sign: red is weak, yellow is strong, and the weakest patches stay clear.",
            pictures,
            class_table(hit.top_classes(0, 5)),
        ),
        Section(
            "The decision is a sum",
            f"The logit of {target} is {logit:+.4f}: patches {logit - bias:+.4f}, constants {bias:+.4f}. {_describe_error(hit)}",
            table=patch_table(hit, 8),
        ),
        Section(
            "How faithful are the explanations?",
            "Patches are inserted or deleted in the order of their relevance, and the probability of "
            f"{target} is measured. Faithful explanations give insertion curves that rise fast and deletion curves that fall fast; "
            f"random is the control. The folder {SCORES} holds all numbers.",
            [
                Picture(
                    folder / CURVES, "Insertion and deletion curves of every method, for two baselines.", wide=True, plot=True
                )
            ],
            auc_table(curves, normalized=False),
        ),
        *([_others_section(folder, others)] if others is not None else []),
        _birds_section(folder, birds),
    ]
    models = (
        f"{hit.model}, a classifier that is a sum"
        if others is None
        else f"{hit.model} and {others.model}, classifiers that are sums"
    )
    lead = f"vitrail explains photos by {models} over patches."
    write_report(folder / "index.html", f"Why did {hit.model} answer {target}?", lead, sections, running_command())


def _describe_error(explanation: Explanation) -> str:
    error = explanation.completeness_error()
    if not error:
        return "The sum of the parts is exactly the logit."
    return f"The sum of the parts differs from the logit by {error:.1e} of the largest logit."


def _others_section(folder: Path, others: OtherAnswers) -> Section:
    return Section(
        "What if a photo shows none of the classes?",
        f"{others.model} knows ten things, and neither a rocket nor a cup of coffee is one of them. It answers all the same, and the "
        "explanations show which parts it goes by; where methods disagree, score them to know which one to trust.",
        [Picture(folder / OTHERS_SHEET, "Two photos, explained by several methods, with the answers at the right.", wide=True)],
    )


def _birds_section(folder: Path, birds: BirdResults) -> Section:
    accuracy = ", ".join(f"{name} {share:.0%}" for name, share in birds.accuracy.items())
    rows: list[list[str | float]] = [[name, f"{share:.0%}"] for name, share in birds.pointing.items()]
    return Section(
        "Do they point at the right part?",
        "These birds are drawn, and species differ in one or two parts, so the ground truth is known: it is shown in color beside "
        f"each bird. hit explains {HIT}, intr {INTR}, and the other methods {VIT}; all were trained on other birds of the same kind "
        f"(accuracy on these birds: {accuracy}). The table counts how often the strongest patch touches a part that identifies "
        "the species.",
        [Picture(folder / SHEET, "Birds, the parts that identify them, and the heatmaps of every method.", wide=True)],
        Table(["strongest patch on the ground truth", "share"], [*rows, ["a random patch", f"{birds.chance:.0%}"]]),
    )
