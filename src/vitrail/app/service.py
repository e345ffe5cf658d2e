"""Where questions arrive: checks them, gets the model, and answers; knows nothing of pages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, NamedTuple, final

from vitrail.app.curves import Progress, measure_curves
from vitrail.app.explain_request import PREDICTED, TOP, ExplainRequest, ExplainResult, answer, class_words, methods_for, on_cpu
from vitrail.app.model_pool import ModelPool
from vitrail.app.uploads import Limits, open_upload
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.metrics import PROTOCOLS, Curves

PROTOCOL = "hit"
OFFERED = ("hit", "tokens")
"""Protocols whose curves can be asked for."""

MAX_LETTERS = 200
"""Of the name of a model, a method, a class or a protocol."""

DECODED_AT_ONCE = 1
"""Photos: one of 50 million pixels takes up to 800 MB while it is opened."""


class Known(NamedTuple):
    """What is known of a model that was loaded once: methods that can explain it, its own first, and a word for every class."""

    methods: list[str]
    classes: list[str]


@final
@dataclass(frozen=True)
class ExplainService:
    """Answers questions about the models of a pool.

    Attributes:
        pool: The models on offer.
        limits: Of what is asked.
        uploads: Where uploaded photos lie; any file if None.

    Questions may come from many threads at once. What is asked may be of any type, since it comes from strangers.
    """

    pool: ModelPool
    limits: Limits = field(default_factory=Limits)
    uploads: Path | None = None
    _known: dict[str, Known] = field(default_factory=dict, init=False, repr=False)
    _decoding: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(DECODED_AT_ONCE), init=False, repr=False)

    def methods(self, model: str) -> list[str]:
        """Methods that can explain a model, its own first."""
        return list(self._of(model).methods)

    def classes(self, model: str) -> list[str]:
        """A word for every class of a model."""
        return list(self._of(model).classes)

    def _of(self, model: str) -> Known:
        # Nobody waits for a model that works for somebody else, only to see what it could do.
        if (known := self._known.get(_text("a model", model))) is None:
            with self.pool.use(model) as classifier:
                known = self._known[model] = Known(methods_for(classifier), class_words(classifier))
        return known

    def answer(
        self,
        photo: str | Path | None,
        model: str,
        methods: Sequence[str],
        target: str | int | None = None,
        title: str | None = None,
    ) -> ExplainResult:
        """Explain an uploaded photo.

        Args:
            photo: The uploaded file.
            model: Name of a model on offer.
            methods: Names of methods.
            target: Name or number of a class; the predicted one if None, empty or `PREDICTED`.
            title: What the photo is called; its file's name if None.

        Raises:
            VitrailError: In a sentence, what was expected, what came, and what to do.
        """
        _text("a model", model)
        if not isinstance(methods, list | tuple):
            raise InvalidInputError(f"expected a list of names of methods, got {type(methods).__name__}")
        if len(methods) > self.limits.num_methods:
            raise InvalidInputError(
                f"expected at most {self.limits.num_methods} methods at a time, got {len(methods)}; choose fewer"
            )
        for method in methods:
            _text("a method", method)
        wanted = _target(target)
        if photo is not None and (not isinstance(photo, str | Path) or "\0" in str(photo)):
            raise ImageError("expected an uploaded photo, got something else; upload the file itself")
        with self._decoding:
            opened = open_upload(photo, self.limits, self.uploads)
        name = title or (Path(photo).name if photo else "photo")
        with self.pool.use(model) as classifier:
            return replace(answer(classifier, ExplainRequest(opened, tuple(methods), wanted, name[:80])), offered=model)

    def curves(self, sides: Sequence[ExplainResult], protocol: str = PROTOCOL) -> Iterator[Progress | list[dict[str, Curves]]]:
        """Measure insertion and deletion of answers; others may use the model between two items.

        Yields:
            How far the work is, and at the end the curves by side and method.
        """
        if _text("a protocol", protocol) not in OFFERED:
            raise unknown_name("protocol", str(protocol)[:80], list(OFFERED))
        found, before = list[dict[str, Curves]](), 0
        for place, side in enumerate(sides):
            explanations = list(side.explanations.values())
            with self.pool.use(side.offered) as classifier:
                work = measure_curves(classifier, side.image, explanations, PROTOCOLS[protocol])
            measured, total = list[Curves](), 0
            while True:
                with self.pool.use(side.offered):
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


def plain(side: ExplainResult, parts: bool = False) -> dict[str, Any]:
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


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_LETTERS:
        got = f"a text of {len(value):,} letters" if isinstance(value, str) else type(value).__name__
        raise InvalidInputError(f"expected the name of {what}, of at most {MAX_LETTERS} letters, got {got}")
    return value


def _target(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text("a class", value).strip()
    return None if text in ("", PREDICTED) else text


def _on_cpu(curves: Curves) -> Curves:
    return Curves(curves.protocol, curves.fractions.cpu(), curves.scores.cpu(), curves.ends.cpu())
