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
from vitrail.core.outputs import Output
from vitrail.core.precision import at_least_float32

Reference = Literal["mean", "nearest"]
"""How the reference images of a class become its direction: their mean embedding, or each its own, of which the nearest decides."""

Batch = Float[Tensor, "_ channels height width"]
"""Normalized images; batches of one class may differ in size."""

PLACEHOLDER = "{}"
"""Where a template takes the prompt."""

NO_TEXT_TOWER = (
    "expected a network with a text tower for prompts (Hugging Face's CLIP and SigLIP families, open_clip; timm has image towers only, "
    "whose weights open_clip has with their text towers), got {name}{problem}; "
    "compare with reference images, a linear probe or a direction instead"
)


def compare_with_texts(
    classifier: Classifier, texts: Mapping[str, Sequence[str]], templates: Sequence[str] = (), batch_size: int = 16
) -> Classifier:
    """Classify images by their similarity to texts, as CLIP does without training.

    The embeddings of the texts of a class are normalized and averaged. Logits, and what they mean, are the model's own: a softmax for
    CLIP, sigmoids for SigLIP. A softmax over one text would always be 1, so one text alone is explained by its cosine similarity.

    Args:
        classifier: A network that gives an embedding and has a text tower.
        texts: The texts of every class by its name.
        templates: Sentences with "{}" in place of a text, such as "a photo of a {}."; a class then has all its texts in all templates.
        batch_size: Number of texts that are embedded together.

    Raises:
        UnsupportedModelError: The network does not give an embedding, or has no text tower.
        InvalidInputError: A class without text, an empty text, or a template without "{}".
    """
    expect_embedding(classifier)
    if classifier.text is None:
        problem = getattr(classifier, "text_problem", "")  # Of Hugging Face's models.
        raise UnsupportedModelError(NO_TEXT_TOWER.format(name=classifier.name, problem=problem and f" ({problem})"))
    sentences = [(name, sentence) for name, group in texts.items() for sentence in fill_templates(group, templates)]
    empty = [name for name, group in texts.items() if not group or any(not text.strip() for text in group)]
    if empty or not sentences:
        raise InvalidInputError(
            f"expected at least one prompt per class, none of them empty, got none for {empty[:3] or 'any class'}"
        )
    with _embedding(classifier):
        rows = [
            classifier.text.encode([sentence for _, sentence in sentences[start : start + batch_size]])
            for start in range(0, len(sentences), batch_size)
        ]
        order = list(texts)
        classes = torch.tensor([order.index(name) for name, _ in sentences])
        vectors = _average(classes, at_least_float32(torch.cat(rows)))
        text = classifier.text
        alone = len(texts) == 1 and text.output == "softmax"
        scale, bias = (1.0, 0.0) if alone else (text.scale, text.bias)
        directions = Directions(vectors, _one_each(vectors), scale, vectors.new_full((1,), bias))
    return _compare(classifier, directions, tuple(texts), "none" if alone else text.output, _count(len(texts), "prompt"))


def fill_templates(texts: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Put texts into templates.

    Raises:
        InvalidInputError: A template has no place for the text.
    """
    if missing := [template for template in templates if PLACEHOLDER not in template]:
        raise InvalidInputError(
            f"expected templates with {PLACEHOLDER} in place of the prompt, got {missing[0]!r}; write e.g. 'a photo of {{}}'"
        )
    return [template.replace(PLACEHOLDER, text) for text in texts for template in templates] if templates else list(texts)


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
    with _embedding(classifier):
        rows = [classifier.logits(images) for batches in references.values() for images in batches]
        vectors = nn.functional.normalize(at_least_float32(torch.cat(rows)), dim=-1)
        sizes = torch.tensor([sum(map(len, batches)) for batches in references.values()])
        classes = torch.arange(len(sizes)).repeat_interleave(sizes).to(vectors.device)
        if reference == "mean":
            vectors = _average(classes, vectors)
            classes = _one_each(vectors)
        directions = Directions(vectors, classes, 1.0, vectors.new_zeros(1))
    what = f"references of {_count(len(references), 'class')}"
    return _compare(classifier, directions, tuple(references), "none", what)


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
        directions = Directions(vectors, _one_each(vectors), 1.0, offsets, cosine=False)
    output: Output = "softmax" if len(vectors) > 1 else "sigmoid"
    return _compare(classifier, directions, tuple(class_names), output, f"a probe of {_count(len(vectors), 'class')}")


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
        directions = Directions(rows, _one_each(rows), 1.0, rows.new_zeros(1))
    return _compare(classifier, directions, tuple(class_names), "none", _count(len(rows), "direction"))


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
def _embedding(classifier: Classifier) -> Iterator[None]:
    """Embed in evaluation mode, without gradients, as tensors that gradients may pass later."""
    with torch.inference_mode(False), classifier.inspecting(), torch.no_grad():
        yield


def _average(classes: Int[Tensor, " k"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "c d"]:
    """Average the normalized vectors of every class, and normalize."""
    sums = vectors.new_zeros(int(classes.max()) + 1, vectors.shape[1])
    sums.index_add_(0, classes.to(vectors.device), nn.functional.normalize(vectors, dim=-1))
    return nn.functional.normalize(sums, dim=-1)


def _one_each(vectors: Float[Tensor, "c d"]) -> Int[Tensor, " c"]:
    return torch.arange(len(vectors), device=vectors.device)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def _compare(
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
