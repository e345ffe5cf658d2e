"""Options of commands in the panels of `--help`."""

from typing import Any

import typer

MODEL, DATA, METHODS, METRICS, OUTPUT, SPEED = "Model", "Data", "Methods", "Metrics", "Output", "Speed"
"""Panels of `--help`."""


def option(panel: str, *names: str, help: str, metavar: str | None = None, min: int | None = None) -> Any:  # noqa: A002 (typer's names)
    """Return an option whose default is shown."""
    return typer.Option(*names, help=help, metavar=metavar, min=min, rich_help_panel=panel)


def optional(panel: str, *names: str, help: str, metavar: str | None = None, min: int | None = None) -> Any:  # noqa: A002 (typer's names)
    """Return an option that may be left out, whose help says what is used then."""
    return typer.Option(*names, help=help, metavar=metavar, min=min, show_default=False, rich_help_panel=panel)
