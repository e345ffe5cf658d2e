"""Options that several commands share, as parameter groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vitrail.cli.parsing import (
    parse_count,
    parse_data_options,
    parse_method_options,
    parse_names,
)

DATA, METHODS, METRICS, OUTPUT, SPEED = "Data", "Methods", "Metrics", "Output", "Speed"
"""Panels of `--help`."""


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.", rich_help_panel=OUTPUT)]

DataArgument = Annotated[Path, typer.Argument(help="Photo, folder of photos, or folder with one subfolder per class.")]

TestDataArgument = Annotated[
    Path,
    typer.Argument(help="Folder with one subfolder per class, or with such a folder named test or val; see also --data-set."),
]


@dataclass(frozen=True)
class LimitOptions:
    """How many images."""

    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of images, evenly spread.", show_default=False, rich_help_panel=DATA),
    ] = None


@dataclass(frozen=True)
class PhotoOptions(LimitOptions):
    """Which images: photos, or a folder."""

    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of images, instead of photos.", show_default=False, rich_help_panel=DATA),
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
            help="Methods, comma-separated (default: hit for HiT, intr for INTR, chefer for other ViTs, rollout for embeddings, else "
            "occlusion).",
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
class TargetOptions:
    """Which class."""

    target: Annotated[
        str | None,
        typer.Option(
            help="Class to explain, by name or number (default: predicted class).", show_default=False, rich_help_panel=METHODS
        ),
    ] = None


DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Measure the first images, print the expected cost; write nothing.", rich_help_panel=SPEED),
]


@dataclass(frozen=True)
class OutputOptions:
    """Where results go."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.", rich_help_panel=OUTPUT)] = Path("vitrail-out")
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ExplanationOptions(OutputOptions):
    """What is written of explanations."""

    file_format: Annotated[
        Literal["files", "shards"],
        typer.Option("--format", help="Of --data: files per image, or shards of many images.", rich_help_panel=OUTPUT),
    ] = "files"
    pictures: Annotated[str, typer.Option(help="Images of shards to draw: a number, all or none.", rich_help_panel=OUTPUT)] = (
        "100"
    )
    half: Annotated[bool, typer.Option("--half", help="Half precision in shards.", rich_help_panel=OUTPUT)] = False
    smooth: Annotated[bool, typer.Option(help="Blend patches in overlays.", rich_help_panel=OUTPUT)] = False
    top: Annotated[int, typer.Option(min=1, help="Number of classes and patches to print.", rich_help_panel=OUTPUT)] = 3
    dry_run: DryRun = False

    @property
    def num_pictures(self) -> int | Literal["all", "none"]:
        """How many images of shards are drawn."""
        return parse_count(self.pictures, "--pictures")

    @property
    def smoothing(self) -> Literal["nearest", "bilinear"]:
        """How overlays are enlarged."""
        return "bilinear" if self.smooth else "nearest"


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
