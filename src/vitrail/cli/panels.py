"""Options of commands in the panels of `--help`."""

from functools import partial
from typing import Any

import typer

MODEL, DATA, METHODS, METRICS, OUTPUT, SPEED = "Model", "Data", "Methods", "Metrics", "Output", "Speed"
"""Panels of `--help`."""


def option(panel: str, *names: str, **settings: Any) -> Any:
    """Return an option of a panel, with flags (by default the name of the parameter) and settings of `typer.Option`."""
    return typer.Option(*names, rich_help_panel=panel, **settings)


optional = partial(option, show_default=False)
"""An option that may be left out, whose help says what is used then."""
