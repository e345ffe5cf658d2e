"""Options that several commands share, as parameter groups."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitrail.cli.parsing import (
    parse_data_options,
    parse_method_options,
    parse_model_args,
    parse_names,
    parse_size,
)

if TYPE_CHECKING:
    from vitrail.adapters import Classifier

logger = logging.getLogger("vitrail")

DEFAULT_MODEL = "vitrail:hit-cifar10"

MODEL, DATA, METHODS, METRICS, OUTPUT, SPEED = "Model", "Data", "Methods", "Metrics", "Output", "Speed"
"""Panels of `--help`."""


ModelArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        metavar="KEY=VALUE",
        help="Argument of the network, e.g. pretrained=false; repeatable.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.", rich_help_panel=OUTPUT)]


@dataclass(frozen=True)
class ModelOptions:
    """Which model."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="vitrail:NAME, timm:NAME, hf:NAME, torchvision:NAME, hit:NAME, intr:NAME, a file or a folder; see vitrail list.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None
    model_arg: ModelArguments = None
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar="HEIGHTxWIDTH",
            help="Input size (default: the model's).",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the network."""
        return parse_model_args(self.model_arg)

    def load(self, device: str | None) -> "Classifier":
        """Load the model."""
        return load_model(self.model, device, self.model_arg, self.image_size)


@dataclass(frozen=True)
class LimitOptions:
    """How many images."""

    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of images, evenly spread.", show_default=False, rich_help_panel=DATA),
    ] = None


@dataclass(frozen=True)
class DataOptions(LimitOptions):
    """Which images: a data set by name."""

    data_set: Annotated[
        str | None,
        typer.Option(
            "--data-set",
            help="Name of a data set with root DATA; see vitrail list data.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of --data-set (default: test, or val if there is no test).", show_default=False, rich_help_panel=DATA
        ),
    ] = None
    data_option: Annotated[
        list[str] | None,
        typer.Option(
            "--data-option",
            metavar="KEY=VALUE",
            help="Option of --data-set; repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the data set."""
        return parse_data_options(self.data_option)


@dataclass(frozen=True)
class MethodOptions:
    """Which methods."""

    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, comma-separated (default: hit for HiT, intr for INTR, else chefer).",
            show_default=False,
            rich_help_panel=METHODS,
        ),
    ] = None
    method_option: Annotated[
        list[str] | None,
        typer.Option(
            "--method-option",
            metavar="METHOD.OPTION=VALUE",
            help="Option of a method, e.g. rollout.discard_ratio=0.9; repeatable.",
            show_default=False,
            rich_help_panel=METHODS,
        ),
    ] = None
    precision: Annotated[
        Literal["full", "bf16", "fp16"], typer.Option(help="Precision of the network.", rich_help_panel=SPEED)
    ] = "full"

    @property
    def names(self) -> list[str] | None:
        """Names of the methods; None if not given."""
        return parse_names(self.method)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """Options by method."""
        return parse_method_options(self.method_option)


@dataclass(frozen=True)
class OutputOptions:
    """Where results go."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.", rich_help_panel=OUTPUT)] = Path("vitrail-out")
    overwrite: Overwrite = False


@dataclass(frozen=True)
class DeviceOptions:
    """Which device."""

    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, mps (default: the fastest available).", show_default=False, rich_help_panel=SPEED
        ),
    ] = None


@dataclass(frozen=True)
class SpeedOptions(DeviceOptions):
    """How images are read and computed."""

    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.", rich_help_panel=SPEED)] = 16
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.", rich_help_panel=SPEED)] = 0


LARGE_BATCHES = SpeedOptions(batch_size=64)


def load_model(
    name: str | None, device: str | None, model_args: Sequence[str] | None = None, image_size: str | None = None
) -> "Classifier":
    """Load the named model, or the default one with a message.

    Raises:
        InvalidInputError: Arguments that are not KEY=VALUE, or a malformed size.
    """
    arguments, size = parse_model_args(model_args), parse_size(image_size)
    from vitrail.adapters import load  # noqa: PLC0415 (heavy)

    if name is None:
        logger.info("using the bundled %s; choose another by --model, e.g. --model timm:vit_base_patch16_224", DEFAULT_MODEL)
    return load(DEFAULT_MODEL if name is None else name, device=device, image_size=size, **arguments)
