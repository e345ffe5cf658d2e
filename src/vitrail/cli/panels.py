"""Options of commands in the panels of `--help`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import typer

MODEL, DATA, METHODS, METRICS, OUTPUT, SPEED = "Model", "Data", "Methods", "Metrics", "Output", "Speed"
"""Panels of `--help`."""


def option(
    panel: str,
    *names: str,
    help: str,  # noqa: A002 (typer's name)
    metavar: str | None = None,
    min: int | None = None,  # noqa: A002 (typer's name)
    complete: Callable[[str], list[str]] | None = None,
    show_default: bool = True,
) -> Any:
    """Return an option of a panel.

    Args:
        panel: The panel.
        names: Flags; none for the name of the parameter.
        help: What it sets.
        metavar: How its value is called in the help.
        min: Smallest number.
        complete: Completes its value by tab.
        show_default: Whether the help shows the default.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        min=min,
        show_default=show_default,
        rich_help_panel=panel,
        autocompletion=complete,
    )


optional = partial(option, show_default=False)
"""An option that may be left out, whose help says what is used then."""
