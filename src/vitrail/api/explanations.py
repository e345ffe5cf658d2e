"""Explain photos, in memory or into a folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from torch.utils.data import Dataset

from vitrail.api.explain_batches import explain_batches
from vitrail.api.models import Model, Options, as_classifier, as_list, default_method, make_explainers
from vitrail.api.photo_targets import PhotoTargets
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import results_folder
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.photo_objects import Photo
from vitrail.datasets.photos import list_photos
from vitrail.datasets.source import DataSource
from vitrail.explainers import check_method_names, make_explainer
from vitrail.explanation import Explanation
from vitrail.runs.explain_files import FolderResults
from vitrail.runs.explain_folder import FileFormat
from vitrail.runs.explain_folder import explain_folder as run_explain_folder
from vitrail.runs.explain_images import BATCH_SIZE
from vitrail.runs.explain_photos import SHEET, explain_photos_into, method_folders, refuse_overwriting
from vitrail.runs.explain_shards import Pictures
from vitrail.viz.style import Style

Photos = Photo | Iterable[Any] | Dataset[Any]


@overload
def explain(
    model: Model,
    photos: Photos,
    method: str | None = ...,
    target: Any = ...,
    *,
    keep_photos: bool = ...,
    method_options: Options | None = ...,
    **options: Any,
) -> Explanation: ...


@overload
def explain(
    model: Model,
    photos: Photos,
    method: Sequence[str],
    target: Any = ...,
    *,
    keep_photos: bool = ...,
    method_options: Options | None = ...,
    **options: Any,
) -> dict[str, Explanation]: ...


def explain(
    model: Model,
    photos: Photos,
    method: str | Sequence[str] | None = None,
    target: Any = None,
    *,
    keep_photos: bool = True,
    method_options: Options | None = None,
    **options: Any,
) -> Explanation | dict[str, Explanation]:
    """Explain the prediction of a model for photos.

    Args:
        model: A name (`vitrail.load`), a network, or an adapted network.
        photos: A photo, or a list, generator, DataLoader or data set of photos: files, http(s) URLs of files, opened photos, open binary
            files, arrays of uint8 (height, width, channels), tensors of uint8 (channels, height, width), and normalized images or batches
            (tensors of floats). Labels of a DataLoader are ignored. Photos are opened batch by batch; normalized batches stay whole.
        method: Name of a method (`vitrail.list_methods`), or a list of names; if None, hit for a HiT, intr for an INTR, else chefer.
        target: Class index or name for all photos, or None for the predicted class; or one per photo; or a list of classes per photo,
            which gives one map per class, photo by photo. For a single photo, a plain list of classes.
        keep_photos: Keep small copies of what the network sees, at most 0.3 MB a square photo, so that the explanation can be drawn.
        method_options: Options by method, for a list of methods.
        options: Options of a single method.

    Returns:
        The explanation of all photos; for a list of methods, also of one, a dictionary by method.

    Raises:
        VitrailError: A photo, model, method, target or option cannot be used; the message says what to do.

    Example:
        >>> import vitrail
        >>> explanation = vitrail.explain("vitrail:hit-cifar10", "cat.jpg")  # doctest: +SKIP
        >>> explanation.save_png("explained.png")  # doctest: +SKIP
    """
    classifier = as_classifier(model)
    several = not (method is None or isinstance(method, str))
    names = [default_method(classifier)] if method is None else as_list(method)
    if options and (several or method_options):
        raise InvalidInputError(
            f"expected options of several methods by method, got {', '.join(options)}; give method_options={{'NAME': {{'OPTION': VALUE}}}}"
        )
    # Options by keyword are values of the right types; those by method may be texts.
    one = [make_explainer(names[0], classifier, **options)] if options else None
    explainers = one or make_explainers(classifier, names, method_options)
    check_method_names(explainers)
    found = explain_batches(explainers, photos, PhotoTargets(target, photos, classifier), keep_photos)
    return found if several else found[names[0]]


def explain_files(
    model: Model,
    photos: Iterable[str | Path],
    out: str | Path,
    methods: str | Iterable[str] | None = None,
    target: int | str | None = None,
    *,
    method_options: Options | None = None,
    style: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    batch_size: int = BATCH_SIZE,
    precision: str = "full",
    device: str | None = None,
) -> tuple[dict[str, list[Explanation]], list[Unreadable]]:
    """Explain photos by several methods; write overlays, a contact sheet and the explanations.

    Args:
        model: As for `explain`.
        photos: Files, which must be readable, and folders, whose unreadable files are skipped.
        out: Output folder.
        methods: Names of methods; the default method if None.
        target: Class index or name, or None for the predicted class.
        method_options: Options by method.
        style: How pictures look: options of `Explanation.picture`, such as kind, palette and smoothing.
        overwrite: Whether files of earlier results may be replaced.
        batch_size: Photos per batch.
        precision: Precision of the network: full, bf16 or fp16.
        device: Device for a model given by name.

    Returns:
        By method, the explanations as they are saved: one of all photos, or one per photo if their grids differ; and the skipped files.

    Raises:
        OutputError: The output folder is not empty, or cannot be written.
        ImageError: A named file cannot be read, or none of the files.
    """
    look, out = Style.from_options(style or {}), Path(out)
    # Claim the folder first, so that a bad one fails before the work.
    with results_folder(out, overwrite) as folder:
        classifier = as_classifier(model, device)
        files = list_photos([Path(photo) for photo in photos], [SHEET], num_channels=classifier.preprocessing.num_channels)
        names = [default_method(classifier)] if methods is None else as_list(methods)
        explainers = make_explainers(classifier, names, method_options, precision)
        folders = method_folders([explainer.name for explainer in explainers], out)
        refuse_overwriting(files, list(folders.values()), out / f"{SHEET}.png")
        return explain_photos_into(explainers, files, target, folder, look, batch_size)


def explain_folder(
    model: Model,
    data: str | Path | DataSource,
    out: str | Path,
    methods: str | Iterable[str] | None = None,
    target: int | str | None = None,
    *,
    limit: int | None = None,
    method_options: Options | None = None,
    style: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    precision: str = "full",
    device: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    file_format: FileFormat = "files",
    pictures: Pictures = 100,
    half: bool = False,
    data_set: str | None = None,
    split: str | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> FolderResults:
    """Explain every image of a folder or another source, with results per image; resume an interrupted run with the same settings.

    Inside `vitrail.core.distributed.process_group`, the processes share the images. `vitrail.open_run` reads the results.

    Args:
        model: As for `explain`.
        data: A folder of images, flat or with subfolders; or a list of files, tar files, or a table, as
            `vitrail.datasets.open.open_dataset` takes them; with `data_set`, the root of that data set.
        out: Output folder, outside of `data`.
        methods: Names of methods; the default method if None.
        target: Class index or name, or None for the predicted class.
        limit: Maximum number of images, evenly spread over the folder.
        method_options: Options by method.
        style: How pictures look: options of `Explanation.picture`, such as kind, palette and smoothing.
        overwrite: Start over: remove earlier results of these methods.
        batch_size: Images per batch.
        num_workers: Processes that read images.
        precision: Precision of the network: full, bf16 or fp16.
        device: Device for a model given by name.
        model_options: Options the model was loaded with, to record in run.json.
        file_format: "files": three files per image and method; "shards": one file for many images; "parquet": the same as tables.
        pictures: Of shards: how many images to draw, evenly spread; or "all" or "none".
        half: Of shards: whether to store relevance and logits in half precision.
        data_set: Name of a data set.
        split: Split of the data set; test if not given, or val if there is no test split.
        data_options: Options of the data set.

    Raises:
        OutputError: `out` holds something else or results of other settings, cannot be written, or is in use by another run.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
        MissingExtraError: pyarrow, which writes Parquet files, is not installed.
    """
    look = Style.from_options(style or {})
    source = data if isinstance(data, DataSource) else DataSource(Path(data), data_set, split, data_options or {})
    classifier = as_classifier(model, device)
    names = [default_method(classifier)] if methods is None else as_list(methods)
    explainers = make_explainers(classifier, names, method_options, precision)
    return run_explain_folder(
        *(explainers, source, out, target, limit, batch_size, num_workers, look, overwrite, model_options),
        file_format=file_format,
        pictures=pictures,
        half=half,
    )
