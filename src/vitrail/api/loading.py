"""Load a model by name or from disk, also to explain the similarity of images to something else."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitrail import adapters
from vitrail.adapters import Classifier
from vitrail.adapters.class_name_files import read_names
from vitrail.adapters.loading import Names
from vitrail.core.errors import InvalidInputError


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    class_names: Names | None = None,
    prompts: Names | None = None,
    templates: Names | None = None,
    references: str | Path | None = None,
    reference: Literal["mean", "nearest"] | None = None,
    probe: str | Path | None = None,
    direction: Tensor | None = None,
    display_name: str | None = None,
    **options: Any,
) -> Classifier:
    """Load a model with its preprocessing and class names, ready to explain.

    Args:
        name: See `vitrail.adapters.loading.load`.
        device: Where to put the model; defaults to CUDA, else MPS, else the CPU.
        class_names: One per class: a list, a text with commas, or a file (one name per line, or JSON).
        prompts: For networks that give an embedding: texts to compare images with; see `vitrail.similarity`, here and below.
        templates: Sentences with "{}" in place of a prompt.
        references: Folder of photos to compare images with, one subfolder per class.
        reference: Whether the mean or the nearest photo of a class counts; defaults to the mean.
        probe: File of a linear layer on the embedding.
        direction: One direction per class in the embedding, (c, d) or (d,).
        display_name: Name of the model in results, where its own does not tell models apart.
        options: Further options of `vitrail.adapters.loading.load`, such as `weights`, `output` and `image_size`, and those of the library.

    Raises:
        VitrailError: There is no such model, or something does not fit; the message says what to do.
    """
    if display_name is not None and not display_name.strip():
        raise InvalidInputError("expected a name for the model, got an empty one")
    if prompts is None and references is None and probe is None and direction is None:
        alone = [name for name, value in (("templates", templates), ("reference", reference)) if value is not None]
        if alone:
            raise InvalidInputError(f"expected {alone[0]} together with prompts or references, got none")
        return _named(adapters.load(name, device=device, class_names=class_names, **options), display_name)
    from vitrail.api.embeddings import similarity  # noqa: PLC0415 (it loads models by name)

    output = None if options.get("output") == "embedding" else options.pop("output", None)  # Else it is that of the similarity.
    compared = similarity(
        adapters.load(name, device=device, **options),
        prompts=prompts,
        references=references,
        probe=probe,
        direction=direction,
        templates=templates,
        reference=reference or "mean",
        class_names=None if class_names is None else read_names(class_names),
    )
    return _named(compared if output is None else replace(compared, output=output), display_name)


def _named(classifier: Classifier, name: str | None) -> Classifier:
    return classifier if name is None else replace(classifier, name=name)
