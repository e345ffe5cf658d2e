"""Options that several commands share, as parameter groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vitrail.cli.completion import complete_data_sets, complete_methods
from vitrail.cli.panels import DATA, METHODS, OUTPUT, SPEED, option, optional
from vitrail.cli.parsing import (
    parse_count,
    parse_keys,
    parse_names,
    parse_owned_keys,
)
from vitrail.core.errors import InvalidInputError

Overwrite = Annotated[bool, option(OUTPUT, "--overwrite", help="Replace earlier results.")]

DataArgument = Annotated[
    Path,
    typer.Argument(
        help="Photo, folder of photos, or folder with one subfolder per class; list of files (- for standard input), tar files, table."
    ),
]

TestDataArgument = Annotated[
    Path,
    typer.Argument(help="Folder with one subfolder per class, or with such a folder named test or val; see also --data-set."),
]


@dataclass(frozen=True)
class LimitOptions:
    """How many images."""

    limit: Annotated[
        int | None,
        optional(DATA, min=1, help="Maximum number of images, evenly spread."),
    ] = None


@dataclass(frozen=True)
class DataOptions(LimitOptions):
    """Which images: a data set by name."""

    data_set: Annotated[
        str | None,
        optional(
            DATA,
            "--data-set",
            help="Name of a data set with root DATA; see vitrail list data.",
            autocompletion=complete_data_sets,
        ),
    ] = None
    split: Annotated[
        str | None,
        optional(DATA, help="Split of --data-set or of a table (default: test, or val if there is no test)."),
    ] = None
    data_option: Annotated[
        list[str] | None,
        optional(DATA, "--data-option", metavar="KEY=VALUE", help="Option of --data-set; repeatable."),
    ] = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the data set."""
        return parse_keys(self.data_option, "--data-option", "crop_to_box=true")

    @property
    def source(self) -> dict[str, Any]:
        """The data set, as functions of `vitrail.api` take it."""
        return {"data_set": self.data_set, "split": self.split, "data_options": self.options}


@dataclass(frozen=True)
class PhotoOptions(DataOptions):
    """Which images: photos, or a folder or another source of many."""

    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None
    data: Annotated[
        Path | None,
        optional(
            DATA,
            "--data",
            help="Many images, instead of photos: a folder, a list of files (- for standard input), tar files, a table.",
        ),
    ] = None

    def source_options(self) -> dict[str, Any]:
        """Return the options that go with --data.

        Raises:
            InvalidInputError: There are some without --data.
        """
        given = {**self.source, "limit": self.limit}
        flags = [f"--{name.replace('_', '-').removesuffix('s')}" for name, value in given.items() if value not in (None, {})]
        if self.data is None and flags:
            raise InvalidInputError(f"expected {' and '.join(flags)} together with --data, got photos")
        return given


@dataclass(frozen=True)
class MethodOptions:
    """Which methods."""

    method: Annotated[
        str | None,
        optional(
            METHODS,
            help="Methods, comma-separated; see vitrail list methods (default: one that fits the model).",
            autocompletion=complete_methods,
        ),
    ] = None
    method_option: Annotated[
        list[str] | None,
        optional(
            METHODS,
            "--method-option",
            metavar="METHOD.OPTION=VALUE",
            help="Option of a method, e.g. rollout.discard_ratio=0.9; repeatable.",
        ),
    ] = None
    precision: Annotated[Literal["full", "bf16", "fp16"], option(SPEED, help="Precision of the network.")] = "full"

    @property
    def names(self) -> list[str] | None:
        """Names of the methods; None if not given."""
        return parse_names(self.method)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """Options by method."""
        return parse_owned_keys(self.method_option, "--method-option", "rollout.discard_ratio=0.9")


@dataclass(frozen=True)
class TargetOptions:
    """Which class."""

    target: Annotated[
        str | None,
        optional(METHODS, help="Class to explain, by name or number (default: predicted class)."),
    ] = None


DryRun = Annotated[
    bool,
    option(SPEED, "--dry-run", help="Measure the first images, print the expected cost; write nothing."),
]


@dataclass(frozen=True)
class OutputOptions:
    """Where results go."""

    out: Annotated[Path, option(OUTPUT, "--out", "-o", help="Output folder; without it, the next free number.")] = Path(
        "vitrail-out"
    )
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ExplanationOptions(OutputOptions):
    """What is written of explanations."""

    file_format: Annotated[
        Literal["files", "shards", "parquet"],
        option(OUTPUT, "--format", help="Of --data: files per image, or shards of many images, as safetensors or Parquet."),
    ] = "files"
    pictures: Annotated[str, option(OUTPUT, help="Images of shards to draw: a number, all or none.")] = "100"
    half: Annotated[bool, option(OUTPUT, "--half", help="Half precision in shards.")] = False
    kind: Annotated[
        Literal["overlay", "heatmap", "masked", "side-by-side"] | None,
        optional(OUTPUT, help="What pictures show; masked: the strongest patches, the rest faded (default: overlay)."),
    ] = None
    palette: Annotated[
        Literal["color", "gray", "photo"],
        option(OUTPUT, help="Colors of relevance; photo: magenta and green over the photo's own colors."),
    ] = "color"
    clip: Annotated[
        float | None,
        optional(OUTPUT, help="Percentile of relevance that gets the full color, e.g. 99 (default: the maximum)."),
    ] = None
    smooth: Annotated[
        bool | None,
        optional(OUTPUT, "--smooth/--no-smooth", help="Blend patches in overlays (default: grids of 14 or more a side)."),
    ] = None
    top: Annotated[int, option(OUTPUT, min=1, help="Number of classes and patches to print.")] = 3
    dry_run: DryRun = False

    @property
    def num_pictures(self) -> int | Literal["all", "none"]:
        """How many images of shards are drawn."""
        return parse_count(self.pictures, "--pictures")

    @property
    def style(self) -> dict[str, Any]:
        """How pictures look."""
        smoothing = "auto" if self.smooth is None else "bilinear" if self.smooth else "nearest"
        return {"kind": self.kind, "palette": self.palette, "clip": self.clip, "smoothing": smoothing}


@dataclass(frozen=True)
class ReadingOptions:
    """Which device, and how images are read."""

    device: Annotated[
        str | None,
        optional(SPEED, help="cpu, cuda, cuda:1, mps (default: the fastest available)."),
    ] = None
    workers: Annotated[int, option(SPEED, min=0, help="Processes that read images.")] = 0


@dataclass(frozen=True)
class SpeedOptions(ReadingOptions):
    """How images are read and computed."""

    batch_size: Annotated[int, option(SPEED, min=1, help="Images per batch.")] = 16


LARGE_BATCHES = SpeedOptions(batch_size=64)
