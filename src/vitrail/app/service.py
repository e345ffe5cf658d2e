"""The service: checks requests, uses the model, and returns results. It knows nothing of Gradio."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, NamedTuple, final

from vitrail.app.curves import Progress, measure_curves
from vitrail.app.explain_request import (
    PREDICTED,
    TOP,
    ExplainRequest,
    ExplainResult,
    answer_request,
    list_class_choices,
    list_usable_methods,
)
from vitrail.app.limits import Limits
from vitrail.app.model_pool import ModelPool
from vitrail.app.photos import open_upload
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.outputs import value_name
from vitrail.core.registry import unknown_name
from vitrail.metrics import PROTOCOLS, Curves

PROTOCOL = "hit"
OFFERED_PROTOCOLS = ("hit", "tokens")

MAX_NAME_LENGTH = 200
"""Letters of the name of a model, a method, a class or a protocol."""

MAX_TITLE_LENGTH = 80

NUM_DECODED = 1
"""Photos that are decoded at a time: one of 50 million pixels takes up to 800 MB meanwhile."""


class ModelChoices(NamedTuple):
    """What users may choose for a model: methods, the default first, and a text for every class."""

    methods: list[str]
    classes: list[str]


@final
@dataclass(frozen=True)
class ExplainService:
    """Explains photos by the models of a pool.

    Attributes:
        pool: The offered models.
        limits: Limits of requests.
        uploads: The folder of uploaded photos; any file is opened if None.

    Many threads may call it at once. All arguments are checked, since clients may send any type.
    """

    pool: ModelPool
    limits: Limits = field(default_factory=Limits)
    uploads: Path | None = None
    _choices: dict[str, ModelChoices] = field(default_factory=dict, init=False, repr=False)
    _decoding: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(NUM_DECODED), init=False, repr=False)

    def list_methods(self, model: str) -> list[str]:
        """List the methods that can explain a model, its default first."""
        return list(self._get_choices(model).methods)

    def list_classes(self, model: str) -> list[str]:
        """List a text for every class of a model."""
        return list(self._get_choices(model).classes)

    def _get_choices(self, model: str) -> ModelChoices:
        # Stored, so that nobody waits for a busy model only to see its choices.
        if (choices := self._choices.get(_check_text("a model", model))) is None:
            with self.pool.use(model) as classifier:
                choices = ModelChoices(list_usable_methods(classifier), list_class_choices(classifier))
            self._choices[model] = choices
        return choices

    def explain(
        self,
        photo: str | Path | None,
        model: str,
        methods: Sequence[str],
        target: str | int | None = None,
        title: str | None = None,
    ) -> ExplainResult:
        """Explain a photo.

        Args:
            photo: File of an upload.
            model: Display name of a model.
            methods: Names of methods, each once.
            target: Name or number of a class; None, or an empty text, for the predicted class.
            title: Title of the photo; the name of the file if None.

        Raises:
            VitrailError: Says what was expected, what came, and what to do.
        """
        _check_text("a model", model)
        if not isinstance(methods, list | tuple):
            raise InvalidInputError(f"expected a list of names of methods, got {type(methods).__name__}")
        if len(methods) > self.limits.num_methods:
            raise InvalidInputError(
                f"expected at most {self.limits.num_methods} methods at a time, got {len(methods)}; choose fewer"
            )
        for method in methods:
            _check_text("a method", method)
        target = _check_target(target)
        if photo is not None and (not isinstance(photo, str | Path) or "\0" in str(photo)):
            raise ImageError("expected an uploaded photo, got something else; upload the file itself")
        with self._decoding:
            opened = open_upload(photo, self.limits, self.uploads)
        title = title or (Path(photo).name if photo else "photo")
        request = ExplainRequest(opened, tuple(methods), target, title[:MAX_TITLE_LENGTH])
        with self.pool.use(model) as classifier:
            return replace(answer_request(classifier, request), offered=model)

    def measure_curves(
        self, sides: Sequence[ExplainResult], protocol: str = PROTOCOL
    ) -> Iterator[Progress | list[dict[str, Curves]]]:
        """Measure the insertion and deletion curves of results; other requests may use the model between two items.

        Yields:
            Progress, and at the end the curves by side and method.
        """
        if _check_text("a protocol", protocol) not in OFFERED_PROTOCOLS:
            raise unknown_name("protocol", str(protocol)[:80], list(OFFERED_PROTOCOLS))
        curves, num_done = list[dict[str, Curves]](), 0
        for i, side in enumerate(sides):
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
                    measured.append(_move_to_cpu(item))
                    continue
                total = item.total
                # All sides have the same methods, and about the same number of steps.
                yield Progress(num_done + item.done, num_done + item.total * (len(sides) - i))
            num_done += total
            curves.append(dict(zip(side.explanations, measured, strict=True)))
        yield curves


def result_to_json(side: ExplainResult, parts: bool = False) -> dict[str, Any]:
    """Convert a result to JSON values for API clients.

    Args:
        side: The result.
        parts: Whether to add the parts of explanations.
    """
    first = side.row.explanations[0]
    maps = []
    for method, explanation in side.explanations.items():
        strongest = explanation.strongest_patches(0, TOP)
        entry: dict[str, Any] = {
            "method": method,
            "relevance": explanation.to("cpu").relevance[0].tolist(),
            "bias": None if explanation.bias is None else float(explanation.bias[0]),
            "strongest": [{"row": row, "col": col, "relevance": value} for row, col, value in strongest],
        }
        if parts and method in side.parts:
            entry["parts"] = [{"title": part.title, "relevance": part.relevance.tolist()} for part in side.parts[method].parts]
        maps.append(entry)
    return {
        "model": side.model,
        "target": side.target,
        "target_index": int(first.targets[0]),
        "logit": float(first.target_logits()[0]),
        value_name(side.output): side.probability,
        "top": [{"class": name, value_name(side.output): share} for name, share in side.classes[:TOP]],
        "maps": maps,
    }


def curves_to_json(curves: Mapping[str, Curves]) -> dict[str, Any]:
    """Convert curves by method, with their AUC, to JSON values for API clients."""
    return {
        method: {
            "fractions": measured.fractions.tolist(),
            "scores": dict(zip(measured.names, measured.scores[0].tolist(), strict=True)),
            # JSON has no NaN.
            "areas": {name: auc if isfinite(auc) else None for name, auc in measured.summary().items()},
        }
        for method, measured in curves.items()
    }


def _check_text(kind: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
        got = f"a text of {len(value):,} letters" if isinstance(value, str) else type(value).__name__
        raise InvalidInputError(f"expected the name of {kind}, of at most {MAX_NAME_LENGTH} letters, got {got}")
    return value


def _check_target(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _check_text("a class", value).strip()
    return None if text in ("", PREDICTED) else text


def _move_to_cpu(curves: Curves) -> Curves:
    return Curves(curves.protocol, curves.fractions.cpu(), curves.scores.cpu(), curves.ends.cpu())
