"""The registry of libraries: found by the word before a colon, or by the class of a network."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from torch import nn

from vitrail.core.errors import MissingExtraError
from vitrail.core.registry import unknown_name

if TYPE_CHECKING:
    from vitrail.adapters.library import Library


@dataclass(frozen=True)
class _Entry:
    """Where to find a library.

    Attributes:
        modules: Packages that define the classes of its networks.
        location: Module and class of its `Library`, imported at first use, because libraries are heavy.
        extra: The extra of vitrail that installs it.
    """

    modules: tuple[str, ...]
    location: str
    extra: str = ""


ENTRIES: Mapping[str, _Entry] = {
    "hit": _Entry(("vitrail.models.hit",), "vitrail.adapters.hit.library:HiTLibrary"),
    "intr": _Entry(("vitrail.models.intr",), "vitrail.adapters.intr.library:INTRLibrary"),
    "timm": _Entry(("timm.models",), "vitrail.adapters.timm.library:TimmLibrary"),
    "torchvision": _Entry(("torchvision.models",), "vitrail.adapters.torchvision.library:TorchvisionLibrary"),
    "open_clip": _Entry(("open_clip",), "vitrail.adapters.open_clip.library:OpenClipLibrary", extra="clip"),
    "hf": _Entry(("transformers",), "vitrail.adapters.huggingface.library:HuggingFaceLibrary", extra="hf"),
    "vit-pytorch": _Entry(("vit_pytorch",), "vitrail.adapters.vit_pytorch.library:VitPytorchLibrary"),
}
"""All libraries, by the word before the colon in `timm:vit_base_patch16_224`."""

SOURCES = {"huggingface": "hf"}
"""Keys of `ENTRIES` by the architecture in a vitrail file, where they differ."""


@cache
def get_library(source: str) -> "Library":
    """Return a library by its key in `ENTRIES`.

    Raises:
        UnknownNameError: There is no such library.
        MissingExtraError: It is not installed.
    """
    if source not in ENTRIES:
        raise unknown_name("source of networks", source, list(ENTRIES))
    entry = ENTRIES[source]
    file, _, kind = entry.location.partition(":")
    try:
        library: Library = getattr(importlib.import_module(file), kind)()
    except ImportError as error:
        if not entry.extra:
            raise
        raise MissingExtraError(f"a network of {source}", entry.extra) from error
    return library


def find_source(module: nn.Module) -> str | None:
    """Return the key in `ENTRIES` of the library that defines a network's class, or one of its bases, or None."""
    for base in type(module).__mro__:
        for source, entry in ENTRIES.items():
            if any(base.__module__ == package or base.__module__.startswith(package + ".") for package in entry.modules):
                return source
    return None


def find_library(module: nn.Module) -> "Library | None":
    """Return the library that defines a network's class, or one of its bases, or None."""
    source = find_source(module)
    return None if source is None else get_library(source)


def get_described_library(architecture: str) -> "Library":
    """Return the library of a network that a vitrail file describes.

    Raises:
        UnknownNameError: There is no such library.
        MissingExtraError: It is not installed.
    """
    return get_library(SOURCES.get(architecture, architecture))
