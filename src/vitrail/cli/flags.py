"""Flags in `--help`, without the type that newer versions of typer show beside them, as if they took a value."""

from typing import Any

from typer.core import TyperGroup, TyperOption


def hide_types(parameters: list[Any]) -> list[Any]:
    """Return parameters whose flags show no type."""
    for parameter in parameters:
        if isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    return parameters


class PlainGroup(TyperGroup):
    """A group of commands whose flags show no type."""

    def get_params(self, ctx: Any) -> list[Any]:
        return hide_types(super().get_params(ctx))
