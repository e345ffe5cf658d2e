"""The service: checks requests, uses the model, and returns results. It knows nothing of Gradio."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, NamedTuple, final

from PIL import Image

from vitrail.app.background import Progress
from vitrail.app.curves import measure_curves
from vitrail.app.explain_request import (
    PREDICTED,
    ExplainRequest,
    ExplainResult,
    answer_request,
    explain_by_chance,
    list_class_choices,
    list_usable_methods,
)
from vitrail.app.limits import Limits
from vitrail.app.model_pool import ModelPool
from vitrail.app.photos import PREVIEW_SUFFIX, describe_samples, needs_preview, open_upload, write_preview
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.listing import shorten_middle
from vitrail.core.outputs import Output
from vitrail.core.registry import unknown_name
from vitrail.metrics import PROTOCOLS, Curves
from vitrail.metrics.statistics import CONTROL

PROTOCOL = "hit"
OFFERED_PROTOCOLS = ("hit", "tokens")

MAX_NAME_LENGTH = 200
"""Letters of the name of a model, a method, a class or a protocol."""

MAX_TITLE_LENGTH = 80
"""Letters of a title."""

NUM_DECODED = 1
"""Photos that are decoded at a time: one of 50 million pixels takes up to 800 MB meanwhile."""


class ModelChoices(NamedTuple):
    """What users may choose for a model: methods, the default first, and a text for every class; and what its outputs mean."""

    methods: list[str]
    classes: list[str]
    output: Output


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

    def model_output(self, model: str) -> Output:
        """Return what the outputs of a model mean."""
        return self._get_choices(model).output

    def _get_choices(self, model: str) -> ModelChoices:
        # Stored, so that nobody waits for a busy model only to see its choices.
        if (choices := self._choices.get(_check_text("a model", model))) is None:
            with self.pool.use(model) as classifier:
                choices = ModelChoices(list_usable_methods(classifier), list_class_choices(classifier), classifier.output)
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
        opened = self._open(photo)
        title = title or (Path(photo).name.removesuffix(PREVIEW_SUFFIX) if photo else "photo")
        request = ExplainRequest(opened, tuple(methods), target, shorten_middle(title, MAX_TITLE_LENGTH))
        with self.pool.use(model) as classifier:
            return replace(answer_request(classifier, request), offered=model)

    def preview(self, photo: str | Path | None) -> tuple[Path, str] | None:
        """Check a photo, and convert one that browsers cannot show to a PNG file with the same pixels.

        Args:
            photo: File of an upload.

        Returns:
            The file, in the folder of uploads, and a note about its window; None if browsers show the photo as it is, or
            if the file would be larger than an upload may be.

        Raises:
            VitrailError: The photo cannot be read.
        """
        _check_photo(photo)
        if not photo or self.uploads is None:
            return None
        opened = self._open(photo)
        if not needs_preview(photo, self.uploads):
            return None
        path = write_preview(opened, f"{Path(photo).name}{PREVIEW_SUFFIX}", self.uploads, self.limits)
        return None if path is None else (path, describe_samples(opened))

    def _open(self, photo: Any) -> Image.Image:
        with self._decoding:
            _check_photo(photo)
        with self._decoding:
            return open_upload(photo, self.limits, self.uploads)

    def measure_curves(
        self, sides: Sequence[ExplainResult], protocol: str = PROTOCOL, control: bool = False
    ) -> Iterator[Progress | list[dict[str, Curves]]]:
        """Measure the insertion and deletion curves of results; other requests may use the model between two items.

        Args:
            sides: The results.
            protocol: Name of a protocol.
            control: Whether to add the curves of a random explanation, as a method of its own.

        Yields:
            Progress, and at the end the curves by side and method.
        """
        if _check_text("a protocol", protocol) not in OFFERED_PROTOCOLS:
            raise unknown_name("protocol", str(protocol)[:80], list(OFFERED_PROTOCOLS))
        curves, num_done = list[dict[str, Curves]](), 0
        for i, side in enumerate(sides):
            explanations = dict(side.explanations)
            with self.pool.use(side.offered) as classifier:
                if control and CONTROL not in explanations:
                    explanations[CONTROL] = explain_by_chance(classifier, side)
                work = measure_curves(classifier, side.image, list(explanations.values()), PROTOCOLS[protocol])
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
            curves.append(dict(zip(explanations, measured, strict=True)))
        yield curves


def _check_text(kind: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
        got = f"a text of {len(value):,} letters" if isinstance(value, str) else type(value).__name__
        raise InvalidInputError(f"expected the name of {kind}, of at most {MAX_NAME_LENGTH} letters, got {got}")
    return value


def _check_photo(photo: object) -> None:
    if photo is not None and (not isinstance(photo, str | Path) or "\0" in str(photo)):
        raise ImageError("expected an uploaded photo, got something else; upload the file itself")


def _check_target(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _check_text("a class", value).strip()
    return None if text in ("", PREDICTED) else text


def _move_to_cpu(curves: Curves) -> Curves:
    return Curves(curves.protocol, curves.fractions.cpu(), curves.scores.cpu(), curves.ends.cpu())
