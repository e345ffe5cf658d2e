"""`vitrail score`: which explanations of a model are true."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

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
    report_unreadable,
)
from vitrail.cli.scoring import (
    BoxesOption,
    DataOptionOption,
    DataSetOption,
    MasksOption,
    MetricOption,
    MetricOptionOption,
    MosaicOption,
    OrderOption,
    ProtocolOption,
    SplitOption,
    StepsOption,
    TargetOption,
    changes,
    describe_data,
    make_plan,
    print_effect,
    print_table,
    read_images,
)


def score(
    data: Annotated[Path, typer.Argument(help="A photo, a folder of photos, or a folder with one sub-folder per class.")],
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; keep random as the control. If not given: hit for a HiT, intr for an INTR, else chefer; "
            "and random.",
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
    mosaic: MosaicOption = None,
    data_set: DataSetOption = None,
    split: SplitOption = None,
    data_option: DataOptionOption = None,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-score"),
    overwrite: OverwriteOption = False,
    batch_size: BatchOption = 16,
    workers: WorkersOption = 0,
    precision: PrecisionOption = "full",
    device: DeviceOption = None,
) -> None:
    """Measure whether the maps of methods are true; a run that was stopped goes on. Write tables, pictures and a page."""
    plan = make_plan(protocol, metric, metric_option, steps, order)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415 (heavy)
    from vitrail.core.files import output_folder  # noqa: PLC0415
    from vitrail.core.locking import only_run  # noqa: PLC0415
    from vitrail.evaluation.scoring.report import write_everything  # noqa: PLC0415
    from vitrail.evaluation.scoring.run import ScoringRun  # noqa: PLC0415
    from vitrail.evaluation.scoring.selection import Selection  # noqa: PLC0415

    choice = Selection(limit, target, masks, data, boxes, mosaic)
    with process_group(), ExitStack() as held:
        classifier = load_model(model, device, model_arg, image_size)
        explainers = make_explainers_from_options(classifier, method, ["random"], method_option, precision)
        images = read_images(data, data_set, split, data_option, classifier.preprocessing)
        session = ScoringRun(plan, choice, batch_size, workers, overwrite)
        described = describe_data(data, data_set, split, data_option)
        scores, captions = session.score_into(
            out, classifier, explainers, images, described, lambda: held.enter_context(only_run(output_folder(out)))
        )
        if rank():
            return
        table = write_everything(out, [scores], captions)
    report_unreadable(list(scores.unreadable))
    typer.echo(f"{classifier.name}, {len(scores)} images")
    print_table(table, changes(plan))
    print_effect(scores)
    typer.echo(f"wrote index.html, images.csv, comparisons.csv, summary.json and pictures to {out}")
