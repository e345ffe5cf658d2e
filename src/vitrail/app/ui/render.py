"""HTML of results: heatmaps over photos with their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitrail.app.explain_request import TOP, ExplainResult, class_title
from vitrail.app.explanation_parts import ExplanationParts
from vitrail.app.number_format import MINUS, format_output, format_relevance, format_signed, format_sum
from vitrail.app.plain_words import (
    TERMS,
    describe_blocks,
    describe_colors,
    describe_confidence,
    describe_method,
    describe_model,
    describe_term,
    describe_view,
    is_unsure,
    name_method,
)
from vitrail.app.ui.scales import Scale, share_scales
from vitrail.app.ui.templates import render_template
from vitrail.core.outputs import has_probabilities, value_name
from vitrail.explanation import Explanation
from vitrail.viz.html import picture_data_uri
from vitrail.viz.overlay import Palette, Smoothing, resize_photo, underlay
from vitrail.viz.report import Table

MAX_CELLS = 1024
"""Larger grids have their numbers in the downloads only: a page with all of them would be slow."""

PHOTO_SIDE = 360
NUM_STRONGEST = 5


@dataclass(frozen=True)
class Look:
    """How heatmaps are drawn.

    Attributes:
        palette: "color" or "gray".
        smoothing: "nearest" shows the patches as they are, "bilinear" blends them.
    """

    palette: Palette = "color"
    smoothing: Smoothing = "nearest"

    @classmethod
    def choose(cls, palette: str, blend: bool) -> "Look":
        """Return the look that is chosen on the page."""
        return cls("gray" if palette == "gray" else "color", "bilinear" if blend else "nearest")


DEFAULT_LOOK = Look()


def render_results(sides: Sequence[ExplainResult], look: Look = DEFAULT_LOOK) -> str:
    """Render one result, or two that are compared.

    Args:
        sides: Results of the same methods.
        look: How heatmaps are drawn.
    """
    photos = [_Photo.of(side, f"vt-photo-of-{letter}") for side, letter in zip(sides, "ab", strict=False)]
    labels = side_labels(sides)
    methods = [
        {
            "name": method,
            "words": describe_method(method),
            "term": describe_term(method),
            "blocks": describe_blocks(sides[0].explanations[method].relevance[0]),
            "colors": describe_colors(method, scale.signed, look.palette, *(side.target for side in sides)),
            "legend": _legend(scale, look, sides[0].explanations[method]),
            "figures": [
                _figure(side, method, photo, scale, look, label)
                for side, photo, label in zip(sides, photos, labels, strict=True)
            ],
        }
        for method, scale in share_scales(sides).items()
    ]
    heads = [_head(side, photo, label) for side, photo, label in zip(sides, photos, labels, strict=True)]
    return render_template(
        "results.html",
        photos=photos,
        sides=heads,
        methods=methods,
        terms=TERMS,
        model=sides[0].offered,
        known=_known_classes(sides[0].explanations),
    )


def side_labels(sides: Sequence[object]) -> list[str]:
    """Return the prefixes of titles that tell two sides apart; empty for a single side."""
    return [""] if len(sides) == 1 else ["A: ", "B: "]


@dataclass(frozen=True)
class _Photo:
    """A photo that heatmaps are laid over.

    Attributes:
        name: Its CSS class.
        data_uri: The photo as it lies below heatmaps.
        original_uri: The photo itself.
        size: Width and height in pixels.
        position: CSS that places a heatmap over the part that the model sees.
        cropped: Whether the model sees a part only.
    """

    name: str
    data_uri: str
    original_uri: str
    size: tuple[int, int]
    position: str
    cropped: bool

    @classmethod
    def of(cls, side: ExplainResult, name: str) -> "_Photo":
        picture, (left, top, right, bottom) = underlay(side.row.photo, side.row.box, side=PHOTO_SIDE)
        original, _ = resize_photo(side.row.photo, side.row.box, PHOTO_SIDE)
        width, height = picture.size
        position = (
            f"left:{left / width:.3%};top:{top / height:.3%};width:{(right - left) / width:.3%};"
            f"height:{(bottom - top) / height:.3%}"
        )
        uris = picture_data_uri(picture, "jpeg"), picture_data_uri(original, "jpeg")
        return cls(name, *uris, picture.size, position, (left, top, right, bottom) != (0, 0, width, height))


def _head(side: ExplainResult, photo: _Photo, label: str) -> dict[str, Any]:
    bars = has_probabilities(side.output)
    return {
        "label": label,
        "title": side.row.title,
        "target": side.target,
        "value_name": value_name(side.output),
        "value": "" if side.output == "embedding" else format_output(side.probability, side.output),
        "confidence": describe_confidence(side),
        "unsure": is_unsure(side),
        "note": side.note,
        "photo": photo,
        "photo_text": describe_view(side, cropped=photo.cropped),
        "ranked": f"Most probable classes of {side.model}" if bars else f"Largest outputs of {side.model}",
        "bars": bars,
        "model": side.model,
        "classes": [
            (class_title(side, name), format_output(share, side.output), f"{share:.2%}") for name, share in side.classes[:TOP]
        ],
    }


def _known_classes(explanations: Mapping[str, Explanation]) -> str:
    """Say what the model can answer: on paper, the list beside the form is missing."""
    first = next(iter(explanations.values()))
    names = [first.class_name(index) for index in range(first.logits.shape[-1])]
    return describe_model(names, first.output)


def _figure(side: ExplainResult, method: str, photo: _Photo, scale: Scale, look: Look, label: str) -> dict[str, Any]:
    explanation, parts = side.explanations[method], side.parts.get(method)
    relevance = explanation.relevance[0]
    return {
        "heatmap": _heatmap(photo, relevance, scale, look, _alternative_text(side, explanation)),
        "caption": _caption(side, explanation, label),
        "title": f"{label}{describe_method(method).label}",
        "label": f"{name_method(method)}, {side.target}",
        "strongest": _patch_table(explanation),
        "all_patches": _grid_table(relevance),
        "parts": None if parts is None else _parts(parts, method, photo, look, explanation),
    }


def _patch_table(explanation: Explanation) -> Table:
    """Tabulate the strongest patches with their share: of the logit if the method accounts for all of it, else of the strongest."""
    strongest = explanation.strongest_patches(0, NUM_STRONGEST)
    if explanation.bias is None:
        largest, whole = max(abs(value) for *_, value in strongest), "strongest"
    else:
        largest, whole = float(explanation.target_logits()[0]), "score"
    rows: list[list[str | float]] = [
        [f"row {row}, column {col}", format_signed(value, largest)] for row, col, value in strongest
    ]
    return Table(["patch", f"relevance (share of the {whole})"], rows)


def _heatmap(photo: _Photo, relevance: Tensor, scale: Scale, look: Look, alt: str) -> dict[str, Any]:
    return {
        "photo": photo,
        "data_uri": picture_data_uri(scale.draw(relevance, look.palette)),
        "alt": alt,
        "smooth": look.smoothing == "bilinear",
        "grid": tuple(relevance.shape),
        "cells": [list(map(format_relevance, row)) for row in relevance.tolist()] if relevance.numel() <= MAX_CELLS else None,
    }


def _legend(scale: Scale, look: Look, explanation: Explanation) -> dict[str, Any]:
    """Name the ends of a scale in points of the score, or relative to the strongest patch where relevance has no unit."""
    largest = max(abs(scale.low), abs(scale.high))
    if explanation.bias is None and largest:
        (low, high), unit = (f"{end / largest:.0%}".replace("-", MINUS) for end in scale[:2]), "of the strongest patch"
    else:
        (low, high), unit = map(format_relevance, scale[:2]), "" if explanation.bias is None else "points of the score"
    low_end, high_end = ("against", "for") if scale.signed else ("least", "most")
    data_uri = picture_data_uri(scale.draw_legend(look.palette))
    return {"low": low, "high": high, "low_end": low_end, "high_end": high_end, "unit": unit, "data_uri": data_uri}


def _alternative_text(side: ExplainResult, explanation: Explanation) -> str:
    strongest = "; ".join(
        f"row {row} column {col}: {format_relevance(value)}" for row, col, value in explanation.strongest_patches(0, 3)
    )
    rows, cols = explanation.grid
    return (
        f"Heatmap of {name_method(explanation.method)} for {side.target}, {rows} by {cols} patches. "
        f"The strongest, counted from 0: {strongest}."
    )


def _caption(side: ExplainResult, explanation: Explanation, label: str) -> dict[str, str]:
    if explanation.bias is None:
        of_class = f" for {side.target}" if describe_method(explanation.method).of_class else ""
        return {"text": f"{label}relevance{of_class}", "score": ""}
    logit, bias = float(explanation.target_logits()[0]), float(explanation.bias[0])
    # No shares: if one part takes away from the other, they mean nothing to most people.
    score, patches, constant = format_sum(logit, logit - bias, bias)
    score = (
        f"of {side.target}: {score}. All patches together contribute {patches}, and a constant part of the model {constant}."
    )
    return {"text": label, "score": score}


def _grid_table(relevance: Tensor) -> Table | None:
    """Tabulate relevance as it lies over the photo; None for large grids."""
    if relevance.numel() > MAX_CELLS:
        return None
    rows = [[f"row {row}", *map(format_relevance, values)] for row, values in enumerate(relevance.tolist())]
    return Table(["", *(f"column {col}" for col in range(relevance.shape[1]))], rows)


def _parts(parts: ExplanationParts, method: str, photo: _Photo, look: Look, explanation: Explanation) -> dict[str, Any]:
    scale = Scale.of([part.relevance for part in parts.parts])
    first = parts.parts[0].title
    return {
        "title": "Heads" if "head" in first else "Layers" if "layer" in first else "Gates",
        "description": parts.description,
        "legend": _legend(scale, look, explanation),
        "heatmaps": [
            (part.title, _heatmap(photo, part.relevance, scale, look, f"{name_method(method)}, {part.title}"))
            for part in parts.parts
        ],
    }
