"""What all commands share: `--quiet` and `--json` after the command, and the next free folder where no `--out` is given."""

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli.default_out import last_taken, run_in_free_folder
from vitrail.cli.results import json_document
from vitrail.core.distributed import started_rank, started_together

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document; the rest goes to standard error.")]

CONTEXT, QUIET, AS_JSON = "typer_context", "quiet", "as_json"
"""Names of the parameters that are added to a command."""


def set_log_level(quiet: bool) -> None:
    """Of several processes, only the first one logs."""
    level = logging.ERROR if started_rank() else logging.WARNING if quiet else logging.INFO
    logging.getLogger("vitrail").setLevel(level)


def share_options(command: Callable[..., None], has_result: bool = True, numbered: bool = True) -> Callable[..., None]:
    """Add `--quiet` and `--json` to a command, and let it write into the next free folder if no `--out` is given.

    Args:
        command: A command whose groups are expanded.
        has_result: Whether it prints a result.
        numbered: Whether its default folder is used once; else it replaces its own results there.
    """
    signature = inspect.signature(command)
    added = {CONTEXT: typer.Context, QUIET: Quiet, **({AS_JSON: AsJson} if has_result else {})}

    @wraps(command)
    def run(**values: Any) -> None:
        context, quiet, as_json = (values.pop(name, False) for name in (CONTEXT, QUIET, AS_JSON))
        if quiet:
            set_log_level(quiet)
        with json_document(as_json):
            if numbered and _is_default(context, "out", values.get("out")):
                _run_numbered(command, values)
            else:
                command(**values)

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    parameters += [
        Parameter(name, Parameter.KEYWORD_ONLY, default=Parameter.empty if name == CONTEXT else False, annotation=kind)
        for name, kind in added.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _run_numbered(command: Callable[..., None], values: dict[str, Any]) -> None:
    folder: Path = values["out"]
    if values.get("resume"):  # `vitrail train --resume`: the newest run.
        command(**values | {"out": last_taken(folder) or folder})
    # Several processes might see different folders as free.
    elif values.get("overwrite") or values.get("dry_run") or started_together() > 1:
        command(**values)
    else:
        run_in_free_folder(lambda out: command(**values | {"out": out}), folder)


def _is_default(context: Any, name: str, value: object) -> bool:
    source = context.get_parameter_source(name)
    return isinstance(value, Path) and source is not None and source.name.startswith("DEFAULT")
