"""Complete the values of options by tab. Nothing heavy is imported: names are read where the code registers them."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from vitrail.recipes import recipe_names

PACKAGE = Path(__file__).parents[1]

SOURCES = ("timm", "hf", "torchvision", "open_clip", "hit", "intr")
"""Words before the colon in names of models that are no bundled ones."""

KINDS = ("models", "methods", "protocols", "metrics", "synthetic", "data", "recipes")
"""What `vitrail list` lists."""

REGISTERED = r'(?:\b{}\.register|@named_data)\(\s*"([\w-]+)"'

MAX_FILES = 50


def registered_names(registry: str, folder: str) -> list[str]:
    """Return the names that the files of a folder of the package register, sorted.

    Args:
        registry: Name of the registry in the code.
        folder: Path below the package.
    """
    pattern = re.compile(REGISTERED.format(registry))
    texts = (path.read_text(encoding="utf-8") for path in (PACKAGE / folder).rglob("*.py"))
    return sorted({name for text in texts for name in pattern.findall(text)})


def bundled_names() -> list[str]:
    """Return the bundled models, as `--model` takes them."""
    return sorted(f"vitrail:{file.parent.name}" for file in (PACKAGE / "bundled").glob("*/model.safetensors"))


def _complete(names: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    """Complete the last of several names that are separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in taken]


def _complete_one(names: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    return [name for name in names() if name.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Complete bundled models, sources of models, and files."""
    before, comma, last = incomplete.rpartition(",")
    folder = Path(last) if last.endswith("/") else Path(last).parent
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        files = []
    named = [f"{path}/" if path.is_dir() else str(path) for path in files if not path.name.startswith(".")]
    paths = [name for name in named if name.startswith(last)][:MAX_FILES]
    names = [*bundled_names(), *(f"{source}:" for source in SOURCES)]
    return [f"{before}{comma}{name}" for name in [*(name for name in names if name.startswith(last)), *paths]]


_methods, _protocols, _metrics, _data_sets, _synthetic = (
    partial(registered_names, registry, folder)
    for registry, folder in (
        ("EXPLAINERS", "explainers"),
        ("PROTOCOLS", "metrics"),
        ("METRICS", "metrics"),
        ("DATA", "datasets/named"),
        ("SYNTHETIC", "datasets/synthetic"),
    )
)


def complete_methods(incomplete: str) -> list[str]:
    """Complete names of methods, separated by commas."""
    return _complete(_methods, incomplete)


def complete_protocols(incomplete: str) -> list[str]:
    """Complete names of protocols, separated by commas."""
    return _complete(_protocols, incomplete)


def complete_metrics(incomplete: str) -> list[str]:
    """Complete names of metrics, separated by commas."""
    return _complete(_metrics, incomplete)


def complete_data_sets(incomplete: str) -> list[str]:
    """Complete names of data sets."""
    return _complete_one(_data_sets, incomplete)


def complete_synthetic(incomplete: str) -> list[str]:
    """Complete names of synthetic data sets."""
    return _complete_one(_synthetic, incomplete)


def complete_recipes(incomplete: str) -> list[str]:
    """Complete names of recipes."""
    return _complete_one(recipe_names, incomplete)


def complete_kinds(incomplete: str) -> list[str]:
    """Complete what `vitrail list` lists."""
    return _complete_one(lambda: KINDS, incomplete)
