"""Options that several commands share."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.adapters import Classifier
    from vitrail.datasets.folder import Unreadable
    from vitrail.explainers import Explainer

logger = logging.getLogger("vitrail")

DEFAULT_MODEL = "vitrail:hit-cifar10"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="vitrail:<bundled>, timm:<model>, hf:<folder or hub repository>, torchvision:<model>, hit:<hub repository or file>, "
        "intr:<hub repository or file>, or a local file or folder.",
        show_default=False,
    ),
]
ModelArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        metavar="KEY=VALUE",
        help="Passed on where the model is created, e.g. pretrained=false or img_size=[224,448]; may be repeated.",
        show_default=False,
    ),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="HEIGHTxWIDTH",
        help="Size that images are brought to, for models that take any; the model's own if not given.",
        show_default=False,
    ),
]
MethodOptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method-option",
        metavar="METHOD.OPTION=VALUE",
        help="An option of a method, e.g. rollout.discard_ratio=0.9; may be repeated.",
        show_default=False,
    ),
]
PrecisionOption = Annotated[
    Literal["full", "bf16", "fp16"], typer.Option(help="Of the network while it is explained; full is that of its weights.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results of the same name.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest there is if not given.", show_default=False)
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images per batch.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spread.", show_default=False)]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read images.")]


def load_model(
    name: str | None, device: str | None, model_args: Sequence[str] | None = None, image_size: str | None = None
) -> "Classifier":
    """Load the named model, or the bundled one and say so.

    Raises:
        InvalidInputError: Arguments that are not KEY=VALUE, or a size that is none.
    """
    options, size = model_options(model_args), read_size(image_size)
    from vitrail.adapters import load  # noqa: PLC0415 (heavy)

    if name is None:
        logger.info("using the bundled %s; name your own by --model, e.g. --model timm:vit_base_patch16_224", DEFAULT_MODEL)
    return load(DEFAULT_MODEL if name is None else name, device=device, image_size=size, **options)


def model_options(model_args: Sequence[str] | None) -> dict[str, Any]:
    """Read what `--model-arg` gives."""
    options = {key: value for _, key, value in _settings(model_args, "--model-arg", r"()([A-Za-z_]\w*)", "pretrained=false")}
    for key, flag in (("device", "--device"), ("image_size", "--image-size"), ("name", "--model")):
        if key in options:
            raise InvalidInputError(f"expected arguments of the network, got --model-arg {key}=...; use {flag}")
    return options


def synthetic_options(options: Sequence[str] | None) -> dict[str, Any]:
    """Read what `--option` of `vitrail generate` gives."""
    found = {key: value for _, key, value in _settings(options, "--option", r"()([A-Za-z_]\w*)", "size=64")}
    if "seed" in found:
        raise InvalidInputError("expected options of the task, got --option seed=...; use --seed")
    return found


def data_options(options: Sequence[str] | None) -> dict[str, Any]:
    """Read what `--data-option` gives."""
    return {key: value for _, key, value in _settings(options, "--data-option", r"()([A-Za-z_]\w*)", "crop_to_box=true")}


def metric_options(options: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Read what `--metric-option` gives, by metric."""
    return _by_owner(options, "--metric-option", "masks.threshold=0.3")


def read_size(text: str | None) -> tuple[int, int] | None:
    """Read what `--image-size` gives: height and width, or one number for both."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower(), re.ASCII)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(size) < 1:
        raise InvalidInputError(f"expected --image-size as HEIGHTxWIDTH in pixels, e.g. 224x448, got {text!r}")
    return size


def make_explainers_from_options(
    classifier: "Classifier", methods: str | None, defaults: Sequence[str], options: Sequence[str] | None, precision: str
) -> "list[Explainer]":
    """Build the methods that `--method` names, each once.

    Args:
        classifier: The model.
        methods: Names, separated by commas; `default_method` and `defaults` if None.
        defaults: Methods beside the default one.
        options: What `--method-option` gives.
        precision: What `--precision` gives.

    Raises:
        VitrailError: A method or an option that there is not, or that does not fit.
    """
    chosen = _by_owner(options, "--method-option", "rollout.discard_ratio=0.9")
    from vitrail.api import default_method, make_explainers  # noqa: PLC0415 (heavy)

    names = [default_method(classifier), *defaults] if methods is None else [name.strip() for name in methods.split(",")]
    return make_explainers(classifier, list(dict.fromkeys(names)), chosen, precision)


def report_unreadable(unreadable: "list[Unreadable]") -> None:
    """Say which files were skipped."""
    for file in unreadable[:10]:
        named = file.path in file.reason
        typer.echo(f"skipped: {file.reason if named else f'{file.path}: {file.reason}'}", err=True)
    if unreadable:
        typer.echo(f"{len(unreadable)} unreadable file(s) were skipped", err=True)


def _by_owner(texts: Sequence[str] | None, flag: str, example: str) -> dict[str, dict[str, Any]]:
    """Read `OWNER.KEY=VALUE`."""
    found: dict[str, dict[str, Any]] = {}
    for owner, key, value in _settings(texts, flag, r"([\w-]+)\.([A-Za-z_]\w*)", example):
        found.setdefault(owner, {})[key] = value
    return found


def _settings(texts: Sequence[str] | None, flag: str, key: str, example: str) -> list[tuple[str, str, Any]]:
    """Take `KEY=VALUE` apart, where the pattern of the key has two groups; values are YAML."""
    if not texts:
        return []
    from vitrail.core.yaml_io import YAML_ERRORS, read_yaml  # noqa: PLC0415 (only where it is needed)

    found = list[tuple[str, str, Any]]()
    for text in texts:
        name, equals, value = text.partition("=")
        matched = re.fullmatch(key, name.strip())
        if not equals or not matched:
            raise InvalidInputError(f"expected {flag} like {example}, got {text!r}")
        try:
            found.append((matched[1], matched[2], read_yaml(value)))
        except YAML_ERRORS as error:
            raise InvalidInputError(
                f"cannot read the value of {flag} {text!r}: {getattr(error, 'problem', None) or error}"
            ) from error
    return found
