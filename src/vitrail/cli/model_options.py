"""Options that say which model a command loads, and how, as parameter groups."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vitrail.cli.completion import complete_models
from vitrail.cli.panels import MODEL, optional
from vitrail.cli.parsing import parse_model_args, parse_numbers, parse_size
from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.adapters import Classifier

logger = logging.getLogger("vitrail")

DEFAULT_MODEL = "vitrail:hit-imagenette"


def model_option(text: str) -> Any:
    """Declare `--model` with a text of help; names complete by tab."""
    return optional(MODEL, "--model", "-m", help=text, autocompletion=complete_models)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded: its arguments, weights, classes, and what its output means."""

    model_arg: Annotated[
        list[str] | None,
        optional(MODEL, "--model-arg", metavar="KEY=VALUE", help="Argument of the network, e.g. pretrained=false; repeatable."),
    ] = None
    image_size: Annotated[
        str | None, optional(MODEL, "--image-size", metavar="HEIGHTxWIDTH", help="Input size (default: the model's).")
    ] = None
    weights: Annotated[
        str | None, optional(MODEL, "--weights", help="Your weights for the network: a file; nothing is downloaded.")
    ] = None
    weights_key: Annotated[str | None, optional(MODEL, "--weights-key", help="Which of several weights in the file.")] = None
    mean: Annotated[
        str | None, optional(MODEL, "--mean", help="Mean of pixels from 0 to 1: one number, or a,b,c (default: the model's).")
    ] = None
    std: Annotated[str | None, optional(MODEL, "--std", help="Standard deviation of pixels, with --mean.")] = None
    crop_mode: Annotated[
        Literal["center", "squash", "whole"] | None,
        optional(
            MODEL, "--crop-mode", help="How photos get the input size: cropped, stretched or kept whole (default: the model's)."
        ),
    ] = None
    crop_fraction: Annotated[
        float | None, optional(MODEL, "--crop-fraction", help="Share of the resized photo that is kept (default: the model's).")
    ] = None
    interpolation: Annotated[
        str | None, optional(MODEL, "--interpolation", help="How photos are resized, e.g. bilinear (default: the model's).")
    ] = None
    class_names: Annotated[str | None, optional(MODEL, "--class-names", help="File of class names, or a,b,c.")] = None
    output: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        optional(MODEL, "--output", help="Meaning of the logits (default: the model's)."),
    ] = None
    output_key: Annotated[
        str | None, optional(MODEL, "--output-key", help="Index or key of the logits in the network's output.")
    ] = None
    prompts: Annotated[str | None, optional(MODEL, "--prompts", help="Explain similarity to texts: a,b,c, or a file.")] = None
    templates: Annotated[
        str | None, optional(MODEL, "--templates", help="Templates of --prompts, averaged, e.g. 'a photo of a {}'.")
    ] = None
    references: Annotated[
        Path | None, optional(MODEL, "--references", help="Explain similarity to images: folder with one subfolder per class.")
    ] = None
    reference_mode: Annotated[
        Literal["mean", "nearest"] | None, optional(MODEL, "--reference-mode", help="Reference of a class (default: mean).")
    ] = None
    probe: Annotated[Path | None, optional(MODEL, "--probe", help="File of a linear probe on the embedding.")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the network."""
        return parse_model_args(self.model_arg)

    @property
    def keywords(self) -> dict[str, Any]:
        """All keyword arguments of `vitrail.load` but the device.

        Raises:
            InvalidInputError: Malformed values, or an option that is also given by `--model-arg`.
        """
        key = self.output_key
        given = {
            "image_size": parse_size(self.image_size),
            "weights": self.weights,
            "weights_key": self.weights_key,
            "mean": parse_numbers(self.mean, "--mean"),
            "std": parse_numbers(self.std, "--std"),
            "crop_mode": self.crop_mode,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
            "class_names": self.class_names,
            "output": self.output,
            "output_key": int(key) if key is not None and key.removeprefix("-").isdecimal() else key,
            "prompts": self.prompts,
            "templates": self.templates,
            "references": self.references,
            "reference": self.reference_mode,
            "probe": self.probe,
        }
        options, arguments = {name: value for name, value in given.items() if value is not None}, self.arguments
        if twice := options.keys() & arguments.keys():
            raise InvalidInputError(f"expected --{min(twice).replace('_', '-')} once, got --model-arg {min(twice)}=... as well")
        return {**arguments, **options}


@dataclass(frozen=True)
class ModelOptions(LoadOptions):
    """Which model."""

    model: Annotated[
        str | None,
        model_option(
            "vitrail:NAME, timm:NAME, hf:NAME, torchvision:NAME, hit:NAME, intr:NAME, open_clip:NAME, FILE, FOLDER, file.py:FUNCTION."
        ),
    ] = None
    name: Annotated[
        str | None, optional(MODEL, "--name", help="Name of the model in results (default: that of the file, run or source).")
    ] = None

    def load(self, device: str | None) -> "Classifier":
        """Load the model, or the default one with a message."""
        named = {} if self.name is None else {"display_name": self.name}
        return load_model(self.model, device, self.keywords | named)


@dataclass(frozen=True)
class ModelsOptions(LoadOptions):
    """Which models."""

    model: Annotated[
        str | None,
        optional(
            MODEL, "--model", "-m", help="Models, comma-separated; see vitrail explain --help.", autocompletion=complete_models
        ),
    ] = None

    @property
    def names(self) -> list[str] | None:
        """Names of the models; None if not given.

        Raises:
            InvalidInputError: A name is empty or given twice, or several models would share one file of weights.
        """
        if self.model is None:
            return None
        names = [name.strip() for name in self.model.split(",")]
        if len(set(names)) < len(names) or not all(names):
            raise InvalidInputError(f"expected models separated by commas, each once, got {self.model!r}")
        if len(names) > 1 and (
            shared := next((key for key in ("weights", "weights_key", "probe") if getattr(self, key)), None)
        ):
            raise InvalidInputError(f"expected --{shared.replace('_', '-')} with one model, got {len(names)}: {self.model}")
        return names


def load_model(name: str | None, device: str | None, options: Mapping[str, Any]) -> "Classifier":
    """Load the named model, or the default one with a message."""
    from vitrail.api.loading import load  # noqa: PLC0415 (heavy)

    if name is None:
        if options.get("weights") is not None:
            raise InvalidInputError(
                f"expected --model with --weights, got none; name the network of {options['weights']}, as in --model "
                "timm:vit_base_patch16_224"
            )
        logger.info("using the bundled %s; choose another by --model, e.g. --model timm:vit_base_patch16_224", DEFAULT_MODEL)
    classifier = load(DEFAULT_MODEL if name is None else name, device=device, **options)
    if name is None:  # The photo may well show something else.
        logger.info("it calls any photo one of: %s", ", ".join(classifier.class_names))
    return classifier
