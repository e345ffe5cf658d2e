"""Embedding networks as classifiers: an image is compared with texts, reference images, a linear probe or given directions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.directions import Directions
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import Output

Reference = Literal["mean", "nearest"]
"""How the reference images of a class become its direction: their mean embedding, or each its own, of which the nearest decides."""

Batch = Float[Tensor, "_ channels height width"]
"""Normalized images; batches of one class may differ in size."""


def compare_with_images(
    classifier: Classifier, references: Mapping[str, Sequence[Batch]], reference: Reference = "mean"
) -> Classifier:
    """Classify images by their cosine similarity to reference images; logits are similarities, without probabilities.

    Args:
        classifier: A network that gives an embedding.
        references: Normalized batches of images of every class, by its name.
        reference: What decides for a class: "mean", its normalized embeddings averaged, or "nearest", its most similar image.

    Raises:
        UnsupportedModelError: The network does not give an embedding.
        InvalidInputError: A class has no images.
    """
    expect_embedding(classifier)
    if reference not in ("mean", "nearest"):
        raise InvalidInputError(f"expected the reference 'mean' or 'nearest', got {reference!r}")
    if empty := [name for name, batches in references.items() if not sum(map(len, batches))]:
        raise InvalidInputError(f"expected at least one reference image per class, got none for {', '.join(empty[:3])}")
    if not references:
        raise InvalidInputError("expected reference images of at least one class, got none")
    with inspecting_embedding(classifier):
        rows = [classifier.logits(images) for batches in references.values() for images in batches]
        vectors = nn.functional.normalize(at_least_float32(torch.cat(rows)), dim=-1)
        sizes = torch.tensor([sum(map(len, batches)) for batches in references.values()])
        classes = torch.arange(len(sizes)).repeat_interleave(sizes).to(vectors.device)
        if reference == "mean":
            vectors = average_by_class(classes, vectors)
            classes = one_class_each(vectors)
        directions = Directions(vectors, classes, 1.0, vectors.new_zeros(1))
    what = f"references of {count_noun(len(references), 'class')}"
    return with_directions(classifier, directions, tuple(references), "none", what)


def compare_with_probe(
    classifier: Classifier,
    weight: Float[Tensor, "c d"],
    bias: Float[Tensor, " c"] | None = None,
    class_names: Sequence[str] = (),
) -> Classifier:
    """Classify images by a linear layer on their embedding, which is not normalized.

    Args:
        classifier: A network that gives an embedding.
        weight: One row per class.
        bias: One number per class.
        class_names: One per class, if known.

    Raises:
        UnsupportedModelError: The network does not give an embedding.
        InvalidInputError: The probe reads embeddings of another width.
    """
    expect_embedding(classifier)
    with torch.inference_mode(False), torch.no_grad():
        vectors = at_least_float32(weight.detach().clone())
        offsets = vectors.new_zeros(1) if bias is None else at_least_float32(bias.detach().clone()).to(vectors)
        directions = Directions(vectors, one_class_each(vectors), 1.0, offsets, cosine=False)
    output: Output = "softmax" if len(vectors) > 1 else "sigmoid"
    return with_directions(
        classifier, directions, tuple(class_names), output, f"a probe of {count_noun(len(vectors), 'class')}"
    )


def compare_with_directions(
    classifier: Classifier, vectors: Float[Tensor, "*c d"], class_names: Sequence[str] = ()
) -> Classifier:
    """Classify images by their cosine similarity to given directions; logits are similarities, without probabilities.

    Args:
        classifier: A network that gives an embedding.
        vectors: One direction, or one per class.
        class_names: One per direction, if known.

    Raises:
        UnsupportedModelError: The network does not give an embedding.
        InvalidInputError: The directions have another width than the embedding, or are zero.
    """
    expect_embedding(classifier)
    with torch.inference_mode(False), torch.no_grad():
        rows = at_least_float32(vectors.detach().clone())
        rows = rows[None] if rows.ndim == 1 else rows
        directions = Directions(rows, one_class_each(rows), 1.0, rows.new_zeros(1))
    return with_directions(classifier, directions, tuple(class_names), "none", count_noun(len(rows), "direction"))


def expect_embedding(classifier: Classifier) -> None:
    """Refuse a network that gives anything but an embedding.

    Raises:
        UnsupportedModelError: It has a head, or is compared already.
    """
    if classifier.directions is not None:
        raise UnsupportedModelError(
            f"expected a network that gives an embedding, got {classifier.name}, which is compared already; give the network itself"
        )
    if classifier.output != "embedding":
        raise UnsupportedModelError(
            f"expected a network that gives an embedding, got {classifier.name}, which has a head for classes; load it without its head "
            "(timm: num_classes=0, torchvision: heads=nn.Identity(), Hugging Face: the model class without ForImageClassification), "
            "or say vitrail.adapt(..., output='embedding') if its outputs are one"
        )


@contextmanager
def inspecting_embedding(classifier: Classifier) -> Iterator[None]:
    """Embed in evaluation mode, without gradients, as tensors that gradients may pass later."""
    with torch.inference_mode(False), classifier.inspecting(), torch.no_grad():
        yield


def average_by_class(classes: Int[Tensor, " k"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "c d"]:
    """Average the normalized vectors of every class, and normalize."""
    sums = vectors.new_zeros(int(classes.max()) + 1, vectors.shape[1])
    sums.index_add_(0, classes.to(vectors.device), nn.functional.normalize(vectors, dim=-1))
    return nn.functional.normalize(sums, dim=-1)


def one_class_each(vectors: Float[Tensor, "c d"]) -> Int[Tensor, " c"]:
    """Return the class of every direction if each is a class of its own."""
    return torch.arange(len(vectors), device=vectors.device)


def count_noun(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless it is 1."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def with_directions(
    classifier: Classifier, directions: Directions, class_names: tuple[str, ...], output: Output, what: str
) -> Classifier:
    """Give an embedding network directions, and a name that says what it is compared with."""
    if class_names and len(class_names) != directions.num_classes:
        raise InvalidInputError(f"expected {directions.num_classes} class names, one per direction, got {len(class_names)}")
    if (width := classifier.num_classes) != directions.vectors.shape[1]:
        raise InvalidInputError(
            f"expected directions of {width} numbers, as the embeddings of {classifier.name}, got {directions.vectors.shape[1]}; use those "
            "of the same model"
        )
    return replace(
        classifier, directions=directions, class_names=class_names, output=output, name=f"{classifier.name} with {what}"
    )
