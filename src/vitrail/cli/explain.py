"""`vitrail explain`: draw which patches a prediction is based on."""

from pathlib import Path
from typing import Any

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import ExplanationOptions, MethodOptions, PhotoOptions, SpeedOptions, TargetOptions
from vitrail.cli.printing import print_estimates, print_explanations, print_folder, print_unreadable
from vitrail.cli.results import describe_explanations, describe_folder, print_result
from vitrail.core.distributed import started_together
from vitrail.core.errors import InvalidInputError

OUT = ExplanationOptions(Path("vitrail-explain"))


def explain(
    model: ModelOptions,
    images: PhotoOptions,
    methods: MethodOptions,
    speed: SpeedOptions,
    target: TargetOptions,
    output: ExplanationOptions = OUT,
) -> None:
    """Explain predictions: write overlays, a contact sheet and raw relevance; print top classes and strongest patches."""
    if bool(images.photos) == (images.data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if images.photos else 'neither'}")
    if images.data is None and (speed.workers or output.file_format != "files" or output.dry_run):
        raise InvalidInputError("expected --workers, --dry-run and --format shards together with --data, got photos")
    source = images.source_options()
    if output.file_format == "files" and (output.half or output.pictures != OUT.pictures):
        raise InvalidInputError("expected --half and --pictures together with --format shards or parquet, got files")
    if images.data is None and started_together() > 1:
        raise InvalidInputError("expected one process for named photos, got several; give a folder by --data to share it")
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415

    options: dict[str, Any] = {
        "method_options": methods.options,
        "style": output.style,
        "overwrite": output.overwrite,
        "batch_size": speed.batch_size,
        "precision": methods.precision,
    }
    if images.data is None:
        explanations, unreadable = api.explain_files(
            *(model.load(speed.device), images.photos or [], output.out, methods.names, target.target), **options
        )
        print_unreadable(unreadable)
        print_result(
            lambda: describe_explanations(explanations, unreadable, output.out),
            lambda: print_explanations(explanations, output.top, output.out),
        )
        return
    options |= {**source, "num_workers": speed.workers, "model_options": model.arguments}
    options |= {"file_format": output.file_format, "pictures": output.num_pictures, "half": output.half}
    with process_group():
        classifier = model.load(speed.device)
        if output.dry_run:
            estimate = api.estimate_folder(classifier, images.data, methods.names, target.target, **options)
            print_estimates([estimate])
            return
        results = api.explain_folder(classifier, images.data, output.out, methods.names, target.target, **options)
        if rank():
            return
    print_unreadable(results.unreadable)
    print_result(
        lambda: {"out": str(output.out), "model": classifier.name, **describe_folder(results)},
        lambda: print_folder(results, classifier.name, output.out),
    )
