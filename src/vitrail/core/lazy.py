"""Names of a package that are imported on first use, so that importing the package is fast."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from vitrail.core.garbage import without_collection


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: Name of the package.
        modules: Module of every name.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with without_collection():
            value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)  # From now on without this function.
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, list_names
