"""Text prompts as classes, as CLIP classifies without training: templates, and the average of several texts."""

from collections.abc import Mapping, Sequence

import torch

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.directions import Directions
from vitrail.adapters.similarity import (
    average_by_class,
    count_noun,
    expect_embedding,
    inspecting_embedding,
    one_class_each,
    with_directions,
)
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import at_least_float32

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
    with inspecting_embedding(classifier):
        rows = [
            classifier.text.encode([sentence for _, sentence in sentences[start : start + batch_size]])
            for start in range(0, len(sentences), batch_size)
        ]
        order = list(texts)
        classes = torch.tensor([order.index(name) for name, _ in sentences])
        vectors = average_by_class(classes, at_least_float32(torch.cat(rows)))
        text = classifier.text
        alone = len(texts) == 1 and text.output == "softmax"
        scale, bias = (1.0, 0.0) if alone else (text.scale, text.bias)
        directions = Directions(vectors, one_class_each(vectors), scale, vectors.new_full((1,), bias))
    return with_directions(
        classifier, directions, tuple(texts), "none" if alone else text.output, count_noun(len(texts), "prompt")
    )


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
