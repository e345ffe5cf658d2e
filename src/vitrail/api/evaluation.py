# ruff: noqa: PT028 (the function `test` is no test)
"""Evaluate a model: its accuracy, the contributions of its layers, and where its class queries look."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrail.adapters import Classifier, export_huggingface
from vitrail.api.models import Model, as_classifier
from vitrail.core.distributed import rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import results_folder
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.source import TEST_SPLITS, DataSource
from vitrail.evaluation import Evaluation
from vitrail.evaluation.accuracy import expect_several_classes, measure_accuracy, with_model_labels, write_accuracy
from vitrail.evaluation.layer_files import write_layer_report
from vitrail.evaluation.layer_report import LayerReport
from vitrail.evaluation.layers import expect_hit, report_layers
from vitrail.evaluation.run import claimed_for
from vitrail.explainers.intr import INTRQueries
from vitrail.runs.claim import RunDirectory
from vitrail.runs.manifest import Manifest, describe_environment, describe_model, fingerprint_photos
from vitrail.runs.photo_list import list_folder_photos, list_named_photos, refuse_replacing
from vitrail.runs.query_photos import query_photos
from vitrail.runs.query_results import PhotoQueries
from vitrail.runs.shards import FOLDER, remove_shards


def test(
    model: Model,
    data: str | Path,
    limit: int | None = None,
    *,
    data_set: str | None = None,
    split: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    out: str | Path | None = None,
    export: str | Path | None = None,
    overwrite: bool = False,
    device: str | None = None,
    on_result: Callable[[Evaluation], object] = lambda result: None,
) -> Evaluation:
    """Measure the accuracy of a model on labeled images.

    Inside `vitrail.core.distributed.process_group`, the processes share the images, and the first one writes the results.

    Args:
        model: A name (`vitrail.load`), a network, or an adapted network.
        data: A folder with one subfolder per class, or one that contains such a folder named test or val; with `data_set`, its root.
        limit: Maximum number of images, evenly spread.
        data_set: Name of a data set.
        split: Split of the data set; test if not given, or val if there is no test split.
        data_options: Options of the data set.
        batch_size: Images per batch.
        num_workers: Processes that read images.
        out: Run directory for accuracy.json. An interrupted run with the same settings resumes.
        export: Output folder for the model in Hugging Face format, for a model from Hugging Face.
        overwrite: Whether earlier results are replaced.
        device: Device for a model given by name.
        on_result: Called in the first process with the result, before it is written.

    Raises:
        InvalidInputError: Missing labels, or classes that the model does not have.
        OutputError: An output folder is not empty, or cannot be written.
        ImageError: Not a single image could be read.
    """
    if export is not None and out is not None and Path(export) == Path(out):
        raise InvalidInputError(f"expected separate folders for --export and --out, got {out} for both")
    source = DataSource(Path(data), data_set, split, data_options or {})
    classifier = as_classifier(model, device)
    images = source.read(classifier.preprocessing, TEST_SPLITS).subsample(limit)
    # What cannot be measured fails before anything is written.
    expect_several_classes(classifier, compared=True)
    labeled = with_model_labels(images, classifier)
    with ExitStack() as folders:
        folder, key = None if out is None else Path(out), ""
        # Claim the folders first, so that a bad one fails before the work.
        if folder is not None:
            key = folders.enter_context(claimed_for("test", folder, classifier, source, images, batch_size, overwrite))
        if export is not None and rank() == 0:
            export_huggingface(classifier, folders.enter_context(results_folder(export, overwrite)))
        result = measure_accuracy(classifier, labeled, batch_size, num_workers, folder, key)
        if rank() == 0:
            on_result(result)
            if folder is not None:
                write_accuracy(folder, classifier.name, result)
    return result


def layers(
    model: Model,
    data: str | Path,
    limit: int | None = None,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str | None = None,
) -> LayerReport:
    """Measure the contribution of each layer of a HiT, and what the model predicts without it.

    Inside `vitrail.core.distributed.process_group`, the processes share the images, and the first one writes the results.

    Args:
        model: A HiT: a name (`vitrail.load`), a network, or an adapted network.
        data: A photo, a folder of photos, or a folder with one subfolder per class, or one that contains such a folder named test or val.
        limit: Maximum number of images, evenly spread.
        batch_size: Images per batch.
        num_workers: Processes that read images.
        out: Run directory for tables, a picture and a page. An interrupted run with the same settings resumes.
        overwrite: Whether earlier results are replaced.
        device: Device for a model given by name.

    Raises:
        UnsupportedModelError: Not a HiT.
        OutputError: The output folder is not empty, or cannot be written.
        ImageError: Not a single image could be read.
    """
    classifier: Classifier = expect_hit(as_classifier(model, device))
    source = DataSource(Path(data))
    images = source.read(classifier.preprocessing, TEST_SPLITS).subsample(limit)
    if out is None:
        return report_layers(classifier, images, batch_size, num_workers)
    # Claim the folder first, so that a bad one fails before the work.
    with claimed_for("layers", Path(out), classifier, source, images, batch_size, overwrite) as key:
        report = report_layers(classifier, images, batch_size, num_workers, Path(out), key)
        if rank() == 0:
            with results_folder(out, overwrite=True) as folder:
                write_layer_report(folder, report)
    return report


def queries(
    model: Model,
    photos: Iterable[str | Path] = (),
    out: str | Path = "vitrail-queries",
    true_class: str | None = None,
    top: int = 5,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    layer: int = -1,
    num_workers: int = 0,
    overwrite: bool = False,
    device: str | None = None,
    data_set: str | None = None,
    split: str | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> tuple[list[PhotoQueries], list[Unreadable]]:
    """Show where the class queries of an INTR look; write one sheet per photo and the attention maps.

    Inside `vitrail.core.distributed.process_group`, the processes share the photos. An interrupted run with the same settings resumes.

    Args:
        model: An INTR: a name (`vitrail.load`), a network, or an adapted network.
        photos: Files, which must be readable, and folders, whose unreadable files are skipped.
        out: Output folder.
        true_class: Name or index of the true class of the photos; with class folders in `data`, only images of this class are taken.
        top: Number of classes to compare: the true one, and the most probable others.
        data: Many images instead of `photos`: a folder, or another path, as `vitrail.datasets.open.open_dataset` takes it; classes that are
            named like those of the model are the true classes. With `data_set`, the root of that data set.
        limit: Maximum number of images of `data`, evenly spread.
        layer: Decoder layer, from 0; negative numbers count from the end.
        num_workers: Processes that read the images of `data` ahead.
        overwrite: Whether files of earlier results may be replaced.
        device: Device for a model given by name.
        data_set: Name of a data set.
        split: Split of the data set; test if not given, or val if there is no test split.
        data_options: Options of the data set.

    Returns:
        The classes shown for each readable photo, and the files that were skipped.

    Raises:
        InvalidInputError: Both photos and data, or neither; no such class; or an output folder among the photos.
        OutputError: The output folder is not empty, or cannot be written.
        ImageError: A named file cannot be read, or none of the files.
    """
    files, out = [Path(photo) for photo in photos], Path(out)
    if bool(files) == (data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if files else 'neither'}")
    if data is None and (limit is not None or num_workers):
        raise InvalidInputError(f"expected --{'workers' if limit is None else 'limit'} together with --data, got photos")
    explainer = INTRQueries(as_classifier(model, device), layer=layer)
    if data is None:
        queried = list_named_photos(files, explainer.model, true_class)
    else:
        source = DataSource(Path(data), data_set, split, data_options or {})
        queried, classifier = list_folder_photos(source, explainer.model, true_class, limit)
        explainer = replace(explainer, model=classifier)
    refuse_replacing(queried, out, None if data is None else Path(data))
    settings = {
        "command": "queries",
        **describe_model(explainer.model, None),
        "layer": explainer.layer,
        "top": top,
        "photos": fingerprint_photos(photo for photo, _ in queried),
        "true_classes": [true_class for _, true_class in queried],
    }
    manifest = Manifest(settings, {}, describe_environment(explainer.model))
    # Where a killed run may have left half-written files.
    folders = {photo.result_name.split("/")[0] for photo, _ in queried if "/" in photo.result_name}
    with RunDirectory(out, manifest, overwrite, lambda methods: remove_shards(out), [FOLDER, *folders]).claimed():
        return query_photos(explainer, queried, out, top, manifest.key, num_workers)
