"""Complete the values of options by tab. Nothing heavy is imported: names are read where the code registers them."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from vitrail.cli.bash_words import strip_typed
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


def _completion(names: Callable[[], Iterable[str]], several: bool = False) -> Callable[[str], list[str]]:
    """Return a function that completes a name, or the last of several that are separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken = before.split(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in taken]

    return complete


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
    found = [name for name in names if name.startswith(last)]
    return strip_typed([f"{before}{comma}{name}" for name in [*found, *paths]])


complete_methods = _completion(partial(registered_names, "EXPLAINERS", "explainers"), several=True)
complete_protocols = _completion(partial(registered_names, "PROTOCOLS", "metrics"), several=True)
complete_metrics = _completion(partial(registered_names, "METRICS", "metrics"), several=True)
complete_data_sets = _completion(partial(registered_names, "DATA", "datasets/named"))
complete_synthetic = _completion(partial(registered_names, "SYNTHETIC", "datasets/synthetic"))
complete_recipes = _completion(recipe_names)
complete_kinds = _completion(lambda: KINDS)
