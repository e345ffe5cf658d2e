"""Parameter groups: a dataclass of typer options as one parameter of a command."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass among a command's parameters by its fields, so that typer makes an option of every field.

    The fields are `Annotated` with `typer.Option`. Their defaults are those of the class, or of the parameter's default if it has one.
    Fields of a class come before those that it inherits.
    """
    hints = get_type_hints(command, include_extras=True)
    groups, parameters = dict[str, type](), list[Parameter]()
    for name, parameter in inspect.signature(command).parameters.items():
        group = hints[name]
        if not is_dataclass(group):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=group))
            continue
        groups[name] = group  # type: ignore[assignment]
        defaults = group() if parameter.default is Parameter.empty else parameter.default  # type: ignore[operator]
        annotations = get_type_hints(group, include_extras=True)
        parameters += [
            Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=getattr(defaults, field.name), annotation=annotations[field.name]
            )
            for field in sorted(fields(group), key=lambda field: field.name not in group.__annotations__)
        ]

    @wraps(command)
    def run(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)}) for name, group in groups.items()
        }
        command(**values, **grouped)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
