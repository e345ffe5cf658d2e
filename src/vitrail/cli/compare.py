"""`vitrail compare`: several models, and the methods on each, by the same rules on the same images."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import (
    BatchOption,
    DeviceOption,
    LimitOption,
    MethodOptionOption,
    OutOption,
    OverwriteOption,
    PrecisionOption,
    WorkersOption,
    load_model,
    report_unreadable,
)
from vitrail.cli.scoring import (
    BoxesOption,
    DataOptionOption,
    DataSetOption,
    MasksOption,
    MetricOption,
    MetricOptionOption,
    OrderOption,
    ProtocolOption,
    SplitOption,
    StepsOption,
    TargetOption,
    able_methods,
    changes,
    describe_data,
    make_plan,
    print_effect,
    print_table,
    read_images,
)
from vitrail.core.errors import InvalidInputError
from vitrail.core.json_io import json_text, parse_json

if TYPE_CHECKING:
    from vitrail.evaluation.scoring.scores import Scores


def compare(
    data: Annotated[Path, typer.Argument(help="A photo, a folder of photos, or a folder with one sub-folder per class.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Models, separated by commas, as `vitrail explain` takes each; bundled ones by name."
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; each is taken for the models that it can explain. If not given, per model: hit for a "
            "HiT, intr for an INTR, else chefer; and random.",
            show_default=False,
        ),
    ] = None,
    method_option: MethodOptionOption = None,
    protocol: ProtocolOption = None,
    metric: MetricOption = None,
    metric_option: MetricOptionOption = None,
    steps: StepsOption = None,
    order: OrderOption = None,
    target: TargetOption = None,
    masks: MasksOption = None,
    boxes: BoxesOption = False,
    data_set: DataSetOption = None,
    split: SplitOption = None,
    data_option: DataOptionOption = None,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-compare"),
    overwrite: OverwriteOption = False,
    batch_size: BatchOption = 16,
    workers: WorkersOption = 0,
    precision: PrecisionOption = "full",
    device: DeviceOption = None,
) -> None:
    """Score several models and put all their methods into one table and page; a run that was stopped goes on."""
    names = [name.strip() for name in model.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise InvalidInputError(f"expected models separated by commas, each once, got {model!r}")
    plan = make_plan(protocol, metric, metric_option, steps, order)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415 (heavy)
    from vitrail.core.files import output_folder  # noqa: PLC0415
    from vitrail.core.locking import only_run  # noqa: PLC0415
    from vitrail.evaluation.scoring.claim import claim, expect_place  # noqa: PLC0415
    from vitrail.evaluation.scoring.report import file_name, write_everything  # noqa: PLC0415
    from vitrail.evaluation.scoring.run import ScoringRun  # noqa: PLC0415
    from vitrail.evaluation.scoring.selection import Selection  # noqa: PLC0415
    from vitrail.runs.manifest import Run  # noqa: PLC0415

    session = ScoringRun(plan, Selection(limit, target, masks, data, boxes), batch_size, workers, overwrite)
    described = describe_data(data, data_set, split, data_option)
    found, captions, folders = list["Scores"](), dict[str, str](), list[Path]()
    with process_group(), ExitStack() as held:

        def occupy() -> None:
            held.enter_context(only_run(output_folder(out)))
            claim(out, whole, overwrite)

        whole = Run({"compared": names, **described, "metrics": parse_json(json_text(plan.options))}, {})
        if rank() == 0 and out.exists():
            expect_place(out, whole, overwrite)
        for name in names:  # One model in memory at a time.
            classifier = load_model(name, device)
            explainers = able_methods(classifier, method, method_option, precision)
            images = read_images(data, data_set, split, data_option, classifier.preprocessing)
            folder = Path("models") / file_name(classifier.name)
            if folder in folders:
                raise InvalidInputError(
                    f"expected models of different names, got two whose results would lie in {out / folder}"
                )
            folders.append(folder)
            scores, shown = session.score_into(out / folder, classifier, explainers, images, described, occupy)
            found.append(scores)
            captions |= {str(folder / file): f"{classifier.name}: {caption}" for file, caption in shown.items()}
        if rank():
            return
        table = write_everything(out, found, captions)
    report_unreadable(list(found[0].unreadable))
    typer.echo(f"{', '.join(scores.model for scores in found)}, {len(found[0])} images")
    print_table(table, changes(plan))
    for scores in found:
        print_effect(scores)
    typer.echo(
        f"wrote index.html, images.csv, comparisons.csv, summary.json and pictures to {out}, and what each model has to {out / 'models'}"
    )
