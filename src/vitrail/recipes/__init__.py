"""The recipes that come with the package: YAML files by name. Light: lists them without importing torch."""

from pathlib import Path

from vitrail.core.registry import unknown_name

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of the recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        UnknownNameError: There is no such recipe.
    """
    if name.removesuffix(".yaml") not in (names := recipe_names()):
        raise unknown_name("recipe", name, names)
    return FOLDER / f"{name.removesuffix('.yaml')}.yaml"


def recipe_text(name: str) -> str:
    """Return a recipe as it is, with its comments.

    Raises:
        UnknownNameError: There is no such recipe.
    """
    return recipe_file(name).read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """Return the first line of the comment that begins a recipe: what it trains."""
    return recipe_text(name).splitlines()[0].removeprefix("#").strip()
