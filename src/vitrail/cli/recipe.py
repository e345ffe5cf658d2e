"""`vitrail recipe`: print a recipe that comes with the package."""

from typing import Annotated

import typer

from vitrail.cli.completion import complete_recipes
from vitrail.cli.results import print_result
from vitrail.recipes import recipe_file, recipe_summary, recipe_text


def recipe(
    name: Annotated[str, typer.Argument(help="Recipe; see vitrail list recipes.", autocompletion=complete_recipes)],
) -> None:
    """Print a recipe with its comments, to start from: vitrail recipe NAME > mine.yaml, then vitrail train mine.yaml."""
    text = recipe_text(name)

    def content() -> dict[str, object]:
        from vitrail.core.yaml_io import read_yaml  # noqa: PLC0415 (only where it is needed)

        stem = recipe_file(name).stem
        return {"name": stem, "summary": recipe_summary(stem), "recipe": read_yaml(text)}

    print_result(content, lambda: typer.echo(text, nl=False))
