"""Where questions arrive: checks them, gets the model, and answers; knows nothing of pages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, final

from vitrail.app.asking import PREDICTED, TOP, Answered, Asked, answer, class_words, methods_for, on_cpu
from vitrail.app.curves import Progress, measure_curves
from vitrail.app.shelf import ModelShelf
from vitrail.app.uploads import Limits, open_upload
from vitrail.errors import InvalidInputError
from vitrail.metrics import PROTOCOLS, Curves
from vitrail.registry import unknown_name

PROTOCOL = "hit"
OFFERED = ("hit", "tokens")
"""Protocols whose curves can be asked for."""


@final
@dataclass(frozen=True)
class Desk:
    """Answers questions about the models of a shelf.

    Attributes:
        shelf: The models on offer.
        limits: Of what is asked.
        uploads: Where uploaded photos lie; any file if None.
    """

    shelf: ModelShelf
    limits: Limits = field(default_factory=Limits)
    uploads: Path | None = None

    def methods(self, model: str) -> list[str]:
        """Methods that can explain a model, its own first."""
        with self.shelf.use(model) as classifier:
            return methods_for(classifier)

    def classes(self, model: str) -> list[str]:
        """A word for every class of a model."""
        with self.shelf.use(model) as classifier:
            return class_words(classifier)

    def answer(
        self, photo: str | Path | None, model: str, methods: Sequence[str], target: str | None = None, title: str | None = None
    ) -> Answered:
        """Explain an uploaded photo.

        Raises:
            VitrailError: In a sentence, what was expected, what came, and what to do.
        """
        if len(methods) > self.limits.num_methods:
            raise InvalidInputError(
                f"expected at most {self.limits.num_methods} methods at a time, got {len(methods)}; choose fewer"
            )
        opened = open_upload(photo, self.limits, self.uploads)
        wanted = None if not target or target == PREDICTED else str(target).strip()
        name = title or (Path(photo).name if photo else "photo")
        with self.shelf.use(model) as classifier:
            return replace(answer(classifier, Asked(opened, tuple(methods), wanted, name[:80])), offered=model)

    def curves(self, sides: Sequence[Answered], protocol: str = PROTOCOL) -> Iterator[Progress | list[dict[str, Curves]]]:
        """Measure insertion and deletion of answers; others may use the model between two items.

        Yields:
            How far the work is, and at the end the curves by side and method.
        """
        if protocol not in OFFERED:
            raise unknown_name("protocol", str(protocol)[:80], list(OFFERED))
        found, before = list[dict[str, Curves]](), 0
        for place, side in enumerate(sides):
            explanations = list(side.explanations.values())
            with self.shelf.use(side.offered) as classifier:
                work = measure_curves(classifier, side.image, explanations, PROTOCOLS[protocol])
            measured, total = list[Curves](), 0
            while True:
                with self.shelf.use(side.offered):
                    item = next(work, None)
                if item is None:
                    break
                if isinstance(item, Curves):
                    measured.append(_on_cpu(item))
                    continue
                total = item.total
                # Two sides have the same methods, and about as many steps.
                yield Progress(before + item.done, before + item.total * (len(sides) - place))
            before += total
            found.append(dict(zip(side.explanations, measured, strict=True)))
        yield found


def plain(side: Answered, parts: bool = False) -> dict[str, Any]:
    """An answer as JSON knows it: what programs get that ask without the page."""
    first = side.row.explanations[0]
    maps = []
    for method, one in side.explanations.items():
        entry: dict[str, Any] = {
            "method": method,
            "relevance": on_cpu(one).relevance[0].tolist(),
            "bias": None if one.bias is None else float(one.bias[0]),
            "strongest": [{"row": row, "col": col, "relevance": value} for row, col, value in one.strongest_patches(0, TOP)],
        }
        if parts and method in side.parts:
            entry["parts"] = [{"title": part.title, "relevance": part.relevance.tolist()} for part in side.parts[method].maps]
        maps.append(entry)
    return {
        "model": side.model,
        "target": side.target,
        "target_index": int(first.targets[0]),
        "logit": float(first.target_logits()[0]),
        "probability": side.probability,
        "top": [{"class": word, "probability": share} for word, share in side.classes[:TOP]],
        "maps": maps,
    }


def plain_curves(measured: Mapping[str, Curves]) -> dict[str, Any]:
    """Curves as JSON knows them, with their areas."""
    return {
        method: {
            "fractions": each.fractions.tolist(),
            "scores": dict(zip(each.names, each.scores[0].tolist(), strict=True)),
            # JSON has no NaN.
            "areas": {name: area if isfinite(area) else None for name, area in each.summary().items()},
        }
        for method, each in measured.items()
    }


def _on_cpu(curves: Curves) -> Curves:
    return Curves(curves.protocol, curves.fractions.cpu(), curves.scores.cpu(), curves.ends.cpu())
